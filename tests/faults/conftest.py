"""One site for all fault tests, whole again before each of them, and a chance whose seed is printed."""

import os
import random
import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.site import Site, open_site


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def whole_site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """Two replicas on durable stores, and a provider that keeps its own bill."""
    async with open_site(tmp_path_factory.mktemp("site")) as site:
        yield site
        print(dict(site.totals))


@pytest_asyncio.fixture(loop_scope="session")
async def site(whole_site: Site) -> AsyncIterator[Site]:
    """The same, with everything running and nothing in the way."""
    await whole_site.heal()
    yield whole_site
    await whole_site.heal()


@pytest.fixture
def chance() -> random.Random:
    """What decides who dies and when; AIGATE_FAULTS_SEED repeats a run."""
    seed = int(os.environ.get("AIGATE_FAULTS_SEED") or secrets.randbelow(1_000_000))
    print(f"seed {seed}")
    return random.Random(seed)
