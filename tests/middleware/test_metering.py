"""A call's row: before money can be spent, and ended once whatever happens."""

import asyncio
from collections.abc import Callable

import pytest

from middleware.asgi import BODY, START, ASGIApp, Message, Receive, Scope, Send
from middleware.exchange import Answer, Exchange, Outcome, exchange_of
from middleware.faults import Fault, ProviderBroken, StoreUnavailable, Unpriced
from middleware.metering import Metering
from tests.contracts.fakes import MemoryLedger
from tests.middleware.driving import ACME, TARGET, Peer, Tokens, answering, drive, messages, scope_of

COST = 17
"""Of `Tokens()`, at the fake's price of 1 a token."""


def calling(
    *chunks: bytes,
    spent: bool = True,
    outcome: Outcome | None = Outcome.OK,
    error: BaseException | None = None,
    before: Callable[[Exchange], None] = lambda exchange: None,
) -> ASGIApp:
    """A handler that calls a provider, sends these chunks, and then ends or fails."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        await exchange.admit(TARGET)
        exchange.spent = spent
        exchange.usage = Tokens()
        exchange.outcome = outcome
        stream = messages(*chunks)
        for message in stream[:-1] if error else stream:
            before(exchange)
            await asyncio.sleep(0)
            await send(message)
        if error is not None:
            raise error

    return app


def exchange() -> Exchange:
    return Exchange(id="call", caller=ACME)


async def test_the_call_is_durable_before_the_provider_is_called() -> None:
    """When the handler's `admit` returns, the row is open."""
    ledger = MemoryLedger()
    states = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await exchange_of(scope).admit(TARGET)
        states.append(ledger.rows["call"].state)

    await drive(Metering(app, ledger), exchange=exchange())
    assert states == ["open"]


async def test_the_end_waits_for_the_settlement() -> None:
    """The last message leaves after the row is settled; those before it do not wait."""
    ledger, states = MemoryLedger(), []

    async def send(message: Message) -> None:
        states.append(ledger.rows["call"].state)

    await Metering(calling(b"a", b"b"), ledger)(scope_of(exchange()), Peer().receive, send)
    assert states == ["open", "open", "settled"]


async def test_what_is_settled() -> None:
    """The outcome, the usage as it is at the end, and its cost."""
    ledger, run = MemoryLedger(), exchange()
    await drive(Metering(calling(b"a"), ledger), exchange=run)
    row = ledger.rows["call"]
    assert (row.state, row.outcome, row.usage, row.billed) == ("settled", Outcome.OK, Tokens(), COST)
    assert run.billed == COST


async def test_the_pricing_is_known_to_the_handler() -> None:
    """The handler writes the cost into the answer, at the price that is pinned."""
    prices = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        run = exchange_of(scope)
        await run.admit(TARGET)
        prices.append(run.pricing(Tokens()))

    await drive(Metering(app, MemoryLedger()), exchange=exchange())
    assert prices == [COST]


async def test_the_flagged_message_settles() -> None:
    """Where the handler says that the next message has the last bytes, that one waits, not the empty one after it."""
    ledger, states = MemoryLedger(), []

    def flag(run: Exchange) -> None:
        run.ending = len(states) == 1

    async def send(message: Message) -> None:
        states.append(ledger.rows["call"].state)

    await Metering(calling(b"data: [DONE]\n\n", b"", before=flag), ledger)(scope_of(exchange()), Peer().receive, send)
    assert states == ["open", "settled", "settled"]
    assert ledger.endings == ["call"]


async def test_a_call_ends_once() -> None:
    """The end of the answer, the end of the application and an exception after both settle no second time."""
    ledger = MemoryLedger()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await calling(b"a")(scope, receive, send)
        raise KeyError

    with pytest.raises(KeyError):
        await drive(Metering(app, ledger), exchange=exchange())
    assert ledger.endings == ["call"]


