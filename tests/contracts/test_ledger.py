"""What a `Ledger` and its reservations keep: the tests' dict, and PostgreSQL."""

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

from aigate.stores.database import Database
from aigate.stores.journal import Journal
from aigate.stores.keys import create_key
from aigate.stores.ledger import PostgresLedger
from aigate.stores.overdue import Overdue
from aigate.stores.prices import Prices
from aigate.stores.replica import Replica
from middleware.exchange import Caller, Exchange, Outcome, Target
from middleware.faults import StoreUnavailable, Unpriced
from middleware.metering import Ledger, Reservation
from tests.contracts.fakes import MemoryLedger
from tests.middleware.driving import TARGET, Tokens
from tests.running import eventually

UNPRICED = Target("openai", "nobody-knows", stream=False)
COST = 17
"""Of `Tokens()`, at 1e-9 USD a token."""
PRICE = """
insert into price_rules (provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok)
values ('openai', 'gpt-4o', 1000000, 1000000)
"""


class Books(Protocol):
    """A ledger, what stands in it, and the power to take its store away."""

    ledger: Ledger
    caller: Caller

    async def row(self, request_id: str) -> tuple[str, str | None, int] | None:
        """State, outcome and bill of a call."""
        ...

    async def take_away(self) -> None: ...

    async def bring_back(self) -> None: ...


def exchange(books: Books) -> Exchange:
    return Exchange(id=uuid.uuid4().hex, caller=books.caller)


async def opened(books: Books) -> tuple[str, Reservation]:
    """An open call: its request id and its reservation."""
    run = exchange(books)
    reservation = await books.ledger.reserve(run, TARGET)
    await reservation.open()
    return run.id, reservation


async def ended(books: Books, request_id: str) -> bool:
    """Whether the call is not there or not open any more."""
    row = await books.row(request_id)
    return row is None or row[0] == "void"


