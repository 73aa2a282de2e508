"""What is measured: the mock itself, nginx in front of it, and the gateway with everything on, keyed and not.

All targets get the same request but for the caller's headers, and all stand before the same mock. What is measured
has one core; the mock, the load and the stores share the others.
"""

import asyncio
import contextlib
import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from aigate.embedded import start_postgres, start_redis
from aigate.migrate import migrate
from aigate.stores.database import Database
from aigate.stores.keys import create_key, create_organisation

from .system import Cores, cpu_of, family_of, free_port, program, resident_bytes, running, wait_until
from .upstream import CUSTOMER

DIRECT, NGINX, GATEWAY, KEYED = "direct", "nginx", "aigate", "aigate, keyed"
ORGANISATION = "benchmark"
INPUT_PRICE, OUTPUT_PRICE = 2_500_000_000, 10_000_000_000
"""In 1e-9 USD per million tokens."""
PRICES = """
insert into price_rules (organisation_id, provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok)
values ($1, 'openai', '*', $2, $3)
"""
LEDGER = """
select count(*) as calls, count(*) filter (where state = 'open') as unsettled,
    coalesce(sum(input_tokens), 0)::bigint as prompt_tokens,
    coalesce(sum(output_tokens), 0)::bigint as completion_tokens,
    coalesce(sum(billed_cost_nano), 0)::bigint as billed
from calls
"""
MANY = "1000000000"
"""Requests a minute: the limiter is asked on every call, and lets it pass."""
NGINX_CONFIGURATION = """
daemon off; master_process off; error_log stderr crit; pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off; tcp_nodelay on; keepalive_requests 1000000000;
    client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi; uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    upstream mock {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
        }}
    }}
}}
"""
Pids = Callable[[], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers on a port. `watched`: processes whose CPU is counted, by the name in the table."""

    name: str
    port: int
    headers: bytes = b""
    watched: Mapping[str, Pids] = field(default_factory=dict)
    keyed: bool = False

    def request(self, model: str, *, stream: bool, size: int) -> tuple[bytes, bytes]:
        """The request in two parts, between which a header may be put; its prompt has about `size` bytes."""
        document = {"model": f"openai:{model}", "messages": [{"role": "user", "content": "word " * (size // 5)}]}
        body = json.dumps({**document, "stream": True} if stream else document).encode()
        before = b"POST /v1/chat/completions HTTP/1.1\r\nhost: benchmark\r\n" + self.headers
        return before, b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    def cpu(self) -> dict[str, dict[int, float]]:
        """CPU seconds so far of each watched process."""
        return {name: {pid: cpu_of([pid]).total for pid in pids()} for name, pids in self.watched.items()}


@dataclass(slots=True)
class Gateway:
    """The worker under test, its stores, and what was seen of its start."""

    pid: int
    targets: list[Target]
    database_url: str
    start_seconds: list[float]
    idle_bytes: int

    def resident(self) -> int:
        return resident_bytes(self.pid)

    def ledger(self) -> dict[str, int]:
        """What the ledger says, once nothing is open any more."""
        deadline = time.monotonic() + 10
        while (sums := asyncio.run(self._sums()))["unsettled"] and time.monotonic() < deadline:
            time.sleep(0.05)
        return sums

    async def _sums(self) -> dict[str, int]:
        connection = await asyncpg.connect(self.database_url)
        try:
            row = await connection.fetchrow(LEDGER)
            assert row is not None
            return dict(row)
        finally:
            await connection.close()


@dataclass(frozen=True, slots=True)
class Stores:
    """The embedded stores and a key of the gateway that uses them."""

    database_url: str
    redis_url: str
    key: str
    postgres: Pids
    redis: Pids


@contextlib.contextmanager
def mock(folder: Path) -> Iterator[Target]:
    """The provider, asked directly."""
    port = free_port()
    command = [sys.executable, "-m", "benchmark.upstream", str(port)]
    with (
        open(folder / "mock.log", "wb") as log,
        running(command, folder=folder, environment=os.environ, output=log),
    ):
        wait_until(lambda: answers(port, "/bill"), "the mock provider's start")
        yield Target(DIRECT, port)


def bill(upstream: Target) -> dict[str, int]:
    """The provider's own count of what it answered to the gateway."""
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=5)
    try:
        connection.request("GET", "/bill")
        return dict(json.loads(connection.getresponse().read()))
    finally:
        connection.close()


@contextlib.contextmanager
def nginx(folder: Path, upstream: Target, cores: Cores) -> Iterator[Target | None]:
    """nginx as one process on the measured core, buffering nothing; `None` where it is not installed."""
    found = program("nginx")
    if found is None:
        yield None
        return
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX_CONFIGURATION.format(folder=folder, upstream=upstream.port, port=port))
    command = [found, "-p", str(folder), "-e", "stderr", "-c", str(configuration)]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(folder / "nginx.log", "wb"))
        with cores.measured_here():
            process = stack.enter_context(running(command, folder=folder, environment=os.environ, output=log))
        wait_until(lambda: answers(port, "/bill"), "nginx's start")
        yield Target(NGINX, port, watched={"itself": lambda: [process.pid]})


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
            await connection.execute(PRICES, organisation, INPUT_PRICE, OUTPUT_PRICE)
        return await create_key(database, ORGANISATION, name="benchmark")
    finally:
        await database.close()


@contextlib.contextmanager
def gateway(folder: Path, upstream: Target, with_stores: Stores, cores: Cores, starts: int) -> Iterator[Gateway]:
    """One worker on the measured core, everything on, its log in a file; started `starts` times, the last stays."""
    took: list[float] = []
    for _ in range(starts - 1):
        with _worker(folder, upstream, with_stores, cores) as (_, _, seconds):
            took.append(seconds)
    with _worker(folder, upstream, with_stores, cores) as (pid, port, seconds):
        took.append(seconds)
        watched = {"itself": lambda: [pid], "postgres": with_stores.postgres, "redis": with_stores.redis}
        headers = b"authorization: Bearer %s\r\n" % with_stores.key.encode()
        targets = [
            Target(GATEWAY, port, headers, watched),
            Target(KEYED, port, headers, watched, keyed=True),
        ]
        yield Gateway(pid, targets, with_stores.database_url, took, resident_bytes(pid))


@contextlib.contextmanager
def _worker(folder: Path, upstream: Target, with_stores: Stores, cores: Cores) -> Iterator[tuple[int, int, float]]:
    port = free_port()
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(folder / "gateway.log", "wb"))
        command = [sys.executable, "-m", "aigate", "serve", "--host", "127.0.0.1", "--port", str(port)]
        with cores.measured_here():
            process = stack.enter_context(
                running(command, folder=folder, environment=_environment(upstream, with_stores), output=log)
            )
        seconds = wait_until(lambda: answers(port, "/ready"), "the gateway's start")
        yield process.pid, port, seconds


def _environment(upstream: Target, with_stores: Stores) -> dict[str, str]:
    """Nothing of the caller's settings: what is measured is the same everywhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIGATE_", "OPENAI_"))}
    return {
        **kept,
        "DATABASE_URL": with_stores.database_url,
        "REDIS_URL": with_stores.redis_url,
        "AIGATE_REQUESTS_PER_MINUTE": MANY,
        "OPENAI_API_KEY": CUSTOMER.decode(),
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream.port}/v1",
    }


def answers(port: int, path: str) -> bool:
    """Whether `path` is answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