@pytest.mark.parametrize("error", [ProviderBroken("cut"), KeyError("x"), asyncio.CancelledError()], ids=repr)
async def test_a_failure_settles(error: BaseException) -> None:
    """What was used until then is billed, under the handler's outcome, and the failure passes."""
    ledger = MemoryLedger()
    with pytest.raises(type(error)):
        await drive(
            Metering(calling(b"a", b"b", error=error, outcome=Outcome.UPSTREAM_ERROR), ledger), exchange=exchange()
        )
    row = ledger.rows["call"]
    assert (row.state, row.outcome, row.billed) == ("settled", Outcome.UPSTREAM_ERROR, COST)
    assert ledger.endings == ["call"]


async def test_an_end_that_nobody_explained() -> None:
    """Without an outcome the call was interrupted."""
    ledger = MemoryLedger()
    with pytest.raises(KeyError):
        await drive(Metering(calling(b"a", b"b", error=KeyError("x"), outcome=None), ledger), exchange=exchange())
    assert ledger.rows["call"].outcome == Outcome.INTERRUPTED


async def test_an_application_that_just_returns() -> None:
    """An answer without a last message is settled all the same."""
    ledger = MemoryLedger()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        run = exchange_of(scope)
        await run.admit(TARGET)
        run.spent, run.usage = True, Tokens()

    await drive(Metering(app, ledger), exchange=exchange())
    assert ledger.rows["call"].state == "settled"


async def test_nothing_spent_is_void() -> None:
    """A call that never reached the provider is billed nothing."""
    ledger, run = MemoryLedger(), exchange()
    await drive(Metering(calling(b"a", spent=False), ledger), exchange=run)
    row = ledger.rows["call"]
    assert (row.state, row.billed, run.billed) == ("void", 0, 0)


async def test_an_answer_without_a_call() -> None:
    """Who never asks to be admitted leaves no row."""
    ledger = MemoryLedger()
    peer = await drive(Metering(answering(b"a", b"b"), ledger), exchange=exchange())
    assert peer.sent == messages(b"a", b"b")
    assert ledger.rows == {}


@pytest.mark.parametrize(
    ("ledger", "fault"),
    [(MemoryLedger(prices={}), Unpriced), (MemoryLedger(away=True), StoreUnavailable)],
    ids=["unpriced", "away"],
)
async def test_a_refusal_leaves_no_row(ledger: MemoryLedger, fault: type[Fault]) -> None:
    """What cannot be reserved is not called."""
    with pytest.raises(fault):
        await drive(Metering(calling(b"a"), ledger), exchange=exchange())
    assert ledger.rows == {}


async def test_an_opening_that_fails_is_taken_back() -> None:
    """Whether the row was written is not known then: the reservation itself sees to it."""
    ledger = MemoryLedger()
    ledger.opening_fails = True
    with pytest.raises(StoreUnavailable):
        await drive(Metering(calling(b"a"), ledger), exchange=exchange())
    await ledger.written()
    assert (ledger.rows["call"].state, ledger.endings) == ("void", [])


async def test_cancelled_at_any_point() -> None:
    """Wherever a cancellation strikes, no call stays open and none is ended twice."""
    states = set()
    for step in range(200):
        ledger = MemoryLedger(steps=3)
        running = asyncio.create_task(drive(Metering(calling(b"a", b"b", b"c"), ledger), exchange=exchange()))
        for _ in range(step):
            await asyncio.sleep(0)
        if running.done():
            break
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await ledger.written()
        assert len(ledger.endings) <= ledger.reserved <= 1
        states |= {row.state for row in ledger.rows.values()}
    else:
        raise AssertionError("it never ended")
    assert states == {"settled", "void"}


class Recorded:
    """The recording of a held idempotency key."""

    key = "order-1"

    def __init__(self) -> None:
        self.ended: list[tuple[Message | None, Fault | None]] = []

    def end(self, message: Message | None, fault: Fault | None) -> Answer | None:
        self.ended.append((message, fault))
        return Answer(200, (), b"kept")


