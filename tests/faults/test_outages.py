"""Whatever a store does, the bills agree in the end, every retry is answered, and nothing hangs."""

import random

import pytest

from tests.faults import outages
from tests.faults.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_postgres_killed(site: Site, chance: random.Random) -> None:
    """Answers that run end well and settle when PostgreSQL is back; new calls are told to come again."""
    assert await outages.postgres_killed(site, chance) == []


async def test_postgres_stopped(site: Site, chance: random.Random) -> None:
    """Ten seconds of silence lose nothing, although every lease has run out."""
    assert await outages.postgres_frozen(site, chance) == []


@pytest.mark.parametrize("step", outages.STATEMENTS)
async def test_answer_of_postgres_lost(site: Site, chance: random.Random, step: str) -> None:
    """A step that is durable and unknown is neither lost nor done twice."""
    assert await outages.answers_lost(site, chance, step) == []


@pytest.mark.parametrize("step", outages.STATEMENTS)
async def test_statement_that_arrives_late(site: Site, chance: random.Random, step: str) -> None:
    """What arrives after its request has been given up holds no key and leaves no call open."""
    assert await outages.late_statement(site, chance, step) == []


async def test_half_open_connection(site: Site, chance: random.Random) -> None:
    """A replica that PostgreSQL hears and that does not hear PostgreSQL recovers."""
    assert await outages.half_open(site, chance) == []


async def test_bad_network(site: Site, chance: random.Random) -> None:
    """A way to PostgreSQL that breaks in every manner is survived."""
    assert await outages.network_breaks(site, chance) == []


async def test_pool_exhausted(site: Site, chance: random.Random) -> None:
    """With every connection waiting, answers that run end well and new calls are told to come again."""
    assert await outages.pool_exhausted(site, chance) == []


async def test_postgres_full(site: Site, chance: random.Random) -> None:
    """With no connection to be had it is the same."""
    assert await outages.postgres_full(site, chance) == []


@pytest.mark.parametrize("how", ["killed", "flushed"])
async def test_redis_lost(site: Site, chance: random.Random, how: str) -> None:
    """Who follows a stream of the other replica gets all of it once, whatever Redis forgets."""
    assert await outages.redis_lost(site, chance, how) == []


async def test_redis_silent(site: Site, chance: random.Random) -> None:
    """Without Redis the waiters get their answer from PostgreSQL."""
    assert await outages.redis_gone(site, chance) == []
