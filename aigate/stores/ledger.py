"""The ledger: every call to a provider is one row, opened before it and closed after it, both durably.

Openings and closings that are concurrent share one statement each (`batch`). A closing and the answer of the call's
idempotency key are one transaction. Closing the same call again changes nothing, so what a lost connection left
unsure is simply written again (`overdue`). What a dead process leaves open, the sweep closes (`replica`); should that
process be alive after all, its closing becomes an adjustment: a closed row is never rewritten.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson
from loguru import logger

from aigate.estimate import expected_usage
from aigate.pricing import PriceRule
from aigate.stores.batch import Batch
from aigate.stores.database import Database
from aigate.stores.overdue import Overdue
from aigate.stores.prices import Prices
from aigate.stores.replica import Replica
from middleware.exchange import Answer, Exchange, Outcome, Target, Usage
from middleware.faults import StoreUnavailable, Unpriced

if TYPE_CHECKING:
    from aigate.stores.database import Connection

OPEN = """
insert into calls (request_id, organisation_id, api_key_id, idempotency_key, provider, model, stream, on_disconnect,
    price_rule_id, estimated_cost_nano, replica_id)
select o.*, $11 from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[],
    $7::boolean[], $8::text[], $9::bigint[], $10::bigint[]) o
"""
OPEN_IF_MISSING = f"{OPEN} on conflict (request_id, attempt) do nothing"
CLOSE = """
with closings as (
    select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
        $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[])
    s(request_id, state, outcome, usage_source, input_tokens, cache_read_tokens, cache_write_tokens, output_tokens,
        reasoning_tokens, audio_tokens, image_tokens, provider_cost_nano, billed_cost_nano)
), closed as (
    update calls c set state = s.state, outcome = s.outcome, usage_source = s.usage_source,
        input_tokens = s.input_tokens, cache_read_tokens = s.cache_read_tokens,
        cache_write_tokens = s.cache_write_tokens, output_tokens = s.output_tokens,
        reasoning_tokens = s.reasoning_tokens, audio_tokens = s.audio_tokens, image_tokens = s.image_tokens,
        provider_cost_nano = s.provider_cost_nano, billed_cost_nano = s.billed_cost_nano, settled_at = now()
    from closings s where c.request_id = s.request_id and c.attempt = 1 and c.state = 'open'
    returning c.request_id
), late as (
    insert into adjustments (request_id, attempt, organisation_id, reason, outcome, usage_source, input_tokens,
        cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, audio_tokens, image_tokens,
        provider_cost_nano, billed_cost_nano)
    select c.request_id, c.attempt, c.organisation_id, 'settled after the sweep', s.outcome, s.usage_source,
        s.input_tokens, s.cache_read_tokens, s.cache_write_tokens, s.output_tokens, s.reasoning_tokens,
        s.audio_tokens, s.image_tokens, s.provider_cost_nano, s.billed_cost_nano
    from closings s join calls c on c.request_id = s.request_id and c.attempt = 1
    where c.state = 'settled' and c.outcome = 'interrupted' and s.state = 'settled' and s.outcome <> 'interrupted'
    on conflict (request_id, attempt, reason) do nothing
    returning request_id
)
select request_id, false as late from closed union all select request_id, true from late
"""
ANSWER = """
with answers as (
    select * from unnest($1::bigint[], $2::text[], $3::uuid[], $4::smallint[], $5::bytea[], $6::bytea[])
    s(organisation_id, key, request_id, status, headers, body)
), held as (
    select k.organisation_id, k.key from idempotency_keys k join answers s using (organisation_id, key, request_id)
    where k.state = 'running' order by 1, 2 for update of k
)
update idempotency_keys k set state = 'finished', status = s.status, headers = s.headers, body = s.body,
    finished_at = now()
