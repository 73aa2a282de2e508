"""Two replicas on real stores, a provider that keeps its own bill, and clients that retry as the official SDKs do.

Every scenario ends with `balance`: nothing is open any more, and the provider's bill and our ledger are laid side by
side, call by call. What differs comes back as sentences; there must be none.
"""

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import redis.asyncio as redis

from aigate.embedded import EmbeddedPostgres, EmbeddedRedis, start_postgres, start_redis
from aigate.migrate import migrate
from aigate.stores.database import Database
from aigate.stores.keys import create_key
from tests.faults import invariants
from tests.faults.provider import Plan, Provider, prompt_tokens, text_of
from tests.faults.proxy import Proxy
from tests.faults.replica import Replica
from tests.running import eventually

LEASE = 2.0
DATABASE_TIMEOUT = 1.5
INPUT, OUTPUT = 2_500, 10_000
"""Prices of one token, in 1e-9 USD."""
PRICES = """
insert into price_rules (provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok)
select p, '*', $1::bigint * 1000000, $2::bigint * 1000000 from unnest(array['openai', 'draining']) p
"""
PATIENCE = 45.0
"""Seconds within which every client must have its answer, whatever happens."""
RETRIED = {408, 409, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Call:
    """What a client asks for, under a key or without."""

    name: str
    streamed: bool = True
    keyed: bool = True
    provider: str = "openai"
    seed: int | None = None
    key: str | None = None

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "model": f"{self.provider}:{self.name}",
            "messages": [{"role": "user", "content": "Say something"}],
            "user": self.name,
            "stream": self.streamed,
        }
        return document if self.seed is None else {**document, "seed": self.seed}

    @property
    def body(self) -> bytes:
        """The bytes that are sent: the same for each attempt."""
        return json.dumps(self.document).encode()

    @property
    def headers(self) -> dict[str, str]:
        return {"idempotency-key": self.key or self.name} if self.keyed else {}


@dataclass(frozen=True)
class Reply:
    """What a client got in the end."""

    call: Call
    status: int
    body: bytes
    replayed: bool

    @property
    def whole(self) -> bool:
        """Whether it is a success, and all of it."""
        return self.status == 200 and (not self.call.streamed or self.body.endswith(b"data: [DONE]\n\n"))

    @property
    def text(self) -> str:
        """The words of the answer."""
        if not self.call.streamed:
            return str(json.loads(self.body)["choices"][0]["message"]["content"])
        events = (line[6:] for line in self.body.split(b"\n") if line.startswith(b"data: {"))
        choices = (choice for event in events for choice in json.loads(event)["choices"])
        return "".join(choice["delta"].get("content", "") for choice in choices)


