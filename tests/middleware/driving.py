"""Drives one ASGI application by hand, as a server would, and keeps what it sends."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from middleware.asgi import BODY, DISCONNECT, START, ASGIApp, Message, Receive, Scope, Send
from middleware.exchange import KEY, Caller, Exchange, Target

ACME = Caller(org_id=1, org_name="acme", key_id=2, public_id="abc")
TARGET = Target("openai", "gpt-4o", stream=True)
SSE = ((b"content-type", b"text/event-stream"),)


@dataclass
class Tokens:
    """A usage, as a provider's decoder fills it."""

    input_tokens: int = 12
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 5
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0
    source: str = "provider"
    provider_cost: int | None = None


class Peer:
    """The client of one request: it sends `parts` as its body, keeps the answer, and may hang up."""

    def __init__(self, *parts: bytes) -> None:
        self.sent: list[Message] = []
        self.asked = 0
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        for index, part in enumerate(parts):
            more = index + 1 < len(parts)
            self._incoming.put_nowait({"type": "http.request", "body": part, "more_body": more})

    async def receive(self) -> Message:
        self.asked += 1
        return await self._incoming.get()

    async def send(self, message: Message) -> None:
        self.sent.append(dict(message))

    def hang_up(self) -> None:
        self._incoming.put_nowait(DISCONNECT)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


def scope_of(
    exchange: Exchange | None = None,
    *,
    method: str = "POST",
    path: str = "/v1/chat/completions",
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> Scope:
    """An HTTP request's scope, with this exchange in it if there is one."""
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    if exchange is not None:
        scope[KEY] = exchange
    return scope


async def drive(app: ASGIApp, peer: Peer | None = None, exchange: Exchange | None = None, **request: Any) -> Peer:
    """Run one request to its end; the peer that it was for."""
    peer = peer or Peer(b"{}")
    await app(scope_of(exchange, **request), peer.receive, peer.send)
    return peer


def messages(*chunks: bytes, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> list[Message]:
    """A whole answer: its head, and a message for each chunk, the last of which ends it."""
    bodies = [{"type": BODY, "body": chunk, "more_body": True} for chunk in chunks or (b"",)]
    bodies[-1]["more_body"] = False
    return [{"type": START, "status": status, "headers": list(headers)}, *bodies]


def answering(*chunks: bytes, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> ASGIApp:
    """An application that gives this answer to everybody."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages(*chunks, status=status, headers=headers):
            await send(message)

    return app


def raising(error: BaseException, *before: Message) -> ASGIApp:
    """An application that sends `before` and then fails."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in before:
            await send(dict(message))
        raise error

    return app


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts the timers made on it."""

    timers = 0

    def call_at(self, when: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        self.timers += 1
        return super().call_at(when, *args, **options)
