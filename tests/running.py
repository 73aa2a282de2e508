"""A gateway on a real socket inside the test's own event loop, and what a test wants to know of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import httpx
import uvicorn

from aigate.app import Gateway
from aigate.serve import config
from aigate.settings import Settings
from aigate.stores.database import Database
from aigate.stores.keys import create_key, create_organisation

PRICES = """
insert into price_rules (organisation_id, provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok)
values ($1, 'openai', '*', 2500000000, 10000000000), ($1, 'vllm', '*', 0, 0)
"""
CHAT = {"model": "openai:gpt-4o", "messages": [{"role": "user", "content": "Say hello"}]}


def settings_of(database_url: str, redis_url: str, base_url: str, **variables: str) -> Settings:
    """Settings on these stores with `base_url` as the provider `openai`, `vllm` and `deepseek`."""
    environment = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "AIGATE_PORT": "0",
        "AIGATE_REQUESTS_PER_MINUTE": "0",
        "AIGATE_KEY_CACHE_SECONDS": "0.5",
        "AIGATE_DATABASE_TIMEOUT": "2",
        "OPENAI_API_KEY": "sk-provider-secret",
        "OPENAI_BASE_URL": base_url,
        "VLLM_BASE_URL": base_url,
        **variables,
    }
    return Settings.read(environment, file=None)


@dataclass
class RunningGateway:
    """A gateway that answers at `url`, with an organisation, its key, and a client that sends the key."""

    url: str
    key: str
    client: httpx.AsyncClient
    database: Database
    app: Gateway

    async def chat(self, document: Any = None, **headers: str) -> httpx.Response:
        """Ask for a chat completion; `document` goes over the usual one."""
        return await self.client.post(
            "/v1/chat/completions", json={**CHAT, **(document or {})}, headers=_dashed(headers)
        )

    async def rows(self, statement: str, *arguments: object) -> Sequence[asyncpg.Record]:
        async with self.database.connection() as connection:
            return await connection.fetch(statement, *arguments)

    async def calls(self) -> Sequence[asyncpg.Record]:
        """The ledger, oldest first."""
        return await self.rows("select * from calls order by opened_at")


@asynccontextmanager
async def run_gateway(settings: Settings, **changes: Any) -> AsyncIterator[RunningGateway]:
    """A gateway with these settings until the block ends, which shuts it down in order."""
    settings = replace(settings, **changes)
    database = Database(settings.database_url)
    key = await _prepare(database)
    app = Gateway(settings)
    server = uvicorn.Server(config(settings, app))
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not serving.done(), serving.exception()
            await asyncio.sleep(0.005)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(
            base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=30, trust_env=False
        ) as client:
            yield RunningGateway(url, key, client, database, app)
    finally:
        server.should_exit = True
        await serving
        await database.close()


async def _prepare(database: Database) -> str:
    organisation = await create_organisation(database, "acme")
    async with database.connection() as connection:
        if not await connection.fetchval("select count(*) from price_rules where organisation_id is not null"):
            await connection.execute(PRICES, organisation)
    return await create_key(database, "acme", name="test")


async def eventually(condition: Any, *, within: float = 5.0) -> None:
    """Return once `condition()` is true; fails after `within` seconds."""
    async with asyncio.timeout(within):
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.01)


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
