"""Why: every call needs its price at once, and a price that somebody changed must hold within seconds everywhere.

So each process keeps all rules in memory and asks PostgreSQL now and then whether anything is different; only then
it reads them again. A database that is away changes nothing: the last rules stay in force. Time is the database's
own, so that replicas whose clocks differ agree on when a price ends.

A rule is never changed once a call may have used it: `replace_rules` closes it and opens its successor.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import orjson
from loguru import logger

from aigate.pricing import PriceBook, PriceRule, Rates, Tier
from aigate.stores.database import Database
from middleware.faults import StoreUnavailable

if TYPE_CHECKING:
    import asyncpg

    from aigate.stores.database import Connection

CLASSES = tuple(item.name for item in fields(Rates))

COLUMNS = """id, organisation_id, provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok,
    cache_read_nano_per_mtok, cache_write_nano_per_mtok, reasoning_nano_per_mtok, audio_nano_per_mtok,
    image_nano_per_mtok, request_nano, markup_ppm, tiers, source, valid_from, valid_until"""

STATE = "select now() as at, count(*) as rules, sum(xmin::text::bigint) as version from price_rules"
"""Any insert, update or delete changes `rules` or `version`: `xmin` is the transaction that wrote the row."""

LOAD = f"select {COLUMNS} from price_rules where valid_until is null or valid_until > now()"  # noqa: S608

LIST = f"""
select {COLUMNS} from price_rules
where valid_from <= now() and (valid_until is null or valid_until > now())
  and ($1::bigint is null or organisation_id is null or organisation_id = $1)
  and ($2::text is null or provider = $2)
order by provider, model_pattern, organisation_id nulls first
"""  # noqa: S608

_WANTED = """
with wanted as (
    select * from unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
        $9::bigint[], $10::bigint[], $11::bigint[], $12::integer[], $13::jsonb[], $14::text[])
    as t (provider, model_pattern, input, output, cache_read, cache_write, reasoning, audio, image, request, markup,
        tiers, source)
)
"""

CLOSE = f"""{_WANTED}
update price_rules r set valid_until = greatest(now(), r.valid_from)
from wanted w
where r.valid_until is null and coalesce(r.organisation_id, 0) = coalesce($1::bigint, 0)
  and r.provider = w.provider and r.model_pattern = w.model_pattern
  and (r.input_nano_per_mtok, r.output_nano_per_mtok, r.cache_read_nano_per_mtok, r.cache_write_nano_per_mtok,
       r.reasoning_nano_per_mtok, r.audio_nano_per_mtok, r.image_nano_per_mtok, r.request_nano, r.markup_ppm, r.tiers,
       r.source)
      is distinct from
      (w.input, w.output, w.cache_read, w.cache_write, w.reasoning, w.audio, w.image, w.request, w.markup, w.tiers,
       w.source)
"""  # noqa: S608

OPEN = f"""{_WANTED}
insert into price_rules (organisation_id, provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok,
    cache_read_nano_per_mtok, cache_write_nano_per_mtok, reasoning_nano_per_mtok, audio_nano_per_mtok,
    image_nano_per_mtok, request_nano, markup_ppm, tiers, source)
select $1::bigint, w.* from wanted w
where not exists (
    select from price_rules r
    where r.valid_until is null and coalesce(r.organisation_id, 0) = coalesce($1, 0)
      and r.provider = w.provider and r.model_pattern = w.model_pattern)
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Replaced:
    """What `replace_rules` did, in rules. `changed` ones were closed and opened anew."""

    added: int
    changed: int
    unchanged: int


