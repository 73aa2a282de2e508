"""Embeddings and plain completions: metered, limited and idempotent like chat."""

from typing import Any

import httpx
import pytest

from tests.running import RunningGateway
from tests.upstream import FakeProvider, answer_json, sse, stream

EMBEDDED = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
COMPLETED = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "gpt-3.5-turbo-instruct",
    "choices": [{"index": 0, "text": "there was", "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
}


async def embed(gateway: RunningGateway, document: dict[str, Any], **headers: str) -> httpx.Response:
    body = {"model": "openai:text-embedding-3-small", "input": "Hello", **document}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.client.post("/v1/embeddings", json=body, headers=named)


@pytest.mark.parametrize("given", ["Hello", ["Hello", "you"], [1, 2, 3], [[1, 2], [3]]])
async def test_embeddings(gateway: RunningGateway, provider: FakeProvider, given: Any) -> None:
    """Texts and tokens reach the provider unchanged; the answer has its cost; the call is a settled row."""
    provider.default = answer_json(EMBEDDED)
    response = await embed(gateway, {"input": given, "encoding_format": "base64", "dimensions": 2})
    answer = response.json()
    assert answer["usage"].pop("cost") == 2e-5
    assert answer == EMBEDDED
    assert provider.calls[0].path == "/v1/embeddings"
    assert provider.calls[0].document["input"] == given
    assert provider.calls[0].document["dimensions"] == 2
    (row,) = await gateway.calls()
    assert (row["state"], row["input_tokens"], row["output_tokens"]) == ("settled", 8, 0)


async def test_embeddings_are_idempotent(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A retry with the same key is answered from the store."""
    provider.default = answer_json(EMBEDDED)
    first = await embed(gateway, {}, idempotency_key="k")
    again = await embed(gateway, {}, idempotency_key="k")
    assert again.content == first.content
    assert len(provider.calls) == 1


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [1.5]}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"stream": True}, "stream"),
    ],
)
async def test_bad_embeddings(
    gateway: RunningGateway, provider: FakeProvider, document: dict[str, Any], param: str
) -> None:
    """A malformed request names its field and costs nothing."""
    response = await embed(gateway, document)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert provider.calls == []


async def test_completion(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A prompt is completed."""
    provider.default = answer_json(COMPLETED)
    response = await gateway.client.post(
        "/v1/completions", json={"model": "openai:gpt-3.5-turbo-instruct", "prompt": "Once upon a time"}
    )
    answer = response.json()
    assert answer["usage"].pop("cost") == 3e-5
    assert answer == COMPLETED
    assert provider.calls[0].path == "/v1/completions"


async def test_streamed_completion(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A completion is streamed like a chat."""
    chunks = [
        {"id": "cmpl-1", "choices": [{"index": 0, "text": "there", "finish_reason": None}]},
        {"id": "cmpl-1", "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]},
        {"id": "cmpl-1", "choices": [], "usage": COMPLETED["usage"]},
    ]
    provider.default = stream(*sse(*chunks))
    response = await gateway.client.post(
        "/v1/completions", json={"model": "openai:gpt-3.5-turbo-instruct", "prompt": "Once", "stream": True}
    )
    assert response.text.endswith("data: [DONE]\n\n")
    (row,) = await gateway.calls()
    assert (row["outcome"], row["output_tokens"]) == ("ok", 2)


async def test_echo_embeds_nothing(gateway: RunningGateway) -> None:
    """A provider without the operation says so."""
    response = await embed(gateway, {"model": "echo:echo"})
    assert response.status_code == 404
