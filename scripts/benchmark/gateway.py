"""The gateway under test, with everything on: durable stores, an organisation with prices and a key, workers.

Its log goes to a file as in production; the limiter is asked on every call, and lets it pass. What the ledger says at
the end is held against the provider's bill: a run that lost or invented a token fails.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from aigate.embedded import start_postgres, start_redis
from aigate.migrate import migrate
from aigate.stores.database import Database
from aigate.stores.keys import create_key, create_organisation

from .system import Cores, family_of, free_port, running, wait_until
from .targets import GATEWAY, KEYED, Pids, Process, Target, answers, bill
from .upstream import CUSTOMER

ORGANISATION = "benchmark"
PROVIDER = "openai"
INPUT_PRICE, OUTPUT_PRICE = 2_500_000_000, 10_000_000_000
"""In 1e-9 USD per million tokens."""
PRICES = """
insert into price_rules (organisation_id, provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok)
values ($1, $2, '*', $3, $4)
"""
LEDGER = """
select count(*) as calls, count(*) filter (where state = 'open') as unsettled,
    coalesce(sum(input_tokens), 0)::bigint as prompt_tokens,
    coalesce(sum(output_tokens), 0)::bigint as completion_tokens,
    coalesce(sum(billed_cost_nano), 0)::bigint as billed
from calls where provider = $1
"""
MANY = "1000000000"
"""Requests a minute."""
Money = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Stores:
    """The embedded stores and a key of the gateway that uses them."""

    database_url: str
    redis_url: str
    key: str
    postgres: Pids
    redis: Pids

    def ledger(self) -> dict[str, int]:
        """What the ledger says of the mock's calls, once nothing is open any more."""
        deadline = time.monotonic() + 10
        while (sums := asyncio.run(self._sums()))["unsettled"] and time.monotonic() < deadline:
            time.sleep(0.05)
        return sums

    async def _sums(self) -> dict[str, int]:
        connection = await asyncpg.connect(self.database_url)
        try:
            row = await connection.fetchrow(LEDGER, PROVIDER)
            assert row is not None
            return dict(row)
        finally:
            await connection.close()


@dataclass(frozen=True, slots=True)
class Bench:
    """Where gateways are started: the same stores, provider and cores for each."""

    folder: Path
    upstream: Target
    stores: Stores
    cores: Cores

    @contextlib.contextmanager
    def gateway(self, *, workers: int = 1, starts: int = 1) -> Iterator[Target]:
        """A gateway on the measured core, or one for each worker; started `starts` times, the last stays."""
        took: list[float] = []
        for _ in range(starts - 1):
            with self._serving(workers) as (_, _, seconds):
                took.append(seconds)
        with self._serving(workers) as (pid, port, seconds):
            yield self.target(GATEWAY, [pid], [port], Process.of(pid, *took, seconds))

    def target(self, name: str, pids: Sequence[int], ports: Sequence[int], process: Process | None = None) -> Target:
        """These gateways with their workers, asked with the key."""
        watched: dict[str, Pids] = {
            "itself": lambda: [each for pid in pids for each in family_of(pid)],
            "postgres": self.stores.postgres,
            "redis": self.stores.redis,
        }
        return Target(name, ports, authorization(self.stores.key), watched, process=process)

    @contextlib.contextmanager
    def _serving(self, workers: int) -> Iterator[tuple[int, int, float]]:
        port = free_port()
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(open(self.folder / "gateway.log", "ab"))
            command = [sys.executable, "-m", "aigate", "serve", "--host", "127.0.0.1", "--port", str(port)]
            environment = self._environment(workers)
            with self.cores.measured_here(workers):
                process = stack.enter_context(
                    running(command, folder=self.folder, environment=environment, output=log)
                )
            seconds = wait_until(lambda: answers(port, "/ready"), "the gateway's start")
            yield process.pid, port, seconds

    def _environment(self, workers: int) -> dict[str, str]:
        """Nothing of the caller's settings: what is measured is the same everywhere."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIGATE_", "OPENAI_"))}
        return {
            **kept,
            "DATABASE_URL": self.stores.database_url,
            "REDIS_URL": self.stores.redis_url,
            "AIGATE_REQUESTS_PER_MINUTE": MANY,
            "AIGATE_WORKERS": str(workers),
            "OPENAI_API_KEY": CUSTOMER.decode(),
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self.upstream.ports[0]}/v1",
        }


def keyed(target: Target) -> Target:
    """The same gateway, asked with an idempotency key of its own on each call."""

    def key(load: int, number: int) -> bytes:
        return b"idempotency-key: benchmark-%d-%d\r\n" % (load, number)

    return Target(KEYED, target.ports, target.headers, target.watched, key)


def authorization(key: str) -> bytes:
    return b"authorization: Bearer %s\r\n" % key.encode()


@contextlib.contextmanager
def stores(folder: Path) -> Iterator[Stores]:
    """PostgreSQL, durable, and Redis; migrated, with an organisation, its prices and a key."""
    with contextlib.ExitStack() as stack:
        postgres = start_postgres(folder)
        stack.callback(postgres.stop)
        redis = start_redis(folder)
        stack.callback(redis.stop)
        migrate(postgres.url)
        key = asyncio.run(_seed(postgres.url))
        server, limiter = (int((folder / name / "pid").read_text()) for name in ("postgres", "redis"))
        yield Stores(postgres.url, redis.url, key, lambda: family_of(server), lambda: [limiter])


async def _seed(url: str) -> str:
    database = Database(url)
    try:
        organisation = await create_organisation(database, ORGANISATION)
        async with database.connection() as connection:
            await connection.execute(PRICES, organisation, PROVIDER, INPUT_PRICE, OUTPUT_PRICE)
        return await create_key(database, ORGANISATION, name="benchmark")
    finally:
        await database.close()


def money(upstream: Target, stores: Stores) -> Money:
    """The provider's bill against the ledger: rows, tokens and money; every difference is an error."""
    ledger, provider = stores.ledger(), bill(upstream)
    cost = provider["prompt_tokens"] * INPUT_PRICE + provider["completion_tokens"] * OUTPUT_PRICE
    expected = {**provider, "billed": cost // 1_000_000, "unsettled": 0}
    error = {name: ledger[name] - value for name, value in expected.items()}
    return {"provider": provider, "ledger": ledger, "error": error}
