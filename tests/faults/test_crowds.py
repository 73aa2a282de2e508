"""However many ask at once under one key: one upstream call, one answer, one bill."""

import random

import pytest

from tests.faults import crowds
from tests.faults.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("streamed", [False, True])
async def test_one_key(site: Site, chance: random.Random, streamed: bool) -> None:
    """Fifty clients with one key on both replicas get equal answers, billed once."""
    assert await crowds.one_key(site, chance, streamed=streamed) == []


@pytest.mark.parametrize("streamed", [False, True])
async def test_differing_bodies(site: Site, chance: random.Random, streamed: bool) -> None:
    """With differing bodies exactly one wins, and all who sent that one are answered; the others are refused."""
    assert await crowds.differing_bodies(site, chance, streamed=streamed) == []


async def test_many_keys(site: Site, chance: random.Random) -> None:
    """Many keys at once, each with several clients on both replicas, are billed once each."""
    assert await crowds.many_keys(site, chance) == []
