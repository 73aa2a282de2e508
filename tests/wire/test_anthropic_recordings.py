"""Every recorded answer of Claude through our translation, and every recorded request back through it.

What has to come out of an answer stands in the recordings' oracle: what Anthropic's SDK reads from the same bytes.
Answers are read here with OpenAI's types, as an application does it.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import openai
import orjson
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from providers.anthropic import AnthropicWire
from providers.contract import Call, Kind, ProviderError
from tests.running import run_gateway, settings_of
from tests.upstream import FakeProvider
from tests.wire.anthropic_requests import canonical, comparable
from tests.wire.conformance import KEY, Heard, Line, Tape, expected_status, expected_wait
from tests.wire.mutations import SEEDS, mutated
from tests.wire.reading import Reading, read_stream, read_whole
from tests.wire.recordings import Case, Document, available, recorded
from tests.wire.replay import Playing, Replay

WIRE = AnthropicWire()
FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
KINDS = {
    400: {Kind.REJECTED, Kind.CONTEXT_LENGTH, Kind.QUOTA},
    401: {Kind.CREDENTIALS},
    403: {Kind.CREDENTIALS},
    404: {Kind.NOT_FOUND},
    413: {Kind.REJECTED},
    429: {Kind.RATE_LIMITED},
    500: {Kind.FAILED},
    529: {Kind.OVERLOADED},
}


def several_in_one(case: Case) -> bool:
    """A recorder's slip: whole answers after one another in one stream, which no provider sends."""
    return case.body.count(b'"type":"message_start"') > 1


def counts_only(case: Case) -> bool:
    return "count-tokens" in case.id


CASES = [case for case in recorded("anthropic-messages") if not counts_only(case)] if available() else []
ANSWERS = [case for case in CASES if case.status == 200 and case.ok and not several_in_one(case)]
STREAMS = [case for case in ANSWERS if b"message_start" in case.body[:200]]
DOCUMENTS = [case for case in ANSWERS if case not in STREAMS]
REFUSALS = [case for case in CASES if case.status != 200]
REQUESTS = [case for case in CASES if case.request is not None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The cases that a test's argument is named after."""
    groups = {"stream": STREAMS, "document": DOCUMENTS, "refusal": REFUSALS, "request_case": REQUESTS}
    for name, cases in groups.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, cases, ids=[case.id for case in cases])


PRICE = """
insert into price_rules (provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok)
values ('anthropic', '*', 3000000000, 15000000000)
"""


def call(case: Case) -> Call:
    document = canonical(case.request) if case.request else {"messages": []}
    model = case.request["model"] if case.request else "claude"
    stream = document.get("stream") is True if case.request else bool(case.expected["stream"])
    return Call(model, document, stream, wants_usage=True)


def decoded(case: Case, piece: int, end: int | None = None) -> tuple[bytes, str]:
    """The canonical stream, and the error that ended it."""
    decoder, body, out = WIRE.stream(call(case)), case.body[:end], b""
    try:
        for start in range(0, len(body), piece):
            out += decoder.feed(body[start : start + piece])
        return out + decoder.close(), ""
    except ProviderError as error:
        return out, error.message


async def chunks(out: bytes) -> AsyncIterator[ChatCompletionChunk]:
    for event in out.split(b"\n\n"):
        if event and event != b"data: [DONE]":
            yield ChatCompletionChunk.model_validate(orjson.loads(event.removeprefix(b"data: ")))


def check(reading: Reading, case: Case) -> None:
    expected = case.expected
    assert reading.text == expected["text"]
    assert reading.reasoning == expected["reasoning"]
    assert reading.tool_calls == expected["tool_calls"]
    assert reading.finish == FINISH[expected["finish"]]
    assert reading.usage is not None
    assert _counted(reading.usage) == _expected(expected["usage"])


