"""Reads the request body once, bounded in size, time and depth, and parses it.

The one place where input of unknown size is held. Further in, the body stands on the exchange and `receive` has
nothing left to say but that the client has gone.

Bounds: bytes (refused by `content-length` before anything is read, else while reading), seconds, and 1,024 levels
of nesting (orjson's own bound). orjson also refuses invalid UTF-8, NaN and Infinity, which are not JSON (RFC 8259).
"""

import asyncio
import json
from collections.abc import Awaitable, Generator, Sequence
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, Generic, TypeVar, cast

import orjson

from middleware.asgi import ASGIApp, Message, Receive, Scope, Send
from middleware.exchange import exchange_of
from middleware.faults import (
    BodyTimeout,
    BodyTooLarge,
    ClientDisconnected,
    MalformedBody,
    UnsupportedEncoding,
)

Result = TypeVar("Result")

REQUEST = "http.request"
UNAMBIGUOUS = ("model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens")
"""Fields on which money depends: given twice, readers of the same body would disagree on what was ordered."""
_QUOTED = {name: b'"%s"' % name.encode() for name in UNAMBIGUOUS}
ESCAPED_LETTERS = (rb"\u005", rb"\u006", rb"\u007")
"""Nobody escapes a plain letter but to write a field's name so that it is not seen."""


@dataclass(frozen=True, slots=True)
class Body:
    """`limit` in bytes, `timeout` in seconds for the whole body."""

    app: ASGIApp
    limit: int
    timeout: float

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        self._refuse_by_headers(scope)
        first = _Begun(receive())
        message = first.result
        if message is None or message["type"] != REQUEST or message.get("more_body", False):
            return self._later(_Begun(self._read(first, receive)), scope, receive, send)
        return self._pass_on(message.get("body", b""), scope, receive, send)

    def _pass_on(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if len(body) > self.limit:
            raise self._too_large()
        exchange = exchange_of(scope)
        exchange.body = body
        if scope["method"] == "POST":
            exchange.document = parse_object(body)
        return self.app(scope, receive, send)

    async def _later(self, reading: "_Begun[bytes]", scope: Scope, receive: Receive, send: Send) -> None:
        await self._pass_on(await self._within_time(reading), scope, receive, send)

    def _refuse_by_headers(self, scope: Scope) -> None:
        for name, value in scope["headers"]:
            if name == b"content-length":
                if value.isdigit() and int(value) > self.limit:
                    raise self._too_large()
            elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                raise UnsupportedEncoding("Send the body without content-encoding: compressed bodies are not read.")

    async def _within_time(self, reading: "_Begun[bytes]") -> bytes:
        """A body that is not there at once, or not in one message."""
        if reading.result is not None:
            return reading.result
        try:
            async with asyncio.timeout(self.timeout):
                return await reading
        except TimeoutError:
            raise BodyTimeout(
                f"The body did not arrive within {self.timeout:g} s.", headers={"connection": "close"}
            ) from None

    async def _read(self, first: "_Begun[Message]", receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        message = await first
        while True:
            if message["type"] == "http.disconnect":
                raise ClientDisconnected("The client left before its body was complete.")
            part = message.get("body", b"")
            size += len(part)
            if size > self.limit:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)
            message = await receive()

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self.limit} bytes, the limit of this gateway.")


class _Begun(Generic[Result]):
    """A wait up to where it waits for the first time, with its result if it does not wait at all.

    Most bodies are there with the head: no timer for them.
    """

    __slots__ = ("_steps", "_waited_for", "result")

    def __init__(self, awaitable: Awaitable[Result]) -> None:
        # what else can be awaited need not have the methods of a coroutine
        self._steps = steps = awaitable if type(awaitable) is CoroutineType else _awaited(awaitable)
        self.result: Result | None = None
        try:
            self._waited_for = steps.send(None)
        except StopIteration as end:
            self.result = end.value

    def __await__(self) -> Generator[Any, Any, Result]:
        """The rest of it; as `yield from`, which cannot begin in the middle (PEP 380)."""
        if self.result is not None:
            return self.result
        steps, waited_for = self._steps, self._waited_for
        while True:
            try:
                try:
                    sent = yield waited_for
                except BaseException as error:
                    waited_for = steps.throw(error)
                else:
                    waited_for = steps.send(sent)
            except StopIteration as end:
                return cast("Result", end.value)


async def _awaited(awaitable: Awaitable[Result]) -> Result:
    return await awaitable


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is.

    Raises `MalformedBody` if it is anything else, or if a field of `UNAMBIGUOUS` stands in it twice.
    """
    if not body:
        raise MalformedBody("The body is empty; a JSON object is expected.")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"The body is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise MalformedBody(f"The body is a JSON {_json_type(document)}; an object is expected.")
    if _may_repeat(document, body):
        _refuse_repeated(body)
    return document


def _may_repeat(document: dict[str, Any], body: bytes) -> bool:
    """A quick look, linear in the body: every field's name stands between two quotation marks."""
    for name in document:
        if name in _QUOTED and body.count(_QUOTED[name]) > 1:
            return True
    return body.find(b"\\") >= 0 and _may_disguise(body)  # a single byte is looked for at memory's speed


def _may_disguise(body: bytes) -> bool:
    """Whether letters may be written as escapes."""
    return body.find(b"\\u00") >= 0 and any(each in body for each in ESCAPED_LETTERS)


def _refuse_repeated(body: bytes) -> None:
    """The slow, certain look: the standard library tells each object's pairs, the outermost object's last."""
    outermost: Sequence[tuple[str, Any]] = ()

    def keep(pairs: list[tuple[str, Any]]) -> None:
        nonlocal outermost
        outermost = pairs

    try:
        json.loads(body, object_pairs_hook=keep)
    except RecursionError:
        raise MalformedBody("The body is nested too deeply to be sure that no field repeats.") from None
    names = [name for name, _ in outermost]
    for name in UNAMBIGUOUS:
        if names.count(name) > 1:
            raise MalformedBody(f"The field '{name}' stands in the body more than once.")


def _json_type(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")
