"""Why: people look at the ledger in three ways (one call, a list, sums), and all must show the same numbers.

What a call cost is its row and its adjustments together, everywhere here. Sums are taken over the two as one list of
entries, so that a call with several adjustments is counted once. An adjustment belongs to the time at which its call
was opened.
"""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from aigate.stores.database import Database

TOKENS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_tokens",
    "image_tokens",
)
DIMENSIONS = {
    "day": "date_trunc('day', c.opened_at, 'UTC')",
    "hour": "date_trunc('hour', c.opened_at, 'UTC')",
    "provider": "c.provider",
    "model": "c.model",
    "key": "(select k.public_id from api_keys k where k.id = c.api_key_id)",
    "outcome": "c.outcome",
    "organisation": "c.organisation_id",
}
"""What sums can be grouped by. The outcome is the call's own, also for what an adjustment adds to it."""

_ADJUSTED = ",\n    ".join(f"c.{name} + coalesce(a.{name}, 0) as {name}" for name in TOKENS)
_ADDED = ", ".join(f"sum({name})::bigint as {name}" for name in (*TOKENS, "provider_cost_nano", "billed_cost_nano"))
_ENTRY = f"""
select c.request_id, c.attempt, o.name as organisation, k.public_id as api_key, c.idempotency_key, c.provider,
    c.model, c.stream, c.state, c.outcome, c.usage_source,
    {_ADJUSTED},
    c.estimated_cost_nano,
    coalesce(c.provider_cost_nano + coalesce(a.provider_cost_nano, 0), a.provider_cost_nano) as provider_cost_nano,
    c.billed_cost_nano + coalesce(a.billed_cost_nano, 0) as billed_cost_nano,
    coalesce(a.adjustments, 0) as adjustments, c.price_rule_id, c.on_disconnect, c.replica_id, c.opened_at,
    c.settled_at
from calls c
join organisations o on o.id = c.organisation_id
join api_keys k on k.id = c.api_key_id
left join lateral (
    select count(*) as adjustments, {_ADDED}
    from adjustments where request_id = c.request_id and attempt = c.attempt
) a on true
"""  # noqa: S608

CALL = f"{_ENTRY} where c.organisation_id = $1 and c.request_id = $2 order by c.attempt"

ADJUSTMENTS = """
select attempt, reason, outcome, usage_source, input_tokens, cache_read_tokens, cache_write_tokens, output_tokens,
    reasoning_tokens, audio_tokens, image_tokens, provider_cost_nano, billed_cost_nano, created_at
from adjustments where organisation_id = $1 and request_id = $2 order by id
"""
RULE = """
select id, provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok, cache_read_nano_per_mtok,
    cache_write_nano_per_mtok, reasoning_nano_per_mtok, audio_nano_per_mtok, image_nano_per_mtok, request_nano,
    markup_ppm, tiers, valid_from, valid_until
from price_rules where id = $1
"""
PLACE = "select opened_at from calls where organisation_id = $1 and request_id = $2 and attempt = $3"

FIRST_PAGE = f"""{_ENTRY}
where c.organisation_id = $1
order by c.opened_at desc, c.request_id desc, c.attempt desc limit $2
"""
NEXT_PAGE = f"""{_ENTRY}
where c.organisation_id = $1 and (c.opened_at, c.request_id, c.attempt) < ($3, $4, $5)
order by c.opened_at desc, c.request_id desc, c.attempt desc limit $2
"""
LEDGER = f"""{_ENTRY}
where ($1::timestamptz is null or c.opened_at >= $1) and ($2::text is null or o.name = $2)
order by c.opened_at desc, c.request_id desc, c.attempt desc limit $3
"""
FIND_ORGANISATION = "select id from organisations where name = $1"

IN_PERIOD = "c.organisation_id = $1 and c.opened_at >= $2 and c.opened_at < $3"
LONGEST = 3600.0
"""Seconds that a listing of the whole ledger may take until its first row."""


