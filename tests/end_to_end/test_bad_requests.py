"""Requests that are no chat completion, over a real socket: a clear answer, no call upstream, no ledger row."""

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from aigate.stores.keys import create_key
from tests.running import CHAT, RunningGateway, run_gateway, settings_of
from tests.upstream import FakeProvider

MESSAGES = '"messages": [{"role": "user", "content": "x"}]'
MODEL = '"model": "openai:gpt-4o"'


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    postgres_url: str, template: str, redis_url: str
) -> AsyncIterator[tuple[RunningGateway, FakeProvider]]:
    """One gateway with aliases and its provider, for all tests of this file: most leave nothing behind."""
    maker = await asyncpg.connect(postgres_url)
    await maker.execute(f'create database "bad_requests" template "{template}"')
    await maker.close()
    async with FakeProvider() as provider:
        settings = settings_of(
            postgres_url.replace("/aigate?", "/bad_requests?"),
            redis_url,
            provider.base_url,
            AIGATE_MODEL_ALIASES="best=openai:gpt-4o,lost=nowhere:gpt",
        )
        async with run_gateway(settings) as running:
            yield running, provider


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared: tuple[RunningGateway, FakeProvider]) -> AsyncIterator[RunningGateway]:
    """A gateway at which nothing must have been called and nothing written once the test is over."""
    running, provider = shared
    yield running
    assert await running.calls() == []
    assert provider.calls == []


async def post(gateway: RunningGateway, body: bytes) -> httpx.Response:
    return await gateway.client.post("/v1/chat/completions", content=body)


