"""What has to be true of every case, recorded or our own."""

import json
from collections.abc import Mapping
from dataclasses import replace
from random import Random

import openai

from providers.anthropic import AnthropicWire
from providers.bedrock import BedrockWire
from providers.contract import Call, ProviderError, Wire
from providers.gemini import GeminiWire
from providers.openai import OpenAIWire
from tests.upstream import Asked
from tests.wire.conformance import (
    AWS,
    KEY,
    OUR_FAULT,
    Heard,
    Line,
    arriving,
    asks_for_usage,
    expected_status,
    expected_tokens,
    expected_wait,
    expected_words,
    is_empty_account,
    request_of,
    without_cost,
)
from tests.wire.cuts import events, is_over
from tests.wire.reading import Reading
from tests.wire.recordings import Case, Document
from tests.wire.replay import Playing

BROKEN = "provider_invalid_response"
OWN_WIRES: Mapping[str, Wire] = {
    "anthropic": AnthropicWire(),
    "bedrock": BedrockWire(),
    "gemini": GeminiWire(),
    "vertex": GeminiWire(buckets=False),
}


async def same_request_arrives(line: Line, case: Case) -> None:
    """The provider gets the request as it was, with its own key; in its own words, where those are told."""
    heard = await line.ask_as_recorded(case)
    (asked,) = heard.asked
    assert line.gateway.key not in str(asked.headers)
    if case.row in OWN_WIRES:
        assert asked.document == case.expected["sent"]
        _is_addressed(asked, case)
        return
    assert asked.document == arriving(case, request_of(case), stream_usage=case.row != "mistral")
    assert asked.path.partition("?")[0].endswith("/chat/completions")
    assert (KEY in asked.headers.values()) != (asked.headers.get("authorization") == f"Bearer {KEY}")


async def reads_as_expected(line: Line, case: Case) -> None:
    """Text, reasoning, tool calls, finish reason and usage are what the provider meant, and what is billed."""
    await _reads_as_expected(line, case, await line.ask_as_recorded(case), request_of(case))


async def reads_the_same_in_pieces(line: Line, case: Case, piece: int) -> None:
    """The same, in pieces of so many bytes, for a caller who asks for usage."""
    heard = await line.ask(Playing(case, piece), wants_usage=True)
    await _reads_as_expected(line, case, heard, request_of(case, wants_usage=True))


async def reads_the_same_in_the_other_mode(line: Line, case: Case) -> None:
    """Whoever asks for a stream gets one, whoever asks for a document gets one, whatever the provider sends."""
    other = replace(case, request={**request_of(case), "stream": not case.streamed})
    heard = await line.ask(Playing(other), wants_usage=True)
    expected = await _expected(line, case)
    await _reads_as_expected(line, other, heard, request_of(other, wants_usage=True), expected)


async def fails_as_expected(line: Line, case: Case) -> None:
    """A refusal has the status that says whose fault it is, and costs nothing."""
    heard = await line.ask_as_recorded(case)
    assert heard.status == expected_status(case)
    assert heard.error is not None
    if heard.status == case.status:
        assert type(heard.error).__name__ == case.expected["error"]
    if case.status in OUR_FAULT or is_empty_account(case):
        assert heard.error.code == "gateway_provider_credentials"
        assert not expected_words(case) or expected_words(case) not in heard.error.message
    else:
        assert expected_words(case) in heard.error.message
        assert heard.headers.get("retry-after") == expected_wait(case)
    assert heard.row is not None
    assert (heard.row["state"], heard.row["outcome"]) == ("void", "upstream_error")
    assert heard.row["billed_cost_nano"] == 0


async def fails_as_told(line: Line, case: Case, piece: int) -> None:
    """A golden file's failure: its status if it is refused as a whole, the word for it, and the ledger's."""
    heard = await line.ask(Playing(case, piece))
    told = case.expected
    assert heard.error is not None
    assert (heard.status, heard.error.code) == (told.get("refused"), told["code"])
    assert told.get("message", "") in heard.error.message
    assert "wait" not in told or heard.headers["retry-after"] == told["wait"]
    assert "silent" not in told or told["silent"] not in heard.data.decode()
    assert not heard.done
    assert heard.row is not None
    assert heard.row["outcome"] == told["outcome"]
    if case.status != 200:
        assert (heard.row["state"], heard.row["billed_cost_nano"]) == ("void", 0)


async def breaks_off_as_expected(line: Line, case: Case, piece: int = 0) -> None:
    """An error within a stream is the application's exception, never the end of an answer."""
    heard = await line.ask(Playing(case, piece))
    assert isinstance(heard.error, openai.APIError)
    assert expected_words(case) in heard.error.message
    assert not heard.done
    assert heard.row is not None
    assert heard.row["outcome"] == "upstream_error"


async def cut_stream_is_told(line: Line, case: Case, part: float, *, ended: bool = False) -> None:
    """A stream that breaks off is an error for the application and `truncated` in the ledger."""
    end = int(len(case.body) * part)
    finished = is_over(case, end, ended=ended)
    heard = await line.ask(Playing(case, 0, end, "ended" if ended else "dropped", linger=finished), wants_usage=True)
    assert heard.row is not None
    if finished:
        assert heard.error is None
        assert heard.done
        assert heard.row["outcome"] == "ok"
        return
    assert not heard.done
    assert heard.error is not None
    assert heard.error.code == BROKEN
    if heard.status is not None:
        assert (heard.status, heard.row["outcome"]) == (502, "upstream_error")
    else:
        assert heard.row["outcome"] == "truncated"
        assert (heard.row["usage_source"], heard.row["state"]) != ("none", "settled")


