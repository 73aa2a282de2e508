"""What the claims of idempotency keys keep when their store goes away, between two statements or within one."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from aigate.stores.database import Database, Line
from aigate.stores.idempotency import CLAIM, HOLDERS, REAP, PostgresIdempotency
from aigate.stores.journal import to_json
from aigate.stores.keys import create_key, create_organisation
from aigate.stores.overdue import Overdue
from aigate.stores.replica import Replica
from middleware.claims import Claim, Running
from middleware.faults import StoreUnavailable
from tests.faults.proxy import Proxy
from tests.running import eventually


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


OPENED = """
insert into calls (request_id, organisation_id, api_key_id, provider, model, stream, replica_id)
select $1, organisation_id, id, 'openai', 'm', false, $2 from api_keys
"""
MINUTES_PASS = "update idempotency_keys set claimed_at = claimed_at - interval '61 seconds'"


async def test_a_claim_that_arrives_after_its_end_holds_the_key_for_a_minute(
    database: Database, database_url: str
) -> None:
    """It was given up (503), its retry had the key and gave it back: nobody runs under what arrives then."""
    overdue, late, retry = Overdue(), claim("k"), claim("k")
    url = urlsplit(database_url)
    socket = f"{parse_qs(url.query)['host'][0]}/.s.PGSQL.5432"
    async with Proxy(partial(asyncio.open_unix_connection, socket)) as proxy:
        behind = Database(f"postgresql://aigate@127.0.0.1:{proxy.port}{url.path}?sslmode=disable", timeout=1)
        store = PostgresIdempotency(behind, Replica(behind, name="one", lease=60), overdue, retention=60)
        assert await create_organisation(database, "first") == 1
        assert await store.claim(claim("warm up")) is None
        rule = proxy.at("before", CLAIM, times=1)
        with pytest.raises(StoreUnavailable):
            await store.claim(late)
        await eventually(lambda: overdue.waiting == 0)
        assert await store.claim(retry) is None
        await store.release(retry)
        rule.end("deliver")
        async with database.connection() as connection:
            for _ in range(500):
                if await connection.fetchval("select true from idempotency_keys where key = 'k'"):
                    break
                await asyncio.sleep(0.01)
            assert isinstance(await store.claim(claim("k")), Running)
            await connection.execute(MINUTES_PASS)
        assert (await store.look(claim("k")))[1] is None
        assert await store.claim(claim("k")) is None
        await behind.close()


async def test_a_call_that_runs_holds_its_key_for_as_long_as_it_runs(database: Database, database_url: str) -> None:
    """It is the ledger's row that says that somebody is behind a claim."""
    await create_key(database, "first")
    replica = Replica(database, name="one", lease=60)
    store = PostgresIdempotency(database, replica, Overdue(), retention=60)
    running = claim("k")
    assert await store.claim(running) is None
    connection = await asyncpg.connect(database_url)
    await connection.execute(OPENED, running.request_id, replica.id)
    await connection.execute(MINUTES_PASS)
    await connection.execute("update idempotency_keys set expires_at = now()")
    await connection.execute(REAP)
    await connection.close()
    assert isinstance(await store.claim(claim("k")), Running)
    assert isinstance((await store.look(claim("k")))[1], Running)


EXPIRED = """
update idempotency_keys set state = 'finished', status = 200, headers = '[]', body = '', finished_at = now(),
    expires_at = now()
"""


async def test_a_key_that_is_being_claimed_anew_is_not_deleted(database: Database, database_url: str) -> None:
    """Its old answer has expired; the new holder would run on without it, and the retry beside it."""
    assert await create_organisation(database, "first") == 1
    replica = Replica(database, name="one", lease=60)
    store = PostgresIdempotency(database, replica, Overdue(), retention=60)
    old, new = claim("k"), claim("k")
    assert await store.claim(old) is None
    connection = await asyncpg.connect(database_url)
    await connection.execute(EXPIRED)
    asked = {"organisation_id": 1, "key": "k", "fingerprint": f"\\x{bytes(32).hex()}", "request_id": new.request_id}
    async with database.connection() as reaper:
        async with connection.transaction():
            assert len(await connection.fetch(CLAIM, to_json([{**asked, "keep": 60}]), replica.id, "[]")) == 1
            reaping = asyncio.create_task(reaper.execute(REAP))
            await asyncio.sleep(0.2)
        assert await reaping == "DELETE 0"
    await connection.close()
    state = await store.claim(claim("k"))
    assert isinstance(state, Running)
    assert state.request_id == new.request_id


async def test_a_full_pool_does_not_end_a_lease(database_url: str) -> None:
    """Whoever fills it, with reports, say, would have this replica's calls swept and its keys taken over."""
    database = Database(database_url, connections=1, timeout=0.5)
    replica = Replica(database, name="one", lease=60)
    async with database.connection() as connection:
        await asyncio.gather(replica.ensure_lease(), replica.ensure_lease())
        assert await connection.fetchval("select lease_until > now() from replicas where id = $1", replica.id)
    await database.close()
