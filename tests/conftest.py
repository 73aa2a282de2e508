"""What the tests stand on: real PostgreSQL and Redis, one pair a run, and a fresh, migrated database a test.

The database of a test is copied from a migrated template, which takes a few milliseconds.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from subprocess import run

import asyncpg
import pytest

from aigate.embedded import start_postgres, start_redis
from aigate.migrate import migrate
from aigate.settings import Settings
from aigate.stores.database import Database
from tests.running import RunningGateway, run_gateway, settings_of
from tests.upstream import FakeProvider

numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running PostgreSQL with an empty database."""
    server = start_postgres(tmp_path_factory.mktemp("postgres"), durable=False)
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of `localhost`, with its key, that nobody but these tests trusts."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", "-"]
    path.write_bytes(run([*command.split(), *names], check=True, capture_output=True).stdout)
    return path


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running Redis."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def template(postgres_url: str) -> str:
    """The name of a migrated database, to be copied."""
    asyncio.run(_execute(postgres_url, 'create database "template_of_tests"'))
    migrate(with_database(postgres_url, "template_of_tests"))
    return "template_of_tests"


@pytest.fixture
async def empty_database_url(postgres_url: str) -> AsyncIterator[str]:
    """A database of this test's own, not migrated."""
    async for url in _own_database(postgres_url, "template0"):
        yield url


@pytest.fixture
async def database_url(postgres_url: str, template: str) -> AsyncIterator[str]:
    """A migrated database of this test's own."""
    async for url in _own_database(postgres_url, template):
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The same, as the gateway reaches it."""
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """A provider on loopback that answers as the test tells it, and keeps what it was asked."""
    async with FakeProvider() as fake:
        yield fake


@pytest.fixture
async def settings(database_url: str, redis_url: str, provider: FakeProvider) -> Settings:
    """Settings of a gateway on this test's stores, with the fake provider as `openai`."""
    return settings_of(database_url, redis_url, provider.base_url)


@pytest.fixture
async def start_gateway(settings: Settings) -> AsyncIterator[Callable[..., "asyncio.Future[RunningGateway]"]]:
    """Starts gateways on real sockets, with some settings changed; they end with the test."""
    async with AsyncExitStack() as running:

        async def start(**changes: object) -> RunningGateway:
            return await running.enter_async_context(run_gateway(settings, **changes))

        yield start


@pytest.fixture
async def gateway(start_gateway: Callable[..., "asyncio.Future[RunningGateway]"]) -> RunningGateway:
    """A gateway on a real socket, with an organisation, a key and prices."""
    return await start_gateway()


def with_database(url: str, name: str) -> str:
    """`url` with another database's name."""
    before, _, after = url.partition("?")
    return f"{before.rpartition('/')[0]}/{name}" + (f"?{after}" if after else "")


async def _own_database(url: str, template: str) -> AsyncIterator[str]:
    name = f"test_{next(numbers)}"
    await _execute(url, f'create database "{name}" template "{template}"')
    yield with_database(url, name)
    await _execute(url, f'drop database "{name}" with (force)')


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
