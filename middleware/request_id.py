"""Names the exchange, closes what it owns, and reports it once when it is over.

Outermost of all layers: whatever happens further in, the answer carries `x-request-id`, every line logged on the
way carries the id, what the handler opened is closed, and one report of the finished exchange is made.

The id is ours, time-ordered (UUIDv7, RFC 9562) and unique; a caller's own `x-request-id` is only a correlation id
and the report's business.
"""

import os
import time
from collections.abc import Callable
from contextvars import Token
from dataclasses import dataclass

from middleware.asgi import ASGIApp, Receive, Scope, Send
from middleware.exchange import Exchange, exchange_of

VERSION = bytes(0x70 | byte & 0x0F for byte in range(256))
VARIANT = bytes(0x80 | byte & 0x3F for byte in range(256))
"""What each byte of noise becomes where an id says its version and variant."""
NOISE = 10
"""Bytes of an id beside its time."""

_noises: list[bytes] = []
"""Of ids to come. It comes from the system, which is asked for that of many at once."""
os.register_at_fork(after_in_child=_noises.clear)  # each is for one process


def uuid7() -> str:
    """A new UUIDv7 as 32 hex digits.

    Source: https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7
    """
    try:
        noise = _noises.pop()
    except IndexError:
        noise = _new_noise()
    return (int(time.time() * 1000).to_bytes(6) + noise).hex()


def _new_noise() -> bytes:
    """That of one id; that of 255 more is laid by."""
    many = bytearray(os.urandom(256 * NOISE))
    many[0::NOISE] = many[0::NOISE].translate(VERSION)
    many[2::NOISE] = many[2::NOISE].translate(VARIANT)
    noise = bytes(many)
    _noises.extend([noise[begin : begin + NOISE] for begin in range(NOISE, len(noise), NOISE)])
    return noise[:NOISE]


@dataclass(frozen=True, slots=True)
class RequestId:
    """`bind(id)` sets a context variable for the exchange, `report(exchange, scope)` is called when it is over."""

    app: ASGIApp
    bind: Callable[[str], Token[str]]
    report: Callable[[Exchange, Scope], None]
    new_id: Callable[[], str] = uuid7

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        exchange.id = self.new_id()
        exchange.headers.append((b"x-request-id", exchange.id.encode()))
        token = self.bind(exchange.id)
        try:
            try:
                await self.app(scope, receive, exchange.observe(send))
            finally:
                if exchange.resources:
                    await exchange.release()
        finally:
            try:
                self.report(exchange, scope)
            finally:
                exchange.forget()
                token.var.reset(token)
