"""A provider that keeps its own bill: what it was asked, how far it came, and what it would charge for each call.

A call is known by its model, which the gateway passes on and its ledger keeps: so the two bills can be laid side by
side, call by call. Where a call is to be held (before its first byte, between two, at its last) is planned by name.
"""

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Self

POINTS = ("asked", "first", "middle", "last")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Plan:
    """`words` are the length of the answer, `pause` the seconds before each; the first call is held at `hold`."""

    words: int = 6
    pause: float = 0.0
    hold: str | None = None
    counts_along: bool = False
    """Whether each chunk says what has been used so far."""


@dataclass
class Entry:
    """One call that arrived, on the provider's bill."""

    name: str
    streamed: bool
    plan: Plan
    said: int = 0
    began: bool = False
    finished: bool = False
    left: bool = False
    held: str | None = None

    def usage(self, words: int) -> dict[str, int]:
        prompt = prompt_tokens(self.name)
        return {"prompt_tokens": prompt, "completion_tokens": words, "total_tokens": prompt + words}


def prompt_tokens(name: str) -> int:
    """What the question of this call costs: another number for nearly every name."""
    return 10 + sum(name.encode()) % 97


@dataclass
class Provider:
    """Answers as planned, until the connection is lost."""

    plans: dict[str, Plan] = field(default_factory=dict)
    bill: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    connections: set["_Connection"] = field(default_factory=set)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1024)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self.connections):
            connection.transport.abort()
        await self._server.wait_closed()

    @property
    def base_url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    def hold(self) -> None:
        """From now on calls stop where their plan says, until `released` is set."""
        self.released.clear()

    def held(self, names: list[str]) -> bool:
        """Whether each of these calls has arrived and is held."""
        return all(any(entry.held for entry in self.bill.get(name, ())) for name in names)

    def finished(self, names: list[str]) -> bool:
        """Whether each of these calls has been answered to the end."""
        return all(any(entry.finished for entry in self.bill.get(name, ())) for name in names)

    def enter(self, document: dict[str, Any]) -> Entry:
        name = document["model"]
        entry = Entry(name, document.get("stream") is True, self.plans.get(name, Plan()))
        self.bill[name].append(entry)
        return entry

    async def reach(self, entry: Entry, point: str) -> None:
        """Stay at this point if it is planned; a second call of the same name is not held."""
        if entry.plan.hold == point and self.bill[entry.name][0] is entry and not self.released.is_set():
            entry.held = point
            await self.released.wait()
            entry.held = None


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._unread = b""
        self._serving: asyncio.Task[None] | None = None
        self._entry: Entry | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._provider.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._provider.connections.discard(self)
        if self._serving is not None:
            assert self._entry is not None
            self._entry.left = not self._entry.finished
            self._serving.cancel()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        self._serve_next()

    def _serve_next(self, _: object = None) -> None:
        head, ended, rest = self._unread.partition(b"\r\n\r\n")
        if self._serving is not None or not ended:
            return
        length = _content_length(head)
        if len(rest) < length:
            return
        self._unread = rest[length:]
        self._entry = self._provider.enter(json.loads(rest[:length]))
        self._serving = asyncio.create_task(self._serve(self._entry))
        self._serving.add_done_callback(self._served)

    def _served(self, task: "asyncio.Task[None]") -> None:
        self._serving = None
        if not task.cancelled():
            task.result()
            self._serve_next()

    async def _serve(self, entry: Entry) -> None:
        await self._provider.reach(entry, "asked")
        entry.began = True
        await (self._stream(entry) if entry.streamed else self._whole(entry))

    async def _whole(self, entry: Entry) -> None:
        await asyncio.sleep(entry.plan.pause * entry.plan.words)
        body = json.dumps(document_of(entry)).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body[:10])
        await self._provider.reach(entry, "first")
        self.transport.write(body[10:20])
        await self._provider.reach(entry, "middle")
        self.transport.write(body[20:-1])
        await self._provider.reach(entry, "last")
        entry.said, entry.finished = entry.plan.words, True
        self.transport.write(body[-1:])

    async def _stream(self, entry: Entry) -> None:
        plan = entry.plan
        self.transport.write(HEAD)
        self._event(chunk(entry, {"role": "assistant", "content": ""}))
        await self._provider.reach(entry, "first")
        for number in range(plan.words):
            if number == plan.words // 2:
                await self._provider.reach(entry, "middle")
            await asyncio.sleep(plan.pause)
            entry.said += 1
            self._event(chunk(entry, {"content": f"{word(entry.name, number)} "}))
        self._event(chunk(entry, {}, "stop"))
        self._event({**chunk(entry, {}), "choices": [], "usage": entry.usage(plan.words)})
        await self._provider.reach(entry, "last")
        entry.finished = True
        self._write(b"data: [DONE]\n\n")
        self.transport.write(b"0\r\n\r\n")

    def _event(self, document: dict[str, Any]) -> None:
        self._write(b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n")

    def _write(self, data: bytes) -> None:
        self.transport.write(b"%x\r\n%s\r\n" % (len(data), data))


def word(name: str, number: int) -> str:
    """The words of an answer are its own, so that no two answers can be taken for each other."""
    return f"{name}/{number}"


def text_of(name: str, words: int) -> str:
    """The whole answer."""
    return "".join(f"{word(name, number)} " for number in range(words))


def document_of(entry: Entry) -> dict[str, Any]:
    message = {"role": "assistant", "content": text_of(entry.name, entry.plan.words)}
    return {
        "id": f"chatcmpl-{entry.name}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": entry.name,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": entry.usage(entry.plan.words),
    }


def chunk(entry: Entry, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": f"chatcmpl-{entry.name}",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": entry.name,
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }
    if entry.plan.counts_along:
        document["usage"] = entry.usage(entry.said)
    return document


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
