"""Lets in only callers with a valid API key, by the headers alone: a stranger never makes us read a body.

A caller who is known is let in without a coroutine: each is resumed with every wait further in.

Both forms that the official SDKs send are taken: `Authorization: Bearer` (RFC 6750) and `x-api-key`.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from middleware.asgi import ASGIApp, Receive, Scope, Send, header
from middleware.exchange import Caller, exchange_of
from middleware.faults import Unauthenticated

LONGEST_TOKEN = 256


class Keys(Protocol):
    """Knows API keys."""

    def known(self, token: str) -> Caller | None:
        """Whose key this is, if that is remembered; `None` says nothing."""
        ...

    async def caller(self, token: str) -> Caller | None:
        """Whose key this is; `None` if it is unknown, expired or revoked.

        Raises `StoreUnavailable` when that cannot be told.
        """
        ...


@dataclass(frozen=True, slots=True)
class Auth:
    app: ASGIApp
    keys: Keys

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        token = _token(scope)
        caller = self.keys.known(token)
        if caller is None:
            return self._look_up(token, scope, receive, send)
        exchange_of(scope).caller = caller
        return self.app(scope, receive, send)

    async def _look_up(self, token: str, scope: Scope, receive: Receive, send: Send) -> None:
        caller = await self.keys.caller(token)
        if caller is None:
            raise Unauthenticated("This API key is unknown, expired or revoked.")
        exchange_of(scope).caller = caller
        await self.app(scope, receive, send)


def _token(scope: Scope) -> str:
    authorization = header(scope, b"authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthenticated("Send the API key as 'Authorization: Bearer <key>'.")
    else:
        token = header(scope, b"x-api-key") or b""
    token = token.strip()
    if not token:
        raise Unauthenticated("No API key: send it as 'Authorization: Bearer <key>' or as 'x-api-key'.")
    text = token.decode("latin-1")
    if len(text) > LONGEST_TOKEN or not (text.isascii() and text.isprintable()):
        raise Unauthenticated("This API key is unknown, expired or revoked.")
    return text
