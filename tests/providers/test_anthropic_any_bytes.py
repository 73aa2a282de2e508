"""Whatever Claude's wire brings: it is decoded the same at any chunking, or refused."""

from collections.abc import Iterable

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.contract import Call, Kind, ProviderError, Usage
from tests.providers.anthropic_answers import (
    CITATION,
    FOUND,
    PING,
    SEARCH,
    START,
    STOP,
    THOUGHT,
    USE,
    WIRE,
    answer,
    block,
    call,
    delta,
    priced,
    sse,
    stream_of,
    streamed,
    text,
)
from tests.providers.odd_json import mutated

CALM = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


PIECES = st.lists(
    st.sampled_from(
        [
            START,
            PING,
            streamed(0, THOUGHT),
            streamed(1, text("ü €\n", citations=[CITATION])),
            streamed(2, USE),
            streamed(3, SEARCH),
            block(4, text(""), {"type": "text_delta", "text": "open"}, closed=False),
            delta(),
            delta(None),
            delta("tool_use"),
            STOP,
            STOP[:-1],
            b": comment\n\n",
            b"\r\n",
            b"data: \n\n",
            b"data: [DONE]\n\n",
            b"\xef\xbb\xbf",
            sse({"type": "error", "error": {"message": "boom"}}),
            stream_of([text("x"), USE]).replace(b"\n", b"\r\n"),
        ]
    ),
    max_size=9,
)


def run(pieces: Iterable[bytes], made: Call) -> tuple[bytes, str, Usage]:
    """All bytes that came out, the error at the end, and the usage."""
    decoder = WIRE.stream(made)
    out = b""
    try:
        for piece in pieces:
            out += decoder.feed(piece)
        out += decoder.close()
    except ProviderError as error:
        return out, error.message, decoder.usage
    return out, "", decoder.usage


@CALM
@given(PIECES, st.booleans(), st.data())
def test_chunking_never_changes_a_byte(parts: list[bytes], wants: bool, data: st.DataObject) -> None:
    """The same stream gives the same bytes, usage and error, wherever it is cut."""
    made = call(stream=True, wants_usage=wants, pricing=priced)
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=9)))
    pieces = [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    each_byte = [whole[start : start + 1] for start in range(len(whole))]
    assert run(pieces, made) == run([whole], made) == run(each_byte, made)


@CALM
@given(st.data())
def test_a_mutated_stream_is_decoded_or_refused(data: st.DataObject) -> None:
    """And nothing else, however odd its fields are."""
    events = [
        each
        for each in stream_of([THOUGHT, SEARCH, FOUND, text("x", citations=[CITATION]), USE]).split(b"\n\n")
        if each
    ]
    documents = [orjson.loads(each.partition(b"data: ")[2]) for each in events]
    parts = [b"data: " + orjson.dumps(mutated(each, data)) + b"\n\n" for each in documents]
    run(parts, call(stream=True, pricing=priced))


@CALM
@given(st.data())
def test_a_mutated_answer_is_decoded_or_refused(data: st.DataObject) -> None:
    """The same for an answer in one piece."""
    whole = orjson.loads(answer(THOUGHT, SEARCH, text("x", citations=[CITATION]), USE, stop="tool_use"))
    try:
        decoded = WIRE.response(call(pricing=priced), orjson.dumps(mutated(whole, data)))
    except ProviderError:
        return
    assert orjson.loads(decoded.body)["choices"][0]["message"]["role"] == "assistant"


@CALM
@given(st.lists(st.binary(max_size=40), max_size=5))
def test_random_bytes_are_refused(parts: list[bytes]) -> None:
    """Nothing hangs, and nothing else is raised."""
    out, error, _ = run(parts, call(stream=True))
    assert (out, bool(error)) == (b"", True)


@CALM
@given(st.integers(300, 599), st.one_of(st.binary(max_size=60), st.just(answer()), st.just(b"[" * 100_000)))
def test_any_refusal_has_a_meaning(status: int, body: bytes) -> None:
    """A provider that is down, or a proxy before it, answers anything."""
    error = WIRE.error(status, {"retry-after": "soon"}, body)
    assert (error.status, error.retry_after) == (status, None)
    assert error.message


@pytest.mark.parametrize("depth", [300, 900, 100_000])
def test_an_answer_that_is_nested_too_deeply_is_an_answer_or_broken(depth: int) -> None:
    """Whatever a JSON library makes of it."""
    deep = b"[" * depth + b"]" * depth
    body = answer({"type": "novel", "x": "DEEP"}).replace(b'"DEEP"', deep)
    event = sse({"type": "content_block_start", "index": 0, "content_block": {"x": "DEEP"}}).replace(b'"DEEP"', deep)
    for end in (delta(), STOP):
        run([START, event, end], call(stream=True))
    try:
        WIRE.response(call(), body)
    except ProviderError as error:
        assert error.kind is Kind.BROKEN  # noqa: PT017
