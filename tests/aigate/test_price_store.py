"""Why: a price that changed must hold within seconds, and a database that is away must not stop priced calls."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aigate.pricing import PriceRule, Rates, Tier
from aigate.seeding import seed_price_rules
from aigate.stores.database import Database
from aigate.stores.prices import Prices, Replaced, list_rules, replace_rules
from middleware.faults import StoreUnavailable
from providers.contract import Usage

if TYPE_CHECKING:
    from aigate.stores.database import Connection

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "seed_price_rules.py"

RULE = PriceRule(
    provider="openai",
    model_pattern="gpt-4o",
    rates=Rates(2_500_000_000, 10_000_000_000, cache_read=1_250_000_000),
    tiers=(Tier(1000, Rates(5_000_000_000, 20_000_000_000, cache_read=1_250_000_000)),),
    request_nano=7,
    markup_ppm=100_000,
    source="a test",
)
GLOB = PriceRule(provider="openai", model_pattern="gpt-*", rates=Rates(1, 1))
USAGE = Usage(input_tokens=2000, output_tokens=10)


class Breakable(Database):
    """A database that is away while `away`; it says how often it was asked."""

    def __init__(self, real: Database) -> None:
        self.real, self.away, self.asked = real, False, 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Connection"]:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("away")
        async with self.real.connection() as connection:
            yield connection


@pytest.fixture(autouse=True)
async def _no_built_in_rules(database: Database) -> None:
    """These tests begin without the rule that every database has."""
    async with database.connection() as connection:
        await connection.execute("delete from price_rules")


async def put(database: Database, *rules: PriceRule, organisation: int | None = None) -> Replaced:
    async with database.connection() as connection:
        return await replace_rules(connection, organisation, rules)


async def settled(prices: Prices) -> None:
    """Let the background refresh end."""
    await prices.load()
    if prices._refreshing is not None:
        await asyncio.wait([prices._refreshing])


async def test_a_rule_comes_back_as_it_was_stored(database: Database) -> None:
    """With every price, its tiers and its mark-up; id and validity are the database's."""
    assert await put(database, RULE) == Replaced(added=1, changed=0, unchanged=0)
    prices = Prices(database)
    await prices.load()
    found = prices.find(1, "openai", "gpt-4o")
    assert found is not None
    assert found.id > 0
    assert found.valid_from > datetime(2020, 1, 1, tzinfo=UTC)
    assert replace(found, id=0, valid_from=RULE.valid_from) == RULE
    assert found.cost(USAGE) == RULE.cost(USAGE)
    assert prices.priced("openai", "gpt-4o")
    assert not prices.priced("openai", "gpt-4")


async def test_what_did_not_change_is_left_alone(database: Database) -> None:
    """A second run keeps the rows; a changed price closes one and opens its successor at the same instant."""
    await put(database, RULE, GLOB)
    assert await put(database, RULE, GLOB) == Replaced(added=0, changed=0, unchanged=2)
    assert await put(database, replace(RULE, markup_ppm=0), GLOB) == Replaced(added=0, changed=1, unchanged=1)
    async with database.connection() as connection:
        rows = await connection.fetch("select * from price_rules where model_pattern = 'gpt-4o' order by id")
    assert [row["valid_until"] for row in rows] == [rows[1]["valid_from"], None]
    assert [rule.markup_ppm for rule in await list_rules(database) if rule.model_pattern == "gpt-4o"] == [0]


@pytest.mark.parametrize(
    "changed",
    [
        replace(RULE, rates=replace(RULE.rates, reasoning=0)),
        replace(RULE, tiers=()),
        replace(RULE, request_nano=8),
        replace(RULE, source="elsewhere"),
    ],
)
async def test_any_difference_opens_a_new_rule(database: Database, changed: PriceRule) -> None:
    """Also a price that was not there before, and where it is from."""
    await put(database, RULE)
    assert await put(database, changed) == Replaced(added=0, changed=1, unchanged=0)


async def test_two_rules_of_one_name_are_refused(database: Database) -> None:
    """Which of them was meant?"""
    with pytest.raises(ValueError, match="same provider and pattern"):
        await put(database, RULE, RULE)


async def test_no_rules_change_nothing(database: Database) -> None:
    """An empty list is not the end of all prices."""
    await put(database, RULE)
    assert await put(database) == Replaced(added=0, changed=0, unchanged=0)
    assert len(await list_rules(database)) == 1


async def test_a_tier_inherits_what_it_does_not_name(database: Database) -> None:
    """People write tiers by hand; a class that is missing costs what the rule says, and order does not matter."""
    await put(database, RULE)
    tiers = '[{"above_input_tokens": 50, "output": 3}, {"above_input_tokens": 9, "input": 2}]'
    async with database.connection() as connection:
        await connection.execute("update price_rules set tiers = $1", tiers)
    (rule,) = await list_rules(database)
    assert rule.tiers == (Tier(9, replace(RULE.rates, input=2)), Tier(50, replace(RULE.rates, output=3)))