class LedgerContract(ABC):
    """The tests that every ledger passes."""

    @pytest.fixture
    @abstractmethod
    def books(self) -> Books: ...

    async def test_reserving_writes_nothing(self, books: Books) -> None:
        """A reservation that is not opened leaves no row."""
        run = exchange(books)
        await books.ledger.reserve(run, TARGET)
        assert await books.row(run.id) is None

    async def test_an_open_call(self, books: Books) -> None:
        """Once opened it is there, unbilled."""
        request_id, _ = await opened(books)
        assert await books.row(request_id) == ("open", None, 0)

    async def test_a_settled_call(self, books: Books) -> None:
        """It has its outcome and its bill when `settle` returns."""
        request_id, reservation = await opened(books)
        await reservation.settle(Outcome.OK, Tokens(), COST, None)
        assert await books.row(request_id) == ("settled", "ok", COST)

    async def test_a_void_call(self, books: Books) -> None:
        """Nothing was spent, nothing is billed."""
        request_id, reservation = await opened(books)
        await reservation.void(Outcome.UPSTREAM_ERROR)
        assert await books.row(request_id) == ("void", "upstream_error", 0)

    async def test_the_first_end_counts(self, books: Books) -> None:
        """Ending a call again changes nothing, so that a doubtful end may be written twice."""
        request_id, reservation = await opened(books)
        await reservation.settle(Outcome.OK, Tokens(), COST, None)
        await reservation.settle(Outcome.TRUNCATED, Tokens(output_tokens=500), 512, None)
        await reservation.void(Outcome.INTERRUPTED)
        assert await books.row(request_id) == ("settled", "ok", COST)

    async def test_ending_what_was_never_opened(self, books: Books) -> None:
        """It makes no row."""
        run = exchange(books)
        reservation = await books.ledger.reserve(run, TARGET)
        await reservation.void(Outcome.INTERRUPTED)
        assert await books.row(run.id) is None

    async def test_the_cost(self, books: Books) -> None:
        """By the price of the model, before anything is open too."""
        reservation = await books.ledger.reserve(exchange(books), TARGET)
        assert reservation.cost(Tokens()) == COST

    async def test_a_model_without_a_price(self, books: Books) -> None:
        """It is refused."""
        with pytest.raises(Unpriced):
            await books.ledger.reserve(exchange(books), UNPRICED)

    async def test_a_store_that_is_away(self, books: Books) -> None:
        """No call begins that could not be written down."""
        await books.take_away()
        with pytest.raises(StoreUnavailable):
            await opened(books)
        await books.bring_back()

    async def test_an_end_while_the_store_is_away(self, books: Books) -> None:
        """It raises nothing, and is written as soon as the store is back."""
        request_id, reservation = await opened(books)
        await books.take_away()
        await reservation.settle(Outcome.OK, Tokens(), COST, None)
        await books.bring_back()

        async def settled() -> bool:
            return await books.row(request_id) == ("settled", "ok", COST)

        await eventually(settled)

    @pytest.mark.parametrize("turns", range(4))
    async def test_an_end_survives_its_caller(self, books: Books, turns: int) -> None:
        """Whoever is cancelled while settling has settled."""
        request_id, reservation = await opened(books)
        settling = asyncio.create_task(reservation.settle(Outcome.OK, Tokens(), COST, None))
        for _ in range(turns + 1):
            await asyncio.sleep(0)
        settling.cancel()
        await asyncio.wait([settling])

        async def settled() -> bool:
            return await books.row(request_id) == ("settled", "ok", COST)

        await eventually(settled)

    @pytest.mark.parametrize("turns", range(4))
    async def test_an_opening_that_is_cancelled(self, books: Books, turns: int) -> None:
        """Whoever was not told that the call is open does not end it; it does not stay open."""
        run = exchange(books)
        reservation = await books.ledger.reserve(run, TARGET)
        opening = asyncio.create_task(reservation.open())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        await asyncio.sleep(0.05)
        if opening.cancelled():
            await eventually(lambda: ended(books, run.id))

    async def test_many_at_once(self, books: Books) -> None:
        """Each of many concurrent calls is opened and ended as itself."""

        async def call(number: int) -> str:
            request_id, reservation = await opened(books)
            await reservation.settle(Outcome.OK, Tokens(), number, None)
            return request_id

        ids = await asyncio.gather(*map(call, range(100)))
        rows = [await books.row(request_id) for request_id in ids]
        assert rows == [("settled", "ok", number) for number in range(100)]


class MemoryBooks:
    caller = Caller(1, "acme", 1, "abc")

    def __init__(self) -> None:
        self.ledger = MemoryLedger()

    async def row(self, request_id: str) -> tuple[str, str | None, int] | None:
        row = self.ledger.rows.get(request_id)
        return None if row is None else (row.state, row.outcome, row.billed)

    async def take_away(self) -> None:
        self.ledger.away = True

    async def bring_back(self) -> None:
        self.ledger.away = False


class TestMemoryLedger(LedgerContract):
    @pytest.fixture
    def books(self) -> Books:
        return MemoryBooks()


class PostgresBooks:
    """Its store goes away by losing its table, as it would before a migration."""

    def __init__(self, database: Database, caller: Caller) -> None:
        self.database = database
        self.caller = caller
        self.prices = Prices(database)
        self.replica = Replica(database, name="test", lease=30)
        self.overdue = Overdue()
        self.ledger = PostgresLedger(Journal(database, self.replica), self.prices, self.overdue, free_unpriced=False)

    async def row(self, request_id: str) -> tuple[str, str | None, int] | None:
        found = await self.fetch(
            "select state, outcome, billed_cost_nano from calls where request_id = $1", request_id
        )
        return tuple(found[0]) if found else None

    async def take_away(self) -> None:
        await self.fetch("alter table calls rename to calls_away")

    async def bring_back(self) -> None:
        await self.fetch("alter table calls_away rename to calls")

    async def fetch(self, statement: str, *arguments: object) -> list[Any]:
        async with self.database.connection() as connection:
            return await connection.fetch(statement, *arguments)


