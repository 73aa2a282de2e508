"""The exchange: the one object that the layers of a request share.

It stands at `scope["aigate"]`, put there once by whichever layer comes first, and nothing else is put into the
scope: ASGI asks a middleware to copy a scope that it changes, so values set deeper would not be seen further
out, while one mutable object survives every copy.

Each field has one writer, named beside it.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from middleware.asgi import START, Message, RawHeaders, Scope, Send
from middleware.faults import Fault

KEY = "aigate"
COMMENT = b":"
"""Begins what keeps a stream alive (SSE), which is no part of the answer."""


class Outcome(StrEnum):
    """How a call ended, as the ledger, the log and the metrics say it."""

    OK = "ok"
    CLIENT_DISCONNECT = "client_disconnect"
    UPSTREAM_ERROR = "upstream_error"
    TRUNCATED = "truncated"
    INTERRUPTED = "interrupted"
    SUPERSEDED = "superseded"


class Usage(Protocol):
    """What a call consumed so far, in tokens: a live object that a decoder updates as bytes pass.

    `input_tokens` contains the cached ones, `output_tokens` the reasoning ones (OpenTelemetry GenAI:
    https://opentelemetry.io/docs/specs/semconv/gen-ai/). `source` is `provider`, `estimated` or `none`;
    `provider_cost` is what the provider says that it charged, in 1e-9 USD.
    """

    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    audio_tokens: int
    image_tokens: int
    source: str
    provider_cost: int | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: an API key and the organisation that it belongs to."""

    org_id: int
    org_name: str
    key_id: int
    public_id: str
    models: tuple[str, ...] | None = None
    """Models that the key may use, as `provider:model` globs; `None` is all of them."""
    requests_per_minute: int | None = None
    """The key's own request rate; `None` is the gateway's default."""
    join_duplicates: float | None = None
    """Seconds within which the same request without an `Idempotency-Key` joins the first; `None` is never."""


class Target(NamedTuple):
    """What the request asks for, once the handler has resolved it."""

    provider: str
    model: str
    stream: bool
    drain: bool = False
    """Whether the provider's answer is read to its end when the client leaves (its `on_disconnect` policy)."""

    @property
    def name(self) -> str:
        return f"{self.provider}:{self.model}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer as it can be given again: either a response or a fault."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Recording(Protocol):
    """The answer of a held idempotency key, as far as it has been recorded."""

    @property
    def key(self) -> str: ...

    def end(self, message: Message | None, fault: Fault | None) -> Answer | None:
        """The answer to be stored, now that it ends: with its last message, with a fault, or broken off.

        Whoever takes it makes it durable. `None` if nothing can be given again.
        """
        ...


async def _nowhere(message: Message) -> None:
    """Where an exchange sends that nobody observes, or no more."""


@dataclass(slots=True)
class Exchange:
    """One request and its answer, from the first header to the last byte."""

    id: str = ""  # request id
    started: float = field(default_factory=time.perf_counter)  # creation; seconds, monotonic
    resources: list[Callable[[], Awaitable[None]]] = field(
        default_factory=list
    )  # handler: what closes what it opened; request id calls release(), disconnect at once
    caller: Caller | None = None  # auth
    body: bytes = b""  # body
    document: dict[str, Any] = field(default_factory=dict)  # body: the parsed JSON object
    target: Target | None = None  # handler, through admit()
    usage: Usage | None = None  # handler
    spent: bool = False  # handler: whether the provider may have charged for this call
    estimate: Callable[[], Awaitable[None]] | None = (
        None  # handler: fills in a usage that the provider does not report
    )
    gates: list[Callable[[Target], Awaitable[None]]] = field(default_factory=list)  # each layer adds its own
    recording: Recording | None = None  # idempotency
    replayed: bool = False  # idempotency
    outcome: Outcome | None = None  # who ended the call: handler or disconnect
    billed: int | None = None  # metering; 1e-9 USD
    pricing: Callable[[Usage], int] | None = None  # metering: billed cost in 1e-9 USD of a usage
    ending: bool = False  # whoever knows first: the handler, metering or observe(); the last bytes are on their way
    headers: RawHeaders = field(default_factory=list)  # each layer adds its own; sent by observe()
    upstream_seconds: float = 0.0  # handler: time until the provider said its first word
    fault: Fault | None = None  # errors, or the handler once the answer has begun
    status: int = 0  # observe()
    first_byte: float | None = None  # observe(); seconds since `started`
    _send: Send = _nowhere

    async def admit(self, target: Target) -> None:
        """Pass every gate that a layer has put before spending money; the handler's last step before the call.

        Raises the `Fault` of the gate that refuses.
        """
        self.target = target
        for gate in self.gates:
            await gate(target)

    async def release(self) -> None:
        """Close what the handler has opened, the last first, and all of it, whatever one of them raises."""
        if self.resources:
            close = self.resources.pop()
            try:
                await close()
            finally:
                await self.release()

    def forget(self) -> None:
        """Let go of what points back here, once all is over: a cycle would wait for the garbage collector."""
        self.gates.clear()
        self.estimate = None
        self._send = _nowhere

    @property
    def final_status(self) -> int:
        """The status that was sent, or would have been if the client had stayed."""
        return self.status or (self.fault.status if self.fault else 500)

    def observe(self, send: Send) -> Send:
        """`send`, adding `headers` and noting status, first byte and end; wraps once, however many layers ask."""
        if self._send is not _nowhere:
            return send
        self._send = send
        return self._note

    def _note(self, message: Message) -> Awaitable[None]:
        if self.first_byte is not None and message.get("more_body", False):
            return self._send(message)  # in the middle of an answer there is nothing to note
        return self._send_head(message) if message["type"] == START else self._send_part(message)

    async def _send_head(self, message: Message) -> None:
        if self.headers:
            message = {**message, "headers": [*message.get("headers", ()), *self.headers]}
        await self._send(message)
        self.status = message["status"]

    async def _send_part(self, message: Message) -> None:
        """The first part of an answer, or its last."""
        if not message.get("more_body", False):
            self.ending = True
        await self._send(message)
        if self.first_byte is None and not message.get("body", b"").startswith(COMMENT):
            self.first_byte = time.perf_counter() - self.started


def exchange_of(scope: Scope) -> Exchange:
    """The exchange of this request, opened by whoever asks first."""
    if KEY in scope:
        return scope[KEY]  # type: ignore[no-any-return]
    exchange = scope[KEY] = Exchange()
    return exchange
