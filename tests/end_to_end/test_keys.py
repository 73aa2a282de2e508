"""Keys that must not work, on two gateways that share one database."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from aigate.stores.keys import create_key, public_id_of, revoke_key
from tests.running import RunningGateway, eventually
from tests.upstream import FakeProvider

CACHE_SECONDS = 0.5
"""As `tests.running` sets it."""

Start = Callable[..., Any]


async def status(gateway: RunningGateway, key: str) -> int:
    return (await gateway.chat(authorization=f"Bearer {key}")).status_code


async def test_revoked(gateway: RunningGateway, start_gateway: Start) -> None:
    """A revoked key ends on every gateway within the time for which keys are remembered."""
    other = await start_gateway()
    key = await create_key(gateway.database, "acme")
    assert (await status(gateway, key), await status(other, key)) == (200, 200)
    await revoke_key(gateway.database, public_id_of(key))
    revoked = time.monotonic()

    async def refused_by_both() -> bool:
        return (await status(gateway, key), await status(other, key)) == (401, 401)

    await eventually(refused_by_both, within=CACHE_SECONDS + 0.8)
    await asyncio.sleep(max(0.0, revoked + CACHE_SECONDS - time.monotonic()))
    assert (await status(gateway, key), await status(other, key)) == (401, 401)


async def test_busy_key_is_looked_up_again(gateway: RunningGateway) -> None:
    """A key that is used all the time is no longer remembered for that: revoking it holds in time."""
    key = await create_key(gateway.database, "acme")
    assert await status(gateway, key) == 200
    await revoke_key(gateway.database, public_id_of(key))
    started = time.monotonic()
    while await status(gateway, key) == 200:
        assert time.monotonic() - started < CACHE_SECONDS + 0.8


async def test_expires(gateway: RunningGateway) -> None:
    """A key ends when it expires, even while it is remembered."""
    key = await create_key(gateway.database, "acme", expires_in=0.3)
    assert await status(gateway, key) == 200
    await asyncio.sleep(0.3)
    assert await status(gateway, key) == 401


async def test_expired(gateway: RunningGateway) -> None:
    """A key that has expired does not work."""
    key = await create_key(gateway.database, "acme", expires_in=-1)
    assert await status(gateway, key) == 401


@pytest.mark.parametrize("known", [False, True], ids=["cold", "remembered"])
async def test_wrong_secret(gateway: RunningGateway, provider: FakeProvider, known: bool) -> None:
    """The public id alone is worth nothing, whether or not the key is remembered."""
    key = await create_key(gateway.database, "acme")
    if known:
        assert await status(gateway, key) == 200
    provider.asked.clear()
    for wrong in (key[:-1], f"{key}x", key[:-1] + ("a" if key[-1] != "a" else "b"), key.swapcase()):
        assert await status(gateway, wrong) == 401
    assert provider.calls == []
    assert await status(gateway, key) == 200


async def test_secret_of_another_key(gateway: RunningGateway) -> None:
    """One key's secret does not go with another's public id."""
    one, other = await create_key(gateway.database, "acme"), await create_key(gateway.database, "other")
    mixed = "_".join([*one.split("_", 2)[:2], other.split("_", 2)[2]])
    assert await status(gateway, mixed) == 401


async def test_unknown_becomes_known(gateway: RunningGateway) -> None:
    """That a key was unknown is not remembered: a new key works at once."""
    key = await create_key(gateway.database, "acme")
    public_id = public_id_of(key)
    await gateway.rows("update api_keys set public_id = 'aside' where public_id = $1", public_id)
    assert await status(gateway, key) == 401
    await gateway.rows("update api_keys set public_id = $1 where public_id = 'aside'", public_id)
    assert await status(gateway, key) == 200


async def test_flood_of_unknown_keys(gateway: RunningGateway) -> None:
    """Two hundred strangers at once are refused, and do not slow down who is known."""
    await gateway.chat()
    strangers = [status(gateway, f"aig_{number:016x}_secret") for number in range(200)]
    assert set(await asyncio.gather(*strangers)) == {401}
    assert (await gateway.chat()).status_code == 200


async def test_key_is_nowhere_in_the_database(gateway: RunningGateway) -> None:
    """Only a hash of the secret is kept."""
    key = await create_key(gateway.database, "acme")
    secret = key.split("_", 2)[2]
    (row,) = await gateway.rows("select k::text as text from api_keys k where public_id = $1", public_id_of(key))
    assert secret not in row["text"]
    assert secret.encode().hex() not in row["text"]
