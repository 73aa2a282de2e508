"""The wire of OpenAI's models on Azure, and its row."""

from typing import Any

import httpx
import orjson
import pytest

from providers import azure
from providers.catalog import Provider, catalog
from providers.client import Client
from providers.contract import Call, Kind, ProviderError

RESOURCE = "https://acme.openai.azure.com"
KEYED = {"AZURE_API_KEY": "key"}
FILTERED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering the content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"violence": {"filtered": True, "severity": "high"}},
        },
    }
}


def row_of(**environment: str) -> Provider:
    return catalog({**KEYED, **environment})["azure"]


def url_of(row: Provider, model: str = "gpt-5", **fields: Any) -> str:
    return row.base_url + row.wire.request(Call(model, {"messages": []}, **fields)).path


@pytest.mark.parametrize(
    ("address", "version", "url"),
    [
        (RESOURCE, "", f"{RESOURCE}/openai/v1/chat/completions"),
        (f"{RESOURCE}/", "v1", f"{RESOURCE}/openai/v1/chat/completions"),
        (f"{RESOURCE}/openai", "preview", f"{RESOURCE}/openai/v1/chat/completions?api-version=preview"),
        (f"{RESOURCE}/openai/v1", "2024-10-21", f"{RESOURCE}/openai/v1/chat/completions"),
        (
            RESOURCE,
            "2024-10-21",
            f"{RESOURCE}/openai/deployments/gpt-5/chat/completions?api-version=2024-10-21",
        ),
        (
            f"{RESOURCE}/openai",
            "2025-04-01-preview",
            f"{RESOURCE}/openai/deployments/gpt-5/chat/completions?api-version=2025-04-01-preview",
        ),
        (
            f"{RESOURCE}/openai/deployments/mine",
            "2024-10-21",
            f"{RESOURCE}/openai/deployments/mine/chat/completions?api-version=2024-10-21",
        ),
        (
            "https://acme.services.ai.azure.com/models",
            "",
            "https://acme.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview",
        ),
        ("http://proxy:1/v1", "", "http://proxy:1/v1/chat/completions"),
    ],
)
def test_each_kind_of_address_is_understood(address: str, version: str, url: str) -> None:
    """Whichever name the variable of the address has."""
    assert url_of(row_of(AZURE_BASE_URL=address, AZURE_API_VERSION=version)) == url
    assert url_of(row_of(AZURE_OPENAI_ENDPOINT=address, AZURE_API_VERSION=version)) == url


def test_it_needs_an_address_and_a_key() -> None:
    """The key may have Azure's own name; ours goes first."""
    assert not row_of().configured
    assert not catalog({"AZURE_BASE_URL": RESOURCE})["azure"].configured
    row = catalog({"AZURE_BASE_URL": RESOURCE, "AZURE_OPENAI_API_KEY": "k"})["azure"]
    assert row.configured
    assert row.authentication() == ((b"api-key", b"k"),)
    assert row_of(AZURE_BASE_URL=RESOURCE, AZURE_OPENAI_API_KEY="k").api_key == "key"


@pytest.mark.parametrize("version", ["soon", "2024", "2024-10-21&x=y"])
def test_a_version_is_a_date_or_a_word(version: str) -> None:
    """It becomes part of an address."""
    with pytest.raises(ValueError, match="AZURE_API_VERSION"):
        row_of(AZURE_BASE_URL=RESOURCE, AZURE_API_VERSION=version)


@pytest.mark.parametrize(
    ("version", "asked"),
    [("2024-02-01", False), ("2024-08-01-preview", False), ("2024-09-01-preview", True), ("2024-10-21", True)],
)
def test_old_versions_are_not_asked_for_usage(version: str, asked: bool) -> None:
    """They refuse the option."""
    wire = row_of(AZURE_BASE_URL=RESOURCE, AZURE_API_VERSION=version).wire
    body = orjson.loads(wire.request(Call("m", {"messages": []}, True)).body)
    assert ("stream_options" in body) == asked


