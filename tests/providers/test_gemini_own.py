"""What Gemini's answers hold that OpenAI has no form for, and the odd ways in which they come."""

from typing import Any

import orjson
import pytest

from providers.contract import Kind, ProviderError
from tests.providers.test_gemini import WIRE, answer, call, candidate, deltas, error, message, read, sse, streamed

IMAGE = {"inlineData": {"mimeType": "image/png", "data": "QQ=="}}


def test_an_image_of_a_thought_is_no_image_of_the_answer() -> None:
    """It rides along, and is given back."""
    thought = {**IMAGE, "thought": True}
    told = message(thought, {"text": "a"})
    assert "images" not in told
    assert told["gemini"] == {"parts": [thought]}


def test_an_images_signature_stays_with_it() -> None:
    """Gemini 3 refuses an image of its own that has lost it."""
    told = message({"text": "a"}, {**IMAGE, "thoughtSignature": "S"}, IMAGE)
    assert told["images"][0]["extra_content"] == {"google": {"thought_signature": "S"}}
    assert "reasoning_details" not in told
    body = orjson.loads(WIRE.request(call(document={"messages": [told]})).body)
    assert body["contents"][0]["parts"] == [{"text": "a"}, {**IMAGE, "thoughtSignature": "S"}, IMAGE]


def test_what_only_google_says_of_a_candidate_stands_in_its_choice() -> None:
    """Whole, and at the end of a stream: what was said last."""
    rating = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}]
    search = {"webSearchQueries": ["q"], "searchEntryPoint": {"renderedContent": "<b>"}}
    fields = {"safetyRatings": rating, "groundingMetadata": search, "urlContextMetadata": {}, "avgLogprobs": -0.5}
    (choice,) = read(answer(candidate({"text": "a"}, **fields)))["choices"]
    assert choice["gemini"] == {"safetyRatings": rating, "groundingMetadata": search, "avgLogprobs": -0.5}
    first = answer(candidate({"text": "a"}, finish=None, safetyRatings=[]))
    *before, last = (each["choices"][0] for each in streamed(sse(first, answer(candidate(**fields)))))
    assert last["gemini"] == choice["gemini"]
    assert not any("gemini" in each for each in before)


@pytest.mark.parametrize("name", ["citationSources", "citations"])
def test_what_is_quoted_is_cited(name: str) -> None:
    """As the Gemini API and as Vertex call it."""
    rows = [{"startIndex": 2, "endIndex": 4, "uri": "https://a", "title": "A"}, {"endIndex": 2, "license": "mit"}]
    told = read(answer(candidate({"text": "äö"}, citationMetadata={name: rows})))["choices"][0]["message"]
    (found,) = told["annotations"]
    assert found["url_citation"] == {"url": "https://a", "title": "A", "start_index": 1, "end_index": 2}


@pytest.mark.parametrize("kind", ["web", "retrievedContext", "maps"])
def test_every_kind_of_source_is_cited(kind: str) -> None:
    """Pages, documents and places."""
    grounding = {
        "groundingChunks": [{kind: {"uri": "https://a", "title": "A"}}],
        "groundingSupports": [{"segment": {"endIndex": 1}, "groundingChunkIndices": [0]}],
    }
    told = read(answer(candidate({"text": "a"}, groundingMetadata=grounding)))["choices"][0]["message"]
    assert told["annotations"][0]["url_citation"]["url"] == "https://a"


# --- streams ----------------------------------------------------------------------------------------------------


def test_a_stream_that_nobody_asked_for() -> None:
    """It is read as the one answer that it is."""
    stream = sse(answer(candidate({"text": "a"}, finish=None)), answer(candidate({"text": "b"})))
    decoded = WIRE.response(call(), b": ping\r\n\r\n" + stream)
    assert orjson.loads(decoded.body)["choices"][0]["message"]["content"] == "ab"
    assert decoded.usage.input_tokens == 10


@pytest.mark.parametrize(
    "stream", [sse(answer(candidate({"text": "a"}, finish=None))), b'data: {"candidates":[', b"data: [DONE]\n\n"]
)
def test_a_cut_stream_that_nobody_asked_for_is_broken(stream: bytes) -> None:
    """It never looks whole."""
    with pytest.raises(ProviderError) as caught:
        WIRE.response(call(), stream)
    assert caught.value.kind is Kind.BROKEN


@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_an_error_that_is_written_bare_into_a_stream(piece: int) -> None:
    """Google does so once the stream has begun: a document, and no event."""
    begun = sse(answer(candidate({"text": "a"}, finish=None)))
    bare = orjson.dumps(orjson.loads(error(503, "Overloaded.")), option=orjson.OPT_INDENT_2)
    data = begun + bare
    decoder = WIRE.stream(call(stream=True))
    out = b"".join(decoder.feed(data[start : start + piece]) for start in range(0, len(data), piece))
    assert b'"content":"a"' in out
    with pytest.raises(ProviderError) as caught:
        decoder.close()
    assert (caught.value.kind, caught.value.status) == (Kind.OVERLOADED, 503)


def test_calls_in_parallel_over_several_chunks() -> None:
    """With ids of their own and without, each has its number."""
    parts: list[dict[str, Any]] = [
        {"functionCall": {"name": "f", "args": {"a": 1}, "id": "own"}},
        {"functionCall": {"name": "f", "args": {"a": 2}}},
        {"functionCall": {"name": "g", "args": {}}},
    ]
    told = deltas(streamed(sse(answer(candidate(*parts[:2], finish=None)), answer(candidate(parts[2])))))
    calls = [each for delta in told for each in delta.get("tool_calls", ())]
    assert [(each["index"], each["function"]["name"]) for each in calls] == [(0, "f"), (1, "f"), (2, "g")]
    assert calls[0]["id"] == "own"
    assert len({each["id"] for each in calls}) == 3


def test_no_content_at_all() -> None:
    """A model may spend all its tokens on thoughts."""
    (choice,) = read({"candidates": [{"finishReason": "MAX_TOKENS", "index": 0}]})["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", None)
    assert (
        streamed(sse({"candidates": [{"finishReason": "MAX_TOKENS"}]}))[-1]["choices"][0]["finish_reason"] == "length"
    )


# --- errors -----------------------------------------------------------------------------------------------------


def test_an_error_as_a_list_with_the_time_to_wait() -> None:
    """As a stream's refusal comes."""
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "16s"}
    quota = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "PerMinute"}]}
    found = WIRE.error(429, {}, b"[" + error(429, "You exceeded your current quota.", quota, retry) + b"]")
    assert (found.kind, found.retry_after) == (Kind.RATE_LIMITED, 16.0)


def test_a_header_goes_before_the_details() -> None:
    """Where both say how long to wait."""
    body = error(429, "Slow down.", {"retryDelay": "16s"})
    assert WIRE.error(429, {"retry-after": "3"}, body).retry_after == 3.0


@pytest.mark.parametrize("reason", ["API_KEY_INVALID", "API_KEY_SERVICE_BLOCKED", "BILLING_DISABLED"])
def test_our_key_is_bad(reason: str) -> None:
    """A 400 there, and no fault of the caller."""
    assert WIRE.error(400, {}, error(400, "API key not valid.", {"reason": reason})).kind is Kind.CREDENTIALS


def test_our_credits_are_gone() -> None:
    """A 429 that no waiting helps."""
    assert WIRE.error(429, {}, error(429, "Your prepayment credits are depleted.")).kind is Kind.QUOTA
