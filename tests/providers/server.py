"""A tiny HTTP server of raw bytes on the loopback: it does what a script says, however wrong."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """`requests` holds each request as it came; `hung_up` is set when a caller closed its side."""

    script: Script
    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    self.requests.append(await _request(reader))
                    await self._play(reader, writer)
        finally:
            self.hung_up.set()
            writer.close()

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        playing = asyncio.ensure_future(self._scripted(writer))
        leaving = asyncio.ensure_future(_left(reader, writer))
        done, pending = await asyncio.wait({playing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if playing not in done or writer.is_closing():
            raise ConnectionResetError
        playing.result()

    async def _scripted(self, writer: asyncio.StreamWriter) -> None:
        await self.script(writer)
        await writer.drain()


async def _left(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not (reader.at_eof() or writer.is_closing()):  # noqa: ASYNC110 - a stream reader has no event for it
        await asyncio.sleep(0.01)


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(1)
    if head == b"\x16":  # a TLS handshake
        raise ConnectionResetError
    head += await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return head + await reader.readexactly(length)


@contextlib.asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Server]:
    """A server on a free port for as long as the block lasts."""
    server = Server(script)
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0, backlog=500)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listening.close()
        await asyncio.sleep(0.02)


def plain(body: bytes, status: str = "200 OK", kind: str = "application/json", headers: str = "") -> bytes:
    """A whole answer with a length."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM_END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """A piece of a chunked answer."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def says(*parts: bytes, pause: float = 0.0) -> Script:
    """A script that writes `parts`, a pause between them."""

    async def script(writer: asyncio.StreamWriter) -> None:
        for number, part in enumerate(parts):
            if number and pause:
                await asyncio.sleep(pause)
            writer.write(part)
            await writer.drain()

    return script


def breaks_off(*parts: bytes) -> Script:
    """A script that writes `parts` and closes the connection."""

    async def script(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close()

    return script


def stalls(*parts: bytes) -> Script:
    """A script that writes `parts` and then nothing, for a minute."""

    async def script(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        await writer.drain()
        await asyncio.sleep(60)

    return script
