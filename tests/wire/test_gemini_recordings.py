"""Every recorded exchange with Gemini, at its own address and at Vertex's: what its SDK reads is what ours says.

Requests are told back in OpenAI's words first; what our wire makes of those has to mean what was recorded.
"""

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import openai
import orjson
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from providers.contract import Call, Kind, ProviderError
from providers.gemini import GeminiWire
from tests.running import run_gateway, settings_of
from tests.upstream import Asked, FakeProvider
from tests.wire import checks
from tests.wire.conformance import KEY, Heard, Line, Tape
from tests.wire.cuts import events
from tests.wire.gemini_requests import as_openai, canonical, fits_the_sdk, meaning
from tests.wire.recordings import Case, Document, available, folder, recorded
from tests.wire.replay import Ending, Playing, Replay

WIRE = GeminiWire()
CASES = recorded("gemini-generate") if available() else ()
__test__ = bool(CASES)
PIECES = (1, 7, 1 << 30)
PARTS = (0.3, 0.9)
FILTERED = "content_filter"
FINISH = {"STOP": "stop", "MAX_TOKENS": "length", None: None}
KINDS = {403: Kind.CREDENTIALS, 404: Kind.NOT_FOUND, 503: Kind.OVERLOADED}


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])


def is_answer(case: Case) -> bool:
    return case.status == 200 and b'"error"' not in case.body[:20]


def has_partial_arguments(case: Case) -> bool:
    """The oracle does not put streamed arguments together."""
    return b'"partialArgs"' in case.body


ANSWERS = [case for case in CASES if is_answer(case)]
STREAMS = [case for case in ANSWERS if case.streamed]
FAILURES = [case for case in CASES if not is_answer(case)]
REQUESTS = [case for case in CASES if case.request is not None and "contents" in case.request]


def call(case: Case, stream: bool = True) -> Call:
    return Call("gemini-2.5-flash", {"messages": []}, stream, wants_usage=True)


def decoded(case: Case, piece: int) -> bytes:
    decoder = WIRE.stream(call(case))
    parts = [case.body[start : start + piece] for start in range(0, len(case.body), piece)]
    return b"".join([decoder.feed(part) for part in parts]) + decoder.close()


def read(case: Case, piece: int = 1 << 30) -> Document:
    """What an application makes of our answer."""
    if not case.streamed:
        answer = orjson.loads(WIRE.response(call(case, False), case.body).body)
        ChatCompletion.model_validate(answer, strict=True)
        choice = answer["choices"][0]
        return {**choice["message"], "finish": choice["finish_reason"], "usage": answer.get("usage")}
    out = decoded(case, piece)
    assert out.endswith(b"data: [DONE]\n\n")
    found: Document = {"content": "", "reasoning_content": "", "tool_calls": [], "usage": None}
    for event in out.split(b"\n\n")[:-2]:
        chunk = orjson.loads(event.removeprefix(b"data: "))
        ChatCompletionChunk.model_validate(chunk, strict=True)
        found["usage"] = chunk.get("usage") or found["usage"]
        for choice in chunk["choices"]:
            delta = choice["delta"]
            found["finish"] = choice["finish_reason"] or found.get("finish")
            for name in ("content", "reasoning_content"):
                found[name] += delta.get(name) or ""
            for part in delta.get("tool_calls") or ():
                if part["index"] == len(found["tool_calls"]):
                    found["tool_calls"].append({**part, "function": dict(part["function"])})
                else:
                    found["tool_calls"][part["index"]]["function"]["arguments"] += part["function"]["arguments"]
    return found


def tokens(usage: Document | None) -> dict[str, int] | None:
    """The oracle's counts with our meaning."""
    if usage is None:
        return None
    thoughts = usage.get("thoughts_token_count", 0)
    return {
        "input": usage.get("prompt_token_count", 0) + usage.get("tool_use_prompt_token_count", 0),
        "cached": usage.get("cached_content_token_count", 0),
        "output": usage.get("candidates_token_count", 0) + thoughts,
        "reasoning": thoughts,
        "total": usage["total_token_count"],
    }


def told(usage: Document | None) -> dict[str, int] | None:
    if usage is None:
        return None
    return {
        "input": usage["prompt_tokens"],
        "cached": usage["prompt_tokens_details"]["cached_tokens"],
        "output": usage["completion_tokens"],
        "reasoning": usage["completion_tokens_details"]["reasoning_tokens"],
        "total": usage["total_tokens"],
    }


def expected_finish(case: Case) -> str | None:
    finish = FINISH.get(case.expected["finish"], FILTERED)
    return "tool_calls" if finish == "stop" and case.expected["tool_calls"] else finish


