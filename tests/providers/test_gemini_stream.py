"""What Gemini's streams become, whole, cut, damaged and in pieces."""

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.contract import Kind, ProviderError, Usage
from tests.providers.test_gemini import WIRE, answer, call, candidate, deltas, error, sse, streamed

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

STREAM = sse(
    answer(candidate({"text": "hm", "thought": True}, finish=None), usageMetadata={"trafficType": "ON_DEMAND"}),
    answer(candidate({"text": "héllo"}), usageMetadata={"promptTokenCount": 10, "totalTokenCount": 10}),
    answer(candidate({"functionCall": {"name": "f", "args": {"a": [1]}}, "thoughtSignature": "S"}, finish=None)),
    answer(candidate({"text": "", "thoughtSignature": "T"})),
)


def test_a_stream() -> None:
    """One finish reason, however often it was said; usage only for who asks."""
    chunks = streamed(STREAM, wants_usage=True)
    told = deltas(chunks)
    assert told[0]["role"] == "assistant"
    assert "".join(each.get("content", "") for each in told) == "héllo"
    assert "".join(each.get("reasoning_content", "") for each in told) == "hm"
    (called,) = (each["tool_calls"][0] for each in told if "tool_calls" in each)
    assert (called["index"], called["function"]) == (0, {"name": "f", "arguments": '{"a":[1]}'})
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]]
    assert reasons == [None, None, None, None, "tool_calls"]
    assert chunks[-1]["usage"]["total_tokens"] == 22
    assert all("usage" not in chunk for chunk in streamed(STREAM))


def test_usage_is_live() -> None:
    """It is what the last chunk said, while the stream runs."""
    decoder = WIRE.stream(call(stream=True))
    usage = decoder.usage
    decoder.feed(sse(answer(candidate({"text": "a"}, finish=None))))
    assert usage == Usage(input_tokens=10, output_tokens=12, reasoning_tokens=7, source="provider")


def test_a_stream_that_breaks_off_while_only_its_prompt_is_counted() -> None:
    """What was told of the answer has to be estimated: it is not free."""
    decoder = WIRE.stream(call(stream=True))
    counted = {"promptTokenCount": 10, "totalTokenCount": 10}
    decoder.feed(sse(answer(candidate({"text": "a"}, finish=None), usageMetadata=counted)))
    assert decoder.usage == Usage(input_tokens=10, source="none")
    decoder.feed(sse(answer(candidate({"text": "b"}, finish=None))))
    assert decoder.usage.source == "provider"


def test_arguments_that_are_streamed() -> None:
    """Values at paths become one JSON text, told when it is whole."""

    def piece(**fields: Any) -> dict[str, Any]:
        return answer(candidate({"functionCall": fields}, finish=None))

    def at(path: str, **value: Any) -> dict[str, Any]:
        return piece(partialArgs=[{"jsonPath": path, **value}], willContinue=True)

    data = sse(
        piece(name="f", willContinue=True),
        at("$.a[0].b", stringValue="x", willContinue=True),
        at("$.a[0].b", stringValue="y"),
        at("$.a[1]['c.d']", numberValue=2),
        at("$.e", boolValue=True),
        at("$.g", nullValue="NULL_VALUE"),
        piece(),
        answer(candidate({"functionCall": {"name": "g", "args": {}}})),
    )
    calls = [each for delta in deltas(streamed(data)) for each in delta.get("tool_calls", ())]
    assert [(each["index"], each["function"]) for each in calls] == [
        (0, {"name": "f", "arguments": ""}),
        (0, {"arguments": '{"a":[{"b":"xy"},{"c.d":2}],"e":true,"g":null}'}),
        (1, {"name": "g", "arguments": "{}"}),
    ]


