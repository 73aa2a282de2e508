"""The codec of server-sent events."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.contract import Kind, ProviderError
from providers.sse import Event, Splitter, event

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def split(*chunks: bytes, limit: int = 1000) -> list[tuple[bytes, bytes]]:
    splitter = Splitter(limit)
    return [tuple(each) for chunk in chunks for each in splitter.feed(chunk)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_each_line_end_of_the_standard_ends_a_line(end: bytes) -> None:
    """LF, CRLF and CR are all line ends."""
    assert split(b"data: a" + end + end + b"data: b" + end + end) == [(b"", b"a"), (b"", b"b")]


def test_a_line_end_cut_in_two_is_one_line_end() -> None:
    """CRLF that arrives as CR and LF ends one line, not two."""
    assert split(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [(b"", b"a\nb")]


def test_lines_of_data_are_joined_with_a_line_feed() -> None:
    """Several data lines are one event."""
    assert split(b"data: a\ndata:b\ndata:  c\n\n") == [(b"", b"a\nb\n c")]


def test_comments_and_other_fields_are_no_data() -> None:
    """A comment, an id, a retry and an unknown field make no event."""
    assert split(b": PROCESSING\n\nid: 1\nretry: 5\nfoo\n\ndata: a\n: inside\n\n") == [(b"", b"a")]


def test_an_event_has_the_name_that_it_was_given() -> None:
    """`event:` names the event."""
    assert split(b"event: error\ndata: {}\n\n") == [(b"error", b"{}")]


def test_a_byte_order_mark_at_the_beginning_is_dropped_however_it_is_cut() -> None:
    """The mark belongs to the encoding, not to the first field."""
    assert split(b"\xef", b"\xbb", b"\xbfdata: a\n\n") == [(b"", b"a")]


def test_an_event_over_the_limit_is_refused_before_it_is_whole() -> None:
    """Memory is bounded: nobody waits for the end of an endless event."""
    with pytest.raises(ProviderError) as caught:
        split(*[b"data: 0123456789"] * 100, limit=100)
    assert caught.value.kind is Kind.BROKEN


def test_events_before_one_over_the_limit_are_given_out() -> None:
    """What was whole before the failure is not lost."""
    splitter = Splitter(20)
    events = splitter.feed(b"data: a\n\ndata: " + b"x" * 50 + b"\n\n")
    assert next(events) == Event(b"", b"a")
    with pytest.raises(ProviderError):
        next(events)


def test_what_follows_the_last_blank_line_can_be_asked_for() -> None:
    """Some providers do not end their last event."""
    splitter = Splitter()
    assert list(splitter.feed(b"data: a\n\ndata: {}")) == [Event(b"", b"a")]
    assert list(splitter.rest()) == [Event(b"", b"{}")]


def test_a_cut_event_is_not_told() -> None:
    """Half of an event must not be taken for the last one."""
    splitter = Splitter()
    assert list(splitter.feed(b'data: {"a": "b')) == []
    assert list(splitter.rest()) == []


@pytest.mark.parametrize("data", [b"data: {}\n\n", b'data: {"a":1}\n\ndata: {"b":2}\n\n'])
def test_whole_json_events_are_plain(data: bytes) -> None:
    """These bytes may pass as they are."""
    assert Splitter().plain(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"data: {}\n",
        b"data: {}\r\n\r\n",
        b"data: {}\n\n\n\n",
        b"data:{}\n\n",
        b"data: [DONE]\n\n",
        b"data: {}\n\ndata: [DONE]\n\n",
        b"data: {}\n\n: comment\n\ndata: {}\n\n",
        b"data: {\ndata: }\n\n",
        b"event: error\ndata: {}\n\n",
    ],
)
def test_anything_else_is_not_plain(data: bytes) -> None:
    """Whatever is not in the canonical form has to be split."""
    assert not Splitter().plain(data)


def test_nothing_is_plain_after_half_an_event() -> None:
    """Bytes that continue an event cannot pass by themselves."""
    splitter = Splitter()
    list(splitter.feed(b"data: x"))
    assert not splitter.plain(b"data: {}\n\n")


def test_data_with_line_ends_is_encoded_as_several_lines() -> None:
    """An encoded event is read back as it was."""
    assert split(event(b"a\nb")) == [(b"", b"a\nb")]


LINES = st.lists(
    st.sampled_from(
        [b"data: a", b"data:b", b"data", b": c", b"event: e", b"", b"", b"id: 1", b"\xef\xbb\xbfdata: z"]
    ),
    max_size=30,
)


@CALM
@given(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.data())
def test_chunking_never_changes_the_events(lines: list[bytes], end: bytes, data: st.DataObject) -> None:
    """The same bytes are the same events, wherever they are cut."""
    stream = end.join(lines) + end
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert split(*pieces) == split(stream)
