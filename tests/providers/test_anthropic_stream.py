"""What Claude answers in a stream, in OpenAI's words."""

from typing import Any

import pytest

from providers.anthropic.stream import AnthropicDecoder
from providers.contract import Kind, ProviderError
from tests.providers.anthropic_answers import (
    BY_TOOL,
    CITATION,
    DONE,
    FOUND,
    HIDDEN,
    READ,
    SEARCH,
    START,
    STOP,
    THOUGHT,
    TOLD,
    USAGE,
    USE,
    WIRE,
    block,
    call,
    choice,
    chunks,
    decode,
    delta,
    gathered,
    priced,
    sse,
    stream_of,
    streamed,
    text,
)


@pytest.mark.parametrize(
    ("blocks", "stop"),
    [
        ([text("Hello")], "end_turn"),
        ([THOUGHT, text("So"), USE, {**USE, "id": "toolu_2", "input": {}}], "tool_use"),
        ([HIDDEN, THOUGHT, USE], "tool_use"),
        ([THOUGHT, SEARCH, FOUND, text("It "), text("is", citations=[CITATION])], "end_turn"),
        ([text("a"), THOUGHT, text("b")], "max_tokens"),
    ],
)
def test_a_stream_tells_what_the_whole_answer_tells(blocks: list[dict[str, Any]], stop: str) -> None:
    """A client puts the same message together from it."""
    out, usage = decode(stream_of(blocks, stop))
    found, expected = gathered(out), choice(*blocks, stop=stop)
    for piece in found["message"].get("tool_calls", ()):
        piece.pop("index")
    found["message"]["content"] = found["message"]["content"] or expected["message"]["content"]
    assert found == expected
    assert usage == READ


def test_text_is_passed_on_piece_by_piece() -> None:
    """With the provider's id and model on each chunk."""
    decoder = WIRE.stream(call(stream=True))
    (first,) = chunks(decoder.feed(START))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    (second,) = chunks(decoder.feed(block(0, text(""), {"type": "text_delta", "text": "Hi"}, closed=False)))
    assert second["choices"][0] == {"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}
    assert (second["id"], second["model"], second["object"]) == ("msg_1", "claude-x", "chat.completion.chunk")


def test_a_call_without_arguments_has_an_empty_object() -> None:
    """Clients parse what they were sent."""
    out, _ = decode(START, block(0, {**USE, "input": {}}), block(1, USE), delta("tool_use"), STOP)
    calls = gathered(out)["message"]["tool_calls"]
    assert [each["function"]["arguments"] for each in calls] == ["{}", '{"town":"Ulm"}']


@pytest.mark.parametrize("wants", [True, False])
def test_usage_comes_last_and_only_to_who_asked(wants: bool) -> None:
    """With its cost, on a chunk without choices."""
    out, usage = decode(stream_of([text("x")]), made=call(stream=True, wants_usage=wants, pricing=priced))
    last = chunks(out)[-1]
    assert usage == READ
    assert out.endswith(DONE)
    if wants:
        assert (last["choices"], last["usage"]) == ([], {**TOLD, "cost": 0.000031})
    assert any("usage" in chunk for chunk in chunks(out)) is wants


def test_later_counts_replace_earlier_ones() -> None:
    """They are cumulative; what is not said again stands."""
    later = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"input_tokens": 30, "output_tokens": 9},
    }
    _, usage = decode(START, sse(later), STOP)
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (37, 5, 9)


def test_what_was_sampled_beside_the_answer_is_counted_once() -> None:
    """However often the usage is told."""
    beside = [{"type": "compaction", "input_tokens": 100, "output_tokens": 80}]
    usage = {"input_tokens": 10, "output_tokens": 7, "iterations": beside}
    last = sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage})
    read = decode(START, streamed(0, text("x")), last, last, STOP)[1]
    assert (read.input_tokens, read.output_tokens) == (117, 87)


def test_the_usage_of_a_stream_that_breaks_is_not_the_providers() -> None:
    """What it had counted at the start is no bill: it is to be estimated."""
    decoder = WIRE.stream(call(stream=True))
    decoder.feed(START + block(0, text(""), {"type": "text_delta", "text": "Hi"}))
    assert (decoder.usage.source, decoder.usage.input_tokens) == ("none", 17)


def test_an_answer_by_tool_is_streamed_as_content() -> None:
    """Its arguments are the text."""
    made = call("claude-3-5-haiku", document=BY_TOOL, stream=True)
    out, _ = decode(stream_of([{**USE, "name": "answer_in_json"}], "tool_use"), made=made)
    found = gathered(out)
    assert found["message"] == {"role": "assistant", "content": '{"town":"Ulm"}'}
    assert found["finish_reason"] == "stop"


