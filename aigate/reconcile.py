"""Why: an own ledger is only believed once it has been laid beside the provider's bill.

Both sides become totals under the same key: the request id where the file has ours, else the day (UTC) and the model,
else the day. A model's name is compared without the date of its snapshot (`gpt-4o-2024-08-06` is `gpt-4o`), because
providers bill the snapshot and callers ask for the model. Our side of a cost is what the provider itself reported
with the call, else what the pinned price rule says without its mark-up.
"""

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, TypeAlias
from uuid import UUID

from aigate.invoices import Invoice, InvoiceLine
from aigate.stores.database import Database
from aigate.stores.prices import COLUMNS, rule_from
from aigate.stores.reports import LONGEST, TOKENS
from providers.contract import Usage

if TYPE_CHECKING:
    import asyncpg

    from aigate.pricing import PriceRule
    from aigate.stores.database import Connection

Key: TypeAlias = UUID | tuple[date, str | None] | None
By: TypeAlias = Literal["request id", "day and model", "day"]

SETTLED = """
select c.request_id, c.model, c.opened_at, c.usage_source, c.price_rule_id, c.provider_cost_nano, c.input_tokens,
    c.cache_read_tokens, c.cache_write_tokens, c.output_tokens, c.reasoning_tokens, c.audio_tokens, c.image_tokens,
    1 as requests
from calls c
where c.state = 'settled' and ($1::text is null or c.provider = $1) and {period}
union all
select c.request_id, c.model, c.opened_at, a.usage_source, c.price_rule_id, a.provider_cost_nano, a.input_tokens,
    a.cache_read_tokens, a.cache_write_tokens, a.output_tokens, a.reasoning_tokens, a.audio_tokens, a.image_tokens, 0
from adjustments a join calls c using (request_id, attempt)
where c.state = 'settled' and a.reason = 'settled after the sweep'
    and ($1::text is null or c.provider = $1) and {period}
"""
IN_TIME = SETTLED.format(period="c.opened_at >= $2 and c.opened_at < $3")
BY_NAME = SETTLED.format(period="c.request_id = any($2::uuid[])")
RULES = f"select {COLUMNS} from price_rules"  # noqa: S608
BATCH = 10_000
COMPARED = ("requests", "input_tokens", "output_tokens", "cost")
OUR_ROUNDING = Decimal("0.5")
"""What one call of ours may be off, in 1e-9 USD."""
_SNAPSHOT = re.compile(r"[-@](20\d\d-?[01]\d-?[0-3]\d)$")