def usage_statement(dimensions: Sequence[str], where: str) -> str:
    """The statement that sums calls, tokens and costs of the calls `c` for which `where` holds, by `dimensions`.

    Its columns are the dimensions, `calls`, the token classes, `provider_cost_nano` and `billed_cost_nano`.
    """
    groups = "".join(f"{DIMENSIONS[name]} as {_column(name)}, " for name in dimensions)
    names = ", ".join(_column(name) for name in dimensions)
    tokens, added = (", ".join(f"{table}.{name}" for name in TOKENS) for table in ("c", "a"))
    sums = ", ".join(f"sum({name}) as {name}" for name in (*TOKENS, "provider_cost_nano", "billed_cost_nano"))
    return f"""
select {f"{names}, " if names else ""}sum(calls) as calls, {sums}
from (
    select {groups}1 as calls, {tokens}, c.provider_cost_nano, c.billed_cost_nano
    from calls c where {where}
    union all
    select {groups}0, {added}, a.provider_cost_nano, a.billed_cost_nano
    from adjustments a join calls c using (request_id, attempt) where {where}
) entries
{f"group by {names}" if names else ""}
"""  # noqa: S608 - names from the closed list above


async def find_call(
    database: Database, organisation_id: int, request_id: UUID
) -> tuple[list[asyncpg.Record], list[asyncpg.Record]]:
    """The attempts at one call of this organisation, in order, and its adjustments. No attempts: no such call."""
    async with database.connection() as connection:
        attempts = await connection.fetch(CALL, organisation_id, request_id)
        adjustments = await connection.fetch(ADJUSTMENTS, organisation_id, request_id) if attempts else []
    return attempts, adjustments


async def find_rule(database: Database, rule_id: int | None) -> asyncpg.Record | None:
    """A price rule as it is stored, also one that is no longer in force."""
    async with database.connection() as connection:
        return None if rule_id is None else await connection.fetchrow(RULE, rule_id)


async def list_calls(
    database: Database, organisation_id: int, limit: int, before: tuple[UUID, int] | None = None
) -> list[asyncpg.Record] | None:
    """At most `limit` rows, newest first, that are older than `before` (a call and its attempt).

    `None` if the organisation has no such call.
    """
    async with database.connection() as connection:
        if before is None:
            return await connection.fetch(FIRST_PAGE, organisation_id, limit)
        opened_at = await connection.fetchval(PLACE, organisation_id, *before)
        if opened_at is None:
            return None
        return await connection.fetch(NEXT_PAGE, organisation_id, limit, opened_at, *before)


async def sum_usage(
    database: Database, organisation_id: int, since: datetime, until: datetime, dimensions: Sequence[str], most: int
) -> list[asyncpg.Record]:
    """Sums over the calls opened from `since` until just before `until`, at most `most` groups in their order."""
    names = ", ".join(_column(name) for name in dimensions)
    statement = usage_statement(dimensions, IN_PERIOD) + (f"order by {names} " if names else "") + "limit $4"
    async with database.connection() as connection:
        return await connection.fetch(statement, organisation_id, since, until, most)


async def stream_ledger(
    database: Database, *, since: datetime | None = None, organisation: str | None = None, limit: int | None = None
) -> AsyncGenerator[asyncpg.Record, None]:
    """Rows of all organisations, or of one, newest first, through a cursor: any number of them in little memory."""
    async with database.connection() as connection, connection.transaction(readonly=True):
        cursor = connection.cursor(LEDGER, since, organisation, limit, prefetch=1000, timeout=LONGEST)
        async for row in cursor:
            yield row


async def database_time(database: Database) -> datetime:
    """Now, by the clock that prices and leases go by."""
    async with database.connection() as connection:
        now: datetime = await connection.fetchval("select now()")
    return now


async def organisation_named(database: Database, name: str) -> int | None:
    """The id of an organisation, if there is one of this name."""
    async with database.connection() as connection:
        found = await connection.fetchval(FIND_ORGANISATION, name)
    return None if found is None else int(found)


def _column(dimension: str) -> str:
    return {"organisation": "organisation_id"}.get(dimension, dimension)