def refusal(response: httpx.Response, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    """The error object, after its whole shape has been looked at."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert len(response.headers["x-request-id"]) == 32
    document = response.json()
    assert set(document) == {"error"}
    error = document["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert error["message"]
    assert (error["code"], error["param"]) == (code, param)
    return dict(error)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" \n", id="blank"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"{'model': 1}", id="single-quotes"),
        pytest.param(b'{"model": "a",}', id="trailing-comma"),
        pytest.param(b'{"model": "a"} {"model": "b"}', id="two-objects"),
        pytest.param(b"model=openai:gpt-4o&stream=true", id="form"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"true", id="true"),
        pytest.param(b"17", id="number"),
        pytest.param(b'"text"', id="string"),
        pytest.param(b'{"model": "\xff\xfe"}', id="invalid-utf-8"),
        pytest.param(b'{"model": "\xed\xa0\x80"}', id="utf-8-surrogate"),
        pytest.param(b'{"model": "\\ud800"}', id="lone-surrogate"),
        pytest.param(b'\xef\xbb\xbf{"model": "a"}', id="byte-order-mark"),
        pytest.param('{"model": "a"}'.encode("utf-16"), id="utf-16"),
        pytest.param(b'{"model": "a\x00b"}', id="raw-nul"),
        pytest.param(b'{"seed": NaN}', id="nan"),
        pytest.param(b'{"seed": Infinity}', id="infinity"),
        pytest.param(b'{"seed": -Infinity}', id="minus-infinity"),
        pytest.param(b'{"seed": 1e400}', id="1e400"),
        pytest.param(b"[" * 100_000, id="open-100000-deep"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="100000-deep"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="objects-100000-deep"),
    ],
)
async def test_body_is_no_json_object(gateway: RunningGateway, body: bytes) -> None:
    """A body that is not one JSON object is refused, and never retried by an SDK."""
    response = await post(gateway, body)
    refusal(response, 400, "caller_malformed_body")
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "fields",
    [
        [MODEL, '"model": "openai:gpt-4-turbo"', MESSAGES],
        [MODEL, '"messages": []', MESSAGES],
        ['"stream": true', MODEL, MESSAGES, '"stream": false'],
        [MODEL, MESSAGES, '"n": 1', '"n": 100'],
        [MODEL, MESSAGES, '"max_tokens": 1', '"tools": [{"n": 1}]', '"max_tokens": 100000'],
    ],
    ids=["model", "messages", "stream", "n", "max_tokens"],
)
async def test_repeated_field(gateway: RunningGateway, fields: list[str]) -> None:
    """A field on which money depends, given twice, is refused: readers would disagree on what was ordered."""
    error = refusal(await post(gateway, _object(fields)), 400, "caller_malformed_body")
    assert "more than once" in error["message"]


async def test_repeated_field_in_a_deep_body(gateway: RunningGateway) -> None:
    """The slow look for repeated fields does not fail where the quick parser still reads."""
    deep = "[" * 1010 + "]" * 1010
    body = _object([MODEL, MESSAGES, '"model": "openai:b"', f'"deep": {deep}'])
    refusal(await post(gateway, body), 400, "caller_malformed_body")


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ("Hello", "messages"),
        ({}, "messages"),
        (17, "messages"),
        ([], "messages"),
        ([123], "messages[0]"),
        ([None], "messages[0]"),
        ([[]], "messages[0]"),
        ([{}], "messages[0].role"),
        ([{"role": 123, "content": "x"}], "messages[0].role"),
        ([{"role": None, "content": "x"}], "messages[0].role"),
        ([{"role": "", "content": "x"}], "messages[0].role"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "user", "content": 123}], "messages[0].content"),
        ([{"role": "user", "content": {}}], "messages[0].content"),
        ([{"role": "user", "content": True}], "messages[0].content"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": [123]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [None]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": 1}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": "x"}, {"role": "system"}], "messages[1].content"),
    ],
    ids=json.dumps,
)
async def test_messages(gateway: RunningGateway, messages: object, param: str) -> None:
    """Messages that no provider would take are refused here, with the place of the mistake."""
    refusal(await gateway.chat({"messages": messages}), 400, "caller_invalid_request", param)


@pytest.mark.parametrize("missing", ["model", "messages"])
async def test_missing_field(gateway: RunningGateway, missing: str) -> None:
    """A missing field is named."""
    document = {name: value for name, value in CHAT.items() if name != missing}
    refusal(await post(gateway, json.dumps(document).encode()), 400, "caller_invalid_request", missing)


@pytest.mark.parametrize(
    ("field", "value"),
    [("stream", "yes"), ("stream", 1), ("stream", []), ("stream_options", True), ("stream_options", [])],
)
async def test_stream_is_no_boolean(gateway: RunningGateway, field: str, value: object) -> None:
    """What decides on the form of the answer is not guessed."""
    refusal(await gateway.chat({field: value}), 400, "caller_invalid_request", field)


@pytest.mark.parametrize(
    "model",
    [
        None,
        123,
        1.5,
        True,
        [],
        {},
        "",
        "openai:../../admin",
        "openai/../models",
        "openai:gpt\r\nx-injected: 1",
        "openai:gpt\n",
        "openai:gpt\x00",
        "openai:gpt\x1b[31m",
        "openai:gpt?x=1",
        "openai:gpt%2e%2e",
        "öpenai:gpt",
        pytest.param("openai:" + "x" * 10_000, id="10 kB"),
        "openai:\u202egpt",
    ],
)
async def test_model_is_no_name(gateway: RunningGateway, model: object) -> None:
    """A name goes into paths, logs and the ledger: what cannot be one gets no further."""
    response = await gateway.chat({"model": model})
    refusal(response, 400, "caller_invalid_request", "model")
    assert len(response.content) < 1000


@pytest.mark.parametrize(
    "model",
    [
        "gpt-4o",
        "unheard:of",
        "nowhere/gpt",
        ":",
        "/",
        "openai:",
        "openai/",
        ":gpt-4o",
        "OPENAI:gpt-4o",
        "lost",
        " openai:x",
    ],
)
async def test_model_means_nothing(gateway: RunningGateway, model: str) -> None:
    """A bare name, or one of a provider that does not exist, is not found."""
    refusal(await gateway.chat({"model": model}), 404, "caller_model_not_found", "model")


@pytest.mark.parametrize(
    ("model", "variable"), [("qwen:qwen-max", "QWEN_API_KEY"), ("ollama:llama3", "OLLAMA_BASE_URL")]
)
async def test_provider_without_a_key(gateway: RunningGateway, model: str, variable: str) -> None:
    """A provider that the operator has not set up is the gateway's matter, and the answer says what is missing."""
    error = refusal(await gateway.chat({"model": model}), 404, "gateway_provider_not_configured", "model")
    assert variable in error["message"]


@pytest.mark.parametrize("model", ["openai:gpt-4o", "openai/gpt-4o", "best"])
async def test_model_of_another_key(gateway: RunningGateway, model: str) -> None:
    """A key with a list of models uses no other, under whatever name."""
    key = await create_key(gateway.database, "acme", models=["openai:gpt-3*", "echo:*"])
    response = await gateway.chat({"model": model}, authorization=f"Bearer {key}")
    refusal(response, 403, "policy_model_not_allowed", "model")
    assert response.headers["x-should-retry"] == "false"


async def test_encoded_body(gateway: RunningGateway) -> None:
    """A compressed body is refused unread: a bomb costs nothing."""
    bomb = b"\x1f\x8b" + b"\x00" * 1_000_000
    response = await gateway.client.post("/v1/chat/completions", content=bomb, headers={"content-encoding": "gzip"})
    refusal(response, 415, "caller_unsupported_encoding")


@pytest.mark.parametrize("key", ['""', "", "x" * 256, "schlüssel", "a\tb"])
async def test_idempotency_key_is_none(gateway: RunningGateway, key: str) -> None:
    """A key that cannot be one is refused before anything is claimed."""
    response = await gateway.client.post(
        "/v1/chat/completions", json=CHAT, headers=[(b"idempotency-key", key.encode())]
    )
    refusal(response, 400, "caller_invalid_request", "Idempotency-Key")
    assert await gateway.rows("select * from idempotency_keys") == []


@pytest_asyncio.fixture(loop_scope="module")
async def open_gateway(shared: tuple[RunningGateway, FakeProvider]) -> AsyncIterator[RunningGateway]:
    """The same gateway, for a test that calls the provider."""
    running, provider = shared
    yield running
    provider.asked.clear()
    await running.rows("delete from calls")


@pytest.fixture
def provider(shared: tuple[RunningGateway, FakeProvider]) -> FakeProvider:
    return shared[1]


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {"model": "a"}, "tools": [{"model": 1, "messages": 2}, {"model": 1, "stream": 3}]},
        {"messages": [{"role": "user", "content": '{"model": "a", "model": "b", "n": 1, "n": 2}'}]},
        {"stream": None},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]},
        {"messages": [{"role": "user", "content": ["part", {"type": "text", "text": "x"}]}]},
        {"messages": [{"role": "critic", "content": ""}]},
    ],
    ids=["nested", "quoted", "stream-null", "tool-calls", "parts", "role"],
)
async def test_reaches_the_provider(
    open_gateway: RunningGateway, provider: FakeProvider, fields: dict[str, Any]
) -> None:
    """The same names deeper inside are no repetition, and null is as good as nothing."""
    response = await open_gateway.chat(fields)
    assert response.status_code == 200, response.text
    asked = provider.calls[0].document
    assert {name: asked[name] for name in fields if name != "stream"} == {
        name: value for name, value in fields.items() if name != "stream"
    }


async def test_alias(open_gateway: RunningGateway, provider: FakeProvider) -> None:
    """A bare name that the operator gave a meaning is that model."""
    assert (await open_gateway.chat({"model": "best"})).status_code == 200
    assert provider.calls[0].document["model"] == "gpt-4o"
    assert (await open_gateway.calls())[0]["model"] == "gpt-4o"


async def test_long_numbers(open_gateway: RunningGateway, provider: FakeProvider) -> None:
    """A number is passed on as it is written, as far as JSON's readers agree on it."""
    await open_gateway.chat({"seed": 9007199254740993, "temperature": 0.1})
    asked = provider.calls[0].document
    assert (asked["seed"], asked["temperature"]) == (9007199254740993, 0.1)


async def test_allowed_model(open_gateway: RunningGateway) -> None:
    """A key uses what its list names."""
    key = await create_key(open_gateway.database, "acme", models=["openai:gpt-4*"])
    assert (await open_gateway.chat(authorization=f"Bearer {key}")).status_code == 200


def _object(fields: list[str]) -> bytes:
    return "{{{}}}".format(", ".join(fields)).encode()
