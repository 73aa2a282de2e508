"""The request rate of a key, over two gateways and with Redis gone, over real sockets."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aigate.stores.keys import create_key
from tests.running import RunningGateway
from tests.upstream import FakeProvider

Start = Callable[..., Any]


async def ask(gateway: RunningGateway, key: str, times: int) -> list[int]:
    answers = await asyncio.gather(*(gateway.chat(authorization=f"Bearer {key}") for _ in range(times)))
    return sorted(answer.status_code for answer in answers)


async def test_over_the_rate(gateway: RunningGateway, provider: FakeProvider) -> None:
    """What is over a key's rate is refused, says when to come back, and costs nothing."""
    key = await create_key(gateway.database, "acme", requests_per_minute=3)
    assert await ask(gateway, key, 10) == [200] * 3 + [429] * 7
    assert len(provider.calls) == len(await gateway.calls()) == 3
    refused = await gateway.chat(authorization=f"Bearer {key}")
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "policy_rate_limited"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["ratelimit-policy"] == '"rpm";q=3;w=60'


async def test_headers(gateway: RunningGateway) -> None:
    """Each answer tells where the key stands."""
    key = await create_key(gateway.database, "acme", requests_per_minute=60)
    remaining = []
    for _ in range(3):
        answer = await gateway.chat(authorization=f"Bearer {key}")
        assert answer.headers["x-ratelimit-limit-requests"] == "60"
        remaining.append(int(answer.headers["x-ratelimit-remaining-requests"]))
    assert remaining == [59, 58, 57]


async def test_refused_requests_count(gateway: RunningGateway) -> None:
    """A request that is wrong counts as well: who sends rubbish is slowed down."""
    key = await create_key(gateway.database, "acme", requests_per_minute=2)
    for expected in (400, 400, 429):
        answer = await gateway.chat({"messages": None}, authorization=f"Bearer {key}")
        assert answer.status_code == expected


async def test_over_two_gateways(gateway: RunningGateway, start_gateway: Start) -> None:
    """The rate holds over all replicas together."""
    other = await start_gateway()
    key = await create_key(gateway.database, "acme", requests_per_minute=6)
    answers = await asyncio.gather(ask(gateway, key, 10), ask(other, key, 10))
    assert sorted(answers[0] + answers[1]) == [200] * 6 + [429] * 14


async def test_keys_do_not_share(gateway: RunningGateway) -> None:
    """One key's rate is not another's."""
    keys = [await create_key(gateway.database, "acme", requests_per_minute=1) for _ in range(3)]
    assert await asyncio.gather(*(ask(gateway, key, 2) for key in keys)) == [[200, 429]] * 3


@pytest.mark.parametrize("of_key", [0, None], ids=["of-the-key", "of-the-gateway"])
async def test_no_limit(gateway: RunningGateway, of_key: int | None) -> None:
    """0 is no limit."""
    key = await create_key(gateway.database, "acme", requests_per_minute=of_key)
    assert set(await ask(gateway, key, 30)) == {200}


async def test_default_rate(start_gateway: Start) -> None:
    """A key without a rate of its own has the gateway's."""
    gateway = await start_gateway(requests_per_minute=2)
    key = await create_key(gateway.database, "acme")
    assert await ask(gateway, key, 4) == [200, 200, 429, 429]


async def test_without_redis(start_gateway: Start) -> None:
    """With Redis away the rate holds on each replica."""
    gateway = await start_gateway(redis_url="unix:///nowhere/redis.sock")
    key = await create_key(gateway.database, "acme", requests_per_minute=3)
    assert await ask(gateway, key, 10) == [200] * 3 + [429] * 7