async def test_a_changed_price_holds_without_waiting_for_it(database: Database) -> None:
    """The refresh runs in the background: the call that starts it still gets the old price at once."""
    await put(database, RULE)
    prices = Prices(database, kept=0)
    await prices.load()
    await put(database, replace(RULE, request_nano=99))
    await prices.load()
    first = prices.find(1, "openai", "gpt-4o")
    await settled(prices)
    second = prices.find(1, "openai", "gpt-4o")
    await prices.close()
    assert first is not None
    assert second is not None
    assert (first.request_nano, second.request_nano) == (7, 99)


@pytest.mark.parametrize(
    "change",
    [
        "update price_rules set request_nano = 3",
        "delete from price_rules",
        "update price_rules set valid_until = now()",
    ],
)
async def test_any_change_of_the_table_is_noticed(database: Database, change: str) -> None:
    """Also one that an operator makes by hand."""
    await put(database, RULE)
    prices = Prices(database, kept=0)
    await prices.load()
    async with database.connection() as connection:
        await connection.execute(change)
    await settled(prices)
    found = prices.find(1, "openai", "gpt-4o")
    await prices.close()
    assert found is None or found.request_nano == 3


async def test_prices_are_asked_for_once_in_their_time(database: Database) -> None:
    """A hundred calls at once share the first load, and the next ones ask nothing."""
    breakable = Breakable(database)
    prices = Prices(breakable, kept=60)
    await asyncio.gather(*(prices.load() for _ in range(100)))
    await prices.load()
    assert breakable.asked == 1


async def test_the_last_prices_hold_while_the_database_is_away(database: Database) -> None:
    """Away, wrong answers would be worse than old ones; back, the new price holds."""
    breakable = Breakable(database)
    await put(database, RULE)
    prices = Prices(breakable, kept=0)
    await prices.load()
    breakable.away = True
    await settled(prices)
    assert prices.find(1, "openai", "gpt-4o") is not None
    breakable.away = False
    await put(database, replace(RULE, request_nano=99))
    await settled(prices)
    found = prices.find(1, "openai", "gpt-4o")
    await prices.close()
    assert found is not None
    assert found.request_nano == 99


async def test_without_a_first_load_there_is_no_price(database: Database) -> None:
    """It is an outage, not an unpriced model; once the database is back, the next call loads."""
    breakable = Breakable(database)
    breakable.away = True
    prices = Prices(breakable)
    with pytest.raises(StoreUnavailable):
        await prices.load()
    with pytest.raises(StoreUnavailable):
        prices.find(1, "openai", "gpt-4o")
    assert not prices.priced("openai", "gpt-4o")
    breakable.away = False
    await prices.load()
    assert prices.find(1, "openai", "gpt-4o") is None


async def test_own_rules_are_listed_with_the_common_ones(database: Database) -> None:
    """An organisation sees what holds for it, and nothing of the others."""
    async with database.connection() as connection:
        one, two = [
            await connection.fetchval("insert into organisations (name) values ($1) returning id", name)
            for name in ("one", "two")
        ]
    await put(database, RULE)
    await put(database, replace(RULE, request_nano=1), organisation=one)
    assert [rule.request_nano for rule in await list_rules(database, one)] == [7, 1]
    assert [rule.request_nano for rule in await list_rules(database, two, "openai")] == [7]
    assert await list_rules(database, None, "mistral") == []


async def test_seeding_twice_changes_nothing_and_a_dry_run_never(database: Database) -> None:
    """The organisation is made, every price is there, and the second run is a no-op."""
    dry = await seed_price_rules(database, "acme", dry_run=True)
    assert await list_rules(database) == []
    first = await seed_price_rules(database, "acme")
    second = await seed_price_rules(database, "acme")
    assert dry.created
    assert first.created
    assert not second.created
    assert dry.rules == first.rules == Replaced(added=sum(first.providers.values()), changed=0, unchanged=0)
    assert second.rules == Replaced(added=0, changed=0, unchanged=first.rules.added)
    prices = Prices(database)
    await prices.load()
    assert prices.find(first.organisation_id, "echo", "echo") is not None


async def run_script(*arguments: str, url: str) -> tuple[int | None, str]:
    """The script's exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        *arguments,
        env={**os.environ, "DATABASE_URL": url},
        cwd="/",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_the_script_seeds_and_says_so(database: Database, database_url: str) -> None:
    """A dry run says what it would do, a second run that nothing is left to do."""
    dry = await run_script("--org-name", "acme", "--dry-run", url=database_url)
    assert await list_rules(database) == []
    first = await run_script("--org-name", "acme", url=database_url)
    second = await run_script("--org-name", "acme", url=database_url)
    assert [code for code, _ in (dry, first, second)] == [0, 0, 0]
    assert "would seed 'acme' (new)" in dry[1]
    assert "seeded 'acme' (new)" in first[1]
    assert "seeded 'acme': 0 rules added, 0 changed" in second[1]


async def test_the_script_says_what_is_missing(empty_database_url: str) -> None:
    """One line and an exit code, not a traceback."""
    for url, words in [
        ("", "DATABASE_URL is not set"),
        ("x", "DATABASE_URL"),
        (empty_database_url, "migrate it first"),
    ]:
        code, output = await run_script("--org-name", "acme", url=url)
        assert code == 1
        assert words in output
        assert "Traceback" not in output