from answers s join held using (organisation_id, key)
where k.organisation_id = s.organisation_id and k.key = s.key and k.request_id = s.request_id
returning k.request_id
"""
LARGEST = 2**62
"""What is written of a number that a provider made up: the largest that fits the column."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The end of one call; `usage` is `None` for a call on which nothing was spent. `billed` in 1e-9 USD."""

    request_id: str
    organisation_id: int
    outcome: Outcome
    usage: Usage | None
    billed: int = 0
    key: str | None = None
    answer: Answer | None = None

    def superseded(self) -> "Closing":
        """The same call, unbilled: another request has taken its key over, and that one is billed."""
        return replace(self, outcome=Outcome.SUPERSEDED, billed=0, answer=None)

    def row(self) -> tuple[object, ...]:
        usage = self.usage
        if usage is None:
            return (self.request_id, "void", self.outcome, "none", 0, 0, 0, 0, 0, 0, 0, None, 0)
        numbers = (
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
        fitting = (None if number is None else min(number, LARGEST) for number in numbers)
        return (self.request_id, "settled", self.outcome, usage.source, *fitting)


class PostgresLedger:
    """The `Ledger` port of the metering layer. `free_unpriced`: a model without a price is billed nothing."""

    def __init__(
        self, database: Database, prices: Prices, replica: Replica, overdue: Overdue, *, free_unpriced: bool
    ) -> None:
        self._database = database
        self._prices = prices
        self._replica = replica
        self._overdue = overdue
        self._free_unpriced = free_unpriced
        self._openings: Batch[tuple[object, ...], None] = Batch(self._open)
        self._closings: Batch[Closing, None] = Batch(self._close)

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
        row = (
            exchange.id,
            caller.org_id,
            caller.key_id,
            key,
            target.provider,
            target.model,
            target.stream,
            "drain" if target.drain else "cancel",
            None if rule is None else rule.id,
            0 if rule is None else min(rule.cost(expected_usage(exchange)), LARGEST),
        )
        return CallReservation(self, exchange.id, caller.org_id, key, rule, row)

    async def open_call(self, row: tuple[object, ...], void: Closing) -> None:
        """Return once the call is durable. Raises `StoreUnavailable`.

        Whoever is not told so does not go on; if the row was written all the same, it is closed by `void`.
        """
        future = self._openings.submit(row)
        try:
            await asyncio.shield(future)
        except BaseException:
            future.add_done_callback(lambda done: self._keep_voiding(row, void) if may_be_written(done) else None)
            raise

    async def close_call(self, closing: Closing) -> None:
        """Return once the closing is durable, or is being written again and again in the background."""
        future = self._closings.submit(closing)
        try:
            await asyncio.shield(future)
        except Exception as error:  # whatever it is, the bill must not be lost
            logger.error("call {} cannot be settled yet: {!r}", closing.request_id, error.__cause__ or error)
            self._keep_closing(closing)
        except asyncio.CancelledError:
            future.add_done_callback(lambda done: None if _succeeded(done) else self._keep_closing(closing))
            raise

    async def stop(self) -> None:
        """Return once everything that was submitted has been written once, or handed over to `overdue`."""
        await self._openings.flush()
        await self._closings.flush()

    def _keep_closing(self, closing: Closing) -> None:
        self._overdue.keep_trying(
            f"the settlement of call {closing.request_id}", lambda: self._closings.submit(closing)
        )

    def _keep_voiding(self, row: tuple[object, ...], void: Closing) -> None:
        """Close a call whose opening is unsure. Its row is written here if it is missing: it may still arrive."""

        async def write() -> None:
            async with self._database.connection() as connection:
                await connection.execute(OPEN_IF_MISSING, *([value] for value in row), self._replica.id)
            await self._closings.submit(void)

        self._overdue.keep_trying(f"the end of call {void.request_id}", write)

    async def _open(self, rows: Sequence[tuple[object, ...]]) -> list[None]:
        await self._replica.ensure_lease()
        async with self._database.connection() as connection:
            await connection.execute(OPEN, *(list(column) for column in zip(*rows, strict=True)), self._replica.id)
        return [None] * len(rows)

    async def _close(self, closings: Sequence[Closing]) -> list[None]:
        async with self._database.connection() as connection:
            if any(closing.answer is not None for closing in closings):
                async with connection.transaction():
                    await _write_closings(connection, await _write_answers(connection, closings))
            else:
                await _write_closings(connection, closings)
        return [None] * len(closings)


class CallReservation:
    """One call in the ledger; the `Reservation` port of the metering layer."""

    __slots__ = ("_key", "_ledger", "_organisation_id", "_request_id", "_row", "_rule")

    def __init__(
        self,
        ledger: PostgresLedger,
        request_id: str,
        organisation_id: int,
        key: str | None,
        rule: PriceRule | None,
        row: tuple[object, ...],
    ) -> None:
        self._ledger = ledger
        self._request_id = request_id
        self._organisation_id = organisation_id
        self._key = key
        self._rule = rule
        self._row = row

    def cost(self, usage: Usage) -> int:
        """Nothing, also no price of a request, while nothing is known to have been used."""
        return 0 if self._rule is None or usage.source == "none" else self._rule.cost(usage)

    async def open(self) -> None:
        void = Closing(self._request_id, self._organisation_id, Outcome.INTERRUPTED, None)
        await self._ledger.open_call(self._row, void)

    async def settle(self, outcome: Outcome, usage: Usage, billed: int, answer: Answer | None) -> None:
        await self._ledger.close_call(
            Closing(self._request_id, self._organisation_id, outcome, usage, billed, self._key, answer)
        )

    async def void(self, outcome: Outcome) -> None:
        await self._ledger.close_call(Closing(self._request_id, self._organisation_id, outcome, None))


async def _write_closings(connection: "Connection", closings: Sequence[Closing]) -> None:
    """Close each, or adjust it if the sweep was first. Those that the sweep takes meanwhile need a second look."""
    for _ in range(2):
        columns = [list(column) for column in zip(*(closing.row() for closing in closings), strict=True)]
        written = await connection.fetch(CLOSE, *columns)
        for row in written:
            if row["late"]:
                logger.warning("call {} was settled after the sweep: it is adjusted", row["request_id"].hex)
        if len(written) == len(closings):
            return
        done = {row["request_id"].hex for row in written}
        closings = [closing for closing in closings if closing.request_id not in done]


async def _write_answers(connection: "Connection", closings: Sequence[Closing]) -> list[Closing]:
    """Store the answers of those who still hold their key; the closings, those who do not as superseded."""
    rows = [
        (
            closing.organisation_id,
            closing.key,
            closing.request_id,
            closing.answer.status,
            pack_headers(closing.answer.headers),
            closing.answer.body,
        )
        for closing in closings
        if closing.answer is not None
    ]
    written = await connection.fetch(ANSWER, *(list(column) for column in zip(*rows, strict=True)))
    stored = {row["request_id"].hex for row in written}
    return [
        closing if closing.answer is None or closing.request_id in stored else closing.superseded()
        for closing in closings
    ]


def pack_headers(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The headers of an answer as they are stored: a JSON list of pairs."""
    return orjson.dumps([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])


def unpack_headers(packed: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The reverse of `pack_headers`."""
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in orjson.loads(packed))


def may_be_written(future: "asyncio.Future[Any]") -> bool:
    """Whether what was submitted may stand in the database, for all that its future says."""
    error = None if future.cancelled() else future.exception()
    return not (isinstance(error, StoreUnavailable) and not error.unsure)


def _succeeded(future: "asyncio.Future[None]") -> bool:
    return not future.cancelled() and future.exception() is None
