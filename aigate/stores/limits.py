"""Request rates: exact over all replicas through Redis, per replica while Redis is away.

A rate is a token bucket of one minute's requests, refilled evenly, kept as one number a key: the time at which the
bucket would be full again (GCRA, https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm). All
that ask in one turn of the event loop share one script call, on Redis' own clock, and those that ask for one key one
entry in it.

A breaker guards the way: the first failure or time-out switches to the local buckets at once, and Redis is asked
again a second later. Limits are then per replica, which the log says; nobody waits and nothing fails.
"""

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import redis.asyncio as redis
from loguru import logger
from redis.exceptions import NoScriptError, RedisError

from aigate.stores.batch import Batch
from aigate.stores.redis_line import RedisLine
from middleware.rate_limit import WINDOW, Allowance

MOST_LOCAL = 100_000
BREAK_SECONDS = 1.0
KEY = "{aigate}:rpm:"

TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local window = tonumber(ARGV[1])
local answers = {}
for i, key in ipairs(KEYS) do
  local interval = window / tonumber(ARGV[2 * i])
  local full = math.max(tonumber(redis.call('GET', key) or 0), now)
  local left = math.max(0, math.floor((now + window + 1 - full) / interval))
  local taken = math.min(left, tonumber(ARGV[2 * i + 1]))
  if taken > 0 then
    full = full + taken * interval
    redis.call('SET', key, string.format('%.0f', full), 'PX', math.max(1, math.ceil((full - now) / 1000)))
  end
  answers[i] = {taken, math.ceil(full - now)}
end
return answers
"""
"""Takes what is asked of each key, or what there is: answers how many, and microseconds until it is full again."""

TAKE_SHA = hashlib.sha1(TAKE.encode(), usedforsecurity=False).hexdigest()
"""The name by which Redis knows a script that it has seen."""


class LocalLimiter:
    """The `Limiter` port on this replica alone; forgets the longest unused of very many names."""

    def __init__(self) -> None:
        self._full: OrderedDict[str, float] = OrderedDict()

    async def take(self, name: str, limit: int) -> Allowance:
        return self.take_now(name, limit)

    def take_now(self, name: str, limit: int) -> Allowance:
        now, interval = time.monotonic(), WINDOW / limit
        full = max(self._full.get(name, 0.0), now) + interval
        if full - now > WINDOW + 1e-6:
            full_in = full - interval - now
            return Allowance(False, _remaining(limit, full_in), full_in, full - WINDOW - now)
        self._full[name] = full
        self._full.move_to_end(name)
        if len(self._full) > MOST_LOCAL:
            self._full.popitem(last=False)
        return Allowance(True, _remaining(limit, full - now), full - now)


class RedisLimiter:
    """The `Limiter` port over all replicas; `timeout` in seconds for one call of Redis."""

    def __init__(self, url: str, *, timeout: float) -> None:
        self._client: redis.Redis = redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
        self._line: RedisLine | None = None
        self._timeout = timeout
        self._local = LocalLimiter()
        self._broken_until = 0.0
        self._batch: Batch[tuple[str, int], Allowance] = Batch(self._take, lanes=1)

    @property
    def degraded(self) -> bool:
        """Whether limits are per replica now."""
        return self._broken_until > 0.0

    async def take(self, name: str, limit: int) -> Allowance:
        if self._broken_until > time.monotonic():
            return self._local.take_now(name, limit)
        return await self._batch.submit((name, limit))

    async def ping(self) -> None:
        """Return if Redis answers in time; raises `RedisError` or `TimeoutError`."""
        async with asyncio.timeout(self._timeout):
            await self._client.ping()

    async def close(self) -> None:
        await self._batch.flush()
        if self._line is not None:
            await self._line.close()
        await self._client.aclose()

    async def _take(self, asked: Sequence[tuple[str, int]]) -> list[Allowance]:
        counts: dict[tuple[str, int], int] = {}
        for each in asked:
            counts[each] = counts.get(each, 0) + 1
        keys, numbers = [KEY + name for name, _ in counts], [WINDOW * 1_000_000]
        for (_, limit), count in counts.items():
            numbers += limit, count
        try:
            rows = await self._run(len(keys), *keys, *numbers)
        except (RedisError, OSError, TimeoutError) as error:
            await self._hang_up()
            self._break(error)
            return [self._local.take_now(name, limit) for name, limit in asked]
        if self._broken_until:
            self._mend()
        shares = {
            each: _allowances(each[1], taken, full_in / 1e6)
            for each, (taken, full_in) in zip(counts, rows, strict=True)
        }
        return [next(shares[each]) for each in asked]

    async def _run(self, *arguments: str | int) -> Any:
        """Run the script; anew if the connection that was kept is none, or Redis was: it closes what is idle."""
        due = asyncio.get_running_loop().time() + self._timeout
        if self._line is not None:
            try:
                return await self._line.ask(due, "EVALSHA", TAKE_SHA, *arguments)
            except (redis.ConnectionError, NoScriptError):
                await self._hang_up()
        async with asyncio.timeout_at(due):
            self._line = await RedisLine.open(self._client.connection_pool)
            return await self._line.ask(due, "EVAL", TAKE, *arguments)

    async def _hang_up(self) -> None:
        """An answer that was not read must not be taken for the next one's."""
        line, self._line = self._line, None
        if line is not None:
            await line.close(nowait=True)

    def _break(self, error: Exception) -> None:
        if not self.degraded:
            logger.warning("redis does not answer, rate limits are per replica now: {!r}", error)
        self._broken_until = time.monotonic() + BREAK_SECONDS

    def _mend(self) -> None:
        logger.info("redis answers again, rate limits hold over all replicas")
        self._broken_until = 0.0


def _allowances(limit: int, taken: int, full_in: float) -> Iterator[Allowance]:
    """Of those that asked at once, the first `taken` are let in; `full_in` is how it stands after them."""
    remaining, interval = _remaining(limit, full_in), WINDOW / limit
    for later in reversed(range(taken)):
        yield Allowance(True, remaining + later, full_in - later * interval)
    while True:
        yield Allowance(False, remaining, full_in, full_in + interval - WINDOW)


def _remaining(limit: int, full_in: float) -> int:
    """How many more may come; with the microsecond that is let pass, for `full_in` may be rounded up by as much."""
    return max(0, math.floor((WINDOW + 1e-6 - full_in) * limit / WINDOW))
