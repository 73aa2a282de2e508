"""Stores that die, freeze, lose an answer or have no room, while calls run on both replicas."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from aigate.stores import idempotency, journal
from tests.faults.provider import Plan
from tests.faults.site import DATABASE_TIMEOUT, Call, Reply, Site, complaints
from tests.running import eventually

FROZEN = 10.0
SETTLEMENT = "insert into adjustments"
"""Stands in the journal's statement, with openings and answers and without."""
STATEMENTS = {"claim": idempotency.CLAIM, "opening": journal.OPEN, "settlement": SETTLEMENT}
"""Each durable step of a call and the statement that makes it durable; a settlement takes openings along."""


async def postgres_killed(site: Site, chance: random.Random, count: int = 40) -> list[str]:
    """PostgreSQL dies with calls in every state; all running answers end well, and settle when it is back."""
    return await _through(site, chance, count, site.kill_postgres)


async def postgres_frozen(site: Site, chance: random.Random, count: int = 40, seconds: float = FROZEN) -> list[str]:
    """PostgreSQL stops answering, for longer than every time-out and every lease, and then goes on."""

    async def freeze() -> None:
        async with site.postgres_frozen():
            await asyncio.sleep(seconds)

    return await _through(site, chance, count, freeze)


async def answers_lost(site: Site, chance: random.Random, step: str, count: int = 30) -> list[str]:
    """The connection is cut exactly when PostgreSQL has taken a step and before the gateway has heard of it."""
    calls, lonely = _calls(site, chance, "lost", count)
    rules = [proxy.at("cut", STATEMENTS[step], times=chance.randint(2, 4)) for proxy in site.proxies]
    replies = await _all(site, calls, lonely)
    hits = sum(rule.hits for rule in rules)
    nobody = [] if hits else [f"no {step} was cut"]
    site.totals["cuts"] += hits
    return [*nobody, *complaints(site, replies), *await site.balance(calls + lonely)]


async def half_open(site: Site, chance: random.Random, count: int = 30) -> list[str]:
    """For a while PostgreSQL hears a replica and the replica does not hear PostgreSQL."""
    proxy = site.proxies[chance.randrange(2)]
    calls, lonely = _calls(site, chance, "half", count)
    asking = asyncio.create_task(_all(site, calls, lonely))
    await _some_arrived(site, calls + lonely)
    proxy.mode = "half"
    await asyncio.sleep(DATABASE_TIMEOUT / 2)
    proxy.sever()
    proxy.mode = "pass"
    return [*complaints(site, await asking), *await site.balance(calls + lonely)]


async def late_statement(site: Site, chance: random.Random, step: str, count: int = 10) -> list[str]:
    """A statement that the gateway has given up arrives after all, when nobody waits for it any more."""
    replica = chance.randrange(2)
    calls, lonely = _calls(site, chance, "late", count)
    rule = site.proxies[replica].at("before", STATEMENTS[step], times=2)
    first = [asyncio.create_task(site.attempt(call, replica)) for call in calls + lonely]
    await eventually(lambda: rule.hits, within=20)
    await asyncio.gather(*first)
    await asyncio.sleep(DATABASE_TIMEOUT / 4)
    rule.end("deliver")
    replies = await site.all_insist(calls)
    return [*complaints(site, replies), *await site.balance(calls + lonely)]


async def pool_exhausted(site: Site, chance: random.Random, count: int = 40) -> list[str]:
    """Every connection of every replica waits for a lock, for longer than the time-outs."""

    async def lock() -> None:
        connection = await asyncpg.connect(site.postgres.url)
        try:
            async with connection.transaction():
                await connection.execute("lock table calls in access exclusive mode")
                await asyncio.sleep(DATABASE_TIMEOUT * 1.5)
        finally:
            await connection.close()

    return await _through(site, chance, count, lock)


async def postgres_full(site: Site, chance: random.Random, count: int = 40) -> list[str]:
    """PostgreSQL has no connection left for the replicas, who have lost theirs."""

    async def fill() -> None:
        async with _all_connections(site):
            for proxy in site.proxies:
                proxy.sever()
            await asyncio.sleep(DATABASE_TIMEOUT)

    return await _through(site, chance, count, fill)


async def network_breaks(site: Site, chance: random.Random, count: int = 30) -> list[str]:
    """The way to PostgreSQL is slow, cut, reset, refused and silent, one after the other."""

    async def trouble() -> None:
        for mode, amount in (("delay", 0.05), ("cut", 300), ("rst", 200), ("refuse", 0), ("hang", 0)):
            for proxy in site.proxies:
                proxy.mode, proxy.amount = mode, amount
                if mode in ("refuse", "hang"):
                    proxy.sever()
            await asyncio.sleep(0.4)
        for proxy in site.proxies:
            proxy.mode = "pass"

    return await _through(site, chance, count, trouble)