def test_arguments_that_were_cut_are_passed_on_and_not_carried() -> None:
    """Nobody can give them back."""
    cut = block(1, {**USE, "input": {}}, {"type": "input_json_delta", "partial_json": '{"a'})
    out, _ = decode(START, streamed(0, SEARCH), cut, delta("max_tokens"), STOP)
    found = gathered(out)
    assert found["finish_reason"] == "length"
    assert found["message"]["tool_calls"][0]["function"]["arguments"] == '{"a'
    assert "anthropic" not in found["message"]


def test_a_refusal_in_a_stream_says_why() -> None:
    """It may come after some of the answer, or before all of it."""
    details = {"type": "refusal", "explanation": "No."}
    found = gathered(decode(START, delta("refusal", stop_details=details), STOP)[0])
    assert (found["finish_reason"], found["message"]["refusal"]) == ("content_filter", "No.")


def test_what_is_not_known_yet_is_left_out() -> None:
    """New events, blocks and deltas are announced to come."""
    odd = sse({"type": "news"}) + block(0, {"type": "novel"}, {"type": "novel_delta", "x": 1})
    found = gathered(decode(START, odd, streamed(1, text("x")), delta(), STOP)[0])
    assert found["message"]["content"] == "x"
    assert found["message"]["anthropic"]["content"][0] == {"type": "novel", "x": 1}


def test_a_novel_block_grows_by_deltas_that_are_as_novel() -> None:
    """It has to be given back whole: a summary of what was compacted comes so."""
    begun = {"type": "compaction", "content": None}
    grown = [{"type": "compaction_delta", "content": each, "sealed": {"n": 1}} for each in ("Sum", "mary")]
    found = gathered(decode(START, block(0, begun, *grown), streamed(1, text("x")), delta("compaction"), STOP)[0])
    summary = {"type": "compaction", "content": "Summary", "sealed": {"n": 1}}
    assert found["message"]["anthropic"]["content"] == [summary, text("x")]
    assert found["finish_reason"] == "stop"


def test_a_known_block_takes_no_novel_delta() -> None:
    """What is given back of it must be what the API knows."""
    parts = [
        block(0, text(""), {"type": "text_delta", "text": "x"}, {"type": "novel_delta", "ms": 1}),
        streamed(1, SEARCH),
    ]
    found = gathered(decode(START, *parts, delta(), STOP)[0])
    assert found["message"]["anthropic"]["content"] == [text("x"), SEARCH]


def test_an_answer_may_begin_with_what_is_there_already() -> None:
    """Blocks in its first event, and the stop reason, too: code that ran on calls a tool at once."""
    blocks = [FOUND, text("x"), {**USE, "caller": {"type": "code_execution_20250825", "tool_id": "s"}}]
    message = {"id": "m", "content": blocks, "stop_reason": "tool_use", "container": {"id": "c_1"}, "usage": USAGE}
    out, usage = decode(sse({"type": "message_start", "message": message}), STOP)
    assert (usage.output_tokens, usage.source) == (7, "provider")
    found = gathered(out)
    assert (found["message"]["content"], found["finish_reason"]) == ("x", "tool_calls")
    assert found["message"]["tool_calls"][0]["function"]["arguments"] == '{"town":"Ulm"}'
    assert found["message"]["anthropic"]["content"] == blocks
    assert {"container": {"id": "c_1"}} in [each.get("anthropic") for each in chunks(out)]


def test_what_follows_blocks_that_were_there_has_indexes_of_its_own() -> None:
    """They are counted from 0."""
    start = sse({"type": "message_start", "message": {"content": [text("a")]}})
    assert gathered(decode(start, streamed(0, text("b")), delta(), STOP)[0])["message"]["content"] == "ab"


def test_an_answer_that_begins_twice_begins_once() -> None:
    """Some proxies repeat the first event."""
    again = START.replace(b'"input_tokens":10', b'"input_tokens":99')
    out, usage = decode(START, again, streamed(0, text("x")), delta(), STOP)
    assert [each for chunk in chunks(out) for each in chunk["choices"] if "role" in each["delta"]][1:] == []
    assert (gathered(out)["message"]["content"], usage.input_tokens, usage.output_tokens) == ("x", 17, 7)


