"""How cost grows: what is made of the points, and the rows that stand for months of use."""

import asyncio
import base64
from pathlib import Path

import asyncpg
import pytest

from aigate.stores.database import Database
from aigate.stores.keys import KeyRing, create_key
from scripts.benchmark import rows
from scripts.benchmark.gateway import LEDGER, ORGANISATION, PROVIDER
from scripts.benchmark.growth import CURVES, Curve, in_short
from scripts.benchmark.long_runs import growth
from scripts.benchmark.options import GROWTH
from scripts.benchmark.targets import Prompt

FLAT = Curve("x", "CPU by rows", "rows", "us a call", "a reason", [(0, {"aigate": 100.0}), (1000, {"aigate": 110.0})])
STEEP = Curve(
    "x", "CPU by bytes", "bytes", "us a call", "a reason", [(1, {"aigate": 10.0}), (101, {"aigate": 110.0})]
)


def test_a_curve_that_does_not_grow() -> None:
    """Needs no reason."""
    assert FLAT.text().endswith("aigate x 1.10 (+0.01 us for each)\n  does not grow")


def test_a_curve_that_grows_has_its_reason() -> None:
    """And what each one more costs."""
    assert STEEP.text().endswith("aigate x 11.00 (+1 us for each)\n  grows: a reason")


def test_a_curve_in_short() -> None:
    """From where to where, and what that cost."""
    row = ["CPU by rows", "0 to 1k", "aigate 100 to 110", "does not grow"]
    assert in_short([FLAT])[1:] == [row]


def test_a_steep_curve_is_drawn_on_a_logarithmic_axis() -> None:
    """Else its beginning could not be read."""
    assert (FLAT.chart().log_y, STEEP.chart().log_y) == (False, True)


def test_every_curve_can_be_asked_for() -> None:
    """By the name in --help."""
    assert {curve.name for curve, _ in CURVES} == set(GROWTH)


def test_growth_of_memory_is_counted_after_a_tenth() -> None:
    """What the first calls fill is no leak."""
    assert growth([(1, 50.0), (10, 100.0), (50, 108.0), (100, 110.0)]) == pytest.approx(10.0)


def test_text_prompt_has_its_size() -> None:
    """A million bytes are 200,000 tokens."""
    assert len(str(Prompt(1_000_000).content())) == 1_000_000


def test_image_prompt_is_base64() -> None:
    """As a client sends it."""
    content = Prompt(4000, image=True).content()
    assert isinstance(content, list)
    data = content[0]["image_url"]["url"].removeprefix("data:image/png;base64,")
    assert len(base64.b64decode(data, validate=True)) == 3000


@pytest.mark.parametrize("table", [rows.API_KEYS, rows.LEDGER, rows.IDEMPOTENCY], ids=lambda table: table.name)
async def test_rows_are_filled_up(table: rows.Table, database_url: str, tmp_path: Path) -> None:
    """From those that are there to those that are wanted, on the schema of today."""
    database = Database(database_url)
    await create_key(database, ORGANISATION)
    await database.close()
    for present, wanted in ((0, 10), (10, 25)):
        assert await asyncio.to_thread(rows.fill, database_url, tmp_path, table, present, wanted) == wanted
    own = 1 if table is rows.API_KEYS else 0
    assert await one(database_url, f"select count(*) from {table.name}") == 25 + own


async def test_seeded_keys_are_keys(database_url: str, tmp_path: Path) -> None:
    """The gateway lets them in."""
    database = Database(database_url)
    await create_key(database, ORGANISATION)
    await asyncio.to_thread(rows.fill, database_url, tmp_path, rows.API_KEYS, 0, 3)
    token = rows.authorization_of(3).decode().split()[-1]
    caller = await KeyRing(database, cache_seconds=5).caller(token)
    await database.close()
    assert caller is not None


async def test_seeded_calls_are_on_no_bill(database_url: str, tmp_path: Path) -> None:
    """The money error is that of the calls that were made."""
    database = Database(database_url)
    await create_key(database, ORGANISATION)
    await database.close()
    await asyncio.to_thread(rows.fill, database_url, tmp_path, rows.LEDGER, 0, 3)
    assert await one(database_url, LEDGER, PROVIDER) == 0


async def one(url: str, statement: str, *values: object) -> object:
    """The first column of the first row."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement, *values)
    finally:
        await connection.close()