@dataclass
class Site:
    """Where everything happens. `totals` counts calls, retries, kills and the like."""

    folder: Path
    provider: Provider
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis
    key: str = ""
    replicas: list[Replica] = field(default_factory=list)
    proxies: list[Proxy] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)
    client: httpx.AsyncClient = field(default_factory=lambda: _client())
    _names: int = 0

    # -- what scenarios ask for

    def calls(
        self, what: str, count: int, *, streamed: bool | None = None, plan: Plan | None = None, **fields: Any
    ) -> list[Call]:
        """New calls, half of them streams unless told, each with a name of its own."""
        calls = []
        for number in range(count):
            self._names += 1
            stream = number % 2 == 0 if streamed is None else streamed
            call = Call(f"{what}-{self._names}", stream, **fields)
            self.provider.plans[call.name] = plan or Plan(words=3 + self._names % 7)
            calls.append(call)
        self.totals["calls"] += count
        return calls

    def pair(self, chance: random.Random) -> tuple[int, int]:
        """The index of a victim and of the other replica."""
        victim = chance.randrange(2)
        return victim, 1 - victim

    async def once(self, call: Call, replica: int) -> Reply:
        """One attempt on this replica. Raises `httpx.TransportError` if the connection breaks."""
        request = self.client.build_request(
            "POST",
            f"{self.replicas[replica].url}/v1/chat/completions",
            content=call.body,
            headers=self.headers(call),
        )
        response = await self.client.send(request)
        self.totals["attempts"] += 1
        return Reply(call, response.status_code, response.content, "idempotent-replayed" in response.headers)

    def headers(self, call: Call) -> dict[str, str]:
        """What is sent beside the body."""
        common = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        return {**common, **call.headers}

    async def attempt(self, call: Call, replica: int) -> Reply | None:
        """One attempt; `None` if the connection broke."""
        with suppress(httpx.TransportError):
            return await self.once(call, replica)
        return None

    async def insist(self, call: Call, replica: int = 0) -> Reply:
        """Retry with the same key, on the other replica each time, until there is an answer that no SDK retries."""
        async with asyncio.timeout(PATIENCE):
            pause = 0.05
            while True:
                reply = await self.attempt(call, replica)
                if reply is not None and reply.status not in RETRIED and (reply.whole or reply.status != 200):
                    return reply
                self.totals["retries"] += 1
                await asyncio.sleep(pause)
                pause = min(pause * 2, 0.5)
                replica = 1 - replica

    async def all_insist(self, calls: Sequence[Call], replica: int | None = None) -> list[Reply]:
        """All at once: on this replica first, or spread over both."""
        asking = (self.insist(call, number % 2 if replica is None else replica) for number, call in enumerate(calls))
        return await asyncio.gather(*asking)

    async def kill(self, replica: int) -> None:
        """`kill -9`, and nothing that it had sent but not delivered arrives any more."""
        self.totals["kills"] += 1
        self.replicas[replica].kill()
        self.proxies[replica].heal()
        self.proxies[replica].sever()

    async def rows(self, statement: str, *arguments: object) -> Sequence[asyncpg.Record]:
        """What PostgreSQL says, asked directly."""
        connection = await asyncpg.connect(self.postgres.url)
        try:
            return await connection.fetch(statement, *arguments)
        finally:
            await connection.close()

    async def running(self, calls: Sequence[Call]) -> int:
        """How many of these hold their key."""
        names = [call.key or call.name for call in calls]
        rows = await self.rows("select from idempotency_keys where key = any($1) and state = 'running'", list(names))
        return len(rows)

    @asynccontextmanager
    async def redis_client(self) -> AsyncIterator["redis.Redis"]:
        client: redis.Redis = redis.Redis.from_url(self.redis.url)
        try:
            yield client
        finally:
            await client.aclose()

    async def kill_redis(self) -> None:
        """`kill -9` of Redis, which comes back empty."""
        os.kill(_pid(self.folder / "redis"), signal.SIGKILL)
        started = await asyncio.to_thread(start_redis, self.folder)
        await asyncio.to_thread(self.redis.stop)
        self.redis = started
        self.totals["stores killed"] += 1

    async def kill_postgres(self) -> None:
        """`kill -9` of the postmaster, which comes back after recovery."""
        os.kill(_pid(self.folder / "postgres"), signal.SIGKILL)
        started = await asyncio.to_thread(start_postgres, self.folder)
        await asyncio.to_thread(self.postgres.stop)
        self.postgres = started
        self.totals["stores killed"] += 1

    @asynccontextmanager
    async def postgres_frozen(self) -> AsyncIterator[None]:
        """Every process of PostgreSQL is stopped (SIGSTOP) until the block ends."""
        family = _family(_pid(self.folder / "postgres"))
        _signal_all(family, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal_all(family, signal.SIGCONT)

    @asynccontextmanager
    async def redis_frozen(self) -> AsyncIterator[None]:
        """Redis is stopped (SIGSTOP) until the block ends."""
        pid = _pid(self.folder / "redis")
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    # -- how it ends

    async def heal(self) -> None:
        """Everything runs and nothing is in the way."""
        self.provider.released.set()
        for proxy in self.proxies:
            proxy.heal()
        for replica in self.replicas:
            replica.resume()
            if not replica.runs:
                await replica.start()

    async def balance(self, calls: Sequence[Call], *, settled_within: float = 30.0) -> list[str]:
        """Wait until nothing is open, then say how the provider's bill and the ledger differ."""
        differences = []
        try:
            await eventually(partial(self._nothing_open, calls), within=settled_within)
        except TimeoutError:
            differences += [f"still open: {row}" for row in await self._open(calls)]
        names = sorted({call.name for call in calls})
        rows = await self.rows(invariants.BILL, names)
        for call in {call.name: call for call in calls}.values():
            mine = [row for row in rows if row["model"] == call.name]
            differences += invariants.differences(call.name, call.keyed, mine, self.provider.bill[call.name])
        differences += await invariants.violations(self.postgres.url)
        self.totals["upstream calls"] += sum(len(self.provider.bill[name]) for name in names)
        self.totals["differences"] += len(differences)
        return differences

    async def _open(self, calls: Sequence[Call]) -> list[str]:
        names = [call.name for call in calls]
        rows = await self.rows(invariants.OPEN, names, [call.key or call.name for call in calls if call.keyed])
        return [f"{row['what']} {row['name']}" for row in rows]

    async def _nothing_open(self, calls: Sequence[Call]) -> bool:
        return not await self._open(calls)


def cost(name: str, words: int) -> int:
    """What a whole answer of so many words is billed, in 1e-9 USD."""
    return prompt_tokens(name) * INPUT + words * OUTPUT


def complaints(site: Site, replies: Sequence[Reply]) -> list[str]:
    """What is wrong with these answers: each must be whole and hold its own words."""
    wrong = []
    for reply in replies:
        words = site.provider.plans[reply.call.name].words
        if not reply.whole:
            wrong.append(f"{reply.call.name}: {reply.status} {reply.body[-300:]!r}")
        elif reply.text != text_of(reply.call.name, words):
            wrong.append(f"{reply.call.name}: other words: {reply.text!r}")
    return wrong


@asynccontextmanager
async def open_site(folder: Path) -> AsyncIterator[Site]:
    """Stores, provider and two replicas until the block ends."""
    postgres = await asyncio.to_thread(start_postgres, folder)
    started = await asyncio.to_thread(start_redis, folder)
    async with Provider() as provider:
        site = Site(folder, provider, postgres, started)
        try:
            await asyncio.to_thread(migrate, postgres.url)
            site.key = await _seed(postgres.url)
            async with _proxy(site) as first, _proxy(site) as second:
                site.proxies = [first, second]
                site.replicas = [_replica(site, number, proxy) for number, proxy in enumerate(site.proxies)]
                try:
                    await asyncio.gather(*(replica.start() for replica in site.replicas))
                    yield site
                finally:
                    provider.released.set()
                    await asyncio.gather(*(replica.stop() for replica in site.replicas))
                    await site.client.aclose()
        finally:
            await asyncio.to_thread(site.redis.stop)
            await asyncio.to_thread(site.postgres.stop)


def _client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(timeout=PATIENCE, limits=limits, trust_env=False)


def _proxy(site: Site) -> Proxy:
    path = parse_qs(urlsplit(site.postgres.url).query)["host"][0]
    return Proxy(partial(asyncio.open_unix_connection, f"{path}/.s.PGSQL.5432"))


def _replica(site: Site, number: int, proxy: Proxy) -> Replica:
    environment = {
        "DATABASE_URL": f"postgresql://aigate@127.0.0.1:{proxy.port}/aigate?sslmode=disable",
        "REDIS_URL": site.redis.url,
        "AIGATE_LEASE_SECONDS": str(LEASE),
        "AIGATE_DATABASE_TIMEOUT": str(DATABASE_TIMEOUT),
        "AIGATE_DATABASE_CONNECTIONS": "5",
        "AIGATE_REQUESTS_PER_MINUTE": "0",
        "AIGATE_KEY_CACHE_SECONDS": "600",
        "AIGATE_SHUTDOWN_TIMEOUT": "5",
        "AIGATE_UPSTREAM_TOTAL_TIMEOUT": "60",
        "AIGATE_PROVIDERS": "draining",
        "OPENAI_API_KEY": "sk-of-the-provider",
        "OPENAI_BASE_URL": site.provider.base_url,
        "OPENAI_ON_DISCONNECT": "cancel",
        "DRAINING_BASE_URL": site.provider.base_url,
        "DRAINING_ON_DISCONNECT": "drain",
    }
    return Replica("ab"[number], site.folder, environment)


async def _seed(url: str) -> str:
    database = Database(url, connections=1)
    try:
        key = await create_key(database, "acme")
        async with database.connection() as connection:
            await connection.execute(PRICES, INPUT, OUTPUT)
        return key
    finally:
        await database.close()


def _pid(folder: Path) -> int:
    return int((folder / "pid").read_text())


def _family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def _signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
