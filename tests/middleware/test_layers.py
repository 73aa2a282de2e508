"""What every layer keeps, each alone in front of an application of the test's own."""

import asyncio
import dataclasses
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from middleware.asgi import ASGIApp, Message, Receive, Scope, Send
from middleware.auth import Auth
from middleware.body import Body
from middleware.disconnect import Disconnect
from middleware.errors import Errors
from middleware.exchange import KEY, Exchange
from middleware.keep_alive import KeepAlive
from middleware.metering import Metering
from middleware.metrics import Instruments, Metrics
from middleware.rate_limit import RateLimit
from middleware.request_id import RequestId
from middleware.tally import Tally
from tests.contracts.fakes import FixedLimiter, MemoryKeys, MemoryLedger
from tests.middleware.driving import ACME, SSE, Peer, drive, messages, raising

LAYERS: dict[str, Callable[[ASGIApp], Any]] = {
    "request_id": lambda app: RequestId(app, ContextVar[str]("id").set, lambda exchange, scope: None),
    "metrics": lambda app: Metrics(app, Instruments(Tally())),
    "errors": Errors,
    "keep_alive": lambda app: KeepAlive(app, 60),
    "auth": lambda app: Auth(app, MemoryKeys({"aig_abc_secret": ACME})),
    "rate_limit": lambda app: RateLimit(app, FixedLimiter(), 60),
    "body": lambda app: Body(app, limit=1000, timeout=5),
    "metering": lambda app: Metering(app, MemoryLedger()),
    "disconnect": Disconnect,
}
KEY_HEADER = [(b"authorization", b"Bearer aig_abc_secret")]


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> Callable[[ASGIApp], Any]:
    """Each layer in turn, as something to put in front of an application."""
    return LAYERS[request.param]


class Heard(Exception):
    """What the application of a test raises."""


async def test_lifespan_is_untouched(layer: Callable[[ASGIApp], Any]) -> None:
    """What is no HTTP request goes through with the very same scope, receive and send."""
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([scope, receive, send])

    scope, peer = {"type": "lifespan"}, Peer()
    receive, send = peer.receive, peer.send
    await layer(app)(scope, receive, send)
    assert [id(each) for each in seen] == [id(scope), id(receive), id(send)]
    assert scope == {"type": "lifespan"}


def test_nothing_is_held_on_the_layer(layer: Callable[[ASGIApp], Any]) -> None:
    """A layer is a frozen dataclass with slots: no request can leave anything on it."""
    made = layer(raising(Heard()))
    assert not hasattr(made, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.app = None


async def test_a_stream_passes_message_by_message(layer: Callable[[ASGIApp], Any]) -> None:
    """Each message has left, in its order and with its bytes, when the application's `send` returns."""
    peer = Peer(b"{}")
    stream = messages(b"data: a\n\n", b"", b"data: b\n\n", b"", headers=SSE)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for count, message in enumerate(stream, 1):
            await send(dict(message))
            assert len(peer.sent) == count

    await drive(layer(app), peer, Exchange(caller=ACME), headers=KEY_HEADER)
    assert [message["type"] for message in peer.sent] == [message["type"] for message in stream]
    assert peer.sent[1:] == stream[1:]
    assert set(SSE) <= set(peer.sent[0]["headers"])


async def test_a_message_waits_for_the_client(layer: Callable[[ASGIApp], Any]) -> None:
    """A client that does not read holds the application up: nothing is buffered."""
    reading, sent = asyncio.Event(), 0
    peer = Peer(b"{}")

    async def slow(message: Message) -> None:
        await reading.wait()
        await peer.send(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        for message in messages(b"a", b"b"):
            await send(message)
            sent += 1

    scope = {"type": "http", "method": "POST", "path": "/", "headers": KEY_HEADER, KEY: Exchange(caller=ACME)}
    running = asyncio.create_task(layer(app)(scope, peer.receive, slow))
    for _ in range(20):
        await asyncio.sleep(0)
    assert sent == 0
    reading.set()
    await running
    assert sent == 3


@pytest.mark.parametrize(
    "error", [Heard(), asyncio.CancelledError(), KeyError("x")], ids=lambda error: type(error).__name__
)
async def test_what_the_application_raises_passes(layer: Callable[[ASGIApp], Any], error: BaseException) -> None:
    """An exception reaches whoever stands outside; only the errors layer renders those that are no cancellation."""
    made = layer(raising(error, *messages(b"a", b"b")[:2]))
    if isinstance(made, Errors) and isinstance(error, Exception):
        await drive(made, exchange=Exchange(caller=ACME), headers=KEY_HEADER)
        return
    with pytest.raises(type(error)):
        await drive(made, exchange=Exchange(caller=ACME), headers=KEY_HEADER)


async def test_only_the_exchange_is_put_into_the_scope(layer: Callable[[ASGIApp], Any]) -> None:
    """Nothing but `aigate` is added to the scope, and an exchange that is there stays."""
    exchange = Exchange(caller=ACME)
    inside: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        inside.append(scope)

    await drive(layer(app), exchange=exchange, headers=KEY_HEADER)
    assert inside[0].keys() - {KEY} == {"type", "method", "path", "headers"}
    assert inside[0][KEY] is exchange
