"""In-memory stand-ins for the stores; each passes the contract tests that the real one passes."""

import asyncio
import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

from middleware.exchange import Answer, Caller, Exchange, Outcome, Target, Usage
from middleware.faults import StoreUnavailable, Unpriced
from middleware.rate_limit import Allowance


class MemoryKeys:
    """The `Keys` port over a dict."""

    def __init__(self, keys: Mapping[str, Caller], *, away: bool = False) -> None:
        self.keys = dict(keys)
        self.away = away

    def known(self, token: str) -> Caller | None:
        return None if self.away else self.keys.get(token)

    async def caller(self, token: str) -> Caller | None:
        if self.away:
            raise StoreUnavailable("away")
        return self.keys.get(token)


class FixedLimiter:
    """The `Limiter` port that always says the same, and keeps what it was asked."""

    def __init__(self, allowance: Allowance | None = None) -> None:
        self.allowance = allowance or Allowance(allowed=True, remaining=1, reset_after=1.0)
        self.asked: list[tuple[str, int]] = []

    async def take(self, name: str, limit: int) -> Allowance:
        self.asked.append((name, limit))
        return self.allowance


@dataclass
class Row:
    """One call."""

    state: str = "open"
    outcome: Outcome | None = None
    usage: Usage | None = None
    billed: int = 0
    answer: Answer | None = None


@dataclass
class MemoryLedger:
    """The `Ledger` port over a dict. Each operation takes `steps` turns of the loop; `prices` are a token's."""

    prices: Mapping[str, int] = field(default_factory=lambda: {"openai:gpt-4o": 1})
    away: bool = False
    steps: int = 1
    opening_fails: bool = False
    rows: dict[str, Row] = field(default_factory=dict)
    reserved: int = 0
    endings: list[str] = field(default_factory=list)
    """The request ids whose end was asked for by whoever reserved, in order."""
    _writing: set["asyncio.Task[None]"] = field(default_factory=set)

    async def reserve(self, exchange: Exchange, target: Target) -> "MemoryReservation":
        await self.work()
        self.fail_if_away()
        if target.name not in self.prices:
            raise Unpriced("no price")
        self.reserved += 1
        return MemoryReservation(self, exchange.id, self.prices[target.name])

    async def work(self) -> None:
        for _ in range(self.steps):
            await asyncio.sleep(0)

    def fail_if_away(self) -> None:
        if self.away:
            raise StoreUnavailable("away")

    async def end(self, request_id: str, ended: Row) -> None:
        self.endings.append(request_id)
        writing = self.write_soon(request_id, ended)
        if not self.away:
            await asyncio.shield(writing)

    def write_soon(self, request_id: str, ended: Row) -> "asyncio.Task[None]":
        writing = asyncio.create_task(self._write(request_id, ended))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        return writing

    async def written(self) -> None:
        """Return once everything is written."""
        while self._writing:
            await asyncio.wait(self._writing)

    async def _write(self, request_id: str, ended: Row) -> None:
        await self.work()
        while self.away:  # noqa: ASYNC110 - for moments, in tests
            await asyncio.sleep(0.001)
        row = self.rows.get(request_id)
        if row is not None and row.state == "open":
            self.rows[request_id] = ended


@dataclass
class MemoryReservation:
    """One call in a `MemoryLedger`. An opening of which its caller never heard is taken back."""

    ledger: MemoryLedger
    request_id: str
    price: int

    def cost(self, usage: Usage) -> int:
        return self.price * (usage.input_tokens + usage.output_tokens)

    async def open(self) -> None:
        self.ledger.fail_if_away()
        self.ledger.rows[self.request_id] = Row()
        try:
            await self.ledger.work()
            if self.ledger.opening_fails:
                raise StoreUnavailable("away")  # noqa: TRY301 - as a store would, from deeper
        except BaseException:
            self.ledger.write_soon(self.request_id, Row("void", Outcome.INTERRUPTED))
            raise

    async def settle(self, outcome: Outcome, usage: Usage, billed: int, answer: Answer | None) -> None:
        row = Row("settled", outcome, copy.copy(usage), billed, answer)
        await self.ledger.end(self.request_id, row)

    async def void(self, outcome: Outcome) -> None:
        await self.ledger.end(self.request_id, Row("void", outcome))