@pytest.fixture
async def postgres_books(database: Database) -> AsyncIterator[PostgresBooks]:
    """A ledger on a database of this test's own."""
    await create_key(database, "acme")
    async with database.connection() as connection:
        await connection.execute(PRICE)
        key = await connection.fetchrow("select id, organisation_id, public_id from api_keys")
    books = PostgresBooks(database, Caller(key["organisation_id"], "acme", key["id"], key["public_id"]))
    yield books
    await books.ledger.stop()
    await books.overdue.stop(1)
    await books.prices.close()


class TestPostgresLedger(LedgerContract):
    @pytest.fixture
    def books(self, postgres_books: PostgresBooks) -> Books:
        return postgres_books

    async def test_what_is_written(self, books: PostgresBooks) -> None:
        """Every token class, the provider's own cost, and the rule that priced it."""
        request_id, reservation = await opened(books)
        usage = Tokens(10, 1, 2, 20, 3, 4, 5, "provider", 99)
        await reservation.settle(Outcome.TRUNCATED, usage, reservation.cost(usage), None)
        (row,) = await books.fetch("select * from calls where request_id = $1", request_id)
        names = ("input", "cache_read", "cache_write", "output", "reasoning", "audio", "image")
        assert [row[f"{name}_tokens"] for name in names] == [10, 1, 2, 20, 3, 4, 5]
        assert (row["usage_source"], row["provider_cost_nano"], row["billed_cost_nano"]) == ("provider", 99, 30)
        assert row["price_rule_id"] is not None
        assert (row["provider"], row["model"], row["stream"]) == ("openai", "gpt-4o", True)
        assert row["settled_at"] >= row["opened_at"]

    async def test_the_price_is_pinned(self, books: PostgresBooks) -> None:
        """A price that changes during a call holds for the next one."""
        _, reservation = await opened(books)
        await books.fetch("update price_rules set valid_until = now()")
        assert reservation.cost(Tokens()) == COST

    async def test_a_settlement_after_the_sweep_is_an_adjustment(self, books: PostgresBooks) -> None:
        """A replica that was taken for dead loses no bill: the swept row stays, the adjustment has the money."""
        request_id, reservation = await opened(books)
        await books.fetch("update replicas set lease_until = now() - interval '1 second'")
        await Replica(books.database, name="other", lease=30)._sweep()
        assert await books.row(request_id) == ("settled", "interrupted", 0)
        for _ in range(2):
            await reservation.settle(Outcome.OK, Tokens(), COST, None)
        assert await books.row(request_id) == ("settled", "interrupted", 0)
        adjustments = await books.fetch("select outcome, billed_cost_nano from adjustments")
        assert [tuple(row) for row in adjustments] == [("ok", COST)]

    async def test_the_living_are_not_swept(self, books: PostgresBooks) -> None:
        """A call whose replica has its lease stays open."""
        request_id, _ = await opened(books)
        await Replica(books.database, name="other", lease=30)._sweep()
        assert await books.row(request_id) == ("open", None, 0)

    async def test_an_opening_whose_caller_left_is_taken_back(self, books: PostgresBooks) -> None:
        """However late the row appears, it does not stay open."""
        await books.prices.load()
        await books.replica.ensure_lease()
        run = exchange(books)
        reservation = await books.ledger.reserve(run, TARGET)
        async with books.database.connection() as connection, connection.transaction():
            await connection.execute("select from organisations for update")  # the insert waits for this
            opening = asyncio.create_task(reservation.open())
            await asyncio.sleep(0.05)
            opening.cancel()
            await asyncio.wait([opening])
        await eventually(lambda: ended(books, run.id))

    async def test_a_bill_that_no_column_can_hold_is_its_own_affair(self, books: PostgresBooks) -> None:
        """Nonsense of one provider does not lose the bills of others that end in the same moment."""
        _, absurd = await opened(books)
        request_id, reservation = await opened(books)
        ended = await asyncio.gather(
            absurd.settle(Outcome.OK, Tokens(provider_cost=10**21), COST, None),
            reservation.settle(Outcome.OK, Tokens(), COST, None),
            return_exceptions=True,
        )
        assert ended[1] is None
        assert await books.row(request_id) == ("settled", "ok", COST)
