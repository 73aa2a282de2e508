"""`kill -9` of a replica at each point of a call, and what is like it: a replica that is only taken for dead."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from aigate.stores import idempotency, journal
from tests.faults.outages import SETTLEMENT
from tests.faults.provider import Plan
from tests.faults.site import LEASE, Call, Reply, Site, complaints
from tests.running import eventually


@dataclass(frozen=True)
class Point:
    """Where a replica dies: held by the provider, or at a statement on its way to PostgreSQL.

    Of both, the statement is the first one after the provider has let go: openings travel with settlements.
    """

    name: str
    provider: str | None = None
    action: str = ""
    statement: str = ""
    keyed: tuple[bool, ...] = (True, False)
    upstream: int | None = None
    """How many upstream calls a keyed call has made in the end, where that is certain."""


POINTS = (
    Point("before the claim", action="before", statement=idempotency.CLAIM, keyed=(True,), upstream=1),
    Point("after the claim", action="after", statement=idempotency.CLAIM, keyed=(True,), upstream=1),
    Point("before open", action="before", statement=journal.OPEN, upstream=1),
    Point("after open", action="after", statement=journal.OPEN, upstream=1),
    Point("request sent", provider="asked", upstream=2),
    Point("first byte", provider="first", upstream=2),
    Point("mid-stream", provider="middle", upstream=2),
    Point("last byte", provider="last", upstream=2),
    Point("before the settlement", provider="last", action="before", statement=SETTLEMENT, upstream=2),
    Point("after settling", provider="last", action="after", statement=SETTLEMENT),
)


async def kill_at(site: Site, point: Point, chance: random.Random, count: int = 12) -> list[str]:
    """Kill a replica with `count` calls at this point; those with a key are retried on the other one."""
    victim, other = site.pair(chance)
    keyed, lonely = _calls(site, point, chance, count)
    if point.provider is not None:
        site.provider.hold()
    reached = _held(site, point, victim, keyed + lonely)
    asking = [asyncio.create_task(site.insist(call, victim)) for call in keyed]
    asked_once = [asyncio.create_task(site.attempt(call, victim)) for call in lonely]
    await eventually(reached, within=20)
    if point.provider is not None and point.statement:
        reached = _armed(site, point, victim, keyed + lonely)
        site.provider.released.set()
        await eventually(reached, within=20)
    await site.kill(victim)
    site.provider.released.set()
    _, replies, once = await asyncio.gather(
        site.replicas[victim].start(), asyncio.gather(*asking), asyncio.gather(*asked_once)
    )
    again = await site.all_insist(keyed, other)
    return [
        *complaints(site, [*replies, *again]),
        *_unequal(replies, again),
        *(f"{reply.call.name}: answered by the dead" for reply in once if reply is not None and reply.whole),
        *_upstream(site, point, keyed),
        *await site.balance(keyed + lonely),
    ]


async def paused_replica(site: Site, chance: random.Random, count: int = 20) -> list[str]:
    """A replica stops for longer than its lease, is taken for dead, and then goes on as if nothing had been."""
    victim, other = site.pair(chance)
    calls = site.calls("paused", count, plan=Plan(words=5, hold="middle"))
    site.provider.hold()
    asking = [asyncio.create_task(site.attempt(call, victim)) for call in calls]
    await eventually(partial(site.provider.held, [call.name for call in calls]), within=20)
    site.replicas[victim].pause()
    site.provider.released.set()
    try:
        retried = await site.all_insist(calls[: count // 2], other)
    finally:
        site.replicas[victim].resume()
    await asyncio.gather(*asking)
    again = await site.all_insist(calls, victim)
    return [*complaints(site, [*retried, *again]), *_unequal(retried, again), *await site.balance(calls)]


async def leases_jump(site: Site, chance: random.Random, count: int = 20) -> list[str]:
    """The database's clock jumps an hour ahead: every lease has run out while its replica lives."""
    first, other = site.pair(chance)
    calls = site.calls("leases", count, plan=Plan(words=5, hold="middle"))
    lonely = site.calls("leases-unkeyed", count, keyed=False, plan=Plan(words=5, hold="middle"))
    site.provider.hold()
    asking = [asyncio.create_task(site.attempt(call, first)) for call in calls + lonely]
    await eventually(partial(site.provider.held, [call.name for call in calls + lonely]), within=20)
    retrying = [asyncio.create_task(site.insist(call, other)) for call in calls]
    for _ in range(10):
        await site.rows("update replicas set lease_until = lease_until - interval '1 hour'")
        await asyncio.sleep(LEASE / 20)
    site.provider.released.set()
    replies = await asyncio.gather(*retrying)
    await asyncio.gather(*asking)
    again = await site.all_insist(calls, first)
    await eventually(partial(_leased, site), within=20)  # or the next scenario's keys could still be taken over
    return [*complaints(site, [*replies, *again]), *_unequal(replies, again), *await site.balance(calls + lonely)]


async def _leased(site: Site) -> bool:
    """Whether each replica has a lease again."""
    return len(await site.rows("select from replicas where lease_until > now()")) >= len(site.replicas)


def _calls(site: Site, point: Point, chance: random.Random, count: int) -> tuple[list[Call], list[Call]]:
    what = f"kill-{point.name.replace(' ', '-')}"
    plan = Plan(words=chance.randint(3, 9), hold=point.provider)
    lonely = count // 3 if False in point.keyed else 0
    return (
        site.calls(what, count - lonely if True in point.keyed else 0, plan=plan),
        site.calls(f"{what}-unkeyed", lonely or 0, keyed=False, plan=plan),
    )


def _held(site: Site, point: Point, victim: int, calls: Sequence[Call]) -> Callable[[], object]:
    """Hold the calls at the provider, or at the statement if it is the point alone; whether they are there."""
    if point.provider is None:
        return _armed(site, point, victim, calls)
    return partial(site.provider.held, [call.name for call in calls])


def _armed(site: Site, point: Point, victim: int, calls: Sequence[Call]) -> Callable[[], object]:
    """Stop the calls at the statement from now on; whether they are there."""
    rule = site.proxies[victim].at(point.action, point.statement)
    names, keyed = [call.name for call in calls], [call for call in calls if call.keyed]

    async def reached() -> bool:
        if not rule.hits or (point.provider is not None and not site.provider.finished(names)):
            return False
        return point.statement != journal.OPEN or await site.running(keyed) == len(keyed)

    return reached


def _unequal(replies: Sequence[Reply], again: Sequence[Reply]) -> list[str]:
    """A later retry must get the same bytes."""
    given = {reply.call.name: reply.body for reply in replies}
    return [
        f"{reply.call.name}: another answer the second time"
        for reply in again
        if given.get(reply.call.name, reply.body) != reply.body
    ]


def _upstream(site: Site, point: Point, calls: Sequence[Call]) -> list[str]:
    counts = {call.name: len(site.provider.bill[call.name]) for call in calls}
    allowed = {point.upstream} if point.upstream is not None else {1, 2}
    return [f"{name}: {count} upstream calls" for name, count in counts.items() if count not in allowed]
