"""One form of an answer, whatever a compatible provider makes of it."""

from typing import Any

import orjson
import pytest

from providers.catalog import catalog
from providers.contract import Call, Kind, ProviderError
from providers.openai import OpenAIWire
from tests.providers.test_openai import DONE, USAGE, WIRE, call, decode, events, priced, sent


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + orjson.dumps({"id": "c", "choices": [choice], **more}) + b"\n\n"


END = chunk({}, "stop")


def deltas(*given: dict[str, Any]) -> list[dict[str, Any]]:
    """What a client gets for these deltas; the same event by event and all at once."""
    chunks = [chunk(each) for each in given]
    out, _ = decode(*chunks, END, DONE)
    assert decode(b"".join([*chunks, END, DONE]))[0] == out
    return [each["choices"][0]["delta"] for each in events(out)][:-1]


def told(message: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = orjson.dumps({"id": "a", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **more})
    found: dict[str, Any] = orjson.loads(WIRE.response(call(), body).body)["choices"][0]["message"]
    return found


# --- reasoning --------------------------------------------------------------------------------------------------

TEXT = {"type": "reasoning.text", "text": "hm"}


@pytest.mark.parametrize(
    "part",
    [
        {"content": "a", "reasoning": "hm"},
        {"content": "a", "reasoning": "hm", "reasoning_content": None},
        {"content": "a", "reasoning": "hm", "reasoning_content": ""},
        {"content": "a", "reasoning_text": "hm"},
        {"content": "a", "reasoning_details": [TEXT, {"type": "reasoning.encrypted", "data": "x"}]},
        {"content": "a", "reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}], "reasoning": None},
    ],
)
def test_reasoning_has_one_name(part: dict[str, Any]) -> None:
    """Whatever its provider calls it, whose own field stays."""
    for found in (told(part), *deltas(part)):
        assert found == {**part, "reasoning_content": "hm"}


@pytest.mark.parametrize(
    "part",
    [
        {"content": "a", "reasoning_content": "hm", "reasoning": "hm"},
        {"content": "a", "reasoning_content": "hm"},
        {"content": "a", "reasoning": None, "reasoning_details": []},
        {"content": "a", "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]},
        {"content": "a", "reasoning": {"effort": "low"}},
    ],
)
def test_nothing_is_done_where_nothing_is_missing(part: dict[str, Any]) -> None:
    """Named already, or not there."""
    for found in (told(part), *deltas(part)):
        assert found == part


def test_a_chunk_that_names_it_passes_as_the_bytes_that_came() -> None:
    """It is not even parsed."""
    decoder = WIRE.stream(call(stream=True))
    for each in (
        {"reasoning_content": "hm"},
        {"content": "a", "reasoning": None},
        {"reasoning": "hm", "reasoning_content": "hm"},
    ):
        data = chunk(each)
        assert decoder.feed(data) is data


THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}]}


def test_content_that_is_a_list() -> None:
    """Mistral's: text and thinking each in their field, all else beside them."""
    other = {"type": "reference", "reference_ids": [1]}
    for found in (
        told({"role": "assistant", "content": [THINKING, {"type": "text", "text": "so"}, other, "!"]}),
        *deltas({"role": "assistant", "content": [THINKING, {"type": "text", "text": "so"}, other, "!"]}),
    ):
        expected = {"role": "assistant", "content": "so!", "reasoning_content": "hm", "content_parts": [other]}
        assert found == expected


def test_thinking_alone_has_no_content() -> None:
    """As OpenAI's answers have none while they think."""
    assert deltas({"content": [THINKING]}) == [{"content": None, "reasoning_content": "hm"}]


@pytest.mark.parametrize("provider", ["groq", "cerebras"])
def test_reasoning_is_given_back_under_its_providers_name(provider: str) -> None:
    """They refuse a message that comes back as it went out."""
    wire = catalog({})[provider].wire
    assert isinstance(wire, OpenAIWire)
    message = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    document = {"messages": [{"role": "user", "content": "x"}, message, {**message, "reasoning": "own"}]}
    _, first, second = sent(call(document=document), wire)["messages"]
    assert first == {"role": "assistant", "content": "a", "reasoning": "hm"}
    assert second == {"role": "assistant", "content": "a", "reasoning": "own"}
    assert "reasoning_content" in message


@pytest.mark.parametrize("content", ["a", [{"type": "text", "text": "a"}]])
def test_mistral_gets_its_thinking_back_as_a_part(content: Any) -> None:
    """It refuses every field that it does not know."""
    wire = catalog({})["mistral"].wire
    assert isinstance(wire, OpenAIWire)
    messages = [{"role": "assistant", "content": content, "reasoning_content": "hm"}]
    made = sent(call(document={"messages": messages, "max_completion_tokens": 5, "seed": 1}), wire)
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    assert made["messages"] == [{"role": "assistant", "content": [thought, {"type": "text", "text": "a"}]}]
    assert (made["max_tokens"], made["random_seed"]) == (5, 1)
    assert not {"max_completion_tokens", "seed"} & made.keys()


