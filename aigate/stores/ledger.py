"""The ledger: every call to a provider is one row, opened before it and closed after it, both durably.

What a lost connection left unsure is simply written again (`overdue`): closing the same call twice changes nothing.
What a dead process leaves open, the sweep closes (`replica`); should that process be alive after all, its closing
becomes an adjustment (`journal`).
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from loguru import logger

from aigate.estimate import expected_usage
from aigate.stores.journal import LARGEST, Journal, Opening, Row, closing, may_be_written
from aigate.stores.overdue import Overdue
from aigate.stores.prices import Prices
from middleware.exchange import Answer, Exchange, Outcome, Target, Usage
from middleware.faults import Unpriced

if TYPE_CHECKING:
    from aigate.pricing import PriceRule


class PostgresLedger:
    """The `Ledger` port of the metering layer. `free_unpriced`: a model without a price is billed nothing."""

    def __init__(self, journal: Journal, prices: Prices, overdue: Overdue, *, free_unpriced: bool) -> None:
        self._journal = journal
        self._prices = prices
        self._overdue = overdue
        self._free_unpriced = free_unpriced

    async def reserve(self, exchange: Exchange, target: Target) -> "CallReservation":
        caller = exchange.caller
        if caller is None:
            raise AssertionError("a call is billed to a caller: the auth layer stands outside metering")
        if self._prices.stale_from <= time.monotonic():
            await self._prices.load()
        rule = self._prices.find(caller.org_id, target.provider, target.model)
        if rule is None and not self._free_unpriced:
            raise Unpriced(
                f"The model '{target.name}' has no price here. The operator sets one with 'aigate prices set'.",
                param="model",
            )
        key = exchange.recording.key if exchange.recording is not None else None
        opening = {
            "request_id": exchange.id,
            "organisation_id": caller.org_id,
            "api_key_id": caller.key_id,
            "idempotency_key": key,
            "provider": target.provider,
            "model": target.model,
            "stream": target.stream,
            "on_disconnect": "drain" if target.drain else "cancel",
            "price_rule_id": None if rule is None else rule.id,
            "estimated_cost_nano": 0 if rule is None else min(rule.cost(expected_usage(exchange)), LARGEST),
        }
        return CallReservation(self, opening, rule)

    async def open_call(self, opening: Opening) -> None:
        """Return once the call is durable. Raises `StoreUnavailable`.

        Whoever is not told so does not go on; if the row was written all the same, it is closed as void.
        """
        future = self._journal.submit(opening)
        try:
            await future
        except BaseException:
            future.add_done_callback(lambda done: self._keep_voiding(opening) if may_be_written(done) else None)
            raise

    async def close_call(self, row: Row, answer: Answer | None) -> None:
        """Return once the closing is durable, or is being written again and again in the background."""
        future = self._journal.submit((row, answer))
        try:
            await future
        except Exception as error:  # whatever it is, the bill must not be lost
            logger.error("call {} cannot be settled yet: {!r}", row["request_id"], error.__cause__ or error)
            self._keep_closing(row, answer)
        except asyncio.CancelledError:
            future.add_done_callback(lambda done: None if _succeeded(done) else self._keep_closing(row, answer))
            raise

    async def stop(self) -> None:
        """Return once everything that was submitted has been written once, or handed over to `overdue`."""
        await self._journal.flush()

    def _keep_closing(self, row: Row, answer: Answer | None) -> None:
        self._overdue.keep_trying(
            f"the settlement of call {row['request_id']}", lambda: self._journal.submit((row, answer))
        )

    def _keep_voiding(self, opening: Opening) -> None:
        """Close a call whose opening is unsure. Its row is written here if it is missing: it may still arrive."""

        async def write() -> None:
            await self._journal.open_if_missing(opening)
            await self._journal.submit((closing(opening, Outcome.INTERRUPTED, None, 0), None))

        self._overdue.keep_trying(f"the end of call {opening['request_id']}", write)


class CallReservation:
    """One call in the ledger; the `Reservation` port of the metering layer."""

    __slots__ = ("_ledger", "_opening", "_rule")

    def __init__(self, ledger: PostgresLedger, opening: Opening, rule: "PriceRule | None") -> None:
        self._ledger = ledger
        self._opening = opening
        self._rule = rule

    def cost(self, usage: Usage) -> int:
        """Nothing, also no price of a request, while nothing is known to have been used."""
        return 0 if self._rule is None or usage.source == "none" else self._rule.cost(usage)

    def open(self) -> Coroutine[Any, Any, None]:
        return self._ledger.open_call(self._opening)

    def settle(self, outcome: Outcome, usage: Usage, billed: int, answer: Answer | None) -> Coroutine[Any, Any, None]:
        return self._ledger.close_call(closing(self._opening, outcome, usage, billed), answer)

    def void(self, outcome: Outcome) -> Coroutine[Any, Any, None]:
        return self._ledger.close_call(closing(self._opening, outcome, None, 0), None)


def _succeeded(future: "asyncio.Future[None]") -> bool:
    return not future.cancelled() and future.exception() is None
