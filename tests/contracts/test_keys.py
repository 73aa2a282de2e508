"""What `Keys` keeps: the tests' dict, and the key ring on PostgreSQL."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Protocol

import pytest

from aigate.stores.database import Database
from aigate.stores.keys import KeyRing, create_key, list_keys, public_id_of, revoke_key
from middleware.auth import Keys
from middleware.exchange import Caller
from middleware.faults import StoreUnavailable
from tests.contracts.fakes import MemoryKeys

CACHED = 0.05
"""Seconds for which the key ring of these tests remembers."""


class Office(Protocol):
    """Where the keys of a test are made and ended, and the `Keys` that recognise them."""

    keys: Keys
    away: Keys

    async def issue(self, **limits: Any) -> str: ...

    async def revoke(self, token: str) -> None: ...


class KeysContract(ABC):
    """The tests that whatever recognises keys passes."""

    @pytest.fixture
    @abstractmethod
    def office(self) -> Office: ...

    async def test_a_key_is_its_callers(self, office: Office) -> None:
        """Who the caller is and what the key may do."""
        token = await office.issue(models=["openai:*"], requests_per_minute=7)
        caller = await office.keys.caller(token)
        assert caller is not None
        assert (caller.org_name, caller.models, caller.requests_per_minute) == ("acme", ("openai:*",), 7)
        assert caller.public_id == public_id_of(token)

    async def test_a_key_without_limits(self, office: Office) -> None:
        """It may use every model, at the gateway's rate."""
        caller = await office.keys.caller(await office.issue())
        assert caller is not None
        assert (caller.models, caller.requests_per_minute) == (None, None)

    async def test_another_secret(self, office: Office) -> None:
        """The public id alone opens nothing, also right after the whole key did."""
        token = await office.issue()
        await office.keys.caller(token)
        other = token[:-1] + ("a" if token[-1] != "a" else "b")
        assert office.keys.known(other) is None
        assert await office.keys.caller(other) is None

    async def test_a_key_that_is_known(self, office: Office) -> None:
        """Who was found is the same for a while without a look."""
        token = await office.issue(models=["openai:*"])
        caller = await office.keys.caller(token)
        assert caller is not None
        assert office.keys.known(token) == caller

    @pytest.mark.parametrize(
        "token",
        [
            "",
            "_",
            "__",
            "aig",
            "aig_",
            "aig__",
            "aig_abc",
            "aig_abc_",
            "sk_abc_def",
            "AIG_abc_def",
            "aig_\n_x",
            "x" * 256,
        ],
    )
    async def test_what_is_no_key(self, office: Office, token: str) -> None:
        """Whatever its form, it opens nothing and fails nothing."""
        assert office.keys.known(token) is None
        assert await office.keys.caller(token) is None

    async def test_two_keys_of_one_organisation(self, office: Office) -> None:
        """They are different keys of the same organisation."""
        first = await office.keys.caller(await office.issue())
        second = await office.keys.caller(await office.issue())
        assert first is not None
        assert second is not None
        assert first.org_id == second.org_id
        assert first.key_id != second.key_id

    async def test_a_revoked_key(self, office: Office) -> None:
        """It opens nothing any more once the cache time is over."""
        token = await office.issue()
        assert await office.keys.caller(token) is not None
        await office.revoke(token)
        await asyncio.sleep(CACHED * 1.5)
        assert office.keys.known(token) is None
        assert await office.keys.caller(token) is None

    async def test_an_expired_key(self, office: Office) -> None:
        """It opens nothing from that moment, cached or not."""
        token = await office.issue(expires_in=0.3)
        assert await office.keys.caller(token) is not None
        await asyncio.sleep(0.35)
        assert office.keys.known(token) is None
        assert await office.keys.caller(token) is None

    async def test_many_at_once(self, office: Office) -> None:
        """Each of many concurrent callers is recognised as itself, strangers among them as nobody."""
        tokens = [await office.issue() for _ in range(5)] * 4 + ["aig_un_known"] * 5
        callers = await asyncio.gather(*map(office.keys.caller, tokens))
        ids = [caller and caller.public_id for caller in callers]
        assert ids == [public_id_of(token) for token in tokens[:20]] + [None] * 5

    async def test_a_store_that_is_away(self, office: Office) -> None:
        """Whether a key is good cannot be told then, which is not the same as a bad key."""
        with pytest.raises(StoreUnavailable):
            await office.away.caller(await office.issue())


