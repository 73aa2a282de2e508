"""The body, read once and bounded."""

import asyncio
import json
import types
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from middleware.asgi import Message, Receive, Scope, Send
from middleware.body import UNAMBIGUOUS, Body, parse_object
from middleware.exchange import Exchange
from middleware.faults import BodyTimeout, BodyTooLarge, ClientDisconnected, MalformedBody, UnsupportedEncoding
from tests.middleware.driving import CountingLoop, Peer, answering, drive, scope_of


def layer(limit: int = 100, timeout: float = 5) -> Body:
    return Body(answering(b"a"), limit=limit, timeout=timeout)


async def test_parts_become_one_body() -> None:
    """Whatever the parts, the exchange has the whole body and what it says."""
    exchange = Exchange()
    await drive(layer(), Peer(b'{"mod', b"", b'el": "x"}'), exchange)
    assert exchange.body == b'{"model": "x"}'
    assert exchange.document == {"model": "x"}


async def test_a_get_has_no_document() -> None:
    """Only what a POST says is parsed."""
    exchange = Exchange()
    await drive(layer(), Peer(b""), exchange, method="GET")
    assert exchange.document == {}


async def test_afterwards_only_the_disconnect_is_left() -> None:
    """Further in, `receive` has nothing to say but that the client has gone."""
    heard = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append(await receive())

    peer = Peer(b"{}")
    peer.hang_up()
    await drive(Body(app, limit=100, timeout=5), peer)
    assert heard == [{"type": "http.disconnect"}]


async def test_exactly_the_limit_passes() -> None:
    """The limit is the largest body that is taken."""
    assert (await drive(layer(limit=8), Peer(b'{"a": 1}'))).body == b"a"


async def test_too_long_by_its_header() -> None:
    """A body that says it is too long is refused unread."""
    peer = Peer(b"{}")
    with pytest.raises(BodyTooLarge):
        await drive(layer(limit=8), peer, headers=[(b"content-length", b"9")])
    assert peer.asked == 0


async def test_too_long_while_reading() -> None:
    """A body that only turns out too long is refused at that part, not at its end."""
    peer = Peer(b"{    ", b"    ", b"   }")
    with pytest.raises(BodyTooLarge):
        await drive(layer(limit=8), peer, headers=[(b"content-length", b"not a number")])
    assert peer.asked == 2


async def test_a_body_that_does_not_arrive() -> None:
    """It is given up after the time-out, and so is the connection."""
    with pytest.raises(BodyTimeout) as refused:
        await drive(layer(timeout=0.01), Peer())
    assert refused.value.headers == {"connection": "close"}


async def test_the_rest_of_a_body_that_does_not_arrive() -> None:
    """Nor may it stop in the middle; who reads it is told to stop."""
    ends: list[str] = []

    async def receive() -> Message:
        if ends:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise
        ends.append("first")
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"{", "more_body": True}

    with pytest.raises(BodyTimeout):
        await layer(timeout=0.01)(scope_of(), receive, Peer().send)
    assert ends == ["first", "cancelled"]


@pytest.mark.parametrize(("parts", "timers"), [((b'{"a":', b" 1}"), 0), ((), 1)], ids=["there", "awaited"])
def test_a_body_that_is_there_takes_no_timer(parts: tuple[bytes, ...], timers: int) -> None:
    """A timer costs more than to take what has come with the head."""
    loop = CountingLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner, suppress(BodyTimeout):
        runner.run(drive(layer(timeout=0.01), Peer(*parts)))
    assert loop.timers == timers


async def test_a_cancellation_while_the_body_is_awaited() -> None:
    """A shutdown is no time-out."""
    running = asyncio.create_task(drive(layer(), Peer()))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_failure_of_who_reads_passes() -> None:
    """At once or later."""

    async def broken() -> Message:
        raise OSError

    async def broken_later() -> Message:
        await asyncio.sleep(0)
        raise OSError

    for receive in (broken, broken_later):
        with pytest.raises(OSError):
            await layer()(scope_of(), receive, Peer().send)


