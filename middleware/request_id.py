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


def uuid7() -> str:
    """A new UUIDv7 as 32 hex digits.

    Source: https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7
    """
    noise = bytearray(os.urandom(10))
    noise[0] = 0x70 | noise[0] & 0x0F
    noise[2] = 0x80 | noise[2] & 0x3F
    return ((time.time_ns() // 1_000_000).to_bytes(6) + noise).hex()


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
                    if exchange.resources:
                        await exchange.release()
                finally:
                    self.report(exchange, scope)
                    exchange.forget()
