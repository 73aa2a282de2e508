"""Clients that hang up, over raw sockets: the provider is let go at once, the call closed, nothing left over."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from tests.running import CHAT, RunningGateway, eventually, run_gateway, settings_of
from tests.upstream import ANSWER, Asked, Behaviour, FakeProvider, answer_json, silent, sse, stream, words

pytestmark = pytest.mark.asyncio(loop_scope="module")

Leave = Callable[[asyncio.StreamWriter], None]


@dataclass
class Busy:
    """A behaviour that counts how often it runs; it ends when the gateway closes its connection."""

    behaviour: Behaviour
    count: int = 0

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        try:
            await self.behaviour(asked, writer)
        finally:
            self.count -= 1


def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection by RST, as a client that crashes."""
    raw_socket = writer.get_extra_info("socket")
    raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def half_close(writer: asyncio.StreamWriter) -> None:
    """Send no more. For HTTP servers of today this is a client that leaves."""
    writer.write_eof()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    postgres_url: str, template: str, redis_url: str
) -> AsyncIterator[tuple[RunningGateway, RunningGateway, FakeProvider]]:
    """Two gateways and their provider, for all tests of this file; the second drains it for up to 0.5 s."""
    maker = await asyncpg.connect(postgres_url)
    await maker.execute(f'create database "disconnect" template "{template}"')
    await maker.close()
    url = postgres_url.replace("/aigate?", "/disconnect?")
    async with FakeProvider() as provider:
        cancels = settings_of(url, redis_url, provider.base_url)
        drains = settings_of(
            url,
            redis_url,
            provider.base_url,
            OPENAI_ON_DISCONNECT="drain",
            AIGATE_DRAIN_TIMEOUT="0.5",
            AIGATE_STREAM_KEEP_ALIVE="0.05",
        )
        async with run_gateway(cancels) as first, run_gateway(drains) as second:
            yield first, second, provider


@pytest_asyncio.fixture(loop_scope="module")
async def provider(shared: tuple[RunningGateway, RunningGateway, FakeProvider]) -> FakeProvider:
    fake = shared[2]
    fake.asked.clear()
    fake.default = answer_json(ANSWER)
    await shared[0].rows("delete from calls")
    return fake


@pytest.fixture
def gateway(shared: tuple[RunningGateway, RunningGateway, FakeProvider], provider: FakeProvider) -> RunningGateway:
    """A gateway that lets go of the provider when the client leaves."""
    return shared[0]


@pytest.fixture
def draining(shared: tuple[RunningGateway, RunningGateway, FakeProvider], provider: FakeProvider) -> RunningGateway:
    """A gateway that reads the provider to its end although the client has left."""
    return shared[1]


def request(gateway: RunningGateway, **fields: Any) -> bytes:
    body = json.dumps({**CHAT, **fields}).encode()
    lines = (
        "POST /v1/chat/completions HTTP/1.1",
        "host: x",
        f"authorization: Bearer {gateway.key}",
        f"content-length: {len(body)}",
    )
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def asking(
    gateway: RunningGateway, data: bytes
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(gateway.url).port)
    try:
        writer.write(data)
        yield reader, writer
    finally:
        writer.close()


async def closed(gateway: RunningGateway) -> list[dict[str, Any]]:
    """The calls, once none is open any more."""

    async def all_closed() -> bool:
        return not await gateway.rows("select 1 from calls where state = 'open'")

    await eventually(all_closed, within=6)  # the tokenizer that estimates may have to start first
    return [dict(call) for call in await gateway.calls()]


@pytest.mark.parametrize("leave", [close, reset, half_close])
@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
async def test_before_the_answer(
    gateway: RunningGateway, provider: FakeProvider, leave: Leave, streamed: bool
) -> None:
    """A client that leaves while the provider thinks: the provider is let go within a second."""
    provider.default = busy = Busy(silent())
    async with asking(gateway, request(gateway, stream=streamed)) as (_, writer):
        await eventually(lambda: provider.calls)
        leave(writer)
        await eventually(lambda: busy.count == 0, within=1)
    (call,) = await closed(gateway)
    assert (call["state"], call["outcome"]) == ("settled", "client_disconnect")


@pytest.mark.parametrize("leave", [close, reset])
@pytest.mark.parametrize("chunks", [1, 5])
async def test_amid_a_stream(gateway: RunningGateway, provider: FakeProvider, leave: Leave, chunks: int) -> None:
    """A client that leaves after some of the stream: the same."""
    provider.default = busy = Busy(stream(*sse(*words(*["word "] * 1000)), pause=0.02))
    async with asking(gateway, request(gateway, stream=True)) as (reader, writer):
        for _ in range(chunks):
            await reader.readuntil(b"data: ")
        leave(writer)
        await eventually(lambda: busy.count == 0, within=1)
    (call,) = await closed(gateway)
    assert (call["state"], call["outcome"]) == ("settled", "client_disconnect")