PART: Message = {"type": "http.request", "body": b"{}", "more_body": False}


@types.coroutine
def old_coroutine() -> Generator[None, None, Message]:
    yield
    return PART


async def future() -> Message:
    return PART


class Stepped:
    """Waits by an iterator that has no method but the one that each has."""

    def __init__(self) -> None:
        self._left = iter([None])

    def __await__(self) -> Iterator[None]:
        return self

    def __iter__(self) -> Iterator[None]:
        return self

    def __next__(self) -> None:
        for each in self._left:
            return each
        raise StopIteration(PART)


@pytest.mark.parametrize("receive", [old_coroutine, lambda: asyncio.ensure_future(future()), Stepped])
async def test_whatever_can_be_awaited(receive: Callable[[], Awaitable[Message]]) -> None:
    """ASGI asks for no more of `receive`."""
    exchange = Exchange()
    await layer()(scope_of(exchange), receive, Peer().send)
    assert exchange.body == b"{}"


async def test_the_timeout_is_the_bodys_alone() -> None:
    """An answer may take longer than the body."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05)
        await answering(b"a")(scope, receive, send)

    assert (await drive(Body(app, limit=100, timeout=0.02))).body == b"a"


async def test_a_client_that_leaves_before_its_body() -> None:
    """There is nobody left to answer."""
    peer = Peer()
    peer.hang_up()
    with pytest.raises(ClientDisconnected):
        await drive(layer(), peer)


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"deflate, gzip", b"aws-chunked"])
async def test_compressed_bodies_are_refused(encoding: bytes) -> None:
    """A small body that unpacks to a large one would pass the bound."""
    with pytest.raises(UnsupportedEncoding):
        await drive(layer(), headers=[(b"content-encoding", encoding)])


@pytest.mark.parametrize("encoding", [b"", b"identity", b" Identity "])
async def test_no_encoding_by_name(encoding: bytes) -> None:
    """`identity` is no encoding."""
    assert (await drive(layer(), headers=[(b"content-encoding", encoding)])).body == b"a"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"{", b"[]", b'"x"', b"1", b"1.5", b"null", b"true"),
        *(b"{'a': 1}", b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1} x', b'{"a": "\xff"}', b'{"a": 1,}'),
        *(b"\xef\xbb\xbf{}", b'{"a":' * 2000 + b"1" + b"}" * 2000),
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    """The caller learns it as its own mistake, whatever the bytes."""
    with pytest.raises(MalformedBody):
        parse_object(body)


@pytest.mark.parametrize("name", UNAMBIGUOUS)
def test_a_field_that_costs_money_stands_once(name: str) -> None:
    """Given twice, two readers of the same body would disagree on what was ordered."""
    with pytest.raises(MalformedBody, match=name):
        parse_object(f'{{"{name}": 1, "{name}": 2}}'.encode())


def test_a_field_that_is_repeated_in_disguise() -> None:
    """An escaped letter does not hide that the name is the same."""
    with pytest.raises(MalformedBody):
        parse_object(rb'{"model": "cheap", "mod\u0065l": "dear"}')


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "x", "metadata": {"model": "y"}}',
        b'{"a": "\\"model\\" \\"model\\"", "model": 1}',
        b'{"user": 1, "user": 2}',
    ],
)
def test_other_repetitions_pass(body: bytes) -> None:
    """A name inside another object or a text, or a field without a price, is nobody's loss."""
    assert parse_object(body) == json.loads(body)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text(), st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(), st.lists)
    )
)
def test_every_object_is_read_as_the_standard_library_reads_it(document: dict[str, object]) -> None:
    """A document survives the way through JSON."""
    body = json.dumps(document).encode("utf-8", "surrogatepass")
    assert parse_object(body) == json.loads(body)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_mistake(body: bytes) -> None:
    """No input has another outcome."""
    with suppress(MalformedBody):
        assert isinstance(parse_object(body), dict)