@pytest.mark.parametrize(("model", "segment"), [("a/../b", "a%2F..%2Fb"), ("a?b#c", "a%3Fb%23c"), ("ä", "%C3%A4")])
def test_a_deployment_is_one_segment_of_the_path(model: str, segment: str) -> None:
    """Nothing in its name changes where the call goes."""
    wire = azure.at(RESOURCE, "2024-10-21")[1]
    assert wire.request(Call(model, {})).path.split("/")[3] == segment


@pytest.mark.parametrize("model", ["", ".", ".."])
def test_dots_are_no_deployment(model: str) -> None:
    """They would climb out of it."""
    wire = azure.at(RESOURCE, "2024-10-21")[1]
    with pytest.raises(ProviderError) as caught:
        wire.request(Call(model, {}))
    assert (caught.value.param, caught.value.sent) == ("model", False)


def test_the_model_stands_in_the_body_too() -> None:
    """Where the version-less address looks for it."""
    wire = azure.at(RESOURCE, "")[1]
    assert orjson.loads(wire.request(Call("gpt-5", {"model": "azure:gpt-5"})).body) == {"model": "gpt-5"}


async def test_a_call_carries_the_key_and_the_version() -> None:
    """In Azure's header, and in the query."""
    sent: list[httpx.Request] = []

    def answering(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"choices": []})

    client = Client(httpx.MockTransport(answering))
    row = row_of(AZURE_BASE_URL=RESOURCE, AZURE_API_VERSION="2024-10-21")
    await (await client.open(row, Call("gpt-5", {"messages": []}))).read()
    with pytest.raises(ProviderError, match="no list"):
        await client.models(row, 1)
    await client.aclose()
    (request,) = sent
    assert request.url.params["api-version"] == "2024-10-21"
    assert request.headers["api-key"] == "key"
    assert "authorization" not in request.headers


def test_the_filters_findings_ride_along() -> None:
    """On a first chunk without choices, and on each after it."""
    found = {"hate": {"filtered": False, "severity": "safe"}}
    first = {"id": "", "choices": [], "prompt_filter_results": [{"content_filter_results": found}]}
    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": None, "content_filter_results": found}
    last = {"index": 0, "delta": {}, "finish_reason": "content_filter", "content_filter_results": found}
    decoder = azure.AzureWire().stream(Call("m", {}, True))
    out = b""
    for chunk in (first, {"choices": [choice]}, {"choices": [last]}):
        out += decoder.feed(b"data: " + orjson.dumps(chunk) + b"\n\n")
    assert decoder.finished
    assert out.count(b"content_filter_results") == 3
    assert decoder.close() == b"data: [DONE]\n\n"


def test_a_filtered_prompt_is_a_bad_request() -> None:
    """What was found stands in the raw error."""
    error = azure.AzureWire().error(400, {}, orjson.dumps(FILTERED))
    assert (error.kind, error.param) == (Kind.CONTENT_FILTERED, "prompt")
    assert error.raw["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    inside = b"data: " + orjson.dumps(FILTERED) + b"\n\n"
    with pytest.raises(ProviderError) as caught:
        azure.AzureWire().stream(Call("m", {}, True)).feed(inside)
    assert caught.value.kind is Kind.CONTENT_FILTERED


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (401, {"code": "401", "message": "Access denied due to invalid subscription key"}, Kind.CREDENTIALS),
        (404, {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}, Kind.NOT_FOUND),
        (429, {"code": "429", "message": "exceeded token rate limit of your current tier"}, Kind.RATE_LIMITED),
        (429, {"code": "RateLimitReached", "message": "have exceeded rate limit"}, Kind.RATE_LIMITED),
        (400, {"code": "context_length_exceeded", "message": "This model's maximum"}, Kind.CONTEXT_LENGTH),
    ],
)
def test_each_error_has_its_meaning(status: int, error: dict[str, str], kind: Kind) -> None:
    """A wait of no milliseconds beside one of seconds is none."""
    found = azure.AzureWire().error(
        status, {"retry-after": "7", "retry-after-ms": "0"}, orjson.dumps({"error": error})
    )
    assert (found.kind, found.retry_after) == (kind, 7.0)
