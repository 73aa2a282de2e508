"""One gateway and one fake provider for all cases: each is a call of milliseconds, so nothing is restarted."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import openai
import pytest
import pytest_asyncio

from providers.catalog import ROWS
from tests.conftest import with_database
from tests.running import RunningGateway, run_gateway, settings_of
from tests.upstream import FakeProvider
from tests.wire.conformance import AWS, KEY, Line, Tape
from tests.wire.recordings import Case, available, golden, recorded
from tests.wire.replay import Replay

collect_ignore_glob = [] if available() else ["test_*_recordings.py"]

KEYS = {"gemini": "GOOGLE_API_KEY"}
"""Variables that are not called after the provider."""

PRICE = """
insert into price_rules (provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok)
select provider, '*', 2500000000, 10000000000 from unnest($1::text[]) provider
on conflict do nothing
"""


@pytest.fixture(scope="session")
def wire_database_url(postgres_url: str, template: str) -> str:
    """A migrated database for the calls of all cases."""
    asyncio.run(_create(postgres_url, "test_wire", template))
    return with_database(postgres_url, "test_wire")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def line(wire_database_url: str, redis_url: str) -> AsyncIterator[Line]:
    """A gateway that knows every recorded provider, and the SDK as its client."""
    replay, tape = Replay(), Tape()
    async with FakeProvider(default=replay) as provider:
        rows = sorted({case.row for case in _cases()})
        settings = settings_of(wire_database_url, redis_url, provider.base_url, **_variables(rows, provider.base_url))
        async with run_gateway(settings) as gateway:
            await gateway.rows(PRICE, [row for row in rows if row not in ("openai", "vllm")])
            async with _client(gateway, tape) as client:
                yield Line(gateway, provider, replay, client, tape)


def _cases() -> tuple[Case, ...]:
    return (*golden(), *(recorded() if available() else ()))


def _variables(rows: list[str], base_url: str) -> dict[str, str]:
    """Every provider of the cases at `base_url`: those that the catalog knows keep their habits."""
    others = ",".join(row for row in rows if row not in {each.name for each in ROWS})
    variables = {"AIGATE_PROVIDERS": others}
    for row in rows:
        prefix = row.upper().replace("-", "_")
        variables[f"{prefix}_BASE_URL"] = base_url
        variables |= AWS if row == "bedrock" else {KEYS.get(row, f"{prefix}_API_KEY"): KEY}
    return variables


def _client(gateway: RunningGateway, tape: Tape) -> openai.AsyncOpenAI:
    http = openai.DefaultAsyncHttpxClient(transport=tape, trust_env=False)
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, http_client=http)


async def _create(url: str, name: str, template: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f'create database "{name}" template "{template}"')
    finally:
        await connection.close()
