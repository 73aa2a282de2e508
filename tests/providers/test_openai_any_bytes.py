"""Whatever a compatible provider brings: it is decoded the same at any chunking, or refused."""

import time
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.contract import Kind, ProviderError
from providers.openai import OpenAIDecoder, OpenAIWire
from tests.providers.odd_json import mutated
from tests.providers.test_openai import DONE, USAGE, USAGE_CHUNK, call, delta, priced, run
from tests.providers.test_openai_habits import THINKING, chunk, piece

CALM = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
WIRE = OpenAIWire()

DELTAS: list[dict[str, Any]] = [
    {"role": "assistant", "content": ""},
    {"content": "b"},
    {"content": 'a"} ü\n'},
    {"content": '\\"}', "reasoning": "x"},
    {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
    {"reasoning_content": "hm"},
    {"reasoning_content": "", "reasoning": "hm"},
    {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}], "tool_calls": None},
    {"content": [THINKING, {"type": "text", "text": "so"}]},
    {"tool_calls": [piece(0, "A", "f", "")]},
    {"tool_calls": [piece(0, given='{"name":')]},
    {"tool_calls": [piece(0, "B", "g", "{}")]},
    {"tool_calls": [piece(None, given="}")]},
    {"tool_calls": [piece(0, "", "f", {"a": 1})]},
]
PIECES = st.lists(
    st.sampled_from(
        [
            *(chunk(each) for each in DELTAS),
            *(chunk(each).replace(b":", b": ") for each in DELTAS[:4]),
            chunk({"content": "x"}, "stop"),
            chunk({}, "stop", usage=USAGE),
            delta("second", index=1),
            USAGE_CHUNK,
            DONE,
            b": ping\n\n",
            b"\r\n",
            b"data: \n\n",
            b"\xef\xbb\xbf",
            b'data: {"choices":[],"error":{"message":"boom"}}\n\n',
            b"event: error\ndata: boom\n\n",
        ]
    ),
    max_size=9,
)


MESSAGES: list[Any] = [
    *({"content": content} for content in ("a", None, ["a"], [THINKING])),
    *({"content": "a", name: "hm"} for name in ("reasoning", "reasoning_text", "reasoning_content", "refusal")),
    *({"content": "a", "reasoning_details": details} for details in ([], [{"text": "hm"}])),
    *({"content": "a", "tool_calls": calls} for calls in (None, [], [{"function": {"arguments": {}}}])),
    *(None, "a", [], {}),
]
CHOICE = st.builds(
    lambda message, reason: {"message": message, "finish_reason": reason},
    st.sampled_from(MESSAGES),
    st.sampled_from(["stop", None, "length", "error"]),
)
FURTHER = st.sampled_from([{}, {}, {"error": None}, {"error": {"message": "boom"}}, {"object": "error"}])


@settings(CALM, max_examples=400)
@given(st.lists(CHOICE | st.sampled_from([None, "a", []]), max_size=2), FURTHER)
def test_a_choice_of_no_form_changes_nothing_for_those_before_it(choices: list[Any], further: dict[str, Any]) -> None:
    """An answer that looks like nearly every other is not looked into, and comes out as if it had been."""

    def told(choices: list[Any]) -> Any:
        try:
            return orjson.loads(WIRE.response(call(), orjson.dumps({"choices": choices, **further})).body)["choices"]
        except ProviderError as error:
            return [(error.kind, error.message), None]

    if choices:
        assert told([*choices, None])[: len(choices)] == told(choices)[: len(choices)]


