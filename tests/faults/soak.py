"""The scenarios of the fault tests, one after the other in random order, for as long as asked; then the totals.

What is planned by the seed is the order and each scenario's own chance; which call is where when something dies is up
to the machine, as it is outside.
"""

import argparse
import asyncio
import random
import secrets
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from tests.faults import clocks, crowds, kills, leavers, outages
from tests.faults.site import Site, open_site

Scenario: TypeAlias = Callable[[Site, random.Random], Awaitable[list[str]]]
ANYTHING_OPEN = """
select (select count(*) from calls where state = 'open') as open_rows,
    (select count(*) from idempotency_keys k where state = 'running' and exists (
        select from replicas r where r.id = k.replica_id and r.lease_until > now())) as held_keys,
    (select count(*) from calls) as rows
"""


def scenarios() -> dict[str, Scenario]:
    """Each by its name."""
    found: dict[str, Scenario] = {}
    for point in kills.POINTS:
        found[f"kill {point.name}"] = lambda site, chance, point=point: kills.kill_at(site, point, chance, 24)
    for streamed in (False, True):
        found[f"crowd {streamed}"] = lambda site, chance, s=streamed: crowds.one_key(site, chance, streamed=s)
        found[f"bodies {streamed}"] = lambda site, chance, s=streamed: crowds.differing_bodies(
            site, chance, streamed=s, bodies=chance.randint(2, 20)
        )
    for moment in leavers.MOMENTS:
        for policy in ("keyed", "cancel", "drain"):
            found[f"leave {moment} {policy}"] = lambda site, chance, m=moment, p=policy: leavers.leave(
                site, chance, m, p, 50
            )
    for step in outages.STATEMENTS:
        found[f"lost {step}"] = lambda site, chance, step=step: outages.answers_lost(site, chance, step)
        found[f"late {step}"] = lambda site, chance, step=step: outages.late_statement(site, chance, step)
    for jump, seconds in clocks.JUMPS.items():
        found[f"clock {jump}"] = lambda site, chance, s=seconds: clocks.clock_jumps(site, chance, s)
    for how in ("killed", "flushed"):
        found[f"redis {how}"] = lambda site, chance, how=how: outages.redis_lost(site, chance, how)
    return found | {
        "paused replica": kills.paused_replica,
        "leases jump": kills.leases_jump,
        "many keys": lambda site, chance: crowds.many_keys(site, chance, calls=200),
        "postgres killed": outages.postgres_killed,
        "postgres stopped": outages.postgres_frozen,
        "half open": outages.half_open,
        "bad network": outages.network_breaks,
        "pool exhausted": outages.pool_exhausted,
        "postgres full": outages.postgres_full,
        "redis silent": outages.redis_gone,
    }


async def soak(seconds: float, seed: int, only: str) -> int:
    """The number of differences found."""
    chance = random.Random(seed)
    chosen = {name: scenario for name, scenario in scenarios().items() if only in name}
    deadline = time.monotonic() + seconds
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="aigate-soak-") as folder:
        async with open_site(Path(folder)) as site:
            while time.monotonic() < deadline:
                for name in chance.sample(sorted(chosen), len(chosen)):
                    if time.monotonic() < deadline:
                        wrong += await _run(site, name, chosen[name], random.Random(chance.random()))
            wrong += await _totals(site, wrong)
    return wrong


async def _run(site: Site, name: str, scenario: Scenario, chance: random.Random) -> int:
    began = time.monotonic()
    await site.heal()
    try:
        wrong = await scenario(site, chance)
    except Exception:
        wrong = [traceback.format_exc()]
    site.totals["scenarios"] += 1
    print(f"{time.monotonic() - began:6.1f} s  {name}: {wrong or 'ok'}", flush=True)
    return len(wrong)


async def _totals(site: Site, wrong: int) -> int:
    (left,) = await site.rows(ANYTHING_OPEN)
    for what, count in sorted({**site.totals, "differences": wrong, **left}.items()):
        print(f"{count:8} {what.replace('_', ' ')}")
    return int(left["open_rows"]) + int(left["held_keys"])


def main() -> None:
    """Exits with 1 if anything differed or was left open."""
    parser = argparse.ArgumentParser("soak", description="Break everything for a while, and compare the bills.")
    parser.add_argument("--seconds", type=float, default=600.0, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: a new one")
    parser.add_argument("--only", default="", help="only scenarios with this in their name")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    sys.exit(1 if asyncio.run(soak(options.seconds, options.seed, options.only)) else 0)


if __name__ == "__main__":
    main()