def _counted(usage: Document) -> list[int]:
    prompt, completion = usage["prompt_tokens_details"], usage["completion_tokens_details"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    cached = [prompt["cached_tokens"], prompt["cache_write_tokens"]]
    return [usage["prompt_tokens"], *cached, usage["completion_tokens"], completion["reasoning_tokens"]]


def _expected(usage: Document) -> list[int]:
    cached = [usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0]
    thought = (usage.get("output_tokens_details") or {}).get("thinking_tokens", 0)
    return [usage["input_tokens"] + sum(cached), *cached, usage["output_tokens"], thought]


async def test_stream(stream: Case) -> None:
    """An application reads from our stream what Anthropic's SDK reads from the recorded one."""
    out, error = decoded(stream, len(stream.body))
    assert error == ""
    assert out.endswith(b"data: [DONE]\n\n")
    reading = Reading()
    await read_stream(chunks(out), reading)
    check(reading, stream)


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_any_chunking(stream: Case, piece: int) -> None:
    """The decoder returns the same bytes at any chunking."""
    assert decoded(stream, piece) == decoded(stream, len(stream.body))


def test_mutated_stream(stream: Case) -> None:
    """Whatever became of it on its way, it is told or it is our error, and it is not blown up."""
    for seed in SEEDS:
        out, _ = decoded(replace(stream, body=mutated(stream.body, seed)), 4096)
        assert len(out) < 20 * len(stream.body) + 10_000


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_cut_stream(stream: Case, part: float) -> None:
    """A stream that breaks off never looks whole, unless its stop reason has been seen."""
    end = int(len(stream.body) * part)
    out, error = decoded(stream, 4096, end)
    whole = b'"stop_reason":"' in stream.body[:end].rpartition(b"\n\n")[0]
    assert out.endswith(b"data: [DONE]\n\n") == whole
    assert ("truncated" in error) != whole


def test_document(document: Case) -> None:
    """The same for an answer in one piece."""
    answer = WIRE.response(call(document), document.body)
    check(read_whole(ChatCompletion.model_validate(orjson.loads(answer.body))), document)
    assert answer.usage.source == "provider"


def test_cut_document(document: Case) -> None:
    """Half an answer is none."""
    with pytest.raises(ProviderError) as caught:
        WIRE.response(call(document), document.body[: len(document.body) // 2])
    assert caught.value.kind is Kind.BROKEN


def test_refusal(refusal: Case) -> None:
    """A refusal has its meaning, the provider's words and its time to wait."""
    error = WIRE.error(refusal.status, refusal.headers, refusal.body)
    assert error.kind in KINDS[refusal.status]
    assert error.message == json.loads(refusal.body)["error"]["message"][:500]
    assert error.retry_after == (float(wait) if (wait := refusal.headers.get("retry-after")) else None)


def test_request(request_case: Case) -> None:
    """The equivalent OpenAI request becomes what was recorded."""
    assert request_case.request is not None
    assert comparable(sent(request_case)) == comparable(request_case.request)


if find_spec("anthropic"):
    from tests.wire.anthropic_sdk import is_valid

    def test_request_is_valid(request_case: Case) -> None:
        """Anthropic's SDK knows every field of what we send, if it knows those of the recorded request."""
        assert is_valid(sent(request_case)) or not is_valid(request_case.request)


def sent(case: Case) -> Any:
    return orjson.loads(WIRE.request(call(case)).body)


if available():

    @pytest.mark.parametrize("piece", [0, 7])
    async def test_through_the_gateway(database_url: str, redis_url: str, piece: int) -> None:
        """Every case, asked for by OpenAI's SDK: read, settled and billed as it should be."""
        replay, tape = Replay(), Tape()
        async with FakeProvider(default=replay) as provider:
            variables = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": provider.base_url.removesuffix("/v1")}
            settings = settings_of(database_url, redis_url, provider.base_url, **variables)
            async with run_gateway(settings) as gateway, client_of(gateway, tape) as client:
                await gateway.rows(PRICE)
                line = Line(gateway, provider, replay, client, tape)
                for case in [*ANSWERS, *REFUSALS]:
                    heard = await line.ask(Playing(asked_as_openai(case), piece), wants_usage=True)
                    check_settled(heard, case)


def client_of(gateway: Any, tape: Tape) -> openai.AsyncOpenAI:
    http = openai.DefaultAsyncHttpxClient(transport=tape, trust_env=False)
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, http_client=http)


def asked_as_openai(case: Case) -> Case:
    return replace(case, request=canonical(case.request) if case.request else None)


def check_settled(heard: Heard, case: Case) -> None:
    (asked,) = heard.asked
    assert asked.path == "/v1/messages"
    assert asked.headers["x-api-key"] == KEY
    assert asked.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in asked.headers
    assert heard.row is not None
    if case.status != 200:
        assert heard.status == expected_status(case)
        assert heard.headers.get("retry-after") == expected_wait(case)
        assert (heard.row["state"], heard.row["billed_cost_nano"]) == ("void", 0)
        return
    assert heard.error is None, case.id
    check(heard.reading, case)
    assert (heard.row["state"], heard.row["outcome"]) == ("settled", "ok")
    names = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    assert [heard.row[name] for name in names] == _expected(case.expected["usage"])
    assert heard.reading.usage is not None
    assert heard.reading.usage["cost"] == heard.billed
