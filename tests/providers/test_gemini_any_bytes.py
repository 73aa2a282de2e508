"""Whatever Gemini's wire brings: it is decoded the same at any chunking, or refused, in bounded time and space."""

import time
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.contract import Kind, ProviderError
from providers.gemini.candidate import MAX_OWN
from providers.gemini.stream import GeminiDecoder
from tests.providers.odd_json import mutated
from tests.providers.test_gemini import WIRE, answer, call, candidate, sse

CALM = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

IMAGE = {"inlineData": {"mimeType": "image/png", "data": "QQ=="}}
GROUNDING = {
    "groundingChunks": [{"web": {"uri": "https://a", "title": "A"}}],
    "groundingSupports": [{"segment": {"startIndex": 0, "endIndex": 1}, "groundingChunkIndices": [0]}],
}
PARTS: list[dict[str, Any]] = [
    {"text": "hm", "thought": True, "thoughtSignature": "S"},
    {"text": "ä"},
    {"executableCode": {"language": "PYTHON", "code": "1"}},
    {**IMAGE, "thoughtSignature": "S"},
    {"inlineData": {"mimeType": "audio/pcm", "data": "QQ=="}},
    {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "S"},
    {"functionCall": {"name": "g", "willContinue": True}},
    {"functionCall": {"partialArgs": [{"jsonPath": "$.a[0]", "stringValue": "x"}], "willContinue": True}},
    {"functionCall": {}},
]
LOGPROBS = {
    "chosenCandidates": [{"token": "a", "logProbability": -1}],
    "topCandidates": [{"candidates": [{"token": "b", "logProbability": -2}]}],
}
DOCUMENTS = [
    *(answer(candidate(part, finish=None)) for part in PARTS),
    answer(candidate({"text": "a"}, groundingMetadata=GROUNDING, logprobsResult=LOGPROBS, safetyRatings=[{"a": 1}])),
    answer(candidate({"text": "a"}, citationMetadata={"citations": [{"endIndex": 1, "uri": "https://a"}]})),
    {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 1}},
]


def run(data: bytes, piece: int) -> tuple[bytes, str]:
    """All bytes that came out, and the error at the end."""
    decoder = WIRE.stream(call(stream=True, wants_usage=True))
    out = b""
    try:
        for start in range(0, len(data), piece):
            out += decoder.feed(data[start : start + piece])
        return out + decoder.close(), ""
    except ProviderError as error:
        return out, error.message


@CALM
@given(st.data())
def test_a_mutated_answer_is_decoded_or_refused(data: st.DataObject) -> None:
    """And nothing else, whole or streamed, however odd its fields are."""
    documents = [mutated(each, data) for each in data.draw(st.lists(st.sampled_from(DOCUMENTS), max_size=4))]
    events = b"".join(b"data: " + orjson.dumps(each) + b"\n\n" for each in (*documents, answer(candidate())))
    whole = run(events, len(events))
    assert run(events, data.draw(st.integers(1, 60))) == whole
    for body in (events, orjson.dumps(documents), *map(orjson.dumps, documents)):
        try:
            decoded = WIRE.response(call(), body)
        except ProviderError:
            continue
        assert orjson.loads(decoded.body)["choices"][0]["message"]["role"] == "assistant"


@CALM
@given(st.data(), st.sampled_from([400, 401, 403, 404, 429, 500, 503]))
def test_a_mutated_refusal_has_a_meaning(data: st.DataObject, status: int) -> None:
    """Whatever stands in it."""
    details = [{"reason": "API_KEY_INVALID"}, {"retryDelay": "3s"}]
    error = {"error": {"code": status, "message": "m", "status": "X", "details": details}}
    found = WIRE.error(status, {}, orjson.dumps(mutated(data.draw(st.sampled_from([error, [error]])), data)))
    assert found.message
    assert found.retry_after is None or 0 <= found.retry_after <= 3600


@pytest.mark.parametrize("depth", [300, 900, 930, 960, 100_000])
@pytest.mark.parametrize("place", ["own", "args", "part", "usage"])
def test_an_answer_that_is_nested_too_deeply_is_an_answer_or_broken(depth: int, place: str) -> None:
    """Whatever a JSON library makes of it."""
    deep = {
        "own": answer(candidate({"text": "a"}, groundingMetadata={"x": "DEEP"})),
        "args": answer(candidate({"functionCall": {"name": "f", "args": {"x": "DEEP"}}})),
        "part": answer(candidate({"novel": "DEEP"})),
        "usage": answer(candidate({"text": "a"}), usageMetadata={"promptTokensDetails": "DEEP"}),
    }[place]
    body = orjson.dumps(deep).replace(b'"DEEP"', b"[" * depth + b"]" * depth)
    run(b"data: " + body + b"\n\n", 1 << 20)
    try:
        WIRE.response(call(), body)
    except ProviderError as error:
        assert error.kind is Kind.BROKEN  # noqa: PT017


def flood(decoder: GeminiDecoder, *documents: dict[str, Any]) -> bytes:
    return decoder.feed(sse(*documents))


def test_what_is_kept_of_a_stream_is_bounded() -> None:
    """Candidates, fields of Google's own, events without an end."""
    decoder = WIRE.stream(call(stream=True))
    out = flood(decoder, *(answer(candidate(finish=None, **{f"x{number}": "y"})) for number in range(500)))
    out += flood(decoder, answer(candidate()))
    last = orjson.loads((out + decoder.close()).split(b"\n\n")[-3].removeprefix(b"data: "))
    assert len(last["choices"][0]["gemini"]) == MAX_OWN
    decoder = WIRE.stream(call(stream=True))
    flood(decoder, *(answer(candidate(index=number)) for number in range(200)))
    with pytest.raises(ProviderError):
        decoder.close()
    decoder = WIRE.stream(call(stream=True))
    with pytest.raises(ProviderError):
        decoder.feed(b"data: " + b"x" * 9_000_000)


def test_a_long_answer_in_small_pieces_takes_no_time_to_speak_of() -> None:
    """Its time grows with its length and not with the square of it."""
    pieces = [answer(candidate({"text": "word "}, PARTS[4], finish=None)) for _ in range(20_000)]
    body = sse(*pieces, answer(candidate()))
    started = time.process_time()
    message = orjson.loads(WIRE.response(call(), body).body)["choices"][0]["message"]
    assert (len(message["content"]), len(message["audio"]["data"])) == (100_000, 80_000)
    assert time.process_time() - started < 20
