"""The clock of a replica decides nothing: leases and prices go by the database's."""

import random

import pytest

from tests.faults import clocks
from tests.faults.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("jump", clocks.JUMPS)
async def test_clock_jumps(site: Site, chance: random.Random, jump: str) -> None:
    """A clock that jumps loses no call, bills none twice, and keeps no lease of the dead alive."""
    assert await clocks.clock_jumps(site, chance, clocks.JUMPS[jump]) == []
