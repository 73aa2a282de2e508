"""A retry never costs twice: one key, one answer.

A request that carries an `Idempotency-Key` claims it for its organisation before anything is called. Whoever comes
with the same key and the same request gets the same answer, byte for byte, marked `Idempotent-Replayed: true`;
another request under the same key is refused. It stands outside metering, so a replay is never billed, and outside
disconnect, so the answer of a held key is finished although its client has left: it waits there for the retry.

Source: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

from middleware.asgi import BODY, DISCONNECT, START, ASGIApp, Message, Receive, Scope, Send, header
from middleware.exchange import Answer, Exchange, exchange_of
from middleware.faults import CallerFault, Fault, IdempotencyConflict, IdempotencyKeyReused

LONGEST_KEY = 255
UNSTORED_HEADERS = {b"transfer-encoding", b"content-length", b"connection", b"date"}
"""Headers of one transmission, not of the answer."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A request's wish to run under a key."""

    org_id: int
    key: str
    fingerprint: bytes
    request_id: str


class Taken(Enum):
    """Why a claim was not granted."""

    RUNNING = "running"
    OTHER_REQUEST = "other request"


Held: TypeAlias = None
"""The claim was granted: the request runs, and its key is held until it ends."""


class Store(Protocol):
    """Keeps keys and answers. Each method raises `StoreUnavailable` if it cannot."""

    async def claim(self, claim: Claim) -> Answer | Taken | Held:
        """Hold the key for this request, or say what stands in the way: its answer, or who holds it."""
        ...

    async def finish(self, claim: Claim, answer: Answer) -> None:
        """Keep the answer of a call that was not billed, and end the hold."""
        ...

    async def release(self, claim: Claim) -> None:
        """End the hold: the next request with this key runs again."""
        ...


@dataclass(frozen=True, slots=True)
class Idempotency:
    """`longest_answer` in bytes; `render` turns a fault into the answer that a retry is given."""

    app: ASGIApp
    store: Store
    render: Callable[[Fault], Answer]
    longest_answer: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        field = header(scope, b"idempotency-key")
        if field is None or exchange.caller is None or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        fingerprint = hashlib.sha256(b"POST\0%s\0%s" % (scope["path"].encode(), exchange.body)).digest()
        claim = Claim(exchange.caller.org_id, parse_key(field), fingerprint, exchange.id)
        match await self.store.claim(claim):
            case Answer() as answer:
                await _replay(exchange, answer, send)
            case Taken.RUNNING:
                raise IdempotencyConflict("A request with this Idempotency-Key is still running.", retry_after=2)
            case Taken.OTHER_REQUEST:
                raise IdempotencyKeyReused("This Idempotency-Key was used before, for another request.")
            case _:
                await self._run(claim, scope, send)

    async def _run(self, claim: Claim, scope: Scope, send: Send) -> None:
        exchange = exchange_of(scope)
        recording = exchange.recording = _Recording(claim.key, send, self.longest_answer, self.render)
        try:
            await self.app(scope, _never_disconnected, recording.send)
        finally:
            exchange.recording = None
            if not recording.taken:
                await asyncio.shield(self.store.release(claim))


class _Recording:
    """Keeps what passes until the answer ends. Over `longest` bytes nothing is kept but that fact."""

    __slots__ = ("_headers", "_longest", "_parts", "_render", "_send", "_size", "_status", "key", "taken")

    def __init__(self, key: str, send: Send, longest: int, render: Callable[[Fault], Answer]) -> None:
        self.key = key
        self.taken = False
        self._send = send
        self._longest = longest
        self._render = render
        self._status = 0
        self._headers: tuple[tuple[bytes, bytes], ...] = ()
        self._parts: list[bytes] = []
        self._size = 0

    async def send(self, message: Message) -> None:
        await self._send(message)
        if not self.taken:
            self._keep(message)

    def _keep(self, message: Message) -> None:
        if message["type"] == START:
            self._status = message["status"]
            self._headers = tuple(
                (bytes(name), bytes(value))
                for name, value in message.get("headers", ())
                if name.lower() not in UNSTORED_HEADERS
            )
            return
        body = message.get("body", b"")
        self._size += len(body)
        if self._size <= self._longest:
            self._parts.append(body)

    def end(self, message: Message | None, fault: Fault | None) -> Answer | None:
        self.taken = True
        if message is not None:
            self._keep(message)
        elif not self._status:
            return self._render(fault) if fault is not None else None
        if self._size > self._longest:
            return self._render(
                CallerFault("The answer of this Idempotency-Key was too large to be kept; it was billed once.")
            )
        return Answer(self._status, self._headers, b"".join(self._parts))


async def _replay(exchange: Exchange, answer: Answer, send: Send) -> None:
    exchange.replayed = True
    exchange.billed = 0
    length = b"%d" % len(answer.body)
    headers = [*answer.headers, (b"content-length", length), (b"idempotent-replayed", b"true")]
    await send({"type": START, "status": answer.status, "headers": headers})
    await send({"type": BODY, "body": answer.body, "more_body": False})


async def _never_disconnected() -> Message:
    await asyncio.Event().wait()
    return DISCONNECT


def parse_key(field: bytes) -> str:
    """The key in the header: a quoted string, as the IETF draft has it, or bare, as most clients send it.

    Raises `CallerFault` (400) for one that is empty, longer than 255 characters or not printable ASCII.
    """
    text = field.decode("latin-1").strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if not text or len(text) > LONGEST_KEY or not (text.isascii() and text.isprintable()):
        raise CallerFault(
            f"An Idempotency-Key has 1 to {LONGEST_KEY} printable ASCII characters.", param="Idempotency-Key"
        )
    return text
