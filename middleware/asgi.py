"""The ASGI types that every middleware speaks, and the two header helpers that they all need.

Source: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]

START = "http.response.start"
BODY = "http.response.body"
DISCONNECT: Message = {"type": "http.disconnect"}


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first value of a request header, or `None`; `name` in lower case, as ASGI servers send it."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def is_last(message: Message) -> bool:
    """Whether this message ends the response."""
    return message["type"] == BODY and not message.get("more_body", False)


def adding_headers(send: Send, headers: Callable[[], Iterable[tuple[bytes, bytes]]]) -> Send:
    """A `send` that adds `headers()` to the head of the response, evaluated when the head leaves."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == START:
            message = {**message, "headers": [*message.get("headers", ()), *headers()]}
        await send(message)

    return send_with_headers