@dataclass(slots=True)
class Totals:
    """One side of a comparison. `cost` in 1e-9 USD, exact; `estimated` of the requests have no provider's count."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)
    estimated: int = 0
    lines: int = 0

    def add(self, other: "Totals") -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Comparison:
    """What the two sides came to. `errors` in 1e-9 USD: the differences of all keys, each without its sign."""

    by: By
    since: datetime | None
    until: datetime | None
    compared: tuple[str, ...]
    matched: int = 0
    missing_here: list[tuple[Key, Totals]] = field(default_factory=list)
    missing_there: list[tuple[Key, Totals]] = field(default_factory=list)
    different: list[tuple[Key, Totals, Totals]] = field(default_factory=list)
    theirs: Totals = field(default_factory=Totals)
    ours: Totals = field(default_factory=Totals)
    errors: Decimal = Decimal(0)

    @property
    def agrees(self) -> bool:
        return not (self.missing_here or self.missing_there or self.different)


async def reconcile(
    database: Database,
    invoice: Invoice,
    *,
    provider: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    names: Mapping[str, str] | None = None,
) -> Comparison:
    """Lay an invoice beside the calls of `provider` (default: the one that the file's form tells, else all).

    `since` and `until` default to the time that the file covers; `names` maps the provider's models to ours. Raises
    `InvoiceError` and `StoreUnavailable`.
    """
    lines = [line for line in invoice.lines() if _within(line, since, until)]
    by = _granularity(lines)
    renamed = names or {}
    first, last = _span(lines, by)
    theirs = _sum((_key(by, line.request_id, line.at, line.model, renamed), _their(line, invoice)) for line in lines)
    compared = tuple(name for name in COMPARED if invoice.says(name) or (name == "requests" and invoice.of_calls))
    comparison = Comparison(by, since or first, until or last, compared)
    ours = await _ours(database, comparison, theirs, provider or invoice.form.provider)
    _compare(comparison, theirs, ours, invoice.form.rounding * 1_000_000_000)
    return comparison


def _granularity(lines: Iterable[InvoiceLine]) -> By:
    spoken = [line for line in lines if not line.empty]
    if any(line.request_id for line in spoken):
        return "request id"
    return "day and model" if all(line.model for line in spoken) else "day"


def _within(line: InvoiceLine, since: datetime | None, until: datetime | None) -> bool:
    return line.at is None or ((since is None or line.at >= since) and (until is None or line.at < until))


def _span(lines: Iterable[InvoiceLine], by: By) -> tuple[datetime | None, datetime | None]:
    """The time that the lines cover, in whole days unless each is a request."""
    times = [line.at for line in lines if line.at is not None]
    if not times:
        return None, None
    first, last = min(times), max(times)
    if by == "request id":
        return first, last + timedelta(microseconds=1)
    return _midnight(first), _midnight(last) + timedelta(days=1)


def _midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _key(by: By, request_id: UUID | None, at: datetime | None, model: str | None, names: Mapping[str, str]) -> Key:
    if by == "request id":
        return request_id
    if at is None:
        return None
    plain = "" if model is None else _SNAPSHOT.sub("", model)
    name = None if by == "day" or model is None else names.get(model, names.get(plain, plain))
    return at.astimezone(UTC).date(), name


def _their(line: InvoiceLine, invoice: Invoice) -> Totals:
    return Totals(
        requests=int(invoice.of_calls) if line.requests is None else line.requests,
        input_tokens=line.input_tokens or 0,
        output_tokens=line.output_tokens or 0,
        cost=(line.cost or Decimal(0)) * 1_000_000_000,
        lines=0 if line.empty else 1,
    )


def _sum(entries: Iterable[tuple[Key, Totals]]) -> dict[Key, Totals]:
    sums: dict[Key, Totals] = {}
    for key, totals in entries:
        sums.setdefault(key, Totals()).add(totals)
    return {key: totals for key, totals in sums.items() if totals.lines or totals.requests}


async def _ours(
    database: Database, comparison: Comparison, theirs: Mapping[Key, Totals], provider: str | None
) -> dict[Key, Totals]:
    """Our totals under every key of theirs, and those of the rest of the time that is compared."""
    ours: dict[Key, Totals] = {}
    async with (
        database.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        rules = {row["id"]: rule_from(row) for row in await connection.fetch(RULES, timeout=LONGEST)}
        async for row in _rows(connection, comparison, theirs, provider):
            key = _key(comparison.by, row["request_id"], row["opened_at"], row["model"], {})
            ours.setdefault(key, Totals()).add(_our(row, rules))
    return ours


async def _rows(
    connection: "Connection", comparison: Comparison, theirs: Mapping[Key, Totals], provider: str | None
) -> AsyncIterator["asyncpg.Record"]:
    named = [key for key in theirs if isinstance(key, UUID)]
    first, last = comparison.since, comparison.until
    for start in range(0, len(named), BATCH):
        for row in await connection.fetch(BY_NAME, provider, named[start : start + BATCH], timeout=LONGEST):
            yield row
    if first is None or last is None:
        return
    known = set(named)
    async for row in connection.cursor(IN_TIME, provider, first, last, prefetch=1000, timeout=LONGEST):
        if row["request_id"] not in known:
            yield row


def _our(row: "asyncpg.Record", rules: Mapping[int, "PriceRule"]) -> Totals:
    usage = Usage(**{name: row[name] for name in TOKENS})
    cost = row["provider_cost_nano"]
    if cost is None and row["usage_source"] != "none":
        rule = rules.get(row["price_rule_id"])
        cost = 0 if rule is None else rule.raw_cost(usage)
    estimated = row["requests"] if row["usage_source"] == "estimated" else 0
    return Totals(row["requests"], usage.input_tokens, usage.output_tokens, Decimal(cost or 0), estimated, 1)


def _compare(
    comparison: Comparison, theirs: Mapping[Key, Totals], ours: Mapping[Key, Totals], rounding: Decimal
) -> None:
    nothing = Totals()
    for key, their in theirs.items():
        our = ours.get(key)
        if our is None:
            comparison.missing_here.append((key, their))
        elif _same(comparison.compared, their, our, rounding):
            comparison.matched += 1
        else:
            comparison.different.append((key, their, our))
        comparison.theirs.add(their)
        comparison.errors += abs(their.cost - (our or nothing).cost)
    for key, our in ours.items():
        comparison.ours.add(our)
        if key not in theirs:
            comparison.missing_there.append((key, our))
            comparison.errors += our.cost


def _same(compared: Iterable[str], their: Totals, our: Totals, rounding: Decimal) -> bool:
    """Whether two totals are equal: counts exactly, costs within the rounding of either side."""
    off = rounding * their.lines + OUR_ROUNDING * our.lines
    return all(
        abs(their.cost - our.cost) <= off if name == "cost" else getattr(their, name) == getattr(our, name)
        for name in compared
    )
