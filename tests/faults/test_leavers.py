"""A client that leaves costs what it has used, loses no answer that it has a key for, and leaves nothing behind."""

import random

import pytest

from tests.faults import leavers
from tests.faults.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("policy", ["keyed", "cancel", "drain"])
@pytest.mark.parametrize("moment", leavers.MOMENTS)
async def test_leaving(site: Site, chance: random.Random, moment: str, policy: str) -> None:
    """With a key the answer is finished for the retry; without one the provider's policy decides."""
    assert await leavers.leave(site, chance, moment, policy) == []


async def test_five_hundred_leave_nothing_behind(site: Site, chance: random.Random) -> None:
    """Neither a request, nor a connection, nor memory is kept of 500 clients that left."""
    assert await leavers.leave_many(site, chance, rounds=2) == []
