"""What a `Limiter` keeps: on one replica, and over all of them through Redis."""

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from aigate.stores.limits import MOST_ASKED, LocalLimiter, RedisLimiter
from middleware.rate_limit import WINDOW, Allowance, Limiter

numbers = itertools.count()
UNREACHABLE = "redis://127.0.0.1:1/0"


@pytest.fixture
def name() -> str:
    """An allowance that no other test takes from."""
    return f"{time.time_ns()}-{next(numbers)}"


def most(limit: int, seconds: float) -> int:
    """How many of a full bucket may be taken in this time: the bucket, and what flows in."""
    return limit + int(seconds * limit / WINDOW)


class LimiterContract(ABC):
    """The tests that every limiter passes."""

    @pytest.fixture
    @abstractmethod
    def limiter(self) -> Limiter: ...

    async def test_the_first_of_many(self, limiter: Limiter, name: str) -> None:
        """It is allowed, and one less remains."""
        allowance = await limiter.take(name, 60)
        assert allowance.allowed
        assert allowance.remaining == 59
        assert 0 < allowance.reset_after <= 1.0

    async def test_exactly_the_limit(self, limiter: Limiter, name: str) -> None:
        """A full minute's requests may come at once, and no more."""
        taken = [await limiter.take(name, 5) for _ in range(6)]
        assert [each.allowed for each in taken] == [True] * 5 + [False]
        assert [each.remaining for each in taken] == [4, 3, 2, 1, 0, 0]

    async def test_a_refusal_says_when_to_come_back(self, limiter: Limiter, name: str) -> None:
        """The time until one request has flowed in."""
        for _ in range(5):
            await limiter.take(name, 5)
        refused = await limiter.take(name, 5)
        assert 0 < refused.retry_after <= WINDOW / 5
        assert WINDOW - WINDOW / 5 < refused.reset_after <= WINDOW

    async def test_a_refusal_takes_nothing(self, limiter: Limiter, name: str) -> None:
        """Who keeps asking does not have to wait longer."""
        for _ in range(5):
            await limiter.take(name, 5)
        waits = [(await limiter.take(name, 5)).retry_after for _ in range(5)]
        assert waits == sorted(waits, reverse=True)

    async def test_who_waits_as_told_is_let_in(self, limiter: Limiter, name: str) -> None:
        """After the stated time the next one is allowed."""
        for _ in range(700):
            allowance = await limiter.take(name, 600)
            if not allowance.allowed:
                break
        await asyncio.sleep(allowance.retry_after + 0.002)
        assert (await limiter.take(name, 600)).allowed

    async def test_names_do_not_share(self, limiter: Limiter, name: str) -> None:
        """One caller's burst is not another's."""
        await limiter.take(f"{name}-a", 1)
        assert not (await limiter.take(f"{name}-a", 1)).allowed
        assert (await limiter.take(f"{name}-b", 1)).allowed

    async def test_concurrent_takes_are_exact(self, limiter: Limiter, name: str) -> None:
        """Of any number at once, exactly the limit is allowed."""
        began = time.monotonic()
        taken = await asyncio.gather(*(limiter.take(name, 20) for _ in range(200)))
        allowed = sum(each.allowed for each in taken)
        assert 20 <= allowed <= most(20, time.monotonic() - began)

    async def test_those_that_ask_at_once(self, limiter: Limiter, name: str) -> None:
        """The first are let in, each as if it had come alone; the others learn when to come back."""
        taken = await asyncio.gather(*(limiter.take(name, 7) for _ in range(10)))
        assert [each.allowed for each in taken] == [True] * 7 + [False] * 3
        assert [each.remaining for each in taken] == [6, 5, 4, 3, 2, 1, 0, 0, 0, 0]
        resets = [each.reset_after for each in taken]
        assert resets == pytest.approx([WINDOW / 7 * count for count in (*range(1, 8), 7, 7, 7)], abs=0.2)
        assert [each.retry_after for each in taken] == pytest.approx([0.0] * 7 + [WINDOW / 7] * 3, abs=0.2)

    async def test_names_that_ask_at_once(self, limiter: Limiter, name: str) -> None:
        """Each has its own allowance, whatever order they come in, also under a limit that has just been changed."""
        asked = [("a", 2), ("b", 3), ("a", 2), ("b", 3), ("a", 2), ("b", 9)]
        taken = await asyncio.gather(*(limiter.take(f"{name}-{each}", limit) for each, limit in asked))
        assert [each.allowed for each in taken] == [True, True, True, True, False, True]


class TestLocalLimiter(LimiterContract):
    @pytest.fixture
    def limiter(self) -> Limiter:
        return LocalLimiter()


class TestRedisLimiter(LimiterContract):
    @pytest.fixture
    async def limiter(self, redis_url: str) -> AsyncIterator[Limiter]:
        opened = RedisLimiter(redis_url, timeout=5)
        yield opened
        assert not opened.degraded
        await opened.close()


@pytest.fixture
async def replicas(redis_url: str) -> AsyncIterator[list[RedisLimiter]]:
    """Two replicas on one Redis."""
    opened = [RedisLimiter(redis_url, timeout=5) for _ in range(2)]
    yield opened
    for limiter in opened:
        await limiter.close()


async def test_replicas_together_are_exact(replicas: list[RedisLimiter], name: str) -> None:
    """Any number of concurrent requests over two replicas never pass the one limit."""
    began = time.monotonic()
    taken = await asyncio.gather(*(limiter.take(name, 30) for _ in range(200) for limiter in replicas))
    assert not any(limiter.degraded for limiter in replicas)
    assert 30 <= sum(each.allowed for each in taken) <= most(30, time.monotonic() - began)


