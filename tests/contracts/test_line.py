"""What a line to PostgreSQL keeps: statements stay prepared as long as they hold, and each has its time."""

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from aigate.stores.database import Database, Line
from middleware.faults import StoreUnavailable

WHO = "select pg_backend_pid() as pid"


@pytest.fixture
async def line(database_url: str) -> AsyncIterator[Line]:
    """One of its own, on which a statement may take a second."""
    opened = Line(database_url, timeout=1.0)
    yield opened
    await opened.close()


async def test_it_is_one_connection(line: Line) -> None:
    """Whatever is said on it."""
    assert await line.fetch(WHO) == await line.fetch(WHO)
    assert [tuple(row) for row in await line.fetch("select $1::int + 1 as sum, $2::text as word", 1, "a")] == [
        (2, "a")
    ]


async def test_a_statement_that_a_migration_changed(line: Line, database: Database) -> None:
    """It is prepared anew; nobody learns of it."""
    async with database.connection() as connection:
        await connection.execute("create table seen (one int)")
        assert await line.fetch("select * from seen") == []
        await connection.execute("alter table seen add column two int; insert into seen values (1, 2)")
    assert [tuple(row) for row in await line.fetch("select * from seen")] == [(1, 2)]


async def test_a_connection_that_postgres_closed_is_opened_anew(line: Line, database: Database) -> None:
    """As its `idle_session_timeout`, restarts and proxies do; nobody learns of it."""
    (before,) = await line.fetch(WHO)
    async with database.connection() as connection:
        await connection.execute("select pg_terminate_backend($1)", before["pid"])
    await asyncio.sleep(0.1)
    assert await line.fetch(WHO) != [before]


async def test_a_connection_that_postgres_closed_is_no_way_to_prepare(line: Line, database: Database) -> None:
    """A statement that was not said on it before is no other: nothing has been done, and a new connection is had."""
    (before,) = await line.fetch(WHO)
    async with database.connection() as connection:
        await connection.execute("select pg_terminate_backend($1)", before["pid"])
    await asyncio.sleep(0.1)
    assert [row["one"] for row in await line.fetch("select 1 as one")] == [1]


async def test_a_statement_that_postgres_forgot(line: Line) -> None:
    """As `discard all` of a proxy makes it; it is prepared anew, and nobody learns of it."""
    await line.fetch(WHO)
    await line.fetch("deallocate all")
    assert await line.fetch(WHO)


async def test_a_statement_has_its_time(line: Line) -> None:
    """What takes longer may be done or not; the next has a connection of its own, and all of its time."""
    for _ in range(3):
        await line.fetch("select pg_sleep(0.3)")
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        await line.fetch("select pg_sleep(10)")
    assert 1 <= time.monotonic() - began < 3
    assert caught.value.unsure
    await line.fetch(WHO)


async def test_a_bad_statement_is_a_defect(line: Line) -> None:
    """It is told as it is, and the line goes on; what PostgreSQL itself refused leaves the connection as it was."""
    before = await line.fetch(WHO)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await line.fetch("select 1 / $1::int", 0)
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await line.fetch("no statement")
    assert await line.fetch(WHO) == before
    with pytest.raises(asyncpg.DataError):
        await line.fetch("select $1::int", "no number")
    assert await line.fetch("select 1 / $1::int as one", 1)


async def test_who_is_cancelled_leaves_nothing_behind(line: Line) -> None:
    """The next one's rows are its own."""
    waiting = asyncio.ensure_future(line.fetch("select pg_sleep(0.5)"))
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert [row["one"] for row in await line.fetch("select 1 as one")] == [1]


async def test_a_database_that_is_away() -> None:
    """Nothing was sent, and so nothing is unsure."""
    line = Line("postgresql://aigate@127.0.0.1:1/aigate", timeout=1.0)
    with pytest.raises(StoreUnavailable) as caught:
        await line.fetch(WHO)
    assert not caught.value.unsure
    await line.close()