def test_others_get_it_as_it_was() -> None:
    """DeepSeek wants it back in a tool loop."""
    document = {"messages": [{"role": "assistant", "content": "a", "reasoning_content": "hm"}]}
    assert sent(call(document=document))["messages"] == document["messages"]


# --- tool calls -------------------------------------------------------------------------------------------------


def piece(index: int | None = 0, identifier: str | None = None, name: str | None = None, given: Any = None) -> Any:
    function = {key: value for key, value in (("name", name), ("arguments", given)) if value is not None}
    found: dict[str, Any] = {"function": function}
    if index is not None:
        found["index"] = index
    if identifier is not None:
        found |= {"id": identifier, "type": "function"}
    return found


def joined(*pieces: Any) -> list[tuple[int, str, str, str]]:
    """Each call as a client joins it: its number, id, name and arguments."""
    calls: dict[int, list[str]] = {}
    for delta in deltas(*({"tool_calls": [each]} for each in pieces)):
        for each in delta["tool_calls"]:
            found = calls.setdefault(each["index"], ["", "", ""])
            found[0] += each.get("id") or ""
            found[1] += each["function"].get("name") or ""
            found[2] += each["function"].get("arguments") or ""
    return [(index, *found) for index, found in sorted(calls.items())]  # type: ignore[misc]


GOOD = [(0, "A", "f", "{}"), (1, "B", "g", "[]")]


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "A", "f", ""), piece(0, given="{"), piece(0, given="}"), piece(1, "B", "g", "[]")],
        [piece(0, "A", "f", "{}"), piece(0, "B", "g", "[]")],
        [piece(0, "A", "f", "{"), piece(0, given="}"), piece(0, "B", "g", "["), piece(0, given="]")],
        [piece(None, "A", "f", "{"), piece(None, given="}"), piece(None, "B", "g", "[]")],
        [piece(0, "A", "f", "{"), piece(0, "X", given="}"), piece(1, "B", "g", "[]")],
        [piece(0, "A", "f", "{}"), piece(1, "B", "g", "[]"), piece(0, given="")],
        [piece(1, "A", "f", "{"), piece(1, given="}"), piece(2, "B", "g", "[]")],
    ],
)
def test_calls_are_numbered_as_they_begin(pieces: list[Any]) -> None:
    """By the provider's numbers, or with one for all, none, a new id for each piece, or numbers that begin at 1."""
    assert joined(*pieces) == GOOD


def test_calls_without_ids_get_some() -> None:
    """Stable ones, each its own: a result has to name its call."""
    pieces = [piece(0, "", "f", "{}"), piece(0, "", "f", "{}")]
    first, second = joined(*pieces)
    assert first[1] != second[1]
    assert first[1].startswith("call_")
    assert joined(*pieces) == [first, second]


def test_pieces_of_well_numbered_calls_pass_as_the_bytes_that_came() -> None:
    """Only the beginning of a call is parsed."""
    decoder = WIRE.stream(call(stream=True))
    decoder.feed(chunk({"tool_calls": [piece(0, "A", "f", "")]}))
    data = chunk({"tool_calls": [piece(0, given='{"name":')]})
    assert decoder.feed(data) is data


def test_a_whole_call_has_all_that_a_call_has() -> None:
    """An id, a type and arguments that are text."""
    (found,) = told({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]})[
        "tool_calls"
    ]
    assert found["id"].startswith("call_")
    assert (found["type"], found["function"]) == ("function", {"name": "f", "arguments": '{"a":1}'})


def test_a_custom_tools_call_is_left_alone() -> None:
    """It has an input in place of arguments."""
    custom = {"id": "A", "type": "custom", "custom": {"name": "sql", "input": "select"}}
    assert told({"content": None, "tool_calls": [custom]})["tool_calls"] == [custom]
    assert deltas({"tool_calls": [{"index": 0, **custom}]})[0]["tool_calls"] == [{"index": 0, **custom}]


def test_a_flood_of_calls_is_broken() -> None:
    """What is kept of them is bounded."""
    decoder = WIRE.stream(call(stream=True))
    flood = b"".join(chunk({"tool_calls": [piece(number, str(number), "f", "")]}) for number in range(2000))
    decoder.feed(flood)
    with pytest.raises(ProviderError) as caught:
        decoder.close()
    assert caught.value.kind is Kind.BROKEN


# --- a stream that nobody asked for -------------------------------------------------------------------------------