class Prices:
    """The rules in force, at most `kept` seconds (and one query) old while the database answers."""

    def __init__(self, database: Database, *, kept: float = 10.0) -> None:
        self._database = database
        self._kept = kept
        self._book: PriceBook | None = None
        self._state: tuple[int, int] | None = None
        self._ahead = 0.0
        """Seconds by which the database's clock is ahead of our monotonic one, which carries its time on."""
        self.stale_from = 0.0
        """When `load` is to be called next, by the monotonic clock: before the first `find`, and now and then."""
        self._refreshing: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Make sure that there are rules; waits only the first time. Raises `StoreUnavailable` if it cannot.

        It starts the refresh when the rules have become old (`stale_from`).
        """
        if time.monotonic() < self.stale_from:
            return
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh())
            self._refreshing.add_done_callback(self._refreshed)
        if self._book is None:
            await asyncio.shield(self._refreshing)

    def find(self, organisation_id: int, provider: str, model: str) -> PriceRule | None:
        """The rule in force now for a call of this organisation. Raises `StoreUnavailable` before the first load."""
        if self._book is None:
            raise StoreUnavailable("The gateway has not read its prices yet; nothing was called.")
        return self._book.find(organisation_id, provider, model, self._ahead + time.monotonic())

    def priced(self, provider: str, model: str) -> bool:
        """Whether there is a rule for exactly this model; false before the first load."""
        return self._book is not None and self._book.priced(provider, model)

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    async def _refresh(self) -> None:
        again = time.monotonic() + self._kept
        if self._book is not None:
            self.stale_from = again
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            state = await connection.fetchrow(STATE)
            assert state is not None  # noqa: S101 - an aggregate has one row
            ahead = state["at"].timestamp() - time.monotonic()
            version = (state["rules"], state["version"])
            rows = await connection.fetch(LOAD) if version != self._state else None
        if rows is not None:
            self._book = await asyncio.to_thread(_book, rows)
            self._state = version
        self._ahead = ahead
        self.stale_from = again

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, StoreUnavailable):
            logger.opt(exception=error).error("price rules cannot be read; the last ones stay in force")


async def replace_rules(
    connection: "Connection", organisation_id: int | None, rules: Sequence[PriceRule]
) -> Replaced:
    """Put `rules` in force from now on for one organisation (`None`: for all), in one transaction.

    An open rule with the same provider and pattern is closed if anything differs and left alone if nothing does;
    rules with other patterns are not touched. The rules' own organisation, id and validity are not looked at.
    Raises `ValueError` if two of them have the same provider and pattern.
    """
    if len({(rule.provider, rule.model_pattern) for rule in rules}) < len(rules):
        raise ValueError("two price rules have the same provider and pattern")
    columns = list(zip(*map(_row, rules), strict=True)) if rules else [()] * 13
    async with connection.transaction():
        await connection.execute("lock table price_rules in share row exclusive mode")
        changed = _count(await connection.execute(CLOSE, organisation_id, *columns))
        opened = _count(await connection.execute(OPEN, organisation_id, *columns))
    return Replaced(added=opened - changed, changed=changed, unchanged=len(rules) - opened)


async def list_rules(
    database: Database, organisation_id: int | None = None, provider: str | None = None
) -> list[PriceRule]:
    """The rules in force now, by provider and pattern: all, or those that hold for one organisation or provider."""
    async with database.connection() as connection:
        return [rule_from(row) for row in await connection.fetch(LIST, organisation_id, provider)]


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])


def _row(rule: PriceRule) -> tuple[Any, ...]:
    prices = (getattr(rule.rates, name) for name in CLASSES)
    tiers = [{"above_input_tokens": tier.above_input_tokens} | _named(tier.rates) for tier in rule.tiers]
    document = orjson.dumps(tiers).decode()
    return rule.provider, rule.model_pattern, *prices, rule.request_nano, rule.markup_ppm, document, rule.source


def _named(rates: Rates) -> dict[str, int]:
    return {name: price for name in CLASSES if (price := getattr(rates, name)) is not None}


def _book(rows: Iterable["asyncpg.Record"]) -> PriceBook:
    return PriceBook(map(rule_from, rows))


def rule_from(row: "asyncpg.Record") -> PriceRule:
    rates = Rates(*(row[f"{name}_nano_per_mtok"] for name in CLASSES))
    return PriceRule(
        id=row["id"],
        organisation_id=row["organisation_id"],
        provider=row["provider"],
        model_pattern=row["model_pattern"],
        rates=rates,
        tiers=_tiers(row["tiers"], rates),
        request_nano=row["request_nano"],
        markup_ppm=row["markup_ppm"],
        source=row["source"],
        valid_from=row["valid_from"],
        valid_until=row["valid_until"],
    )


def _tiers(document: str, rates: Rates) -> tuple[Tier, ...]:
    """The tiers in ascending order; a class that a tier does not name keeps the rule's own price."""
    if document == "[]":
        return ()
    base = _named(rates)
    tiers = (
        Tier(int(item.pop("above_input_tokens")), Rates(**base | item)) for item in map(dict, orjson.loads(document))
    )
    return tuple(sorted(tiers, key=lambda tier: tier.above_input_tokens))
