"""The helpers that every layer needs."""

import pytest

from middleware.asgi import BODY, START, adding_headers, header, is_last
from tests.middleware.driving import Peer, messages, scope_of


def test_header_is_the_first_of_its_name() -> None:
    """Of several headers of one name the first counts."""
    scope = scope_of(headers=[(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])
    assert header(scope, b"a") == b"1"


def test_header_that_is_missing() -> None:
    """A header that was not sent is `None`, not empty."""
    assert header(scope_of(), b"a") is None


@pytest.mark.parametrize(
    ("message", "last"),
    [
        ({"type": START, "status": 200}, False),
        ({"type": BODY, "body": b"", "more_body": True}, False),
        ({"type": BODY, "body": b"", "more_body": False}, True),
        ({"type": BODY}, True),
    ],
)
def test_is_last(message: dict[str, object], last: bool) -> None:
    """The message that ends an answer is a body message without more to come, said or not."""
    assert is_last(message) is last


async def test_headers_are_added_to_the_head_only() -> None:
    """The head gains the headers after its own; bodies pass as they are."""
    peer = Peer()
    send = adding_headers(peer.send, lambda: [(b"x-added", b"1")])
    for message in messages(b"a", headers=[(b"own", b"0")]):
        await send(message)
    assert peer.sent == messages(b"a", headers=[(b"own", b"0"), (b"x-added", b"1")])


async def test_headers_are_asked_for_when_the_head_leaves() -> None:
    """What the headers say may become known as late as that."""
    peer, value = Peer(), b"early"
    send = adding_headers(peer.send, lambda: [(b"x-added", value)])
    value = b"late"
    await send(messages()[0])
    assert peer.headers == {b"x-added": b"late"}


async def test_a_head_without_headers() -> None:
    """ASGI lets a head have none."""
    peer = Peer()
    await adding_headers(peer.send, lambda: [(b"a", b"1")])({"type": START, "status": 204})
    assert peer.headers == {b"a": b"1"}