def test_a_stream_in_place_of_a_document() -> None:
    """It is put together to the document that it tells."""
    stream = (
        b": ping\n\n"
        + chunk({"role": "assistant", "content": "", "reasoning": "h"}, model="m")
        + chunk({"reasoning": "m"})
        + chunk({"content": "a\n"})
        + chunk({"content": "b", "annotations": [{"type": "x"}]})
        + chunk({"tool_calls": [piece(0, "A", "f", "{")]})
        + chunk({"tool_calls": [piece(0, given="}")]})
        + chunk({"tool_calls": [piece(1, "B", "g", "[]")]}, "tool_calls")
        + b"data: "
        + orjson.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": USAGE})
        + b"\n\n"
        + DONE
    )
    decoded = WIRE.response(call(pricing=priced), stream)
    document = orjson.loads(decoded.body)
    (choice,) = document.pop("choices")
    assert document == {
        "id": "c",
        "model": "m",
        "object": "chat.completion",
        "usage": {**USAGE, "cost": 0.00002},
    }
    calls = choice["message"].pop("tool_calls")
    assert [(each["id"], each["function"]) for each in calls] == [
        ("A", {"name": "f", "arguments": "{}"}),
        ("B", {"name": "g", "arguments": "[]"}),
    ]
    assert all(each.keys() == {"id", "type", "function"} for each in calls)
    assert choice == {
        "index": 0,
        "finish_reason": "tool_calls",
        "message": {
            "role": "assistant",
            "content": "a\nb",
            "reasoning": "hm",
            "reasoning_content": "hm",
            "annotations": [{"type": "x"}],
        },
    }
    assert decoded.usage.output_tokens == 5


@pytest.mark.parametrize("head", [b": PROCESSING\n\n", b"data: ", b"\xef\xbb\xbf\n"])
def test_a_document_among_events(head: bytes) -> None:
    """Whether asked for a stream or not: comments that keep a connection alive may stand before it."""
    message = {"role": "assistant", "content": "a", "tool_calls": [{"id": "A", "function": {"name": "f"}}]}
    message["tool_calls"] += [{"id": "B", "function": {"name": "g"}}]  # type: ignore[operator]
    document = {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USAGE}
    body = head + orjson.dumps(document)
    found = orjson.loads(WIRE.response(call(), body).body)["choices"][0]["message"]
    assert (found["content"], [each["id"] for each in found["tool_calls"]]) == ("a", ["A", "B"])
    if not head.startswith(b"\xef"):
        out, usage = decode(body)
        (told,) = (each["choices"][0]["delta"] for each in events(out))
        assert (told["content"], [each["index"] for each in told["tool_calls"]]) == ("a", [0, 1])
        assert usage.output_tokens == 5


def test_an_error_of_another_form_inside_a_200() -> None:
    """zAI's says its status in `code`."""
    with pytest.raises(ProviderError) as caught:
        WIRE.response(call(), b'{"code":401,"msg":"token expired","success":false}')
    assert (caught.value.kind, caught.value.message) == (Kind.CREDENTIALS, "token expired")


def test_several_choices_and_logprobs_of_a_stream_in_place_of_a_document() -> None:
    """Each choice has its own."""
    made = call(document={"messages": [], "n": 2})
    chunks = []
    for index in (1, 0):
        for word in ("a", "b"):
            choice = {"index": index, "delta": {"content": word}, "logprobs": {"content": [{"token": word}]}}
            chunks.append(b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n")
        chunks.append(b"data: " + orjson.dumps({"choices": [{"index": index, "finish_reason": "stop"}]}) + b"\n\n")
    document = orjson.loads(WIRE.response(made, b"".join(chunks)).body)
    assert [each["index"] for each in document["choices"]] == [0, 1]
    assert all(each["message"]["content"] == "ab" for each in document["choices"])
    assert all(len(each["logprobs"]["content"]) == 2 for each in document["choices"])


def test_a_plain_completion_that_was_streamed() -> None:
    """Its text is put together, too."""
    chunks = [
        b"data: "
        + orjson.dumps({"object": "text_completion", "choices": [{"index": 0, "text": text, "finish_reason": end}]})
        + b"\n\n"
        for text, end in (("a", None), ("b", "stop"))
    ]
    document = orjson.loads(WIRE.response(call(), b"".join(chunks) + DONE).body)
    assert (document["object"], document["choices"][0]["text"]) == ("text_completion", "ab")


@pytest.mark.parametrize("stream", [chunk({"content": "a"}), b"data: x\n\n", DONE, b"event: error\ndata: boom\n\n"])
def test_a_broken_stream_in_place_of_a_document_is_broken(stream: bytes) -> None:
    """It never looks whole."""
    with pytest.raises(ProviderError):
        WIRE.response(Call("m", {}), stream)
