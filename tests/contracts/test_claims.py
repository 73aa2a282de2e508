"""What the claims of idempotency keys keep when their store goes away between two statements."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aigate.stores.database import Database, Line
from aigate.stores.idempotency import CLAIM, HOLDERS, PostgresIdempotency
from aigate.stores.keys import create_organisation
from aigate.stores.overdue import Overdue
from aigate.stores.replica import Replica
from middleware.claims import Claim
from middleware.faults import StoreUnavailable


class EndingLine(Line):
    """The connection breaks before it can be asked who holds a key, and no new one is to be had."""

    async def fetch(self, statement: str, *arguments: object) -> list[Any]:
        if statement == HOLDERS:
            raise StoreUnavailable("away", unsure=False)
        return await super().fetch(statement, *arguments)


class Ending(Database):
    def line(self) -> Line:
        line = EndingLine(self._url, self._timeout)
        self._lines.append(line)
        return line


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresIdempotency]:
    database, overdue = Ending(database_url), Overdue()
    assert await create_organisation(database, "first") == 1
    yield PostgresIdempotency(database, Replica(database, name="one", lease=60), overdue, retention=60)
    await overdue.stop(5)
    await database.close()


def claim(key: str) -> Claim:
    return Claim(org_id=1, key=key, fingerprint=bytes(32), request_id=uuid.uuid4().hex)


async def test_what_was_granted_in_the_same_batch_is_given_back(store: PostgresIdempotency) -> None:
    """Who was not told of a grant does not run, and must not hold the key: the retry would wait for nobody."""
    assert await store.claim(claim("held")) is None
    results = await asyncio.gather(store.claim(claim("held")), store.claim(claim("free")), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 2
    async with asyncio.timeout(5):
        while True:
            try:
                assert await store.claim(claim("free")) is None
            except StoreUnavailable:  # still held
                await asyncio.sleep(0.05)
            else:
                return


async def test_those_for_one_key_fail_no_statement(database: Database) -> None:
    """The first one holds it, for those that came with it, too; those of other keys do not notice."""
    asked: list[str] = []

    class Counting(Line):
        async def fetch(self, statement: str, *arguments: object) -> list[Any]:
            asked.append(statement)
            return await super().fetch(statement, *arguments)

    assert await create_organisation(database, "first") == 1
    store = PostgresIdempotency(database, Replica(database, name="one", lease=60), Overdue(), retention=60)
    store._line = Counting(database._url, 5)
    claims = [claim(key) for key in ("same", "same", "other", "same")]
    first, second, other, third = await asyncio.gather(*map(store.claim, claims))
    assert (first, other) == (None, None)
    assert [getattr(state, "request_id", None) for state in (second, third)] == [claims[0].request_id] * 2
    assert asked == [CLAIM, HOLDERS]
    again = [claim(key) for key in ("same", "other", "same")]
    states = await asyncio.gather(*map(store.claim, again))
    assert [getattr(state, "request_id", None) for state in states] == [claims[n].request_id for n in (0, 2, 0)]
    await store._line.close()
