"""The ASGI types that every middleware speaks, and what they all ask of a message.

Source: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from collections.abc import Awaitable, Callable, MutableMapping
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
            found: bytes = value
            return found
    return None


def is_last(message: Message) -> bool:
    """Whether this message ends the response."""
    return message["type"] == BODY and not message.get("more_body", False)
