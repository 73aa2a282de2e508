"""Request rates: exact over all replicas through Redis, per replica while Redis is away.

A rate is a token bucket of one minute's requests, refilled evenly, kept as one number a key: the time at which the
bucket would be full again (GCRA, https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm). All
that ask in one turn of the event loop share one script call, on Redis' own clock.

A breaker guards the way: the first failure or time-out switches to the local buckets at once, and Redis is asked
again a second later. Limits are then per replica, which the log says; nobody waits and nothing fails.
"""

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import redis.asyncio as redis
from loguru import logger
from redis.asyncio.connection import AbstractConnection as Connection
from redis.exceptions import NoScriptError, RedisError

from aigate.stores.batch import Batch
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
  local interval = window / tonumber(ARGV[i + 1])
  local full = math.max(tonumber(redis.call('GET', key) or 0), now) + interval
  if full - now > window + 1 then
    answers[i] = {0, full - interval - now, full - window - now}
  else
    redis.call('SET', key, string.format('%.0f', full), 'PX', math.max(1, math.ceil((full - now) / 1000)))
    answers[i] = {1, full - now, 0}
  end
  answers[i][2] = math.ceil(answers[i][2])
  answers[i][3] = math.ceil(answers[i][3])
end
return answers
"""


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
            return _allowance(limit, False, full - interval - now, full - WINDOW - now)
        self._full[name] = full
        self._full.move_to_end(name)
        if len(self._full) > MOST_LOCAL:
            self._full.popitem(last=False)
        return _allowance(limit, True, full - now, 0.0)


class RedisLimiter:
    """The `Limiter` port over all replicas; `timeout` in seconds for one call of Redis."""

    def __init__(self, url: str, *, timeout: float) -> None:
        self._client: redis.Redis = redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
        self._line: Connection | None = None
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
            await self._line.disconnect()
        await self._client.aclose()

    async def _take(self, asked: Sequence[tuple[str, int]]) -> list[Allowance]:
        try:
            async with asyncio.timeout(self._timeout):
                rows = await self._run(
                    len(asked), *(KEY + name for name, _ in asked), WINDOW * 1_000_000, *(limit for _, limit in asked)
                )
        except (RedisError, OSError, TimeoutError) as error:
            await self._hang_up()
            self._break(error)
            return [self._local.take_now(name, limit) for name, limit in asked]
        self._mend()
        return [
            _allowance(limit, bool(allowed), full_in / 1e6, retry_in / 1e6)
            for (_, limit), (allowed, full_in, retry_in) in zip(asked, rows, strict=True)
        ]

    async def _run(self, *arguments: str | int) -> Any:
        """Run the script, once more if the connection that was kept is none: Redis, too, closes what is idle."""
        kept = self._line is not None
        try:
            return await self._asked(*arguments)
        except (redis.ConnectionError, OSError):
            if not kept:
                raise
        await self._hang_up()
        return await self._asked(*arguments)

    async def _asked(self, *arguments: str | int) -> Any:
        """Run the script, on a connection that is kept: the client's way to one costs more than the script."""
        line = self._line
        if line is None:
            line = self._line = self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            line.socket_timeout = None  # the time of the whole is kept by who asks
            await line.connect()
        try:
            return await _said(line, "EVALSHA", TAKE_SHA, *arguments)
        except NoScriptError:  # Redis was started anew
            return await _said(line, "EVAL", TAKE, *arguments)

    async def _hang_up(self) -> None:
        """An answer that was not read must not be taken for the next one's."""
        line, self._line = self._line, None
        if line is not None:
            await line.disconnect(nowait=True)

    def _break(self, error: Exception) -> None:
        if not self.degraded:
            logger.warning("redis does not answer, rate limits are per replica now: {!r}", error)
        self._broken_until = time.monotonic() + BREAK_SECONDS

    def _mend(self) -> None:
        if self.degraded:
            logger.info("redis answers again, rate limits hold over all replicas")
        self._broken_until = 0.0


async def _said(line: Connection, *command: str | int) -> Any:
    await line.send_packed_command(line.pack_command(*command), check_health=False)
    return await line.read_response()


def _allowance(limit: int, allowed: bool, full_in: float, retry_in: float) -> Allowance:
    remaining = max(0, math.floor((WINDOW - full_in) * limit / WINDOW + 1e-6))
    return Allowance(allowed, remaining, full_in, retry_in)
