"""PostgreSQL and Redis going away and coming back, behind a TCP proxy that the test stops, over real sockets."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import pytest
import uvicorn
from loguru import logger

from aigate.app import Gateway
from aigate.serve import config
from aigate.settings import Settings
from aigate.stores.keys import create_key
from tests.running import CHAT, RunningGateway, eventually
from tests.upstream import FakeProvider, sse, stream, words

Start = Callable[..., Any]


@dataclass
class Gate:
    """A TCP port in front of a unix socket. While `stop`ped nothing listens; while `frozen` nothing is answered."""

    socket: str
    port: int = 0
    frozen: bool = False
    _server: asyncio.Server | None = None
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections and break those that stand."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        backward, forward = await asyncio.open_unix_connection(self.socket)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, forward))
                both.create_task(self._pass(backward, writer))
        except* (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            forward.close()
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            while self.frozen:  # noqa: ASYNC110 - until the test thaws it
                await asyncio.sleep(0.01)
            writer.write(data)
        raise ConnectionError


@dataclass
class Stores:
    """The settings of a gateway whose stores are behind gates."""

    settings: Settings
    postgres: Gate
    redis: Gate


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[Stores]:
    postgres, redis = urlsplit(settings.database_url), urlsplit(settings.redis_url)
    folder = parse_qs(postgres.query)["host"][0]
    behind = (Gate(f"{folder}/.s.PGSQL.5432"), Gate(unquote(redis.path)))
    for gate in behind:
        await gate.start()
    yield Stores(
        replace(
            settings,
            database_url=f"postgresql://aigate@127.0.0.1:{behind[0].port}{postgres.path}",
            redis_url=f"redis://127.0.0.1:{behind[1].port}/0",
            requests_per_minute=1000,
            key_cache_seconds=60.0,
            database_timeout=1.0,
            lease_seconds=3.0,
        ),
        *behind,
    )
    for gate in behind:
        await gate.stop()


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What is logged from WARNING upwards, and the messages of recovery."""
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(message.record["message"]), level="INFO", format="{message}")
    yield lines
    logger.remove(handler)