@CALM
@given(PIECES, st.booleans(), st.sampled_from([1, 2]), st.data())
def test_chunking_never_changes_a_byte(parts: list[bytes], wants: bool, n: int, data: st.DataObject) -> None:
    """The same stream gives the same bytes, usage and error, wherever it is cut."""
    made = call(document={"messages": [], "n": n}, stream=True, wants_usage=wants, pricing=priced)
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=9)))
    pieces = [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    each_byte = [whole[start : start + 1] for start in range(len(whole))]
    assert run(pieces, made) == run([whole], made) == run(parts, made) == run(each_byte, made)


@pytest.mark.parametrize("first", DELTAS, ids=str)
def test_two_events_at_once_are_as_two_in_a_row(first: dict[str, Any]) -> None:
    """Bytes of several events are looked through at a glance: none hides behind another."""
    made = call(stream=True)
    for second in DELTAS:
        pair = [chunk(first), chunk(second)]
        assert run([b"".join(pair), DONE], made) == run([*pair, DONE], made)


DOCUMENTS = [
    *({"id": "c", "choices": [{"index": 0, "delta": each, "finish_reason": None}]} for each in DELTAS),
    {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "x_groq": {"usage": USAGE}},
    {"id": "c", "choices": [], "usage": USAGE},
]


@CALM
@given(st.data(), st.sampled_from([1, 2]))
def test_a_mutated_stream_is_decoded_or_refused(data: st.DataObject, n: int) -> None:
    """And nothing else, however odd its fields are; in place of a document, too."""
    chosen = data.draw(st.lists(st.sampled_from(DOCUMENTS), min_size=1, max_size=4))
    parts = [b"data: " + orjson.dumps(mutated(each, data)) + b"\n\n" for each in chosen]
    made = call(document={"messages": [], "n": n}, stream=True, wants_usage=True, pricing=priced)
    run(parts, made)
    run([*parts, DONE], made)
    try:
        decoded = WIRE.response(made, b"".join([*parts, DONE]))
    except ProviderError:
        return
    assert orjson.loads(decoded.body)["choices"]


MESSAGE = {
    "role": "assistant",
    "content": [THINKING, {"type": "text", "text": "so"}],
    "reasoning_details": [{"type": "reasoning.text", "text": "hm"}],
    "tool_calls": [{"id": "", "function": {"name": "f", "arguments": {"a": 1}}}],
}
ANSWER = {"id": "a", "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}], "usage": USAGE}


@CALM
@given(st.data())
def test_a_mutated_answer_is_decoded_or_refused(data: st.DataObject) -> None:
    """The same for an answer in one piece."""
    try:
        decoded = WIRE.response(call(pricing=priced), orjson.dumps(mutated(ANSWER, data)))
    except ProviderError:
        return
    assert isinstance(orjson.loads(decoded.body)["choices"], list)


@CALM
@given(st.data(), st.sampled_from([200, 302, 400, 401, 403, 404, 413, 422, 429, 500, 503]))
def test_a_mutated_refusal_has_a_meaning(data: st.DataObject, status: int) -> None:
    """Whatever stands in it."""
    error = {"error": {"message": "m", "type": "t", "code": "c", "param": "p", "metadata": {"raw": "r"}}}
    body = orjson.dumps(mutated(data.draw(st.sampled_from([error, [error], ANSWER, MESSAGE])), data))
    found = WIRE.error(status, {"retry-after": data.draw(st.text(max_size=5))}, body)
    assert found.message
    assert (found.status, found.retry_after is None or 0 <= found.retry_after <= 3600) == (status, True)


@CALM
@given(st.lists(st.binary(max_size=40), max_size=5))
def test_random_bytes_are_refused(parts: list[bytes]) -> None:
    """Nothing hangs, nothing else is raised, and nothing looks whole."""
    out, error, _ = run(parts, call(stream=True))
    assert error
    assert DONE not in out
    with pytest.raises(ProviderError):
        WIRE.response(call(), b"".join(parts))


@CALM
@given(st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=5), st.data())
def test_a_damaged_stream(damage: list[tuple[int, int]], data: st.DataObject) -> None:
    """It is decoded or refused, the same at any chunking."""
    stream = bytearray(b"".join([*(chunk(each) for each in DELTAS), chunk({}, "stop"), USAGE_CHUNK, DONE]))
    for place, value in damage:
        stream[place % len(stream)] = value
    damaged, size = bytes(stream), data.draw(st.integers(1, 60))
    pieces = [damaged[start : start + size] for start in range(0, len(damaged), size)]
    made = call(stream=True, wants_usage=True, pricing=priced)
    assert run(pieces, made) == run([damaged], made)


@pytest.mark.parametrize("depth", [300, 900, 930, 960, 100_000])
def test_an_answer_that_is_nested_too_deeply_is_an_answer_or_broken(depth: int) -> None:
    """Whatever a JSON library makes of it."""
    deep = b"[" * depth + b"]" * depth
    message = orjson.dumps({**MESSAGE, "x": "DEEP"}).replace(b'"DEEP"', deep)
    run([b'data: {"choices":[{"delta":' + message + b"}]}\n\n", DONE], call(stream=True))
    try:
        WIRE.response(call(), b'{"choices":[{"message":' + message + b"}]}")
    except ProviderError as error:
        assert error.kind is Kind.BROKEN  # noqa: PT017


def run_on(decoder: OpenAIDecoder) -> None:
    for _ in range(1000):
        decoder.feed(b"data: " + b"x" * 100_000)


def test_an_event_without_an_end_is_not_kept_without_end() -> None:
    """What has to be carried over is bounded."""
    decoder = WIRE.stream(call(stream=True))
    with pytest.raises(ProviderError) as caught:
        run_on(decoder)
    assert caught.value.kind is Kind.BROKEN


def test_a_long_stream_in_place_of_a_document_takes_no_time_to_speak_of() -> None:
    """Its time grows with its length and not with the square of it."""
    pieces = [chunk({"content": "word ", "tool_calls": [piece(0, given="12345")]}) for _ in range(20_000)]
    body = b"".join([chunk({"tool_calls": [piece(0, "A", "f", "")]}), *pieces, chunk({}, "stop")])
    started = time.process_time()
    message = orjson.loads(WIRE.response(call(), body).body)["choices"][0]["message"]
    assert (len(message["content"]), len(message["tool_calls"][0]["function"]["arguments"])) == (100_000, 100_000)
    assert time.process_time() - started < 20