class MemoryOffice:
    def __init__(self) -> None:
        self.keys = MemoryKeys({})
        self.away = MemoryKeys({}, away=True)
        self._made = 0

    async def issue(self, *, expires_in: float | None = None, models: Any = None, **limits: Any) -> str:
        self._made += 1
        token = f"aig_{self._made}_secret"
        allowed = None if models is None else tuple(models)
        caller = Caller(1, "acme", self._made, str(self._made), allowed, **limits)
        self.keys.keys[token] = replace(caller)
        if expires_in is not None:
            asyncio.get_running_loop().call_later(expires_in, self.keys.keys.pop, token)
        return token

    async def revoke(self, token: str) -> None:
        del self.keys.keys[token]


class TestMemoryKeys(KeysContract):
    @pytest.fixture
    def office(self) -> Office:
        return MemoryOffice()


class PostgresOffice:
    def __init__(self, database: Database) -> None:
        self.keys = KeyRing(database, cache_seconds=CACHED)
        self.away = KeyRing(Database("postgresql://nobody@127.0.0.1:1/nowhere", timeout=1), cache_seconds=CACHED)
        self._database = database

    async def issue(self, **limits: Any) -> str:
        return await create_key(self._database, "acme", **limits)

    async def revoke(self, token: str) -> None:
        await revoke_key(self._database, public_id_of(token))


class TestKeyRing(KeysContract):
    @pytest.fixture
    async def office(self, database: Database) -> AsyncIterator[Office]:
        office = PostgresOffice(database)
        yield office
        await office.away._database.close()

    async def test_a_key_that_no_text_can_hold(self, office: Office) -> None:
        """A zero byte opens nothing, and spoils nobody's lookup."""
        good = await office.issue()
        bad, caller = await asyncio.gather(office.keys.caller("aig_\0_x"), office.keys.caller(good))
        assert bad is None
        assert caller is not None


async def test_a_found_key_is_remembered(database: Database) -> None:
    """Within the cache time nobody asks the database again: a key that is revoked still works so long."""
    token = await create_key(database, "acme")
    ring = KeyRing(database, cache_seconds=60)
    assert await ring.caller(token) is not None
    await revoke_key(database, public_id_of(token))
    assert await ring.caller(token) is not None


async def test_the_database_knows_no_secret(database: Database) -> None:
    """Neither a listing nor the table has anything of the secret."""
    token = await create_key(database, "acme", name="laptop")
    secret = token.split("_", 2)[2]
    async with database.connection() as connection:
        stored = await connection.fetchval("select string_agg(k::text, '') from api_keys k")
    assert secret not in stored
    (row,) = await list_keys(database)
    assert (row["name"], row["organisation"], row["public_id"]) == ("laptop", "acme", public_id_of(token))
    assert "secret_hash" not in row


async def test_revoking_twice(database: Database) -> None:
    """The first time stays; a key that never was cannot be revoked."""
    public_id = public_id_of(await create_key(database, "acme"))
    assert await revoke_key(database, public_id)
    (first,) = await list_keys(database)
    assert await revoke_key(database, public_id)
    (second,) = await list_keys(database)
    assert first["revoked_at"] == second["revoked_at"]
    assert not await revoke_key(database, "never")


async def test_an_organisation_is_made_once(database: Database) -> None:
    """However many keys are made for a new organisation at once."""
    began = time.monotonic()
    await asyncio.gather(*(create_key(database, "new") for _ in range(20)))
    async with database.connection() as connection:
        assert await connection.fetchval("select count(*) from organisations") == 1
    assert time.monotonic() - began < 5