async def test_the_recorded_answer_is_settled_with_the_call() -> None:
    """The last message ends the recording, and its answer goes into the same settlement."""
    ledger, run = MemoryLedger(), exchange()
    recording = run.recording = Recorded()
    await drive(Metering(calling(b"a"), ledger), exchange=run)
    assert ledger.rows["call"].answer == Answer(200, (), b"kept")
    assert recording.ended == [({"type": BODY, "body": b"a", "more_body": False}, None)]


async def test_a_fault_ends_the_recording() -> None:
    """The retry learns of the fault."""
    ledger, run, fault = MemoryLedger(), exchange(), ProviderBroken("cut")
    recording = run.recording = Recorded()
    with pytest.raises(ProviderBroken):
        await drive(Metering(calling(b"a", b"b", error=fault), ledger), exchange=run)
    assert recording.ended == [(None, fault)]


async def test_a_void_call_leaves_the_recording_alone() -> None:
    """Nothing was spent: the retry runs again."""
    run = exchange()
    recording = run.recording = Recorded()
    await drive(Metering(calling(b"a", spent=False), MemoryLedger()), exchange=run)
    assert recording.ended == []


async def test_an_answer_that_cannot_be_given_again_is_not_billed() -> None:
    """The retry runs again and is billed then: the customer pays once."""
    ledger, run = MemoryLedger(), exchange()
    run.recording = Unrepeatable()
    await drive(Metering(calling(b"a"), ledger), exchange=run)
    row = ledger.rows["call"]
    assert (row.state, row.outcome, row.billed, run.billed) == ("settled", Outcome.INTERRUPTED, 0, 0)


async def test_what_nobody_counted_is_estimated() -> None:
    """Where the provider reported nothing, the estimate is settled."""
    ledger, run = MemoryLedger(), exchange()

    async def estimate() -> None:
        await asyncio.sleep(0)
        assert run.usage is not None
        run.usage.input_tokens, run.usage.source = 100, "estimated"

    run.estimate = estimate
    await drive(Metering(uncounted(), ledger), exchange=run)
    assert ledger.rows["call"].billed == 105


async def test_a_cancelled_estimate_settles_all_the_same() -> None:
    """Whoever is shut down while estimating leaves no open call."""
    ledger, run = MemoryLedger(), exchange()
    estimating = asyncio.Event()

    async def estimate() -> None:
        estimating.set()
        await asyncio.Event().wait()

    run.estimate = estimate
    running = asyncio.create_task(drive(Metering(uncounted(), ledger), exchange=run))
    await estimating.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ledger.rows["call"].state == "settled"
    assert ledger.endings == ["call"]


class Unrepeatable(Recorded):
    """A recording that nothing can be given again of."""

    def end(self, message: Message | None, fault: Fault | None) -> Answer | None:
        return None


def uncounted() -> ASGIApp:
    """A handler whose provider reports no usage."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        run = exchange_of(scope)
        await run.admit(TARGET)
        run.spent, run.usage = True, Tokens(source="none")
        await answering(b"a")(scope, receive, send)

    return app


def in_one_piece(sent: list[str], peer: Peer) -> ASGIApp:
    """A handler that sends a head with a length, and says what the client has before and after the body."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        await exchange.admit(TARGET)
        exchange.spent, exchange.usage, exchange.outcome = True, Tokens(), Outcome.OK
        head, last = messages(b"a", headers=[(b"content-length", b"1")])
        await send(head)
        sent.append(f"{len(peer.sent)} before the body")
        await send(last)

    return app


async def test_the_head_of_a_whole_answer_passes_at_once() -> None:
    """Only the last bytes wait for the settlement; the server lets the head wait for the first ones."""
    peer, sent = Peer(), list[str]()
    await drive(Metering(in_one_piece(sent, peer), MemoryLedger()), peer, exchange())
    assert sent == ["1 before the body"]
    assert [message["type"] for message in peer.sent] == [START, BODY]
