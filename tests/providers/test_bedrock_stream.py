"""The decoder of Bedrock's streams."""

import base64
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from providers.bedrock import BedrockWire
from providers.bedrock.frames import MAX_FRAME_BYTES
from providers.bedrock.stream import MAX_KEPT
from providers.contract import Call, Kind, ProviderError, Usage
from tests.providers.bedrock_frames import (
    REDACTED,
    START,
    TEXT,
    THOUGHT,
    delta,
    end,
    exception,
    frame,
    metadata,
    raw_frame,
    sealed,
    stop,
    tool,
)

WIRE = BedrockWire()
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
DONE = b"data: [DONE]\n\n"


def call(model: str = CLAUDE, **fields: Any) -> Call:
    return Call(model, {"messages": []}, True, wants_usage=True, **fields)


def decode(data: bytes, piece: int = 0, made: Call | None = None) -> tuple[bytes, str]:
    """The canonical stream, and the error that ended it."""
    decoder, out = WIRE.stream(made or call()), b""
    try:
        for start in range(0, len(data), piece or len(data) or 1):
            out += decoder.feed(data[start : start + (piece or len(data))])
        return out + decoder.close(), ""
    except ProviderError as error:
        return out, f"{error.kind}: {error.message}"


def chunks(out: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(each.removeprefix(b"data: ")) for each in out.split(b"\n\n") if each and each != DONE[:-2]]


def deltas(out: bytes) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in chunks(out) for choice in chunk["choices"]]


def joined(out: bytes, name: str) -> str:
    return "".join(each.get(name) or "" for each in deltas(out))


def test_a_text_passes_as_it_grows() -> None:
    """Role, text, finish reason, usage, terminator."""
    out, error = decode(TEXT)
    assert error == ""
    assert deltas(out) == [{"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"}, {}]
    assert [choice["finish_reason"] for chunk in chunks(out) for choice in chunk["choices"]] == [None] * 3 + ["stop"]
    assert chunks(out)[-1]["usage"]["total_tokens"] == 15
    assert out.endswith(DONE)


def test_thinking_comes_with_what_a_next_request_needs() -> None:
    """The signature belongs to the whole thought; what is redacted is kept, too."""
    out, _ = decode(THOUGHT)
    assert joined(out, "reasoning_content") == "Let me think."
    assert [detail for each in deltas(out) for detail in each.get("reasoning_details", [])] == [
        {
            "type": "reasoning.text",
            "text": "Let me think.",
            "signature": "sig",
            "format": "anthropic-claude-v1",
            "index": 0,
        },
        {"type": "reasoning.encrypted", "data": REDACTED, "format": "anthropic-claude-v1", "index": 1},
    ]


def test_tool_calls_have_indexes_of_their_own() -> None:
    """Blocks are counted together there; a call without arguments gets an empty object."""
    out, _ = decode(THOUGHT)
    calls = [call for each in deltas(out) for call in each.get("tool_calls", [])]
    first = {"id": "tooluse_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    second = {"id": "tooluse_2", "type": "function", "function": {"name": "now", "arguments": ""}}
    assert calls == [
        {"index": 0, **first},
        {"index": 0, "function": {"arguments": '{"city":'}},
        {"index": 0, "function": {"arguments": '"Bonn"}'}},
        {"index": 1, **second},
        {"index": 1, "function": {"arguments": "{}"}},
    ]
    assert chunks(out)[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_the_input_contains_what_was_cached() -> None:
    """There the cached tokens are counted beside the input."""
    decoder = WIRE.stream(call())
    decoder.feed(THOUGHT)
    assert decoder.usage == Usage(
        input_tokens=130, cache_read_tokens=100, cache_write_tokens=20, output_tokens=5, source="provider"
    )


def test_usage_is_priced_and_told_only_to_who_asks() -> None:
    """The cost stands in the usage chunk."""
    out, _ = decode(TEXT, made=call(pricing=lambda usage: usage.input_tokens * 1_000_000_000))
    assert chunks(out)[-1]["usage"]["cost"] == 10.0
    quiet, _ = decode(TEXT, made=Call(CLAUDE, {}, True))
    assert all("usage" not in chunk for chunk in chunks(quiet))


def test_interleaved_thinking_is_carried_whole() -> None:
    """Where the order of blocks would be lost, they all come along for the next request."""
    signed = delta(1, reasoningContent={"text": "hm"}) + delta(1, reasoningContent={"signature": "s"}) + stop(1)
    out, _ = decode(START + delta(0, text="a") + stop(0) + signed + delta(2, text="b") + stop(2) + end() + metadata())
    (carried,) = [each["bedrock"]["content"] for each in deltas(out) if "bedrock" in each]
    thought = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}}
    assert carried == [{"text": "a"}, thought, {"text": "b"}]


