"""Embeddings and plain completions: metered, limited and idempotent like chat."""

import struct
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from tests.running import RunningGateway, run_gateway, settings_of
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
    """Texts and tokens reach the provider unchanged; base64 comes out; it has its cost; the call is a settled row."""
    provider.default = answer_json(EMBEDDED)
    response = await embed(gateway, {"input": given, "encoding_format": "base64", "dimensions": 2})
    answer = response.json()
    assert answer["usage"].pop("cost") == 2e-5
    packed = b64encode(struct.pack("<2f", 0.25, -0.5)).decode()
    assert answer == {**EMBEDDED, "data": [{"object": "embedding", "index": 0, "embedding": packed}]}
    assert provider.calls[0].path == "/v1/embeddings"
    assert provider.calls[0].document["input"] == given
    assert provider.calls[0].document["dimensions"] == 2
    (row,) = await gateway.calls()
    assert (row["state"], row["input_tokens"], row["output_tokens"]) == ("settled", 8, 0)


async def test_base64_of_a_provider_that_knows_none(
    database_url: str, redis_url: str, provider: FakeProvider
) -> None:
    """DashScope is asked for numbers; OpenAI's SDK, which asks for base64 by itself, reads them all the same."""
    provider.default = answer_json(EMBEDDED)
    variables = {"DASHSCOPE_API_KEY": "k", "QWEN_BASE_URL": provider.base_url, "AIGATE_UNPRICED": "free"}
    settings = settings_of(database_url, redis_url, provider.base_url, **variables)
    async with (
        run_gateway(settings) as running,
        openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0) as client,
    ):
        answer = await client.embeddings.create(model="qwen:text-embedding-v4", input=["Hello"], dimensions=64)
        (row,) = await running.calls()
    assert answer.data[0].embedding == [0.25, -0.5]
    assert provider.calls[0].document["encoding_format"] == "float"
    assert provider.calls[0].document["dimensions"] == 64
    assert (row["state"], row["input_tokens"], row["usage_source"]) == ("settled", 8, "provider")


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


VECTORS = [[0.25, -0.5], [1.5, 0.125]]
"""Numbers that a float32 holds as they are."""
ELSEWHERE = [
    (
        "gemini:gemini-embedding-2",
        "/v1beta/models/gemini-embedding-2:batchEmbedContents",
        {"embeddings": [{"values": each} for each in VECTORS], "usageMetadata": {"promptTokenCount": 8}},
        8,
    ),
    (
        "gemini:gemini-embedding-001",
        "/v1beta/models/gemini-embedding-001:batchEmbedContents",
        {"embeddings": [{"values": each} for each in VECTORS]},
        None,
    ),
    (
        "vertex:text-embedding-005",
        "/google/models/text-embedding-005:predict",
        {"predictions": [{"embeddings": {"values": each, "statistics": {"token_count": 4}}} for each in VECTORS]},
        8,
    ),
    (
        "bedrock:amazon.titan-embed-text-v2:0",
        "/bedrock/model/amazon.titan-embed-text-v2:0/invoke",
        {"embedding": VECTORS[0], "inputTextTokenCount": 8},
        8,
    ),
    (
        "bedrock:cohere.embed-multilingual-v3",
        "/bedrock/model/cohere.embed-multilingual-v3/invoke",
        {"embeddings": {"float": VECTORS}, "response_type": "embeddings_by_type"},
        None,
    ),
]
"""A model, where it is asked, what it answers, and the tokens that it tells."""
PRICE = """
insert into price_rules (provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok)
select provider, '*', 2500000000, 10000000000 from unnest(array['gemini', 'vertex', 'bedrock']) provider
"""


@pytest.fixture
async def elsewhere(database_url: str, redis_url: str, provider: FakeProvider) -> AsyncIterator[RunningGateway]:
    """A gateway on the fake provider as those that embed in languages of their own."""
    root = provider.base_url.removesuffix("/v1")
    variables = {
        "GEMINI_API_KEY": "google-secret",
        "GEMINI_BASE_URL": f"{root}/v1beta",
        "VERTEX_API_KEY": "vertex-secret",
        "VERTEX_BASE_URL": f"{root}/google",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "BEDROCK_BASE_URL": f"{root}/bedrock",
    }
    async with run_gateway(settings_of(database_url, redis_url, provider.base_url, **variables)) as running:
        await running.rows(PRICE)
        yield running


