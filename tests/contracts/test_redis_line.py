"""What a line to Redis keeps: redis-py's way to connect, one answer a question, and a bound on each."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
import redis.asyncio as redis
from redis.exceptions import InvalidResponse, ResponseError

from aigate.stores.limits import RedisLimiter
from aigate.stores.redis_line import RedisLine

USER, PASSWORD = "of-tests", "p@ss word/:"
LOGIN = f"{USER}:{quote(PASSWORD, safe='')}@"
NUMBER = 3


async def ask(line: RedisLine, *command: str | int, within: float = 5.0) -> Any:
    """The answer, or the error that the line gives instead."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()
    line.ask(loop.time() + within, answer.set_result, *command)
    return await answer


@asynccontextmanager
async def serving(handle: Callable[..., Any], **options: Any) -> AsyncIterator[int]:
    """A server on loopback, by its port; a connection is closed when its handler returns."""

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(closing, "127.0.0.1", 0, **options) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def line_to(handle: Callable[..., Any]) -> AsyncIterator[RedisLine]:
    """A line to a server that is not greeted."""
    async with serving(handle) as port:
        line = await RedisLine.open(redis.ConnectionPool(port=port, protocol=2, driver_info=None))
        yield line
        await line.close()


def saying(*answers: bytes) -> Callable[..., Any]:
    """Answers each question with the next of these, and then says nothing more."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.read(1000)
            writer.write(answer)
        await reader.read()

    return handle


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.Redis]:
    """A server with a user who has a password."""
    opened = redis.Redis.from_url(redis_url)
    await opened.acl_setuser(USER, enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], categories=["+@all"])
    yield opened
    await opened.acl_deluser(USER)
    await opened.aclose()


@pytest.fixture
async def urls(client: redis.Redis, redis_url: str, certificate: Path) -> AsyncIterator[dict[str, str]]:
    """The ways to one and the same server."""
    socket = unquote(redis_url.removeprefix("unix://"))

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(socket)

        async def carry(one: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
            while data := await one.read(65536):
                other.write(data)
            other.close()

        await asyncio.gather(carry(reader, server_writer), carry(server_reader, writer))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with serving(forward) as plain, serving(forward, ssl=context) as secret:
        yield {
            "unix": f"unix://{LOGIN}{quote(socket)}?db={NUMBER}",
            "tcp": f"redis://{LOGIN}127.0.0.1:{plain}/{NUMBER}",
            "tcp, an older protocol": f"redis://{LOGIN}127.0.0.1:{plain}/{NUMBER}?protocol=2",
            "tls": f"rediss://{LOGIN}localhost:{secret}/{NUMBER}?ssl_ca_certs={certificate}",
        }


@pytest.mark.parametrize("way", ["unix", "tcp", "tcp, an older protocol", "tls"])
async def test_it_is_who_and_where_the_url_says(urls: dict[str, str], client: redis.Redis, way: str) -> None:
    """User, password and number of the database hold, whatever the way; so they do for the limiter."""
    line = await RedisLine.open(redis.ConnectionPool.from_url(urls[way]))
    told = (await ask(line, "CLIENT", "INFO")).decode()
    await line.close()
    assert f" user={USER} " in told
    assert f" db={NUMBER} " in told
    limiter = RedisLimiter(urls[way], timeout=5)
    assert [(await limiter.take(f"line-{way}", 60)).remaining for _ in range(2)] == [59, 58]
    assert not limiter.degraded
    await limiter.close()


async def test_a_wrong_password_is_no_way_in(urls: dict[str, str]) -> None:
    """Limits are then per replica."""
    limiter = RedisLimiter(urls["unix"].replace(LOGIN, f"{USER}:wrong@"), timeout=5)
    assert (await limiter.take("wrong", 60)).allowed
    assert limiter.degraded
    await limiter.close()


async def test_a_script_that_redis_forgot_is_told_again(redis_url: str, client: redis.Redis) -> None:
    """As after a failover; the allowance goes on."""
    limiter = RedisLimiter(redis_url, timeout=5)
    name = f"forgotten-{time.time_ns()}"
    await limiter.take(name, 60)
    await client.script_flush()
    assert (await limiter.take(name, 60)).remaining == 58
    assert not limiter.degraded
    await limiter.close()


async def test_a_refusal_is_an_error() -> None:
    """It is told as one, and is not raised."""
    async with line_to(saying(b"-ERR no\r\n")) as line:
        assert isinstance(await ask(line, "PING"), ResponseError)


async def test_an_answer_in_pieces() -> None:
    """It is one answer."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        for byte in b"*2\r\n:7\r\n$5\r\nhello\r\n":
            writer.write(bytes([byte]))
            await asyncio.sleep(0.001)
        await reader.read()

    async with line_to(handle) as line:
        assert await ask(line, "PING") == [7, b"hello"]


async def test_what_redis_tells_of_its_own_accord_is_no_answer() -> None:
    """Push messages may come before and behind one."""
    push = b">2\r\n$4\r\nnews\r\n$1\r\n1\r\n"
    async with line_to(saying(push + b"+ONE\r\n" + push, b"+TWO\r\n")) as line:
        assert [await ask(line, "PING"), await ask(line, "PING")] == [b"ONE", b"TWO"]


@pytest.mark.parametrize("answer", [b"+ONE\r\n+TWO\r\n", b"?\r\n"])
async def test_what_was_not_asked_ends_the_line(answer: bytes) -> None:
    """Nobody knows any more what answers what."""
    async with line_to(saying(answer)) as line:
        assert isinstance(await ask(line, "PING"), InvalidResponse)
        with pytest.raises(redis.ConnectionError):
            await ask(line, "PING")


async def test_a_late_answer_is_nobodys() -> None:
    """After a time-out the line has ended: its answer must not be taken for the next one's."""

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        await asyncio.sleep(0.1)
        writer.write(b"+LATE\r\n")
        await reader.read()

    async with line_to(late) as line:
        assert isinstance(await ask(line, "PING", within=0.05), TimeoutError)
        with pytest.raises(redis.ConnectionError):
            await ask(line, "PING")


async def test_each_question_has_its_time() -> None:
    """It begins with the question, however often the line was asked before, and is never less."""
    async with line_to(saying(*[b"+OK\r\n"] * 3)) as line:
        for _ in range(3):
            assert await ask(line, "PING", within=0.2) == b"OK"
            await asyncio.sleep(0.06)
        began = time.monotonic()
        assert isinstance(await ask(line, "PING", within=0.2), TimeoutError)
        assert 0.2 <= time.monotonic() - began < 1


async def test_one_question_at_a_time() -> None:
    """A second one is refused, and the first gets its answer."""
    async with line_to(saying(b"+OK\r\n")) as line:
        first = asyncio.ensure_future(ask(line, "PING"))
        await asyncio.sleep(0)
        with pytest.raises(redis.ConnectionError):
            await ask(line, "PING")
        assert await first == b"OK"


async def test_a_connection_that_ends_is_told_of() -> None:
    """Who waits learns of it at once, and so does who asks then."""

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)

    async with line_to(leave) as line:
        assert isinstance(await ask(line, "PING"), redis.ConnectionError)
        with pytest.raises(redis.ConnectionError):
            await ask(line, "PING")


async def test_a_redis_that_does_not_read_is_left() -> None:
    """What it has not taken is not waited for, neither when the time is over nor when the line is closed."""

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(1)

    async with line_to(stall) as line:
        assert isinstance(await ask(line, "PING", "x" * 20_000_000, within=0.1), TimeoutError)
        async with asyncio.timeout(0.5):
            await line.close()
