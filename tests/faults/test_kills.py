"""No death of a replica loses a call or bills one twice."""

import random

import pytest

from tests.faults import kills
from tests.faults.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("point", kills.POINTS, ids=lambda point: point.name.replace(" ", "-"))
async def test_kill_at(site: Site, chance: random.Random, point: kills.Point) -> None:
    """After `kill -9` at this point the retry is answered by the other replica, and the key is billed once."""
    assert await kills.kill_at(site, point, chance) == []


async def test_replica_that_was_only_paused(site: Site, chance: random.Random) -> None:
    """A replica that comes back after its lease bills no key that another one has answered meanwhile."""
    assert await kills.paused_replica(site, chance) == []


async def test_leases_that_run_out_at_once(site: Site, chance: random.Random) -> None:
    """A jump of the database's clock makes the living look dead, and still each key is billed once."""
    assert await kills.leases_jump(site, chance) == []
