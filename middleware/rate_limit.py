"""Holds each caller to a request rate, before the body is read.

Every answer tells where the caller stands, in OpenAI's headers (`x-ratelimit-*-requests`), which drop-in clients
and dashboards read, and in the IETF's (`RateLimit`, `RateLimit-Policy`).

Source: https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import NamedTuple, Protocol

from middleware.asgi import ASGIApp, Receive, Scope, Send
from middleware.exchange import Caller, exchange_of
from middleware.faults import RateLimited

WINDOW = 60
"""Seconds over which a request rate is stated."""


class Allowance(NamedTuple):
    """The state of a limit after one request has asked; times in seconds from now."""

    allowed: bool
    remaining: int
    reset_after: float
    retry_after: float = 0.0


class Limiter(Protocol):
    """Counts requests by name, over all replicas if it can."""

    async def take(self, name: str, limit: int) -> Allowance:
        """Take one of `limit` requests a minute from the named allowance."""
        ...


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`requests_per_minute` holds for keys that have no rate of their own; 0 is no limit."""

    app: ASGIApp
    limiter: Limiter
    requests_per_minute: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        caller = exchange.caller
        limit = self._limit(caller)
        if caller is None or not limit:
            await self.app(scope, receive, send)
            return
        allowed, remaining, reset_after, retry_after = await self.limiter.take(caller.public_id, limit)
        exchange.headers += _headers(limit, remaining, ceil(reset_after * 1000))
        if not allowed:
            raise RateLimited(f"Over this key's limit of {limit} requests a minute.", retry_after=retry_after)
        await self.app(scope, receive, exchange.observe(send))

    def _limit(self, caller: Caller | None) -> int:
        if caller is None or caller.requests_per_minute is None:
            return self.requests_per_minute
        return caller.requests_per_minute


@lru_cache(maxsize=1024)
def _headers(limit: int, remaining: int, reset_ms: int) -> tuple[tuple[bytes, bytes], ...]:
    """Who asks now and then stands at the same point each time."""
    return (
        (b"x-ratelimit-limit-requests", b"%d" % limit),
        (b"x-ratelimit-remaining-requests", b"%d" % remaining),
        (b"x-ratelimit-reset-requests", b"%dms" % reset_ms),
        (b"ratelimit-policy", b'"rpm";q=%d;w=%d' % (limit, WINDOW)),
        (b"ratelimit", b'"rpm";r=%d;t=%d' % (remaining, ceil(reset_ms / 1000))),
    )
