"""Why: sums, lists and single calls are three views of the same rows and must not differ by a unit."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.human import moment, usd, written
from aigate.stores.database import Database
from aigate.stores.keys import create_key
from aigate.stores.reports import NEXT_PAGE, find_call, list_calls, organisation_named, stream_ledger, sum_usage

ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
FILL = """
insert into calls (request_id, organisation_id, api_key_id, provider, model, stream, state, outcome, usage_source,
    input_tokens, output_tokens, billed_cost_nano, replica_id, opened_at, settled_at)
select gen_random_uuid(), k.organisation_id, k.id, 'openai', 'gpt-' || g % 3, false, 'settled', 'ok', 'provider', g,
    2 * g, 1000000007::bigint * g, gen_random_uuid(),
    '2026-11-01T22:00:00Z'::timestamptz + (g / 2) * interval '1 minute', now()
from generate_series(1, $1::integer) g, api_keys k
"""
ADJUST = """
insert into adjustments (request_id, attempt, organisation_id, reason, usage_source, input_tokens, provider_cost_nano,
    billed_cost_nano)
select request_id, attempt, organisation_id, reason, 'none', 1, 5, -1 from calls, unnest(array['a', 'b']) reason
"""


@pytest.fixture
async def filled(database: Database) -> tuple[Database, int]:
    """Two organisations with 10 calls each, every one adjusted twice; the first organisation's id."""
    await create_key(database, "acme")
    await create_key(database, "globex")
    async with database.connection() as connection:
        await connection.execute(FILL, 10)
        await connection.execute(ADJUST)
    organisation = await organisation_named(database, "acme")
    assert organisation is not None
    return database, organisation


async def test_sums_count_a_call_once_and_its_adjustments_all(filled: tuple[Database, int]) -> None:
    """However often a call is adjusted."""
    (row,) = await sum_usage(*filled, *ALWAYS, [], 10)
    assert (row["calls"], row["input_tokens"], row["output_tokens"]) == (10, 55 + 20, 110)
    assert (row["billed_cost_nano"], row["provider_cost_nano"]) == (1_000_000_007 * 55 - 20, 100)


@pytest.mark.parametrize("dimension", ["day", "hour", "provider", "model", "key", "outcome"])
async def test_groups_add_up_to_the_whole(filled: tuple[Database, int], dimension: str) -> None:
    """Whatever they are grouped by."""
    groups = await sum_usage(*filled, *ALWAYS, [dimension], 100)
    assert sum(row["calls"] for row in groups) == 10
    assert sum(row["billed_cost_nano"] for row in groups) == 1_000_000_007 * 55 - 20
    assert len({row[dimension] for row in groups}) == len(groups)


async def test_the_list_and_the_sums_agree(filled: tuple[Database, int]) -> None:
    """A row of the list costs what it costs in the sums, and what it costs alone."""
    database, organisation = filled
    rows = await list_calls(database, organisation, 100)
    assert rows is not None
    assert sum(row["billed_cost_nano"] for row in rows) == 1_000_000_007 * 55 - 20
    attempts, adjustments = await find_call(database, organisation, rows[0]["request_id"])
    assert attempts == rows[:1]
    assert [row["reason"] for row in adjustments] == ["a", "b"]


async def test_pages_of_calls_that_were_opened_at_once(filled: tuple[Database, int]) -> None:
    """Calls of the same instant are neither lost nor repeated between pages."""
    database, organisation = filled
    whole = await list_calls(database, organisation, 100)
    assert whole is not None
    seen, before = [], None
    while page := await list_calls(database, organisation, 3, before):
        seen += page
        before = (page[-1]["request_id"], page[-1]["attempt"])
    assert seen == whole
    assert [row["opened_at"] for row in seen] == sorted((row["opened_at"] for row in seen), reverse=True)


async def test_the_ledger_is_streamed(filled: tuple[Database, int]) -> None:
    """All organisations or one, since a moment, as many as wanted."""
    database, _ = filled
    assert len([row async for row in stream_ledger(database)]) == 20
    acme = [row async for row in stream_ledger(database, organisation="acme", limit=7)]
    assert {row["organisation"] for row in acme} == {"acme"}
    assert len(acme) == 7
    since = datetime(2026, 11, 1, 22, 4, tzinfo=UTC)
    assert len([row async for row in stream_ledger(database, since=since)]) == 6


async def test_a_page_is_read_by_index(filled: tuple[Database, int]) -> None:
    """A page does not read the organisation's whole history."""
    database, organisation = filled
    async with database.connection() as connection, connection.transaction():
        await connection.execute("set local enable_seqscan = off; set local enable_sort = off")
        place = (datetime(2026, 11, 1, tzinfo=UTC), "00000000-0000-0000-0000-000000000000", 1)
        plan = await connection.fetch(f"explain {NEXT_PAGE}", organisation, 20, *place)
    text = "\n".join(row[0] for row in plan)
    assert "calls_of_organisation" in text
    assert "opened_at" in text.split("Index Cond")[1].split("\n")[0]


@given(st.integers(-(10**20), 10**20))
def test_usd_is_exact(nano: int) -> None:
    """Every amount reads back as itself, without an exponent."""
    text = usd(nano)
    assert Decimal(text) * 1_000_000_000 == nano
    assert "e" not in text.lower()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-01", "2026-11-01T00:00:00Z"),
        ("2026-11-01T08:30:00Z", "2026-11-01T08:30:00Z"),
        ("2026-11-01T08:30:00.5+02:00", "2026-11-01T06:30:00.500000Z"),
        ("2026-11-01T08:30:00 02:00", "2026-11-01T06:30:00Z"),
    ],
)
def test_moments(text: str, at: str) -> None:
    """Dates and RFC 3339 times are understood, also when a query string has eaten the plus sign."""
    assert written(moment(text)) == at


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-11-01T08:30:00", "08:30"])
def test_no_moments(text: str) -> None:
    """What could mean two moments means none."""
    with pytest.raises(ValueError, match=r"is no date|no time zone"):
        moment(text)
