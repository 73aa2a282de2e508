"""The ledger: every call to a provider is one row, opened before it and closed after it, both durably.

Openings and closings that are concurrent share one statement each (`batch`). A closing and the answer of the call's
idempotency key are one transaction. Closing the same call again changes nothing, so what a lost connection left
unsure is simply written again, until it is sure; what a dead process leaves open, the sweep closes (`replica`).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
from loguru import logger

from aigate.pricing import PriceRule
from aigate.stores.batch import Batch
from aigate.stores.database import Database
from aigate.stores.prices import Prices
from aigate.stores.replica import Replica
from middleware.exchange import Answer, Caller, Exchange, Outcome, Target, Usage
from middleware.faults import StoreUnavailable, Unpriced

if TYPE_CHECKING:
    from aigate.stores.database import Connection

OPEN = """
insert into calls (request_id, organisation_id, api_key_id, idempotency_key, provider, model, stream,
    price_rule_id, replica_id)
select o.*, $9 from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[],
    $7::boolean[], $8::bigint[]) o
"""
CLOSE = """
update calls c set state = s.state, outcome = s.outcome, usage_source = s.usage_source,
    input_tokens = s.input_tokens, cache_read_tokens = s.cache_read_tokens,
    cache_write_tokens = s.cache_write_tokens, output_tokens = s.output_tokens,
    reasoning_tokens = s.reasoning_tokens, audio_tokens = s.audio_tokens, image_tokens = s.image_tokens,
    provider_cost_nano = s.provider_cost_nano, billed_cost_nano = s.billed_cost_nano, settled_at = now()
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
    $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[])
    s(request_id, state, outcome, usage_source, input_tokens, cache_read_tokens, cache_write_tokens, output_tokens,
    reasoning_tokens, audio_tokens, image_tokens, provider_cost_nano, billed_cost_nano)
where c.request_id = s.request_id and c.attempt = 1 and c.state = 'open'
"""
ANSWER = """
update idempotency_keys k set state = 'finished', status = s.status, headers = s.headers, body = s.body,
    finished_at = now()
from unnest($1::bigint[], $2::text[], $3::uuid[], $4::smallint[], $5::bytea[], $6::bytea[])
    s(organisation_id, key, request_id, status, headers, body)
where k.organisation_id = s.organisation_id and k.key = s.key and k.request_id = s.request_id
    and k.state = 'running'
"""
FIRST_RETRY, LAST_RETRY = 0.1, 5.0
"""Seconds between attempts to close a call while the database is away."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The end of one call; `usage` is `None` for a call on which nothing was spent."""

    request_id: str
    organisation_id: int
    outcome: Outcome
    usage: Usage | None
    billed: int = 0
    key: str | None = None
    answer: Answer | None = None

    def row(self) -> tuple[object, ...]:
        usage = self.usage
        if usage is None:
            return (self.request_id, "void", self.outcome, "none", 0, 0, 0, 0, 0, 0, 0, None, 0)
        return (
            self.request_id,
            "settled",
            self.outcome,
            usage.source,
            usage.input_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            usage.output_tokens,
            usage.reasoning_tokens,
            usage.audio_tokens,
            usage.image_tokens,
            usage.provider_cost,
            self.billed,
        )