@pytest.mark.parametrize("path", ["$", "", "$.a[9]", "$x", "$.a.b[0", "$[0]"])
def test_arguments_that_lead_nowhere(path: str) -> None:
    """They are the provider's failure, and cost no memory."""
    part = {"functionCall": {"name": "f", "partialArgs": [{"jsonPath": path, "stringValue": "x"}]}}
    with pytest.raises(ProviderError) as caught:
        streamed(sse(answer(candidate(part))))
    assert caught.value.kind is Kind.BROKEN


def test_several_candidates() -> None:
    """Each has its own deltas and end; the answer is finished when all are."""
    first, second = candidate({"text": "a"}, index=0), candidate({"text": "b"}, index=1, finish=None)
    decoder = WIRE.stream(call(stream=True))
    decoder.feed(sse(answer(first, second)))
    assert not decoder.finished
    decoder.feed(sse(answer(candidate(index=1))))
    assert decoder.finished
    assert decoder.close().count(b'"finish_reason":"stop"') == 2
    assert decoder.close() == b""


@pytest.mark.parametrize("cut", [0, 40, len(STREAM) // 3])
def test_a_cut_stream_never_looks_whole(cut: int) -> None:
    """Without a finish reason it is truncated."""
    decoder = WIRE.stream(call(stream=True))
    decoder.feed(STREAM[:cut])
    with pytest.raises(ProviderError) as caught:
        decoder.close()
    assert caught.value.kind is Kind.BROKEN


def test_an_error_within_a_stream() -> None:
    """What came before it is not lost."""
    decoder = WIRE.stream(call(stream=True))
    good = sse(answer(candidate({"text": "a"}, finish=None)))
    assert b'"content":"a"' in decoder.feed(good + b"data: " + error(503, "Overloaded.") + b"\n\n")
    with pytest.raises(ProviderError) as caught:
        decoder.close()
    assert (caught.value.kind, caught.value.status) == (Kind.OVERLOADED, 503)


def _everything(data: bytes, sizes: list[int]) -> tuple[bytes, str]:
    decoder = WIRE.stream(call(stream=True, wants_usage=True))
    out, start = b"", 0
    try:
        for size in [*sizes, len(data)]:
            out += decoder.feed(data[start : start + size])
            start += size
        return out + decoder.close(), ""
    except ProviderError as failed:
        return out, failed.message


@CALM
@given(st.lists(st.integers(1, 60), max_size=200))
def test_any_chunking(sizes: list[int]) -> None:
    """The same bytes, however the stream is cut into pieces."""
    assert _everything(STREAM, sizes) == _everything(STREAM, [])


NAMES = """candidates content parts text thought functionCall name args partialArgs jsonPath stringValue data error
finishReason index usageMetadata promptTokenCount promptFeedback blockReason inlineData mimeType code details
groundingMetadata logprobsResult responseId"""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=4),
    max_leaves=12,
)


@CALM
@given(st.lists(JSON, max_size=4), st.binary(max_size=30), st.lists(st.integers(1, 30), max_size=20))
def test_any_stream(documents: list[Any], junk: bytes, sizes: list[int]) -> None:
    """Whatever comes is decoded or refused, and nothing else happens."""
    dumped = [orjson.dumps(each, default=str) if _fits(each) else b"x" for each in documents]
    data = b"".join(b"data: " + each + b"\n\n" for each in dumped) + junk
    assert _everything(data, sizes) == _everything(data, [])
    for body in (*dumped, junk):
        WIRE.error(400, {}, body)
        try:
            WIRE.response(call(), body)
        except ProviderError:
            continue


@CALM
@given(st.lists(st.tuples(st.integers(0, len(STREAM) - 1), st.integers(0, 255)), max_size=5))
def test_a_damaged_stream(damage: list[tuple[int, int]]) -> None:
    """It is decoded or refused, the same at any chunking."""
    data = bytearray(STREAM)
    for place, value in damage:
        data[place] = value
    assert _everything(bytes(data), [7] * (len(data) // 7)) == _everything(bytes(data), [])


def _fits(value: Any) -> bool:
    try:
        return bool(orjson.dumps(value))
    except TypeError:
        return False