def test_what_the_provider_says_beside_the_answer_comes_at_its_end() -> None:
    """A container is needed for the next request; what was edited away, the caller has asked for."""
    edits = {"applied_edits": [{"type": "clear_tool_uses_20250919", "cleared_tool_uses": 1}]}
    end = {"stop_reason": "stop_sequence", "stop_sequence": "END", "container": {"id": "c_2"}}
    last = sse({"type": "message_delta", "delta": end, "usage": {"output_tokens": 1}, "context_management": edits})
    out, _ = decode(START, streamed(0, text("x")), last, STOP)
    (told,) = [each["anthropic"] for each in chunks(out) if "anthropic" in each]
    assert told == {"container": {"id": "c_2"}, "context_management": edits, "stop_sequence": "END"}


def test_the_usage_keeps_what_the_first_event_alone_says() -> None:
    """For how long was cached stands there, and nowhere else."""
    cached = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 2}
    start = sse({"type": "message_start", "message": {"usage": {**USAGE, "cache_creation": cached}}})
    usage = {"output_tokens": 7, "server_tool_use": {"web_search_requests": 1}, "iterations": [{"type": "message"}]}
    last = sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage})
    told = chunks(decode(start, streamed(0, text("x")), last, STOP)[0])[-1]["usage"]
    assert told["cache_creation"] == cached
    assert told["server_tool_use"] == {"web_search_requests": 1}
    assert told["iterations"] == [{"type": "message"}]


def test_after_the_terminator_nothing_counts() -> None:
    """Whether or not the provider hangs up."""
    decoder = WIRE.stream(call(stream=True))
    decoder.feed(stream_of([text("x")]))
    assert decoder.ended
    assert decoder.feed(START) == b""
    assert decoder.close().endswith(DONE)
    assert decoder.close() == b""


@pytest.mark.parametrize(
    "cut", [b"", START, START + streamed(0, text("x")), START + delta(None), START + delta()[:-9]]
)
def test_a_stream_without_an_end_is_truncated(cut: bytes) -> None:
    """A broken answer never looks whole."""
    with pytest.raises(ProviderError) as caught:
        decode(cut)
    assert caught.value.kind is Kind.BROKEN
    assert "truncated" in caught.value.message


@pytest.mark.parametrize("end", [delta(), STOP, delta()[:-2], b"data: [DONE]\n\n"])
def test_a_stop_reason_or_the_terminator_is_an_end(end: bytes) -> None:
    """Even without its blank line."""
    out, _ = decode(START, streamed(0, text("x")), end)
    assert gathered(out)["finish_reason"] == "stop"
    assert out.endswith(DONE)


@pytest.mark.parametrize(
    ("kind", "meaning"),
    [
        ("overloaded_error", Kind.OVERLOADED),
        ("rate_limit_error", Kind.RATE_LIMITED),
        ("api_error", Kind.FAILED),
        ("timeout_error", Kind.TIMEOUT),
        ("billing_error", Kind.QUOTA),
        ("authentication_error", Kind.CREDENTIALS),
        ("invalid_request_error", Kind.REJECTED),
    ],
)
def test_an_error_in_a_stream_is_raised_after_what_came_before_it(kind: str, meaning: Kind) -> None:
    """The good bytes are given out, then the next call raises."""
    decoder = WIRE.stream(call(stream=True))
    good = START + block(0, text(""), {"type": "text_delta", "text": "x"}, closed=False)
    out = decoder.feed(good + sse({"type": "error", "error": {"type": kind, "message": "boom"}}) + delta())
    assert gathered(out)["message"]["content"] == "x"
    for again in (lambda: decoder.feed(b""), decoder.close):
        with pytest.raises(ProviderError, match="boom") as caught:
            again()
        assert caught.value.kind is meaning


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {broken}\n\n",
        b"data: 5\n\n",
        block(0, text("")) + block(0, text("")),
        sse({"type": "content_block_delta", "index": 3, "delta": {}}),
        sse({"type": "content_block_stop", "index": None}),
    ],
)
def test_what_cannot_be_understood_is_broken(bad: bytes) -> None:
    """It is not passed on as if it were."""
    with pytest.raises(ProviderError) as caught:
        decode(START, bad, delta(), STOP)
    assert caught.value.kind is Kind.BROKEN


def test_what_is_kept_of_an_answer_is_bounded() -> None:
    """A provider that never ends costs a stated amount of memory."""
    decoder = AnthropicDecoder(call(stream=True), most_kept=3000)
    pieces = [{"type": "text_delta", "text": "x" * 500}] * 9
    decoder.feed(START + block(0, text(""), *pieces))
    with pytest.raises(ProviderError, match="longer than 3000"):
        decoder.close()