@each([case for case in ANSWERS if case.expected["ok"] and case.expected["finish"]])
def test_answer(case: Case) -> None:
    """Text, reasoning, calls, finish and usage are those that the provider's SDK reads."""
    found, expected = read(case), case.expected
    assert (found.get("content") or "") == expected["text"]
    assert (found.get("reasoning_content") or "") == expected["reasoning"]
    assert found["finish"] == expected_finish(case)
    assert told(found["usage"]) == tokens(expected["usage"])
    calls = [
        {"name": each["function"]["name"], "arguments": json.loads(each["function"]["arguments"])}
        for each in found.get("tool_calls") or ()
    ]
    if has_partial_arguments(case):
        assert [each["name"] for each in calls] == [each["name"] for each in expected["tool_calls"] if each["name"]]
        assert all(each["arguments"] for each in calls)
    else:
        assert calls == expected["tool_calls"]


@each([case for case in ANSWERS if not (case.expected["ok"] and case.expected["finish"])])
def test_answer_that_the_sdk_cannot_read(case: Case) -> None:
    """Enums as numbers, and a stream that came as a JSON list: an answer with an end and usage all the same."""
    found = read(case)
    assert found["finish"] in ("stop", "length", "tool_calls")
    assert found["usage"]["total_tokens"] > 0


@each(STREAMS)
def test_any_chunking(case: Case) -> None:
    """The decoder returns the same bytes at any chunking."""
    assert len({decoded(case, piece) for piece in PIECES}) == 1


@each([case for case in CASES if case.body])
def test_damage_within_any_chunking(case: Case) -> None:
    """Whatever becomes of its bytes, the decoder decodes or refuses, and does nothing else."""
    checks.survives_damage(WIRE, replace(case, request=None))


@pytest.mark.parametrize("part", PARTS)
@each(STREAMS)
def test_cut(case: Case, part: float) -> None:
    """A stream that is cut never looks whole, unless its last word had been said."""
    body = case.body[: int(len(case.body) * part)]
    decoder = WIRE.stream(call(case))
    decoder.feed(body)
    if re.search(rb'"finishReason"', body) and decoder.finished:
        assert decoder.close().endswith(b"[DONE]\n\n")
        return
    with pytest.raises(ProviderError) as caught:
        decoder.close()
    assert caught.value.kind is Kind.BROKEN


@each(FAILURES)
def test_failure(case: Case) -> None:
    """A refusal has its kind by status, details and words; within a 200 it is one, too."""
    if case.status == 200:
        with pytest.raises(ProviderError) as caught:
            WIRE.response(call(case, False), case.body)
        error = caught.value
    else:
        error = WIRE.error(case.status, case.headers, case.body)
    status = orjson.loads(case.body)["error"]["code"]
    words = error.message.lower()
    kinds = {**KINDS, 429: Kind.RATE_LIMITED, 500: Kind.FAILED, 400: Kind.REJECTED}
    expected = kinds[status]
    if status == 400 and "api key" in words:
        expected = Kind.CREDENTIALS
    if status == 400 and "token count" in words:
        expected = Kind.CONTEXT_LENGTH
    assert error.kind is expected
    assert error.retry_after is None or error.retry_after > 0


# --- through the gateway ------------------------------------------------------------------------------------------

PRICE = """
insert into price_rules (provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok)
select provider, '*', 3000000000, 15000000000 from unnest(array['gemini', 'vertex']) provider
on conflict do nothing
"""


class PathReplay(Replay):
    """Finds the case where Gemini has the model: in the path."""

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        model = unquote(asked.path.rpartition("/models/")[2].rpartition(":")[0])
        body = json.dumps({**asked.document, "model": model}).encode()
        await super().__call__(replace(asked, body=body), writer)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def google(wire_database_url: str, redis_url: str) -> AsyncIterator[Line]:
    """A gateway that knows Gemini and Vertex, each at its kind of address and with its kind of key."""
    replay, tape = PathReplay(), Tape()
    async with FakeProvider(default=replay) as provider:
        variables = {"GOOGLE_API_KEY": KEY, "GEMINI_BASE_URL": provider.base_url}
        variables |= {"VERTEX_API_KEY": KEY, "VERTEX_BASE_URL": f"{provider.base_url}/projects/p/publishers/google"}
        settings = settings_of(wire_database_url, redis_url, provider.base_url, **variables)
        async with run_gateway(settings) as gateway, client_of(gateway, tape) as client:
            await gateway.rows(PRICE)
            yield Line(gateway, provider, replay, client, tape)


def client_of(gateway: Any, tape: Tape) -> openai.AsyncOpenAI:
    http = openai.DefaultAsyncHttpxClient(transport=tape, trust_env=False)
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, http_client=http)