@pytest.mark.parametrize(("model", "path", "told", "tokens"), ELSEWHERE, ids=[each[0] for each in ELSEWHERE])
@pytest.mark.parametrize("encoding", ["float", "base64", None])
async def test_embeddings_elsewhere(
    elsewhere: RunningGateway,
    provider: FakeProvider,
    model: str,
    path: str,
    told: dict[str, Any],
    tokens: int | None,
    encoding: Any,
) -> None:
    """OpenAI's SDK, which asks for base64 by itself, reads the vectors; the call is settled, estimated or not."""
    provider.default = answer_json(told)
    one = "titan" in model
    options = {} if encoding is None else {"encoding_format": encoding}
    async with openai.AsyncOpenAI(base_url=f"{elsewhere.url}/v1", api_key=elsewhere.key, max_retries=0) as client:
        answer = await client.embeddings.create(model=model, input="Hello" if one else ["Hello", "you"], **options)
    found = [each.embedding for each in answer.data]
    if encoding == "base64":  # asked for by name, the SDK leaves it as it is
        assert all(isinstance(each, str) for each in found)
    else:
        assert found == VECTORS[: 1 if one else 2]
    (asked,) = provider.calls
    assert asked.path == path
    assert elsewhere.key not in str(asked.headers)
    (row,) = await elsewhere.calls()
    assert (row["state"], row["outcome"], row["output_tokens"]) == ("settled", "ok", 0)
    if tokens is None:
        assert (answer.usage, row["usage_source"]) == (None, "estimated")
        assert row["input_tokens"] > 0
    else:
        assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)
        assert (row["usage_source"], row["input_tokens"]) == ("provider", tokens)
    assert row["billed_cost_nano"] == row["input_tokens"] * 2500


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"model": "gemini:gemini-embedding-001", "input": [1, 2]}, "input"),
        ({"model": "bedrock:amazon.titan-embed-text-v2:0", "input": ["a", "b"]}, "input"),
        ({"model": "bedrock:amazon.titan-embed-text-v1", "dimensions": 256}, "dimensions"),
        ({"model": "bedrock:cohere.embed-v4:0", "bedrock": {"texts": ["free"]}}, "bedrock.texts"),
        ({"model": "bedrock:anthropic.claude-3"}, "model"),
    ],
)
async def test_refused_elsewhere(
    elsewhere: RunningGateway, provider: FakeProvider, document: dict[str, Any], param: str
) -> None:
    """What a provider's language cannot say is refused by name, and costs nothing."""
    response = await embed(elsewhere, document)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert provider.calls == []
    (row,) = await elsewhere.calls()
    assert (row["state"], row["billed_cost_nano"]) == ("void", 0)


async def test_failure_elsewhere(elsewhere: RunningGateway, provider: FakeProvider) -> None:
    """A provider's refusal and an answer that is none are told as in a chat, and cost nothing."""
    model = {"model": "bedrock:amazon.titan-embed-text-v2:0"}
    provider.script.append(answer_json({"message": "slow"}, 429, "x-amzn-errortype: ThrottlingException"))
    provider.script.append(answer_json({"embedding": [0.5, None]}))
    assert [(await embed(elsewhere, model)).status_code for _ in range(2)] == [429, 502]
    assert [row["billed_cost_nano"] for row in await elsewhere.calls()] == [0, 0]


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


STREAMED = [
    {"id": "cmpl-1", "choices": [{"index": 0, "text": "there", "finish_reason": None}]},
    {"id": "cmpl-1", "choices": [{"index": 0, "text": " was", "finish_reason": "stop"}]},
    {"id": "cmpl-1", "choices": [], "usage": COMPLETED["usage"]},
]


@pytest.mark.parametrize("asked", [True, False])
async def test_completions_are_idempotent(gateway: RunningGateway, provider: FakeProvider, asked: bool) -> None:
    """A streamed one, too; its usage is told, with the cost, to who asked for it."""
    provider.default = stream(*sse(*STREAMED))
    document = {"model": "openai:gpt-3.5-turbo-instruct", "prompt": "Once", "stream": True}
    options = {"stream_options": {"include_usage": True}} if asked else {}
    answers = [
        await gateway.client.post(
            "/v1/completions", json={**document, **options}, headers={"idempotency-key": f"k-{asked}"}
        )
        for _ in range(2)
    ]
    assert answers[0].content == answers[1].content
    assert ('"cost":3e-5' in answers[0].text.replace("0.00003", "3e-5")) == asked
    assert (len(provider.calls), len(await gateway.calls())) == (1, 1)


@pytest.mark.parametrize("streamed", [True, False])
async def test_failed_completion(gateway: RunningGateway, provider: FakeProvider, streamed: bool) -> None:
    """A refusal and a cut answer are told as in a chat."""
    document = {"model": "openai:gpt-3.5-turbo-instruct", "prompt": "Once", "stream": streamed}
    provider.script.append(answer_json({"error": {"message": "slow down"}}, 429, "retry-after: 2"))
    refused = await gateway.client.post("/v1/completions", json=document)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    provider.script.append(stream(*sse(*STREAMED[:1], done=False)))
    cut = await gateway.client.post("/v1/completions", json=document)
    assert "[DONE]" not in cut.text
    assert "provider_invalid_response" in cut.text
    states = [(row["state"], row["outcome"]) for row in await gateway.calls()]
    assert states[0] == ("void", "upstream_error")
    assert states[1][1] == ("truncated" if streamed else "upstream_error")


async def test_echo_embeds_nothing(gateway: RunningGateway) -> None:
    """A provider without the operation says so."""
    response = await embed(gateway, {"model": "echo:echo"})
    assert response.status_code == 404
