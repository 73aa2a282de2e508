"""Names the exchange, closes what it owns, and reports it once when it is over.

Outermost of all layers: whatever happens further in, the answer carries `x-request-id`, every line logged on the
way carries the id, what the handler opened is closed, and one report of the finished exchange is made.

The id is ours, time-ordered (UUIDv7, RFC 9562) and unique; a caller's own `x-request-id` is only a correlation id
and the report's business.
"""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from middleware.asgi import ASGIApp, Receive, Scope, Send
from middleware.exchange import Exchange, exchange_of

RANDOM = 0x0FFF_3FFF_FFFF_FFFF_FFFF
VERSION_AND_VARIANT = 0x7000_8000_0000_0000_0000
"""What is random in the last 80 bits of a UUIDv7, and what is not."""


def uuid7() -> str:
    """A new UUIDv7 as 32 hex digits.

    Source: https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7
    """
    noise = int.from_bytes(os.urandom(10)) & RANDOM | VERSION_AND_VARIANT
    return f"{time.time_ns() // 1_000_000 << 80 | noise:032x}"


@dataclass(frozen=True, slots=True)
class RequestId:
    """`bind(id)` is entered around the exchange, `report(exchange, scope)` is called when it is over."""

    app: ASGIApp
    bind: Callable[[str], AbstractContextManager[object]]
    report: Callable[[Exchange, Scope], None]
    new_id: Callable[[], str] = uuid7

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        exchange.id = self.new_id()
        exchange.headers.append((b"x-request-id", exchange.id.encode()))
        with self.bind(exchange.id):
            try:
                await self.app(scope, receive, exchange.observe(send))
            finally:
                try:
                    await exchange.release()
                finally:
                    self.report(exchange, scope)
