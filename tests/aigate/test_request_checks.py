"""What a chat completion request must be before money is spent on it."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aigate.request_checks import check_chat as check
from aigate.request_checks import wants_usage
from middleware.faults import CallerFault

HELLO = {"role": "user", "content": "Hello"}
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
NAMES = st.sampled_from(["role", "content", "type", "text"]) | st.text(max_size=4)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)


@pytest.mark.parametrize(
    "message",
    [
        HELLO,
        {"role": "user", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "user", "content": [{"type": "made_up", "deep": [1]}]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "assistant"},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
        {"role": "made_up", "content": "Hello", "unknown": 1},
    ],
    ids=repr,
)
def test_messages_that_pass(message: dict[str, Any]) -> None:
    """Only the shape on which all providers agree is looked at."""
    check({"messages": [message]})


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        (None, "messages"),
        ([], "messages"),
        ("Hello", "messages"),
        ({"role": "user"}, "messages"),
        (["Hello"], "messages[0]"),
        ([HELLO, None], "messages[1]"),
        ([{"content": "Hello"}], "messages[0].role"),
        ([{"role": "", "content": "Hello"}], "messages[0].role"),
        ([{"role": 1, "content": "Hello"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "system", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": 1}], "messages[0].content"),
        ([{"role": "user", "content": {"type": "text"}}], "messages[0].content"),
        ([{"role": "user", "content": [{"text": "Hello"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}, 1]}], "messages[0].content[1]"),
        ([{"role": "user", "content": [{"type": None}]}], "messages[0].content[0]"),
    ],
    ids=repr,
)
def test_messages_that_are_refused(messages: object, place: str) -> None:
    """The refusal names the place."""
    with pytest.raises(CallerFault) as refused:
        check({"messages": messages})
    assert refused.value.param == place
    assert place in refused.value.message


def test_no_messages_at_all() -> None:
    """A request without the field is refused as one without messages."""
    with pytest.raises(CallerFault) as refused:
        check({"model": "echo:echo"})
    assert refused.value.param == "messages"


@pytest.mark.parametrize("stream", [0, 1, "true", [], {}], ids=repr)
def test_a_stream_that_is_neither_true_nor_false(stream: object) -> None:
    """Readers would disagree on what was ordered."""
    with pytest.raises(CallerFault) as refused:
        check({"messages": [HELLO], "stream": stream})
    assert refused.value.param == "stream"


@pytest.mark.parametrize("options", [1, "usage", [], True], ids=repr)
def test_stream_options_that_are_no_object(options: object) -> None:
    """Refused, naming the field."""
    with pytest.raises(CallerFault) as refused:
        check({"messages": [HELLO], "stream_options": options})
    assert refused.value.param == "stream_options"


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_messages(messages: object) -> None:
    """Whatever JSON stands there, it is accepted or the caller's mistake."""
    with suppress(CallerFault):
        check({"messages": messages})


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["role", "content", "name"]), JSON), JSON, JSON)
def test_any_message(message: object, stream: object, options: object) -> None:
    """The same for what only nearly is a request."""
    with suppress(CallerFault):
        check({"messages": [message], "stream": stream, "stream_options": options})


@pytest.mark.parametrize(
    ("options", "wanted"),
    [(None, False), ({}, False), ({"include_usage": True}, True), ({"include_usage": 1}, False), ([], False)],
    ids=repr,
)
def test_whether_usage_is_wanted(options: object, wanted: bool) -> None:
    """Only who says so exactly gets the usage chunk."""
    assert wants_usage({"stream_options": options}) is wanted