def asked_as_openai(case: Case, *, stream: bool) -> Case:
    """The case with the request that an OpenAI client would have made."""
    asked: Document = {"messages": [{"role": "user", "content": "x"}]}
    if case.request is not None and case in REQUESTS:
        asked = as_openai(canonical(case.request))
    return replace(case, request={**asked, "stream": stream})


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("piece", [0, 1, 7])
@each(CASES)
async def test_through_the_gateway(google: Line, case: Case, piece: int) -> None:
    """Asked for by OpenAI's SDK: read, settled and billed as it should be, however it is cut into pieces."""
    made = asked_as_openai(case, stream=case.streamed)
    check_settled(await google.ask(Playing(made, piece), wants_usage=True), case)


@pytest.mark.asyncio(loop_scope="session")
@each(ANSWERS)
async def test_answer_in_the_other_mode(google: Line, case: Case) -> None:
    """Whoever asks for a stream gets one, whoever asks for a document gets one, whatever Google sends."""
    made = asked_as_openai(case, stream=not case.streamed)
    check_settled(await google.ask(Playing(made), wants_usage=True), case)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("ending", ["dropped", "ended"])
@each(STREAMS)
async def test_cut_through_the_gateway(google: Line, case: Case, part: float, ending: Ending) -> None:
    """A stream that breaks off never looks whole, and is settled as truncated."""
    end = int(len(case.body) * part)
    finished = says_its_end(case.body[:end], ended=ending == "ended")
    playing = Playing(asked_as_openai(case, stream=True), 0, end, ending, linger=finished)
    heard = await google.ask(playing, wants_usage=True)
    assert heard.row is not None
    assert heard.done == finished
    if finished:
        assert (heard.error, heard.row["outcome"]) == (None, "ok")
        return
    assert getattr(heard.error, "code", None) == "provider_invalid_response"
    assert heard.row["outcome"] == ("truncated" if heard.status is None else "upstream_error")


def says_its_end(body: bytes, *, ended: bool) -> bool:
    """Whether each candidate that was begun has said why it ended."""
    reasons: dict[int, bool] = {}
    for data in events(body, ended=ended):
        for candidate in json.loads(data).get("candidates") or ():
            index = candidate.get("index", 0)
            reasons[index] = reasons.get(index, False) or bool(candidate.get("finishReason"))
    return bool(reasons) and all(reasons.values())


def check_settled(heard: Heard, case: Case) -> None:
    (asked,) = heard.asked
    assert KEY in (
        asked.headers.get("x-goog-api-key"),
        asked.headers.get("authorization", "").removeprefix("Bearer "),
    )
    assert ("x-goog-api-key" in asked.headers) == (case.row == "gemini")
    assert heard.row is not None
    if not is_answer(case):
        assert (heard.row["state"], heard.row["outcome"]) == ("void", "upstream_error")
        ours = b"API key" in case.body or _failed_as(case) == 403
        assert heard.status == (502 if ours else _failed_as(case))
        assert ours or heard.headers.get("retry-after") == expected_delay(case)
        return
    assert heard.error is None, case.id
    assert (heard.row["state"], heard.row["outcome"]) == ("settled", "ok")
    if not (case.expected["ok"] and case.expected["finish"]):
        return
    assert heard.reading.text == case.expected["text"]
    assert heard.reading.reasoning == case.expected["reasoning"]
    assert heard.reading.finish == expected_finish(case)
    if not has_partial_arguments(case):
        assert heard.reading.tool_calls == case.expected["tool_calls"]
    expected = tokens(case.expected["usage"])
    assert told(heard.reading.usage) == expected
    assert heard.reading.usage is not None
    assert heard.reading.usage["cost"] == heard.billed
    names = {"input": "input_tokens", "cached": "cache_read_tokens", "output": "output_tokens"}
    assert expected is None or all(heard.row[ours] == expected[name] for name, ours in names.items())


def expected_delay(case: Case) -> str | None:
    """What an error's details say, which the SDK does not read: whole seconds, rounded up."""
    found = re.search(rb'"retryDelay": *"(\d+(?:\.\d+)?)s"', case.body)
    return str(math.ceil(float(found[1]))) if found else None


def _failed_as(case: Case) -> int:
    return int(orjson.loads(case.body)["error"]["code"])


# --- requests ---------------------------------------------------------------------------------------------------


@each(REQUESTS)
def test_request(case: Case) -> None:
    """What we send for the equivalent of a recorded request means the same."""
    assert case.request is not None
    recorded_body = canonical(case.request)
    model, stream = _model(case)
    document = as_openai(recorded_body)
    made = Call(model, document, stream)
    sent = WIRE.request(made)
    body = orjson.loads(sent.body)
    assert meaning(canonical(body)) == meaning(recorded_body)
    fits_the_sdk(body)
    assert sent.path.startswith(f"/models/{model}:{'streamGenerateContent?alt=sse' if stream else 'generateContent'}")


def _model(case: Case) -> tuple[str, bool]:
    request = json.loads((folder() / f"{case.id}.json").read_text(encoding="utf-8"))["request"]
    found = re.search(r"models/([^/:]+):(stream)?", request["path"])
    assert found is not None
    return found[1], bool(found[2])
