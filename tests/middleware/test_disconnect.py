"""What happens when the client leaves."""

import asyncio
import time
from collections.abc import Awaitable

import pytest

from middleware.asgi import ASGIApp, Message, Receive, Scope, Send
from middleware.disconnect import NOTICED_AFTER, Disconnect
from middleware.exchange import Exchange, Outcome, exchange_of
from middleware.faults import ClientDisconnected
from tests.middleware.driving import TARGET, CountingLoop, Peer, answering, drive, messages, scope_of

DRAINING = TARGET._replace(drain=True)


async def turns(count: int = 5) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


def waiting(ends: list[str], *, seconds: float | None = None) -> ASGIApp:
    """An application that begins an answer, and then waits for its provider."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        head, *_, last = messages(b"a", b"b")
        await send(head)
        try:
            await (asyncio.Event().wait() if seconds is None else asyncio.sleep(seconds))
            await send(last)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        ends.append("finished")

    return app


async def test_a_disconnect_cancels_the_application() -> None:
    """The handler is stopped, and those outside learn why."""
    ends: list[str] = []
    peer, exchange = Peer(), Exchange()
    running = asyncio.create_task(drive(Disconnect(waiting(ends)), peer, exchange))
    await turns()
    peer.hang_up()
    with pytest.raises(ClientDisconnected):
        await running
    assert ends == ["cancelled"]
    assert exchange.outcome == Outcome.CLIENT_DISCONNECT


async def test_a_disconnect_leaves_no_cancellation_behind() -> None:
    """Those outside can go on awaiting: the task is not cancelled any more."""
    peer = Peer()
    counts = []

    async def outside() -> None:
        with pytest.raises(ClientDisconnected):
            await drive(Disconnect(waiting([])), peer)
        task = asyncio.current_task()
        assert task is not None
        counts.append(task.cancelling())
        await asyncio.sleep(0)

    running = asyncio.create_task(outside())
    await turns()
    peer.hang_up()
    await running
    assert counts == [0]


async def test_a_cancellation_from_outside_passes() -> None:
    """A shutdown is no disconnect."""
    ends: list[str] = []
    exchange = Exchange()
    running = asyncio.create_task(drive(Disconnect(waiting(ends)), Peer(), exchange))
    await turns()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ends == ["cancelled"]
    assert exchange.outcome is None


async def test_both_at_once_is_a_cancellation() -> None:
    """Who is shut down while its client leaves is shut down."""
    peer = Peer()
    running = asyncio.create_task(drive(Disconnect(waiting([])), peer))
    await turns()

    async def hang_up_then_cancel() -> None:
        peer.hang_up()
        await asyncio.sleep(0)
        running.cancel()

    await asyncio.create_task(hang_up_then_cancel())
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_end_is_not_disturbed() -> None:
    """Once the last message is on its way, whoever leaves changes nothing."""
    peer, released, exchange = Peer(), asyncio.Event(), Exchange()

    async def send(message: Message) -> None:
        if not message.get("more_body", True):
            peer.hang_up()
            await turns()
            await released.wait()
        await peer.send(message)

    running = asyncio.create_task(Disconnect(answering(b"a", b"b"))(scope_of(exchange), peer.receive, send))
    await turns(20)
    released.set()
    await running
    assert peer.sent == messages(b"a", b"b")
    assert exchange.outcome is None


async def test_the_flagged_end_is_not_disturbed() -> None:
    """The same for a message that the handler has flagged as the one with the last bytes."""
    peer, sent = Peer(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        head, chunk, last = messages(b"data: [DONE]\n\n", b"")
        await send(head)
        exchange_of(scope).ending = True
        await send(chunk)
        await turns()
        await send(last)

    async def send(message: Message) -> None:
        sent.append(message)
        if message.get("body"):
            peer.hang_up()
            await turns()

    await Disconnect(app)(scope_of(Exchange()), peer.receive, send)
    assert len(sent) == 3


async def test_a_drain_waits_for_the_end() -> None:
    """Where the provider bills to the end, the answer is read to its end."""
    ends: list[str] = []
    peer, exchange = Peer(), Exchange(target=DRAINING)
    running = asyncio.create_task(drive(Disconnect(waiting(ends, seconds=0.05), drain_timeout=5), peer, exchange))
    await turns()
    peer.hang_up()
    await running
    assert ends == ["finished"]


async def test_a_drain_has_a_bound() -> None:
    """What does not end in time is cancelled after all."""
    ends: list[str] = []
    peer, exchange = Peer(), Exchange(target=DRAINING)
    running = asyncio.create_task(drive(Disconnect(waiting(ends), drain_timeout=0.02), peer, exchange))
    await turns()
    peer.hang_up()
    with pytest.raises(ClientDisconnected):
        await running
    assert ends == ["cancelled"]
    assert exchange.outcome == Outcome.CLIENT_DISCONNECT


async def test_other_messages_are_no_disconnect() -> None:
    """What the server still has to say of the body is passed over."""
    peer = Peer(b"", b"", b"")
    await drive(Disconnect(waiting([], seconds=0.01)), peer)
    assert len(peer.sent) == 2


async def test_the_watcher_ends_with_the_answer() -> None:
    """Nothing waits for a client whose answer is over."""
    before = asyncio.all_tasks()
    await drive(Disconnect(answering(b"a")), Peer())
    await turns()
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("late", [0.0, 0.03], ids=["alone", "after another"])
async def test_a_client_that_leaves_is_noticed_in_time(late: float) -> None:
    """Whenever the request comes while others are watched."""
    layer = Disconnect(waiting([]))
    before = asyncio.create_task(drive(layer, Peer()))
    await asyncio.sleep(late)
    peer, began = Peer(), time.perf_counter()
    peer.hang_up()
    with pytest.raises(ClientDisconnected):
        await drive(layer, peer)
    assert time.perf_counter() - began < NOTICED_AFTER + 1
    before.cancel()
    with pytest.raises(asyncio.CancelledError):
        await before


def test_the_lookout_sleeps_where_nobody_is_watched() -> None:
    """One timer for many requests, and none that goes on without them; another event loop has its own."""
    layer = Disconnect(answering(b"a"))

    async def many() -> None:
        await asyncio.gather(*(drive(layer, Peer()) for _ in range(10)))

    for loop in (CountingLoop(), CountingLoop()):
        with asyncio.Runner(loop_factory=lambda loop=loop: loop) as runner:
            runner.run(many())
        assert loop.timers == 1


async def test_who_lasts_long_is_watched_once() -> None:
    """The watch begins, and is not begun anew with every look at the others."""
    peer = Peer()
    running = asyncio.create_task(drive(Disconnect(waiting([], seconds=4 * NOTICED_AFTER)), peer))
    await running
    assert peer.asked == 1


@pytest.mark.parametrize("before", [0.0, 3 * NOTICED_AFTER], ids=["at once", "later"])
@pytest.mark.parametrize("leaves", ["nobody", "inner", "outer"])
async def test_a_request_inside_a_request(before: float, leaves: str) -> None:
    """An application may send its own requests through the same layer: each is watched, and each ends alone."""
    peers, ends, parts = {"inner": Peer(), "outer": Peer()}, list[str](), iter(("outer", "inner"))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if next(parts) == "outer":
            await asyncio.sleep(before)
            await waiting_for(drive(layer, peers["inner"]))
        elif leaves != "nobody":
            peers[leaves].hang_up()
        await asyncio.sleep(4 * NOTICED_AFTER)
        ends.append("finished")

    async def waiting_for(inner: Awaitable[Peer]) -> None:
        try:
            await inner
        except ClientDisconnected:
            ends.append("inner left")

    layer = Disconnect(app)
    try:
        await drive(layer, peers["outer"])
    except ClientDisconnected:
        ends.append("outer left")
    assert (
        ends
        == {
            "nobody": ["finished", "finished"],
            "inner": ["inner left", "finished"],
            "outer": ["outer left"],
        }[leaves]
    )


async def test_a_failure_passes() -> None:
    """What the application raises is not turned into a disconnect, even if the client has left."""
    peer = Peer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError

    running = asyncio.create_task(drive(Disconnect(app), peer))
    await turns()
    peer.hang_up()
    with pytest.raises(KeyError):
        await running