class PostgresLedger:
    """The `Ledger` port of the metering layer. `free_unpriced`: a model without a price is billed nothing."""

    def __init__(self, database: Database, prices: Prices, replica: Replica, *, free_unpriced: bool) -> None:
        self._database = database
        self._prices = prices
        self._replica = replica
        self._free_unpriced = free_unpriced
        self.openings: Batch[tuple[object, ...], None] = Batch(self._open)
        self._closings: Batch[Closing, None] = Batch(self._close)
        self._overdue: set[asyncio.Task[None]] = set()

    async def reserve(self, exchange: Exchange, target: Target) -> "CallReservation":
        caller = exchange.caller
        if caller is None:
            raise AssertionError("a call is billed to a caller: the auth layer stands outside metering")
        await self._prices.load()
        rule = self._prices.find(caller.org_id, target.provider, target.model)
        if rule is None and not self._free_unpriced:
            raise Unpriced(
                f"The model '{target.name}' has no price here. The operator sets one with 'aigate prices set'.",
                param="model",
            )
        key = exchange.recording.key if exchange.recording is not None else None
        return CallReservation(self, exchange.id, caller, target, key, rule)

    async def close_call(self, closing: Closing) -> None:
        """Return once the closing is durable, or is being written again and again in the background."""
        future = self._closings.submit(closing)
        try:
            await asyncio.shield(future)
        except StoreUnavailable as error:
            logger.error("call {} cannot be settled yet: {}", closing.request_id, error.__cause__)
            self._keep_closing(closing)
        except asyncio.CancelledError:
            future.add_done_callback(lambda done: None if _succeeded(done) else self._keep_closing(closing))
            raise

    async def stop(self, patience: float) -> None:
        """Give what is still unwritten `patience` seconds; what then remains, the sweep will close."""
        await self.openings.flush()
        await self._closings.flush()
        if self._overdue:
            _, late = await asyncio.wait(self._overdue, timeout=patience)
            for task in late:
                task.cancel()

    def _keep_closing(self, closing: Closing) -> None:
        task = asyncio.create_task(self._close_until_done(closing))
        self._overdue.add(task)
        task.add_done_callback(self._overdue.discard)

    async def _close_until_done(self, closing: Closing) -> None:
        pause = FIRST_RETRY
        while True:
            await asyncio.sleep(pause)
            try:
                await self._closings.submit(closing)
            except StoreUnavailable:
                pause = min(pause * 2, LAST_RETRY)
            else:
                logger.info("call {} is settled after all", closing.request_id)
                return

    async def _open(self, rows: Sequence[tuple[object, ...]]) -> list[None]:
        await self._replica.ensure_lease()
        async with self._database.connection() as connection:
            await connection.execute(OPEN, *(list(column) for column in zip(*rows, strict=True)), self._replica.id)
        return [None] * len(rows)

    async def _close(self, closings: Sequence[Closing]) -> list[None]:
        columns = [list(column) for column in zip(*(closing.row() for closing in closings), strict=True)]
        answered = [closing for closing in closings if closing.key is not None and closing.answer is not None]
        async with self._database.connection() as connection:
            if not answered:
                await connection.execute(CLOSE, *columns)
            else:
                async with connection.transaction():
                    await connection.execute(CLOSE, *columns)
                    await _store_answers(connection, answered)
        return [None] * len(closings)


class CallReservation:
    """One call in the ledger; the `Reservation` port of the metering layer."""

    __slots__ = ("_caller", "_key", "_ledger", "_request_id", "_row", "_rule")

    def __init__(
        self,
        ledger: PostgresLedger,
        request_id: str,
        caller: Caller,
        target: Target,
        key: str | None,
        rule: PriceRule | None,
    ) -> None:
        self._ledger = ledger
        self._request_id = request_id
        self._caller = caller
        self._key = key
        self._rule = rule
        rule_id = None if rule is None else rule.id
        self._row = (
            request_id,
            caller.org_id,
            caller.key_id,
            key,
            target.provider,
            target.model,
            target.stream,
            rule_id,
        )

    def cost(self, usage: Usage) -> int:
        return 0 if self._rule is None else self._rule.cost(usage)

    async def open(self) -> None:
        await asyncio.shield(self._ledger.openings.submit(self._row))

    async def settle(self, outcome: Outcome, usage: Usage, answer: Answer | None) -> None:
        closing = Closing(self._request_id, self._caller.org_id, outcome, usage, self.cost(usage), self._key, answer)
        await self._ledger.close_call(closing)

    async def void(self, outcome: Outcome) -> None:
        await self._ledger.close_call(Closing(self._request_id, self._caller.org_id, outcome, None))


async def _store_answers(connection: "Connection", closings: Sequence[Closing]) -> None:
    rows = [
        (
            closing.organisation_id,
            closing.key,
            closing.request_id,
            closing.answer.status,
            pack_headers(closing.answer),
            closing.answer.body,
        )
        for closing in closings
        if closing.answer is not None
    ]
    await connection.execute(ANSWER, *(list(column) for column in zip(*rows, strict=True)))


def pack_headers(answer: Answer) -> bytes:
    """The headers of an answer as they are stored: a JSON list of pairs."""
    return orjson.dumps([(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers])


def unpack_headers(packed: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The reverse of `pack_headers`."""
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in orjson.loads(packed))


def _succeeded(future: "asyncio.Future[None]") -> bool:
    return not future.cancelled() and future.exception() is None
