"""Many clients with one key at once, on both replicas."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tests.faults.provider import Plan
from tests.faults.site import Call, Reply, Site, complaints

CLIENTS = 50


async def one_key(site: Site, chance: random.Random, *, streamed: bool) -> list[str]:
    """Fifty equal requests: one upstream call, fifty equal answers, one bill."""
    plan = Plan(words=chance.randint(4, 12), pause=0.03)
    (call,) = site.calls("crowd", 1, streamed=streamed, plan=plan)
    site.totals["calls"] += CLIENTS - 1
    replies = await asyncio.gather(*(site.insist(call, number % 2) for number in range(CLIENTS)))
    originals = sum(not reply.replayed for reply in replies)
    return [
        *complaints(site, replies),
        *_expected("different answers", len({reply.body for reply in replies}), 1),
        *_expected("answers not marked as replayed", originals, 1),
        *_expected("upstream calls", len(site.provider.bill[call.name]), 1),
        *await site.balance([call]),
    ]


async def differing_bodies(site: Site, chance: random.Random, *, streamed: bool, bodies: int = 5) -> list[str]:
    """Fifty requests of five kinds under one key: one kind wins and all of it is answered, the others are 422."""
    plan = Plan(words=chance.randint(4, 12), pause=0.03)
    (call,) = site.calls("bodies", 1, streamed=streamed, plan=plan)
    site.totals["calls"] += CLIENTS - 1
    asked = [replace(call, seed=number % bodies) for number in range(CLIENTS)]
    chance.shuffle(asked)
    replies = await asyncio.gather(*(site.insist(each, number % 2) for number, each in enumerate(asked)))
    won = {reply.call.seed for reply in replies if reply.status == 200}
    winners = [reply for reply in replies if reply.call.seed in won]
    return [
        *complaints(site, winners),
        *_expected("winning bodies", len(won), 1),
        *_expected("different answers", len({reply.body for reply in winners}), 1),
        *_refused([reply for reply in replies if reply.call.seed not in won]),
        *_expected("upstream calls", len(site.provider.bill[call.name]), 1),
        *await site.balance([call]),
    ]


async def many_keys(site: Site, chance: random.Random, calls: int = 60, clients: int = 3) -> list[str]:
    """Calls of every kind at once, each asked for by several clients."""
    asked = site.calls("many", calls, plan=Plan(words=chance.randint(2, 9), pause=0.005))
    crowd: list[Call] = asked * clients
    chance.shuffle(crowd)
    replies = await site.all_insist(crowd)
    counts = Counter(len(site.provider.bill[call.name]) for call in asked)
    return [
        *complaints(site, replies),
        *_expected("upstream calls of each", set(counts), {1}),
        *await site.balance(asked),
    ]


def _refused(losers: Sequence[Reply]) -> list[str]:
    return [f"{reply.call.seed}: {reply.status} instead of 422" for reply in losers if reply.status != 422]


def _expected(what: str, found: object, expected: object) -> list[str]:
    return [] if found == expected else [f"{what}: {found} instead of {expected}"]