@pytest.mark.parametrize("limit", [997, 999])
async def test_what_remains_is_what_redis_would_give(replicas: list[RedisLimiter], name: str, limit: int) -> None:
    """Also where a request's share of the minute is no whole number of microseconds."""
    taken = await asyncio.gather(*(replicas[0].take(name, limit) for _ in range(4)))
    assert [each.remaining for each in taken] == [limit - 1, limit - 2, limit - 3, limit - 4]


async def test_replicas_see_each_other(replicas: list[RedisLimiter], name: str) -> None:
    """What one replica gave away is gone on the other."""
    await replicas[0].take(name, 10)
    assert (await replicas[1].take(name, 10)).remaining == 8


async def test_a_connection_that_redis_closed_is_opened_anew(replicas: list[RedisLimiter], name: str) -> None:
    """As its `timeout` and load balancers do to what is idle; limits hold over all replicas all the same."""
    limiter, other = replicas
    await limiter.take(name, 10)
    await other._client.client_kill_filter(_type="normal", skipme=True)
    assert (await limiter.take(name, 10)).remaining == 8
    assert not limiter.degraded


async def test_without_redis_limits_are_local(name: str) -> None:
    """Nobody fails and nobody waits; the limit holds on this replica."""
    limiter = RedisLimiter(UNREACHABLE, timeout=0.5)
    taken = [(await limiter.take(name, 3)).allowed for _ in range(4)]
    assert taken == [True, True, True, False]
    assert limiter.degraded
    await limiter.close()


async def test_a_redis_that_hangs_costs_its_timeout_once() -> None:
    """The first call waits for the time-out; those that follow are answered at once."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    left = asyncio.Event()
    async with await asyncio.start_server(hang, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        limiter = RedisLimiter(f"redis://127.0.0.1:{port}/0", timeout=0.1)
        assert (await limiter.take("a", 3)).allowed
        began = time.monotonic()
        for _ in range(50):
            await limiter.take("a", 100)
        assert time.monotonic() - began < 2  # a time-out each would be 5
        await limiter.close()
        await left.wait()


async def test_who_left_is_waited_for(redis_url: str, name: str) -> None:
    """A limiter that was closed meanwhile is as good as a new one."""
    limiter = RedisLimiter(redis_url, timeout=5)
    for turns in range(3):  # before Redis is asked, while the way is opened, and on the way that is kept
        leaving = asyncio.create_task(limiter.take(name, 60))
        for _ in range(turns + 1):
            await asyncio.sleep(0)
        leaving.cancel()
        await limiter.close()
        async with asyncio.timeout(1):
            assert (await limiter.take(name, 60)).allowed
        assert not limiter.degraded
    await limiter.close()


async def test_it_closes_under_way(redis_url: str, name: str) -> None:
    """Those who ask without a pause do not keep it open, and are answered."""
    limiter = RedisLimiter(redis_url, timeout=0.1)
    going_on = True

    async def ask() -> None:
        while going_on:
            await limiter.take(name, 100_000)

    async with asyncio.timeout(5), asyncio.TaskGroup() as asking:
        for _ in range(10):
            asking.create_task(ask())
        await asyncio.sleep(0.05)
        await limiter.close()
        going_on = False
    await limiter.close()


async def test_whose_asking_is_cancelled_is_answered(name: str) -> None:
    """As by a loop that ends while the way to Redis is being opened; who comes later does not wait for ever."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as silent, asyncio.timeout(1):
        limiter = RedisLimiter(f"redis://127.0.0.1:{silent.sockets[0].getsockname()[1]}/0", timeout=5)
        waiting = asyncio.create_task(limiter.take(name, 60))
        await asyncio.sleep(0.05)
        assert limiter._calling is not None
        limiter._calling.cancel()
        assert (await waiting).allowed
        assert (await limiter.take(name, 60)).allowed
        await limiter.close()


async def test_a_defect_is_its_own_takers(redis_url: str, name: str) -> None:
    """Who asks for a share of nothing learns of it; who asks with it, or later, is answered."""
    limiter = RedisLimiter(redis_url, timeout=1)
    async with asyncio.timeout(3):
        bad, good = await asyncio.gather(limiter.take(name, 0), limiter.take(name, 60), return_exceptions=True)
        assert isinstance(bad, ZeroDivisionError)
        assert isinstance(good, Allowance)
        assert (await limiter.take(name, 60)).allowed
    await limiter.close()


async def test_local_names_have_a_bound() -> None:
    """A flood of names does not fill the memory, and the latest are remembered."""
    limiter = LocalLimiter()
    for number in range(100_010):
        limiter.take_now(str(number), 1)
    assert len(limiter._full) == 100_000
    assert not limiter.take_now("100009", 1).allowed


async def test_very_many_names_are_asked_for_in_several_calls(redis_url: str) -> None:
    """Redis serves one call at a time, and each has its own time."""
    limiter = RedisLimiter(redis_url, timeout=5)
    await limiter.take("first", 1)
    asked: list[int] = []
    line = limiter._line
    assert line is not None
    ask = line.ask

    def counting(due: float, then: Callable[[Any], None], *command: str | int) -> None:
        asked.append(int(command[2]))
        ask(due, then, *command)

    line.ask = counting  # type: ignore[method-assign]
    names = [f"crowd-{number}" for number in range(2 * MOST_ASKED + 1)]
    for allowed in (True, False):
        taken = await asyncio.gather(*(limiter.take(name, 1) for name in names))
        assert {each.allowed for each in taken} == {allowed}
    assert asked == [MOST_ASKED, MOST_ASKED, 1] * 2
    assert not limiter.degraded
    await limiter.close()
