"""What operators and load balancers ask, before the chain: no key, no body, no provider, no bill.

`/health` says that this process answers. `/ready` says whether it should be given traffic, and which store is away
if not. `/metrics` is Prometheus' text format, over all workers.
"""

import asyncio
import hmac
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from loguru import logger
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from middleware.asgi import BODY, START, RawHeaders, Receive, Scope, Send, header
from middleware.errors import openai_answer
from middleware.faults import Fault, MethodNotAllowed, StoreUnavailable, Unauthenticated
from middleware.tally import Tally

PATHS = frozenset({"/", "/health", "/ready", "/metrics", "/healthz", "/readyz"})
SHARED_FOLDER = "AIGATE_METRICS_FOLDER"
"""The environment variable by which a server of several workers tells them where to save their numbers."""
SAVED_EVERY = 1.0
"""Seconds."""
CHECKED_FOR = 0.5
"""Seconds for which the state of the stores is remembered, so that probes cannot load them."""


@dataclass(slots=True)
class Readiness:
    """`checks` each return if their store answers and raise if not; those `required` decide."""

    checks: Mapping[str, Callable[[], Awaitable[None]]]
    required: tuple[str, ...]
    _checked: float = field(default=float("-inf"), init=False)
    _states: dict[str, str] = field(default_factory=dict, init=False)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def look(self) -> tuple[bool, dict[str, str]]:
        """Whether this replica is ready, and the state of each store: `ok` or what is wrong."""
        async with self._looking:
            await self._refresh()
        ready = all(self._states.get(name) == "ok" for name in self.required)
        return ready, self._states

    async def _refresh(self) -> None:
        if time.monotonic() - self._checked > CHECKED_FOR:
            states = await asyncio.gather(*(self._state(name) for name in self.checks))
            self._states = dict(zip(self.checks, states, strict=True))
            self._checked = time.monotonic()

    async def _state(self, name: str) -> str:
        before = self._states.get(name)
        try:
            await self.checks[name]()
        except Exception as error:  # whatever is wrong with a store is what is asked for here
            cause = (isinstance(error, StoreUnavailable) and error.__cause__) or error
            state = f"down: {type(cause).__name__}"
            if before != state:
                logger.error("the store {} is down: {!r}", name, cause)
            return state
        if before not in (None, "ok"):
            logger.info("the store {} is back", name)
        return "ok"


@dataclass(frozen=True, slots=True)
class Operations:
    """The routes of `PATHS`; `metrics_token`, if set, is asked for as a bearer token."""

    readiness: Readiness
    tally: Tally
    metrics_token: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            fault = MethodNotAllowed(f"{scope['method']} is not for {scope['path']}.", headers={"allow": "GET, HEAD"})
            await _refuse(send, fault)
        elif scope["path"] in ("/ready", "/readyz"):
            ready, stores = await self.readiness.look()
            state = {"status": "ready" if ready else "not ready", **stores}
            await _answer(send, 200 if ready else 503, state)
        elif scope["path"] == "/metrics":
            await self._metrics(scope, send)
        else:
            await _answer(send, 200, {"status": "ok", "service": "aigate"})

    async def _metrics(self, scope: Scope, send: Send) -> None:
        expected = f"Bearer {self.metrics_token}".encode()
        if self.metrics_token and not hmac.compare_digest(header(scope, b"authorization") or b"", expected):
            await _refuse(send, Unauthenticated("Send the metrics token as 'Authorization: Bearer <token>'."))
            return
        text = generate_latest(self.tally)
        await _send(send, 200, [(b"content-type", CONTENT_TYPE_LATEST.encode())], text)


def shared_folder() -> Path | None:
    """Where the workers of one server save their numbers for each other; `None` for one that is alone."""
    folder = os.environ.get(SHARED_FOLDER)
    return Path(folder) if folder else None


async def save_for_ever(tally: Tally) -> None:
    """Save the numbers of this worker now and then: another one may be asked for them."""
    while True:
        tally.save()
        await asyncio.sleep(SAVED_EVERY)


async def _refuse(send: Send, fault: Fault) -> None:
    answer = openai_answer(fault)
    await send({"type": START, "status": answer.status, "headers": list(answer.headers)})
    await send({"type": BODY, "body": answer.body, "more_body": False})


async def _answer(send: Send, status: int, document: object) -> None:
    await _send(send, status, [(b"content-type", b"application/json")], orjson.dumps(document))


async def _send(send: Send, status: int, headers: RawHeaders, body: bytes) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": START, "status": status, "headers": headers})
    await send({"type": BODY, "body": body, "more_body": False})