async def redis_lost(site: Site, chance: random.Random, how: str, count: int = 15) -> list[str]:
    """Redis dies, or is emptied, while waiters on the other replica follow running streams."""
    first, other = site.pair(chance)
    calls = site.calls(f"redis-{how}", count, streamed=True, plan=Plan(words=40, pause=0.03))
    leading = [asyncio.create_task(site.insist(call, first)) for call in calls]
    await eventually(lambda: all(site.provider.bill.get(call.name) for call in calls), within=20)
    following = [asyncio.create_task(site.insist(call, other)) for call in calls for _ in range(2)]
    await eventually(partial(_said, site, calls, 10), within=20)
    for _ in range(3):
        await (site.kill_redis() if how == "killed" else _flush(site))
        await asyncio.sleep(0.1)
    replies = await asyncio.gather(*leading, *following)
    return [*complaints(site, replies), *_one_answer(replies), *await site.balance(calls)]


async def redis_gone(site: Site, chance: random.Random, count: int = 15) -> list[str]:
    """Without Redis, waiters on the other replica wait longer and get the same answer."""
    first, other = site.pair(chance)
    calls = site.calls("redis-gone", count, plan=Plan(words=10, pause=0.05))
    async with site.redis_frozen():
        leading = [asyncio.create_task(site.insist(call, first)) for call in calls]
        await eventually(lambda: all(site.provider.bill.get(call.name) for call in calls), within=20)
        following = await site.all_insist(calls, other)
        replies = [*await asyncio.gather(*leading), *following]
    return [*complaints(site, replies), *_one_answer(replies), *await site.balance(calls)]


async def _through(
    site: Site, chance: random.Random, count: int, trouble: Callable[[], Awaitable[None]]
) -> list[str]:
    """Calls that run, and calls that come, while there is trouble: all are answered, and the bills agree."""
    running, lonely = _calls(site, chance, "during", count, hold="middle")
    coming = site.calls("coming", count // 2, plan=Plan(words=4, pause=0.01))
    site.provider.hold()
    asking = [asyncio.create_task(site.insist(call, number % 2)) for number, call in enumerate(running)]
    once = [asyncio.create_task(site.attempt(call, number % 2)) for number, call in enumerate(lonely)]
    await eventually(partial(site.provider.held, [call.name for call in running + lonely]), within=20)
    troubling = asyncio.ensure_future(trouble())
    await asyncio.sleep(0.2)
    later = [asyncio.create_task(site.insist(call, number % 2)) for number, call in enumerate(coming)]
    await asyncio.sleep(0.2)
    site.provider.released.set()
    await troubling
    replies = await asyncio.gather(*asking, *later)
    broken = [f"{call.name}: broke" for call, task in zip(lonely, once, strict=True) if not _whole(await task)]
    again = await site.all_insist(running)
    return [*complaints(site, [*replies, *again]), *broken, *await site.balance(running + lonely + coming)]


def _whole(reply: Reply | None) -> bool:
    return reply is not None and reply.whole


def _calls(
    site: Site, chance: random.Random, what: str, count: int, hold: str | None = None
) -> tuple[list[Call], list[Call]]:
    """Calls with a key, and a third as many without."""
    plan = Plan(words=chance.randint(3, 9), pause=0.02, hold=hold)
    return (
        site.calls(what, count, plan=plan),
        site.calls(f"{what}-unkeyed", count // 3, keyed=False, plan=plan),
    )


async def _all(site: Site, calls: Sequence[Call], lonely: Sequence[Call]) -> list[Reply]:
    """The answers of those that insist; the others ask once, and may be refused."""
    once = asyncio.gather(*(site.attempt(call, number % 2) for number, call in enumerate(lonely)))
    replies, _ = await asyncio.gather(site.all_insist(calls), once)
    return replies


async def _some_arrived(site: Site, calls: Sequence[Call]) -> None:
    await eventually(lambda: sum(bool(site.provider.bill.get(call.name)) for call in calls) > 3, within=20)


def _said(site: Site, calls: Sequence[Call], words: int) -> bool:
    return all(site.provider.bill[call.name][0].said >= words for call in calls)


def _one_answer(replies: Sequence[Reply]) -> list[str]:
    first: dict[str, bytes] = {}
    return [
        f"{reply.call.name}: two answers under one key"
        for reply in replies
        if first.setdefault(reply.call.name, reply.body) != reply.body
    ]


async def _flush(site: Site) -> None:
    async with site.redis_client() as client:
        await client.flushall()


@asynccontextmanager
async def _all_connections(site: Site) -> AsyncIterator[None]:
    """Take every connection that PostgreSQL has to give, also those that are given back meanwhile."""
    taken: list[asyncpg.Connection] = []

    async def take() -> None:
        while True:
            try:
                taken.append(await asyncpg.connect(site.postgres.url))
            except asyncpg.TooManyConnectionsError:
                await asyncio.sleep(0.01)

    taking = asyncio.create_task(take())
    try:
        await eventually(lambda: len(taken) > 150, within=20)
        yield
    finally:
        taking.cancel()
        await asyncio.wait([taking])
        await asyncio.gather(*(connection.close() for connection in taken))
