"""A quiet stream that is kept open."""

import asyncio

import pytest

from middleware.asgi import BODY, Message, Receive, Scope, Send
from middleware.keep_alive import COMMENT, KeepAlive
from tests.middleware.driving import SSE, Peer, drive, messages

QUIET = 0.02
"""Seconds after which the streams of these tests are quiet."""


def paced(*steps: Message | float) -> object:
    """An application that sends messages and pauses, in turn."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for step in steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                await send(dict(step))

    return app


def comments(peer: Peer) -> int:
    return sum(message == COMMENT for message in peer.sent)


async def test_a_quiet_stream_gets_comments() -> None:
    """Between head and first event, and between events, something passes."""
    head, event, last = messages(b"data: a\n\n", b"", headers=SSE)
    peer = await drive(KeepAlive(paced(head, 0.1, event, 0.1, last), QUIET))
    at = peer.sent.index(event)
    assert COMMENT in peer.sent[1:at]
    assert COMMENT in peer.sent[at + 1 : -1]
    assert peer.sent[-1] == last


async def test_a_comment_is_one_whole_event_of_sse() -> None:
    """It begins with a colon and ends with an empty line, so that every client ignores it."""
    assert COMMENT["body"].startswith(b":")
    assert COMMENT["body"].endswith(b"\n\n")
    assert COMMENT["more_body"] is True


async def test_a_busy_stream_gets_none() -> None:
    """Where events come often enough nothing is added."""
    head, event, last = messages(b"data: a\n\n", b"", headers=SSE)
    peer = await drive(KeepAlive(paced(head, *[0.01, event] * 10, last), 0.5))
    assert comments(peer) == 0


async def test_only_event_streams_get_any() -> None:
    """A comment inside JSON would break it."""
    head, last = messages(b"{}", headers=[(b"content-type", b"application/json")])
    peer = await drive(KeepAlive(paced(head, 0.1, last), QUIET))
    assert peer.sent == [head, last]


async def test_nothing_before_the_head() -> None:
    """Before the head there is no stream to keep open."""
    head, last = messages(b"", headers=SSE)
    peer = await drive(KeepAlive(paced(0.1, head, last), QUIET))
    assert peer.sent[0] == head


async def test_nothing_inside_an_event() -> None:
    """While an event is only half sent a comment would tear it."""
    head, half, rest, last = messages(b"data: a", b"bc\n\n", b"", headers=SSE)
    peer = await drive(KeepAlive(paced(head, half, 0.1, rest, last), QUIET))
    assert peer.sent == [head, half, rest, last]


async def test_an_empty_message_ends_no_event() -> None:
    """What says nothing leaves the event as it was: half sent."""
    head, half, nothing, rest, last = messages(b"data: a", b"", b"bc\n\n", b"", headers=SSE)
    peer = await drive(KeepAlive(paced(head, half, nothing, 0.1, rest, last), QUIET))
    assert peer.sent == [head, half, nothing, rest, last]


@pytest.mark.parametrize("error", [None, KeyError("x")], ids=["end", "failure"])
async def test_nothing_after_the_end(error: Exception | None) -> None:
    """Once the application has returned or failed nothing is sent any more."""
    head, event, _ = messages(b"data: a\n\n", b"", headers=SSE)
    peer = Peer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(head)
        await send(event)
        if error is not None:
            raise error

    layer = KeepAlive(app, QUIET)
    if error is None:
        await drive(layer, peer)
    else:
        with pytest.raises(KeyError):
            await drive(layer, peer)
    await asyncio.sleep(0.1)
    assert peer.sent == [head, event]


async def test_a_client_that_does_not_read_gets_no_pile_of_comments() -> None:
    """While a message is on its way nothing else is sent."""
    sending = 0
    most = 0

    async def slow(message: Message) -> None:
        nonlocal sending, most
        sending += 1
        most = max(most, sending)
        await asyncio.sleep(0.06)
        sending -= 1

    head, event, last = messages(b"data: a\n\n", b"", headers=SSE)
    layer = KeepAlive(paced(head, 0.05, event, 0.05, last), QUIET)
    await layer({"type": "http", "method": "POST", "path": "/", "headers": []}, Peer().receive, slow)
    assert most == 1


async def test_the_interval_is_kept() -> None:
    """No more comments than intervals of quiet."""
    head, last = messages(b"", headers=SSE)
    peer = await drive(KeepAlive(paced(head, 0.3, last), 0.1))
    assert 1 <= comments(peer) <= 3


async def test_each_comment_is_a_message_of_its_own() -> None:
    """A layer outside may change the message that it is given."""
    head, last = messages(b"", headers=SSE)

    async def send(message: Message) -> None:
        if message["type"] == BODY:
            message["body"] = b"changed"

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await KeepAlive(paced(head, 0.1, last), QUIET)(scope, Peer().receive, send)
    assert COMMENT["body"] == b": keep-alive\n\n"