def test_a_tool_of_the_provider_is_not_the_callers() -> None:
    """Nobody here could answer it."""
    data = (
        START + tool(0, "t", "nova_grounding", type="server_tool_use") + delta(0, toolUse={"input": "{}"}) + stop(0)
    )
    out, _ = decode(data + delta(1, text="x") + stop(1) + end("tool_use") + metadata())
    assert not any("tool_calls" in each for each in deltas(out))
    assert chunks(out)[-2]["choices"][0]["finish_reason"] == "stop"


def result(index: int) -> bytes:
    begun = {"toolUseId": "s1", "type": "interpreter_result", "status": "success"}
    return frame("contentBlockStart", {"contentBlockIndex": index, "start": {"toolResult": begun}})


def test_what_the_providers_tools_did_is_carried() -> None:
    """As it stands in an answer that is not streamed: the next request has to give it back."""
    used = tool(0, "s1", "interpreter", type="server_tool_use") + delta(0, toolUse={"input": '{"a":1}'})
    told = result(1) + delta(1, toolResult=[{"json": {"stdOut": "2"}}]) + delta(1, toolResult=[{"text": "x"}])
    own = tool(2, "t1", "f", type="tool_use") + stop(2)
    out, error = decode(START + used + stop(0) + told + stop(1) + own + end("tool_use") + metadata())
    assert error == ""
    (carried,) = [each["bedrock"]["content"] for each in deltas(out) if "bedrock" in each]
    assert carried == [
        {"toolUse": {"toolUseId": "s1", "name": "interpreter", "type": "server_tool_use", "input": {"a": 1}}},
        {"toolResult": {"toolUseId": "s1", "type": "interpreter_result", "status": "success",
                        "content": [{"json": {"stdOut": "2"}}, {"text": "x"}]}},
        {"toolUse": {"toolUseId": "t1", "name": "f", "type": "tool_use", "input": {}}},
    ]  # fmt: skip
    assert [call["id"] for each in deltas(out) for call in each.get("tool_calls", []) if "id" in call] == ["t1"]
    assert chunks(out)[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_an_empty_text_is_nothing_to_give_back() -> None:
    """Kimi ends with one behind its calls."""
    data = tool(0, "t1", "f") + stop(0) + delta(1, text="") + stop(1) + end("tool_use") + metadata()
    assert not any("bedrock" in each for each in deltas(decode(START + data)[0]))


def test_a_picture_is_told_when_it_is_whole() -> None:
    """Its bytes come in pieces, each of which is base64 by itself."""
    begun = frame("contentBlockStart", {"contentBlockIndex": 0, "start": {"image": {"format": "png"}}})
    pieces = [delta(0, image={"source": {"bytes": base64.b64encode(each).decode()}}) for each in (b"a", b"bc")]
    out, _ = decode(START + begun + b"".join(pieces) + stop(0) + end() + metadata())
    url = f"data:image/png;base64,{base64.b64encode(b'abc').decode()}"
    assert {"images": [{"type": "image_url", "image_url": {"url": url}}]} in deltas(out)


def test_what_is_redacted_may_come_in_pieces() -> None:
    """Joined as bytes: each piece may end in padding."""
    pieces = [base64.b64encode(each).decode() for each in (b"a", b"bc")]
    grown = b"".join([delta(0, reasoningContent={"redactedContent": each}) for each in pieces])
    out, _ = decode(START + grown + stop(0) + delta(1, text="x") + stop(1) + end() + metadata())
    (detail,) = [each for delta in deltas(out) for each in delta.get("reasoning_details", [])]
    assert base64.b64decode(detail["data"]) == b"abc"


def test_cited_web_pages_are_annotations() -> None:
    """Told with the end of the text that cites them."""
    web = {"title": "T", "location": {"web": {"url": "https://a.example"}}}
    data = delta(0, text="It ") + stop(0) + delta(1, citation=web) + delta(1, text="is") + stop(1)
    out, _ = decode(START + data + end() + metadata())
    cited = {"url": "https://a.example", "title": "T", "start_index": 3, "end_index": 5}
    assert {"annotations": [{"type": "url_citation", "url_citation": cited}]} in deltas(out)


def test_what_only_bedrock_says_comes_with_the_end() -> None:
    """Beside the answer, and in its usage."""
    usage = {"inputTokens": 1, "outputTokens": 1, "serverToolUsage": {"n": 1}}
    last = frame("metadata", {"usage": usage, "serviceTier": {"type": "flex"}})
    out, _ = decode(START + delta(0, text="x") + stop(0) + end() + last)
    assert {"serviceTier": {"type": "flex"}} in [each.get("bedrock") for each in chunks(out)]
    assert chunks(out)[-1]["usage"]["server_tool_use"] == {"n": 1}


def test_citations_ride_along() -> None:
    """As they came."""
    out, _ = decode(START + delta(0, text="x") + delta(0, citation={"title": "t"}) + stop(0) + end() + metadata())
    assert {"citations": [{"title": "t"}]} in deltas(out)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("something_new", "stop"),
    ],
)
def test_each_stop_reason_has_its_finish_reason(reason: str, finish: str) -> None:
    """The provider's own stands beside it."""
    out, _ = decode(START + delta(0, text="x") + stop(0) + end(reason) + metadata())
    choice = chunks(out)[-2]["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (finish, reason)


@pytest.mark.parametrize(
    ("name", "kind", "status"),
    [
        ("throttlingException", Kind.RATE_LIMITED, 429),
        ("modelStreamErrorException", Kind.FAILED, 424),
        ("internalServerException", Kind.FAILED, 500),
        ("serviceUnavailableException", Kind.OVERLOADED, 503),
        ("validationException", Kind.REJECTED, 400),
        ("modelTimeoutException", Kind.TIMEOUT, 408),
        ("somethingNewException", Kind.FAILED, 500),
    ],
)
def test_an_exception_ends_the_stream(name: str, kind: Kind, status: int) -> None:
    """What came before it is not lost."""
    decoder = WIRE.stream(call())
    assert b"Hel" in decoder.feed(START + delta(0, text="Hel") + exception(name, {"message": "Please wait"}))
    with pytest.raises(ProviderError) as caught:
        decoder.close()
    assert (caught.value.kind, caught.value.status, caught.value.message) == (kind, status, "Please wait")


def test_an_unmodelled_error_ends_it_too() -> None:
    """It has its words in a header."""
    headers = {":message-type": "error", ":error-code": "InternalError", ":error-message": "Oh no"}
    assert decode(START + raw_frame(headers, b"")) == (decode(START)[0], "failed: Oh no")


def test_too_long_a_prompt_is_told_as_such() -> None:
    """By its words: AWS has no exception of its own for it."""
    _, error = decode(exception("validationException", {"message": "Input is too long for requested model."}))
    assert error.startswith("context_length")


def test_the_original_error_is_told() -> None:
    """Of the model behind Bedrock."""
    _, error = decode(exception("modelStreamErrorException", {"message": "It broke", "originalMessage": "why"}))
    assert error == "failed: It broke (why)"


def test_a_cut_stream_is_whole_only_after_its_stop_reason() -> None:
    """A frame that is not all there says nothing."""
    for length in range(len(TEXT)):
        out, error = decode(TEXT[:length])
        whole = length >= len(TEXT) - len(metadata())
        assert out.endswith(DONE) == whole
        assert bool(error) != whole


def test_a_stream_without_its_last_event_has_no_usage() -> None:
    """The answer is whole; what it used has to be estimated."""
    decoder = WIRE.stream(call())
    decoder.feed(TEXT[: -len(metadata())])
    assert decoder.close() == DONE
    assert decoder.usage.source == "none"


def test_a_wrong_bit_anywhere_breaks_it() -> None:
    """Both checksums are looked at, and nothing of a broken frame is passed on."""
    told = decode(TEXT)[0]
    for place in range(len(TEXT)):
        data = bytearray(TEXT)
        data[place] ^= 1
        out, error = decode(bytes(data))
        assert error.startswith("broken")
        assert told.startswith(out)


def test_a_frame_may_not_be_endless() -> None:
    """A length that nobody would wait for is refused at once."""
    huge = raw_frame({":event-type": "x"}, b" " * MAX_FRAME_BYTES)
    assert "bytes" in decode(huge[:12])[1]


def test_an_answer_may_not_be_endless() -> None:
    """What is kept of it is bounded."""
    large = delta(0, text="x" * 4_000_000)
    _, error = decode(START + large * (MAX_KEPT // 4_000_000 + 1))
    assert error.startswith("broken")


def test_the_beginnings_of_blocks_may_not_be_endless() -> None:
    """They are kept, too."""
    large = {"toolUseId": "t", "name": "x" * 4_000_000}
    begun = [
        frame("contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": large}})
        for index in range(MAX_KEPT // 4_000_000 + 1)
    ]
    assert decode(START + b"".join(begun))[1].startswith("broken")


def test_nothing_is_read_after_the_end() -> None:
    """Whatever follows."""
    decoder = WIRE.stream(call())
    out = decoder.feed(TEXT)
    assert decoder.ended
    assert decoder.feed(b"rubbish") == b""
    assert out
    assert decoder.close().endswith(DONE)
    assert decoder.close() == b""


@pytest.mark.parametrize("data", [TEXT, THOUGHT])
@given(cuts=st.lists(st.integers(0, len(THOUGHT)), max_size=20))
@CALM
def test_it_is_the_same_at_any_chunking(data: bytes, cuts: list[int]) -> None:
    """Byte by byte."""
    decoder, out, last = WIRE.stream(call()), b"", 0
    for place in [*sorted(cuts), len(data)]:
        out += decoder.feed(data[last:place])
        last = max(place, last)
    assert out + decoder.close() == decode(data)[0] == decode(data, 1)[0]


@given(data=st.binary(max_size=300), place=st.integers(0, len(THOUGHT)))
@CALM
def test_any_bytes_are_an_answer_or_an_error(data: bytes, place: int) -> None:
    """Nothing but `ProviderError` is raised."""
    decode(data)
    decode(THOUGHT[:place] + data + THOUGHT[place:], 50)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            [
                "contentBlockIndex", "delta", "start", "toolUse", "text", "reasoningContent", "signature", "usage",
                "redactedContent", "input", "citation", "toolUseId", "name", "stopReason", "inputTokens", "type",
                "toolResult", "image", "source", "bytes", "json", "location", "web", "url", "format",
            ]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip
KINDS = ["messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata", "x"]


@given(events=st.lists(st.tuples(st.sampled_from(KINDS), JSON), max_size=8))
@example(events=[("contentBlockStart", {"contentBlockIndex": {}, "start": {"toolUse": {"name": 1}}})])
@CALM
def test_any_events_are_an_answer_or_an_error(events: list[tuple[str, Any]]) -> None:
    """However they are made, and however they are cut."""
    data = b"".join(frame(kind, payload) for kind, payload in events) + end() + metadata()
    assert decode(data, 1) == decode(data)


@given(head=st.binary(max_size=60), payload=st.binary(max_size=20))
@CALM
def test_any_head_of_a_sound_frame_is_read_or_refused(head: bytes, payload: bytes) -> None:
    """Both checksums fit; what they vouch for may still be anything."""
    decode(sealed(head, payload))
    decode(START + sealed(head, payload) + TEXT, 3)


@given(headers=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3), rubbish=st.binary(max_size=20))
@CALM
def test_any_headers_are_read_or_refused(headers: dict[str, str], rubbish: bytes) -> None:
    """botocore's parser raises many things; we one."""
    decode(raw_frame({name: value for name, value in headers.items() if name.isascii() and value.isascii()}, rubbish))