@asynccontextmanager
async def serving(settings: Settings, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway that is started although its stores may be away."""
    server = uvicorn.Server(config(settings, Gateway(settings)))
    running = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(
            base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=30, trust_env=False
        ) as client:
            yield client
    finally:
        server.should_exit = True
        await running


@pytest.fixture
async def key(gateway: RunningGateway) -> str:
    return await create_key(gateway.database, "acme")


async def ask(client: httpx.AsyncClient, **fields: object) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={**CHAT, **fields})


async def works(client: httpx.AsyncClient) -> bool:
    return (await ask(client)).status_code == 200


async def ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/ready")).status_code == 200


def unavailable(response: httpx.Response) -> None:
    assert response.status_code == 503
    error = response.json()["error"]
    assert (error["code"], error["type"]) == ("gateway_store_unavailable", "server_error")
    assert int(response.headers["retry-after"]) >= 1
    assert response.headers.get("x-should-retry") != "false"


async def test_postgres_is_down_at_start(
    stores: Stores, key: str, provider: FakeProvider, log: list[str], gateway: RunningGateway
) -> None:
    """The gateway starts without PostgreSQL, says so, refuses calls, and works once it is there."""
    await stores.postgres.stop()
    async with serving(stores.settings, key) as client:
        state = await client.get("/ready")
        assert state.status_code == 503
        assert state.json()["postgres"].startswith("down")
        assert state.json()["redis"] == "ok"
        assert (await client.get("/health")).status_code == 200
        assert any("postgres is down" in line for line in log)
        unavailable(await ask(client))
        assert provider.calls == []
        await stores.postgres.start()
        await eventually(lambda: works(client))
        await eventually(lambda: ready(client))
        assert any("postgres is back" in line for line in log)
    states = [call["state"] for call in await gateway.calls()]
    assert states.count("settled") == len(provider.calls)
    assert "open" not in states


async def test_postgres_goes_down(
    stores: Stores, key: str, provider: FakeProvider, log: list[str], gateway: RunningGateway
) -> None:
    """When PostgreSQL goes, calls are refused before anything is called, and come back with it."""
    async with serving(stores.settings, key) as client:
        assert await works(client)
        assert await ready(client)
        await stores.postgres.stop()
        started = time.perf_counter()
        for _ in range(3):
            unavailable(await ask(client))
        assert time.perf_counter() - started < 3
        assert len(provider.calls) == 1
        await eventually(lambda: _is_not_ready(client, "postgres"))
        assert any("postgres is down" in line for line in log)
        await stores.postgres.start()
        await eventually(lambda: works(client))
        await eventually(lambda: ready(client))
    states = [call["state"] for call in await gateway.calls()]
    assert states.count("settled") == len(provider.calls)
    assert "open" not in states


async def test_postgres_freezes(stores: Stores, key: str, provider: FakeProvider, gateway: RunningGateway) -> None:
    """A PostgreSQL that takes statements and answers nothing is away after the time-out."""
    async with serving(stores.settings, key) as client:
        assert await works(client)
        stores.postgres.frozen = True
        async with asyncio.timeout(5):
            unavailable(await ask(client))
        assert len(provider.calls) == 1
        stores.postgres.frozen = False
        await eventually(lambda: works(client))

    async def none_is_open() -> bool:
        return not await gateway.rows("select 1 from calls where state = 'open'")

    await eventually(none_is_open)


async def test_postgres_goes_down_amid_a_stream(
    stores: Stores, key: str, provider: FakeProvider, gateway: RunningGateway
) -> None:
    """A stream that runs is finished without PostgreSQL, and settled once it is back."""
    provider.default = stream(*sse(*words(*["word "] * 20)), pause=0.02)
    async with serving(stores.settings, key) as client:
        async with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as response:
            lines = response.aiter_lines()
            await anext(lines)
            await stores.postgres.stop()
            rest = [line async for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert sum("word" in json.dumps(line) for line in rest) >= 19
        assert [call["state"] for call in await gateway.calls()] == ["open"]
        await stores.postgres.start()

        async def settled() -> bool:
            (call,) = await gateway.calls()
            return (call["state"], call["outcome"], call["billed_cost_nano"]) == ("settled", "ok", 80_000)

        await eventually(settled)


async def test_unknown_key_without_postgres(stores: Stores, key: str) -> None:
    """Without PostgreSQL nobody is told that his key is wrong: it cannot be known."""
    async with serving(stores.settings, key) as client:
        await stores.postgres.stop()
        unavailable(await ask(client))
        unavailable(await client.get("/v1/models"))


async def test_redis_is_down_at_start(stores: Stores, key: str, log: list[str]) -> None:
    """The gateway starts and works without Redis, says so, and finds it once it is there."""
    await stores.redis.stop()
    async with serving(stores.settings, key) as client:
        state = await client.get("/ready")
        assert state.status_code == 503
        assert state.json()["redis"].startswith("down")
        assert state.json()["postgres"] == "ok"
        assert await works(client)
        assert any("redis is down" in line for line in log)
        assert any("rate limits are per replica now" in line for line in log)
        await stores.redis.start()
        await eventually(lambda: ready(client))
        await eventually(lambda: _mended(client, log))


async def test_redis_goes_down(stores: Stores, key: str, gateway: RunningGateway, log: list[str]) -> None:
    """When Redis goes, calls go on and limits are per replica; when it is back they hold over all."""
    slow = await create_key(gateway.database, "acme", requests_per_minute=3)
    async with serving(stores.settings, key) as client:
        assert await works(client)
        await stores.redis.stop()
        started = time.perf_counter()
        assert await works(client)
        assert time.perf_counter() - started < 3
        bearer = {"authorization": f"Bearer {slow}"}
        answers = [await client.post("/v1/chat/completions", json=CHAT, headers=bearer) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert any("rate limits are per replica now" in line for line in log)
        await eventually(lambda: _is_not_ready(client, "redis"))
        await stores.redis.start()
        await eventually(lambda: ready(client))
        await eventually(lambda: _mended(client, log))


async def test_redis_freezes(stores: Stores, key: str, gateway: RunningGateway) -> None:
    """A Redis that takes commands and answers nothing costs a call a moment, and most calls nothing."""
    async with serving(stores.settings, key) as client:
        assert await works(client)
        stores.redis.frozen = True
        times = []
        for _ in range(10):
            started = time.perf_counter()
            assert await works(client)
            times.append(time.perf_counter() - started)
        assert max(times) < 3
        assert sorted(times)[5] < 0.2

        async def says_why() -> bool:
            state = (await client.get("/ready")).json()["redis"]
            return bool(state == "down: TimeoutError")

        await eventually(says_why)
        stores.redis.frozen = False
        await eventually(lambda: ready(client))
        assert await works(client)
    assert {call["state"] for call in await gateway.calls()} == {"settled"}


async def test_redis_is_not_required(stores: Stores, key: str) -> None:
    """An operator who wants traffic without Redis says so, and is ready without it."""
    await stores.redis.stop()
    async with serving(replace(stores.settings, ready_requires=("postgres",)), key) as client:
        state = await client.get("/ready")
        assert state.status_code == 200
        assert state.json()["redis"].startswith("down")


async def test_both_go_and_come(stores: Stores, key: str) -> None:
    """The gateway survives without either, and needs no restart."""
    async with serving(stores.settings, key) as client:
        assert await works(client)
        for gate in (stores.postgres, stores.redis):
            await gate.stop()
        unavailable(await ask(client))
        assert (await client.get("/health")).status_code == 200
        for gate in (stores.postgres, stores.redis):
            await gate.start()
        await eventually(lambda: works(client))
        await eventually(lambda: ready(client))


async def _is_not_ready(client: httpx.AsyncClient, store: str) -> bool:
    state = await client.get("/ready")
    return state.status_code == 503 and str(state.json()[store]).startswith("down")


async def _mended(client: httpx.AsyncClient, log: list[str]) -> bool:
    await ask(client)
    return any("rate limits hold over all replicas" in line for line in log)
