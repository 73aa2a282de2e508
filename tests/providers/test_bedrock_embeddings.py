"""What Bedrock counts beside an embedding."""

from typing import Any

import httpx
import orjson
import pytest

from providers.bedrock.embeddings import BedrockEmbeddings
from providers.catalog import catalog
from providers.client import Client
from providers.contract import Call
from providers.operations import for_embeddings

COHERE, TITAN = "cohere.embed-english-v3", "amazon.titan-embed-text-v2:0"
ANSWERS = {COHERE: {"embeddings": [[0.5]]}, TITAN: {"embedding": [0.5]}}
COUNT = "x-amzn-bedrock-input-token-count"


def call(model: str = COHERE) -> Call:
    return Call(model, {"model": model, "input": "Hello"})


def counted(model: str, headers: dict[str, str], **more: Any) -> tuple[int, str]:
    usage = BedrockEmbeddings().response(call(model), orjson.dumps({**ANSWERS[model], **more}), headers).usage
    return usage.input_tokens, usage.source


@pytest.mark.parametrize("model", [COHERE, TITAN])
def test_the_count_of_the_header_is_the_providers(model: str) -> None:
    """Cohere's answer holds none at all."""
    assert counted(model, {COUNT: "4"}) == (4, "provider")


def test_the_count_of_the_answer_goes_first() -> None:
    """It is what the house itself says."""
    assert counted(TITAN, {COUNT: "4"}, inputTextTokenCount=5) == (5, "provider")
    assert counted(COHERE, {COUNT: "4"}, meta={"billed_units": {"input_tokens": 6}}) == (6, "provider")


@pytest.mark.parametrize("count", ["", "-1", "0", "four", "4.5", "\u0664", "9" * 5000])
def test_what_is_no_count_counts_nothing(count: str) -> None:
    """Then it is estimated."""
    assert counted(COHERE, {COUNT: count}) == (0, "none")


async def test_the_client_hands_on_the_headers() -> None:
    """In whatever case they come."""

    def answering(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={COUNT.title(): "4"}, content=orjson.dumps(ANSWERS[COHERE]))

    client = Client(httpx.MockTransport(answering))
    row = for_embeddings(catalog({"BEDROCK_API_KEY": "k"}))["bedrock"]
    assert row is not None
    decoded = await (await client.open(row, call())).read()
    await client.aclose()
    assert orjson.loads(decoded.body)["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
