"""What a call costs, in numbers that no neighbour on the machine can change.

Time is the benchmark's business (`scripts/bench`). Here is counted what time is made of: the frames that Python
enters for a call and for a chunk, the tasks that it starts, the statements that concurrent calls share, the memory
that is left behind. A bound is what was measured and a little more: whoever needs more raises it, and says why.
"""

import asyncio
import gc
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import orjson
import pytest

from aigate.loop import Loop
from tests.middleware.driving import Peer
from tests.running import RunningGateway, run_gateway, settings_of

SCRIPTS = Path(__file__).parents[2] / "scripts"
PATH = "/v1/chat/completions"
WARM_UP = 20

FRAMES_A_CALL = 280
"""Measured: 270. A coroutine that is resumed counts again."""
FRAMES_A_CHUNK = 22
"""Measured: 19.25."""
TASKS_A_CALL: list[str] = []
"""What is written for it is written by tasks that are there already."""
ROWS_READ = """
select sum(seq_tup_read)::bigint as read from pg_stat_user_tables where relname in ('calls', 'idempotency_keys')
"""
"""Rows that were read on the way through a whole table."""
TRANSACTIONS = "select xact_commit from pg_stat_database where datname = current_database()"

Run: TypeAlias = Callable[[Callable[[RunningGateway], Awaitable[Any]]], Any]


@pytest.fixture
def upstream(unused_tcp_port: int) -> Iterator[str]:
    """The benchmark's mock provider, in a process of its own: what it does is not counted."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark.upstream", str(unused_tcp_port)],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        stdin=subprocess.PIPE,
    )
    try:
        while process.poll() is None and not _listens(unused_tcp_port):
            time.sleep(0.01)
        yield f"http://127.0.0.1:{unused_tcp_port}/v1"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def run(database_url: str, redis_url: str, upstream: str) -> Run:
    """Runs a measurement on a gateway with everything on, in the gateway's own event loop.

    asyncio's is made of frames, too. No key and no price is looked up again in the middle of a count.
    """
    settings = settings_of(
        database_url,
        redis_url,
        upstream,
        AIGATE_REQUESTS_PER_MINUTE="1000000",
        AIGATE_KEY_CACHE_SECONDS="600",
        AIGATE_PRICE_CACHE_SECONDS="600",
    )

    async def measured(measure: Callable[[RunningGateway], Awaitable[Any]]) -> Any:
        async with run_gateway(settings) as gateway:
            return await measure(gateway)

    def run(measure: Callable[[RunningGateway], Awaitable[Any]]) -> Any:
        with asyncio.Runner(loop_factory=Loop) as runner:
            return runner.run(measured(measure))

    return run


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def asking(
    gateway: RunningGateway, model: str, *, stream: bool = False, keyed: bool = False
) -> Callable[[], Awaitable[Peer]]:
    """One call through all layers, without a server in front; `keyed` with an idempotency key of its own."""
    body = orjson.dumps(
        {"model": f"openai:{model}", "messages": [{"role": "user", "content": "word " * 40}], "stream": stream}
    )
    headers = [(b"authorization", f"Bearer {gateway.key}".encode()), (b"content-type", b"application/json")]

    async def ask() -> Peer:
        peer = Peer(body)
        key = [(b"idempotency-key", uuid.uuid4().hex.encode())] if keyed else []
        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": PATH,
            "raw_path": PATH.encode(),
            "query_string": b"",
            "headers": headers + key,
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
        }
        await gateway.app(scope, peer.receive, peer.send)
        assert peer.status == 200
        return peer

    return ask


async def frames(ask: Callable[[], Awaitable[Peer]]) -> int:
    """The frames that Python enters for one call; the least of several, for others may run in between."""
    for _ in range(WARM_UP):
        await ask()
    counts = []
    for _ in range(10):
        entered = 0

        def enter(frame: FrameType, event: str, argument: object) -> None:
            nonlocal entered
            entered += event == "call"

        sys.setprofile(enter)
        try:
            await ask()
        finally:
            sys.setprofile(None)
        counts.append(entered)
    return min(counts)


def test_frames_of_a_call(run: Run) -> None:
    """Auth, limits, the ledger, metrics and the log, all of it."""
    assert run(lambda gateway: frames(asking(gateway, "json"))) <= FRAMES_A_CALL


def test_frames_of_a_chunk(run: Run) -> None:
    """What a longer stream costs more, for each of its chunks."""

    async def measure(gateway: RunningGateway) -> float:
        few, many = [await frames(asking(gateway, f"stream-{chunks}-5", stream=True)) for chunks in (5, 25)]
        return (many - few) / 20

    assert run(measure) <= FRAMES_A_CHUNK


def test_tasks_of_a_call(run: Run) -> None:
    """No layer starts one for each request."""

    async def measure(gateway: RunningGateway) -> list[str]:
        ask = asking(gateway, "json")
        for _ in range(WARM_UP):
            await ask()
        loop, started = asyncio.get_running_loop(), list[str]()

        def start(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
            started.append(coroutine.__qualname__)
            return asyncio.Task(coroutine, loop=loop, **options)

        loop.set_task_factory(start)
        await ask()
        loop.set_task_factory(None)
        return started

    assert run(measure) == TASKS_A_CALL


def test_concurrent_calls_share_transactions(run: Run) -> None:
    """64 calls at once are a handful of transactions, not two each."""

    async def measure(gateway: RunningGateway) -> int:
        ask = asking(gateway, "json-50")
        counts = []
        for _ in range(2):
            await asyncio.gather(*(ask() for _ in range(64)))
            await asyncio.sleep(1.1)  # a session reports what it has done once a second
            (row,) = await gateway.rows(TRANSACTIONS)
            counts.append(row["xact_commit"])
        return int(counts[1] - counts[0])

    assert run(measure) < 32


def test_no_table_is_read_through(run: Run) -> None:
    """A gateway that began with empty tables does not go on as if they were."""

    async def measure(gateway: RunningGateway) -> int:
        ask = asking(gateway, "json", keyed=True)
        for _ in range(30):
            await asyncio.gather(*(ask() for _ in range(10)))
        await asyncio.sleep(1.1)  # a session reports what it has done once a second
        await ask()
        await asyncio.sleep(0.2)
        (row,) = await gateway.rows(ROWS_READ)
        return int(row["read"])

    assert run(measure) < 300


def test_nothing_is_left_behind(run: Run) -> None:
    """A thousand calls later the process holds no more than before."""

    async def measure(gateway: RunningGateway) -> int:
        ask, blocks = asking(gateway, "json"), []
        for _ in range(2):
            for _ in range(100):
                await asyncio.gather(*(ask() for _ in range(10)))
            gc.collect()
            blocks.append(sys.getallocatedblocks())
        return blocks[1] - blocks[0]

    assert run(measure) < 1000


@pytest.mark.parametrize(("model", "stream"), [("json", False), ("stream-5-0", True)])
def test_no_cycle_is_left_behind(run: Run, model: str, stream: bool) -> None:
    """What a call made is freed when it ends: the garbage collector finds nothing of it."""

    async def measure(gateway: RunningGateway) -> int:
        ask = asking(gateway, model, stream=stream)
        for _ in range(WARM_UP):
            await ask()
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                await ask()
            return gc.collect()
        finally:
            gc.enable()

    assert run(measure) < 100