async def cut_document_is_told(line: Line, case: Case) -> None:
    """Half a JSON answer is the provider's failure."""
    heard = await line.ask(Playing(case, 0, len(case.body) // 2, "dropped"))
    assert (heard.status, getattr(heard.error, "code", None)) == (502, BROKEN)
    assert heard.row is not None
    assert heard.row["outcome"] == "upstream_error"


def same_at_any_chunking(wire: Wire, case: Case) -> None:
    """The decoder says the same, byte for byte, however its input is cut."""
    whole = decoded(wire, case, len(case.body))
    for piece in (1, 7, 4096):
        assert decoded(wire, case, piece) == whole


def survives_damage(wire: Wire, case: Case, times: int = 5) -> None:
    """Some bytes of it changed: it is decoded or refused, the same in pieces, as a stream and as a document."""
    random = Random(case.id)
    for _ in range(times):
        body = bytearray(case.body)
        for _ in range(random.randint(1, 5)):
            body[random.randrange(len(body))] = random.choice(b'"{}[]:,\\\n 0x\xff')
        damaged = replace(case, body=bytes(body))
        assert decoded(wire, damaged, 61) == decoded(wire, damaged, len(body))
        for made in (damaged.body, damaged.body[: random.randrange(len(body))]):
            try:
                wire.response(Call(case.model, request_of(case)), made)
            except ProviderError:
                continue


def breaks_by_a_bit(wire: Wire, case: Case) -> None:
    """With one bit changed it is an error, wherever that is; every so many bytes are tried."""
    for place in range(0, len(case.body), 37):
        body = bytearray(case.body)
        body[place] ^= 4
        _, error = decoded(wire, replace(case, body=bytes(body)), len(body))
        assert error


def decoded(wire: Wire, case: Case, piece: int) -> tuple[bytes, str]:
    """The canonical stream and how it ended: well, or with which error."""
    decoder = wire.stream(Call(case.model, request_of(case), True, wants_usage=True))
    out = b""
    try:
        for start in range(0, len(case.body), piece):
            out += decoder.feed(case.body[start : start + piece])
        return out + decoder.close(), ""
    except ProviderError as error:
        return out, error.message


def wire_of(case: Case) -> Wire:
    if case.row in OWN_WIRES:
        return OWN_WIRES[case.row]
    return OpenAIWire(stream_usage=case.row != "mistral", throttles_as_quota=case.row == "qwen")


def _is_addressed(asked: Asked, case: Case) -> None:
    """To the place, and with the key or the signature, that the provider asks for."""
    authorization = asked.headers.get("authorization")
    if case.row == "bedrock":
        operation = "converse-stream" if case.asked_for_stream else "converse"
        assert asked.path == f"/v1/model/{case.model}/{operation}"
        assert authorization is not None
        assert authorization.startswith(f"AWS4-HMAC-SHA256 Credential={AWS['AWS_ACCESS_KEY_ID']}/")
        assert asked.headers["x-amz-security-token"] == AWS["AWS_SESSION_TOKEN"]
        return
    if case.row in ("gemini", "vertex"):
        method = "streamGenerateContent?alt=sse" if case.asked_for_stream else "generateContent"
        assert asked.path == f"/v1/models/{case.model}:{method}"
        keys = (asked.headers.get("x-goog-api-key"), authorization)
        assert keys == ((KEY, None) if case.row == "gemini" else (None, f"Bearer {KEY}"))
        return
    assert (asked.path, asked.headers["x-api-key"], authorization) == ("/v1/messages", KEY, None)
    assert asked.headers["anthropic-version"] == "2023-06-01"
    assert asked.headers.get("anthropic-beta") == case.expected.get("beta")


async def _reads_as_expected(
    line: Line, case: Case, heard: Heard, request: Document, expected: Reading | None = None
) -> None:
    assert heard.error is None
    told = not case.asked_for_stream or asks_for_usage(request)
    expected = expected or await _expected(line, case)
    assert _comparable(heard.reading, told) == _comparable(expected, told)
    if case.row in OWN_WIRES:
        assert heard.reading.details == case.expected.get("details", [])
        assert heard.reading.refusal == case.expected.get("refusal", "")
    assert heard.reading.choices == set(case.expected.get("choices", heard.reading.choices))
    assert heard.done == case.asked_for_stream
    assert heard.row is not None
    assert (heard.row["state"], heard.row["outcome"]) == ("settled", "ok")
    _is_billed(heard, expected.usage, told)


async def _expected(line: Line, case: Case) -> Reading:
    """The oracle's reading; where it cannot be had, what is read from the provider without us."""
    if case.hides_words and not case.golden:
        return await line.straight(case)
    fields = ("text", "reasoning", "tool_calls", "finish", "usage")
    return Reading(**{name: case.expected[name] for name in fields})


def _comparable(reading: Reading, told: bool) -> Document:
    return {
        "text": reading.text,
        "reasoning": reading.reasoning,
        "tool_calls": reading.tool_calls,
        "finish": reading.finish or None,
        "usage": without_cost(reading.usage) if told else None,
    }


def _is_billed(heard: Heard, usage: Document | None, told: bool) -> None:
    assert heard.row is not None
    if usage is None:
        assert heard.row["usage_source"] != "provider"
        return
    tokens = expected_tokens(usage)
    assert {name: heard.row[name] for name in tokens} == tokens
    assert heard.row["usage_source"] == "provider"
    if told:
        assert heard.reading.usage is not None
        assert heard.reading.usage["cost"] == heard.billed
    else:
        assert not any(b'"usage"' in data and "usage" in json.loads(data) for data in events(heard.data))
