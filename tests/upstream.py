"""A provider on loopback that does what a test tells it, byte by byte, and remembers what it was asked.

Raw asyncio streams, so that a test can break HTTP wherever it wants.
"""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

Behaviour = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]

USAGE = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "gpt-4o",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello there"}, "finish_reason": "stop"}],
    "usage": USAGE,
}


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass
class FakeProvider:
    """Answers each request with the next behaviour of `script`, then with `default`."""

    default: Behaviour = field(default_factory=lambda: answer_json(ANSWER))
    script: deque[Behaviour] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)
    open_connections: int = 0
    _server: asyncio.Server | None = None
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    @property
    def base_url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    @property
    def calls(self) -> list[Asked]:
        """The chat completions that were asked for."""
        return [asked for asked in self.asked if asked.method == "POST"]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.open_connections += 1
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                behaviour = self.script.popleft() if self.script else self.default
                serving = asyncio.create_task(_serve(behaviour, asked, writer))
                leaving = asyncio.create_task(reader.read(1))
                await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not serving.done():
                    serving.cancel()
                    return
                leaving.cancel()
                await asyncio.gather(leaving, return_exceptions=True)
                if writer.is_closing():
                    return
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            self.open_connections -= 1
            writer.close()


async def _serve(behaviour: Behaviour, asked: Asked, writer: asyncio.StreamWriter) -> None:
    try:
        await behaviour(asked, writer)
        await writer.drain()
    except ConnectionError:
        return


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, path, headers, body)


def raw(data: bytes, *, close: bool = False) -> Behaviour:
    """Write these bytes."""

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if close:
            writer.close()

    return behave


def answer(status: int, body: bytes, content_type: str, *headers: str) -> Behaviour:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status} Whatever", f"content-type: {content_type}", f"content-length: {len(body)}", *headers]
    return raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def answer_json(document: Any, status: int = 200, *headers: str) -> Behaviour:
    return answer(status, json.dumps(document).encode(), "application/json", *headers)


def sse(*documents: Any, done: bool = True) -> list[bytes]:
    """The events of a stream."""
    events = [b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents]
    return [*events, b"data: [DONE]\n\n"] if done else events


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """One chunk of a chat completion."""
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "gpt-4o"}
    return {**base, "choices": choices, **fields}


def words(*texts: str, usage: dict[str, Any] | None = USAGE) -> list[dict[str, Any]]:
    """The chunks of an answer in these words, as OpenAI sends them."""
    chunks = [chunk({"role": "assistant", "content": ""})]
    chunks += [chunk({"content": text}) for text in texts]
    chunks.append(chunk({}, "stop"))
    return [*chunks, chunk(choices=[], usage=usage)] if usage else chunks


def stream(*events: bytes, pause: float = 0.0, end: bool = True, then: float = 0.0) -> Behaviour:
    """An event stream in chunked encoding, `pause` seconds between events; `end=False` cuts the connection.

    After the last event it waits `then` seconds more.
    """

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for event in events:
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
            if pause:
                await asyncio.sleep(pause)
        await asyncio.sleep(then)
        if end:
            writer.write(b"0\r\n\r\n")
        else:
            writer.close()

    return behave


def silent(seconds: float = 60.0) -> Behaviour:
    """Take the request and say nothing."""

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)

    return behave
