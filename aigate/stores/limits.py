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
from functools import partial
from typing import Any, TypeAlias

import redis.asyncio as redis
from loguru import logger
from redis.exceptions import NoScriptError

from aigate.stores.redis_line import RedisLine
from middleware.rate_limit import WINDOW, Allowance

MOST_LOCAL = 100_000
BREAK_SECONDS = 1.0
MOST_ASKED = 256
"""Names in one call of the script: Redis answers nobody else meanwhile, and the time-out is for one call."""
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


_allowance = partial(tuple.__new__, Allowance)
"""An `Allowance` of its four fields, for half of what its own constructor costs."""

Waiting: TypeAlias = dict[tuple[str, int], list["asyncio.Future[Allowance]"]]
"""Who asks, by name and limit."""


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
    """The `Limiter` port over all replicas, on the loop that runs; `timeout` in seconds for one call of Redis."""

    def __init__(self, url: str, *, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()  # once: each time is a system call
        self._client: redis.Redis = redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
        self._line: RedisLine | None = None
        self._timeout = timeout
        self._local = LocalLimiter()
        self._broken_until = 0.0
        self._waiting: Waiting = {}
        """What is to be asked next."""
        self._asked: Waiting = {}
        self._due = 0.0
        self._asking = False
        self._calling: asyncio.Task[None] | None = None

    @property
    def degraded(self) -> bool:
        """Whether limits are per replica now."""
        return self._broken_until > 0.0

    async def take(self, name: str, limit: int) -> Allowance:
        if self._broken_until and self._broken_until > time.monotonic():
            return self._local.take_now(name, limit)
        allowance: asyncio.Future[Allowance] = self._loop.create_future()
        self._waiting.setdefault((name, limit), []).append(allowance)
        if not self._asking:
            self._asking = True
            self._loop.call_soon(self._ask)
        return await allowance

    async def ping(self) -> None:
        """Return if Redis answers in time; raises `RedisError` or `TimeoutError`."""
        async with asyncio.timeout(self._timeout):
            await self._client.ping()

    async def close(self) -> None:
        """Return once everybody is answered, and whoever went away, too: Redis is asked for them all the same."""
        until = time.monotonic() + 2 * self._timeout  # for those that are asked for, and those that come next
        while self._asking and time.monotonic() < until:  # noqa: ASYNC110 - an event would cost each question
            await asyncio.sleep(0.001)
        if self._asking:  # on a loop that has ended, or without a pause
            self._end(redis.ConnectionError("The limiter is closed."))
        if self._line is not None:
            await self._line.close()
        await self._client.aclose()

    def _ask(self) -> None:
        """Run the script for all that wait, on the connection that is kept."""
        self._asked, self._waiting = self._waiting, {}
        if len(self._asked) > MOST_ASKED:
            later = list(self._asked)[MOST_ASKED:]
            self._waiting = {each: self._asked.pop(each) for each in later}
        self._due = self._loop.time() + self._timeout
        if self._line is None:
            self._call_anew()
            return
        try:
            self._line.ask(self._due, self._hear, "EVALSHA", TAKE_SHA, *_arguments(self._asked))
        except Exception as error:
            self._hear(error)

    def _hear(self, answer: Any) -> None:
        """What Redis says on a connection that was kept, if it is one: Redis, too, closes what is idle."""
        if isinstance(answer, (redis.ConnectionError, NoScriptError)):
            self._call_anew()
        else:
            self._end(answer)

    def _call_anew(self) -> None:
        self._calling = self._loop.create_task(self._call())

    async def _call(self) -> None:
        """Run the script on a new connection; Redis may have been started anew, too."""
        line, self._line = self._line, None
        try:
            async with asyncio.timeout_at(self._due):
                if line is not None:
                    await line.close(nowait=True)
                self._line = await RedisLine.open(self._client.connection_pool)
            self._line.ask(self._due, self._end, "EVAL", TAKE, *_arguments(self._asked))
        except asyncio.CancelledError:  # the loop ends
            self._end(redis.ConnectionError("The gateway stops."))
            raise
        except Exception as error:
            self._end(error)

    def _end(self, answer: Any) -> None:
        """Tell who asked; what came while Redis was asked is asked now."""
        asked, self._asked = self._asked, {}
        try:
            self._share(asked, answer)
        except Exception as error:  # whatever keeps us from an answer of Redis', nobody fails
            self._break(error)
            self._share_here(asked)
            waiting, self._waiting = self._waiting, {}
            self._share_here(waiting)
        if self._waiting:
            self._ask()
        else:
            self._asking = False

    def _share(self, asked: Waiting, answer: Any) -> None:
        if isinstance(answer, Exception):
            raise answer
        for ((_, limit), waiting), (taken, full_in) in zip(asked.items(), answer, strict=True):
            allowances = _allowances(limit, len(waiting), taken, full_in / 1e6)
            for future, allowance in zip(waiting, allowances, strict=True):
                if not future.done():
                    future.set_result(allowance)
        if self._broken_until:
            self._mend()

    def _share_here(self, asked: Waiting) -> None:
        for (name, limit), waiting in asked.items():
            for future in waiting:
                if not future.done():
                    try:
                        future.set_result(self._local.take_now(name, limit))
                    except Exception as error:  # a defect is its own taker's: nobody else waits for ever
                        future.set_exception(error)

    def _break(self, error: Exception) -> None:
        if not self.degraded:
            logger.warning("redis does not answer, rate limits are per replica now: {!r}", error)
        self._broken_until = time.monotonic() + BREAK_SECONDS

    def _mend(self) -> None:
        logger.info("redis answers again, rate limits hold over all replicas")
        self._broken_until = 0.0


def _arguments(asked: Waiting) -> list[str | int]:
    """What the script is told: how many keys, the keys, and for each its limit and how many ask."""
    keys: list[str | int] = [len(asked)]
    numbers: list[int] = [WINDOW * 1_000_000]
    for (name, limit), waiting in asked.items():
        keys.append(KEY + name)
        numbers += limit, len(waiting)
    return keys + numbers


def _allowances(limit: int, asked: int, taken: int, full_in: float) -> list[Allowance]:
    """Of those that asked at once, the first `taken` are let in; `full_in` is how it stands after them."""
    remaining, interval = _remaining(limit, full_in), WINDOW / limit
    allowed = [
        _allowance((True, remaining + later, full_in - later * interval, 0.0)) for later in range(taken - 1, -1, -1)
    ]
    return allowed + [Allowance(False, remaining, full_in, full_in + interval - WINDOW) for _ in range(asked - taken)]


def _remaining(limit: int, full_in: float) -> int:
    """How many more may come; with the microsecond that is let pass, for `full_in` may be rounded up by as much."""
    return max(0, math.floor((WINDOW + 1e-6 - full_in) * limit / WINDOW))
