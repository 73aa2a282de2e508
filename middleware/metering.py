"""Bills every call exactly once: a durable row before money can be spent, settled before the client has the end.

The handler passes this layer's gate (`exchange.admit`) just before it calls the provider: the call is reserved
there, and refused if it cannot be. From then on this layer settles at every end there is:

- the message with the last bytes waits for the settlement's commit, the one delay on purpose in the whole chain;
- an exception, a disconnect or a shutdown settles in `finally`, shielded from cancellation.

The recorded answer of a held idempotency key is handed to the settlement, so that both become durable in one
transaction. If there is none, the key's next request runs again and is billed then, so this one is not. What could
not be written, because the process died, stays an open reservation for the sweep.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from loguru import logger

from middleware.asgi import START, ASGIApp, Message, Receive, Scope, Send
from middleware.exchange import Answer, Exchange, Outcome, Target, Usage, exchange_of
from middleware.faults import Fault


class Reservation(Protocol):
    """One call in the ledger."""

    def cost(self, usage: Usage) -> int:
        """What this usage is billed, in 1e-9 USD, by the price pinned at the start."""
        ...

    async def open(self) -> None:
        """Return once the call is durable. Raises `StoreUnavailable`.

        If it does not return, the call has not begun, whatever the store has kept of it.
        """
        ...

    async def settle(self, outcome: Outcome, usage: Usage, billed: int, answer: Answer | None) -> None:
        """Return once the end of the call, and the answer for its idempotency key, are durable.

        `billed` in 1e-9 USD.

        Survives the cancellation of its caller. Raises nothing: what the store does not take in time is written
        as soon as it is back.
        """
        ...

    async def void(self, outcome: Outcome) -> None:
        """As `settle`, for a call on which nothing was spent."""
        ...


class Ledger(Protocol):
    async def reserve(self, exchange: Exchange, target: Target) -> Reservation:
        """The reservation of this call, not yet durable.

        Raises `Unpriced` for a model without a price and `StoreUnavailable` when prices are not known.
        """
        ...


@dataclass(frozen=True, slots=True)
class Metering:
    app: ASGIApp
    ledger: Ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        metered = _Metered(exchange_of(scope), self.ledger, send)
        try:
            await self.app(scope, receive, metered.send)
        except Fault as fault:
            await metered.settle(fault=fault)
            raise
        finally:
            if metered.reservation is not None:
                await metered.settle()


class _Metered:
    """The metering of one exchange: nothing until the gate is passed, then settled once."""

    __slots__ = ("_exchange", "_ledger", "_send", "reservation")

    def __init__(self, exchange: Exchange, ledger: Ledger, send: Send) -> None:
        self._exchange = exchange
        self._ledger = ledger
        self._send = send
        self.reservation: Reservation | None = None
        exchange.gates.append(self._gate)

    async def _gate(self, target: Target) -> None:
        reservation = await self._ledger.reserve(self._exchange, target)
        self._exchange.pricing = reservation.cost
        await reservation.open()
        self.reservation = reservation

    def send(self, message: Message) -> Awaitable[None]:
        is_last = self._exchange.ending or not message.get("more_body", False)
        if is_last and message["type"] != START:
            return self._send_last(message)
        return self._send(message)

    async def _send_last(self, message: Message) -> None:
        self._exchange.ending = True
        if self.reservation is not None:
            await self.settle(message)
        await self._send(message)

    def settle(self, message: Message | None = None, fault: Fault | None = None) -> Awaitable[None]:
        """End the reservation if it has not ended, as the exchange says that the call ended."""
        exchange, reservation = self._exchange, self.reservation
        self.reservation = None
        if reservation is None:
            return _nothing()
        usage = exchange.usage
        if usage is None or not exchange.spent:
            exchange.billed = 0
            return reservation.void(exchange.outcome or Outcome.INTERRUPTED)
        if usage.source == "none" and exchange.estimate is not None:
            return self._bill_estimate(exchange.estimate, reservation, usage, message, fault)
        return self._bill(reservation, usage, message, fault)

    async def _bill_estimate(
        self,
        estimate: Callable[[], Awaitable[None]],
        reservation: Reservation,
        usage: Usage,
        message: Message | None,
        fault: Fault | None,
    ) -> None:
        try:
            await estimate()
        except Exception:  # a defect of ours: the answer was given, and must be accounted for
            logger.exception("the usage of this call cannot be estimated")
        finally:
            await self._bill(reservation, usage, message, fault)

    def _bill(
        self, reservation: Reservation, usage: Usage, message: Message | None, fault: Fault | None
    ) -> Awaitable[None]:
        exchange = self._exchange
        outcome, recording, answer = exchange.outcome or Outcome.INTERRUPTED, exchange.recording, None
        if recording is not None and (answer := recording.end(message, fault)) is None:
            outcome, exchange.billed = Outcome.INTERRUPTED, 0
        else:
            exchange.billed = reservation.cost(usage)
        return reservation.settle(outcome, usage, exchange.billed, answer)


async def _nothing() -> None:
    """What is awaited where nothing is to be settled."""