async def test_amid_the_provider_s_body(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A client that leaves while an answer in one piece arrives: the same."""
    provider.default = busy = Busy(_half_an_answer)
    async with asking(gateway, request(gateway)) as (_, writer):
        await eventually(lambda: provider.calls)
        await asyncio.sleep(0.05)
        writer.close()
        await eventually(lambda: busy.count == 0, within=1)
    (call,) = await closed(gateway)
    assert call["outcome"] == "client_disconnect"


async def test_during_keep_alive(draining: RunningGateway, provider: FakeProvider) -> None:
    """A client that leaves a stream in which only comments have come so far: the same."""
    provider.default = busy = Busy(silent())
    async with asking(draining, request(draining, model="vllm:x", stream=True)) as (reader, writer):
        await reader.readuntil(b": keep-alive")
        writer.close()
        await eventually(lambda: busy.count == 0, within=1)
    (call,) = await closed(draining)
    assert call["outcome"] == "client_disconnect"


async def test_pipelined(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A client that has sent a second request and leaves is missed in the first, and the second never runs."""
    provider.default = busy = Busy(silent())
    async with asking(gateway, request(gateway) * 2) as (_, writer):
        await eventually(lambda: provider.calls)
        writer.close()
        await eventually(lambda: busy.count == 0, within=1)
    (call,) = await closed(gateway)
    assert call["outcome"] == "client_disconnect"
    assert len(provider.calls) == 1


async def test_after_the_answer(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A client that leaves with its whole answer has not left early."""
    provider.default = stream(*sse(*words("a")))
    async with asking(gateway, request(gateway, stream=True)) as (reader, writer):
        await reader.readuntil(b"data: [DONE]\n\n")
        writer.close()
    (call,) = await closed(gateway)
    assert (call["outcome"], call["billed_cost_nano"]) == ("ok", 80_000)


async def test_nothing_is_left_over(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A hundred clients that leave at every stage leave no task, no connection and no open call."""
    await gateway.chat()
    idle = provider.open_connections
    before = asyncio.all_tasks()
    provider.default = stream(*sse(*words(*["word "] * 1000)), pause=0.01)
    await asyncio.gather(*(_ask_and_leave(gateway, number) for number in range(100)))
    await eventually(lambda: provider.open_connections <= idle, within=2)
    calls = await closed(gateway)
    assert len(calls) > 50
    unspent = {call["outcome"] for call in calls[1:] if call["state"] == "void"}
    assert unspent <= {"interrupted", "client_disconnect"}  # they left before the provider was called
    assert {call["outcome"] for call in calls[1:] if call["state"] == "settled"} == {"client_disconnect"}
    await eventually(lambda: len(_lasting(asyncio.all_tasks() - before)) == 0, within=2)


async def test_drain_a_stream(draining: RunningGateway, provider: FakeProvider) -> None:
    """With `drain` the provider is read to its end, and the call is billed by what it says."""
    provider.default = stream(*sse(*words(*["word "] * 20)), pause=0.02)
    async with asking(draining, request(draining, stream=True)) as (reader, writer):
        await reader.readuntil(b"data: ")
        writer.close()
    (call,) = await closed(draining)
    assert (call["state"], call["usage_source"], call["billed_cost_nano"]) == ("settled", "provider", 80_000)


async def test_drain_a_whole_answer(draining: RunningGateway, provider: FakeProvider) -> None:
    """The same for an answer in one piece."""
    provider.default = _later(0.2, answer_json(ANSWER))
    async with asking(draining, request(draining)) as (_, writer):
        await eventually(lambda: provider.calls)
        writer.close()
    (call,) = await closed(draining)
    assert (call["state"], call["usage_source"], call["billed_cost_nano"]) == ("settled", "provider", 80_000)


async def test_drain_has_an_end(draining: RunningGateway, provider: FakeProvider) -> None:
    """A provider that is drained has a bounded time for it."""
    provider.default = busy = Busy(stream(*sse(*words(*["word "] * 1000)), pause=0.02))
    async with asking(draining, request(draining, stream=True)) as (reader, writer):
        await reader.readuntil(b"data: ")
        writer.close()
        await eventually(lambda: busy.count == 0, within=1)
    (call,) = await closed(draining)
    assert call["outcome"] == "client_disconnect"


async def _ask_and_leave(gateway: RunningGateway, number: int) -> None:
    async with asking(gateway, request(gateway, stream=number % 2 == 0)) as (reader, writer):
        if number % 2:
            await asyncio.sleep(number / 500)
        else:
            for _ in range(1 + number % 7):
                await reader.readuntil(b"data: ")
        (close if number % 3 else reset)(writer)


def _lasting(tasks: "set[asyncio.Task[Any]]") -> "set[asyncio.Task[Any]]":
    """Tasks that are neither over nor a connection of the test's own provider."""
    return {task for task in tasks if not task.done() and "FakeProvider" not in repr(task.get_coro())}


async def _half_an_answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(60)


def _later(seconds: float, then: Behaviour) -> Behaviour:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await then(asked, writer)

    return behave
