"""One request and its answer on a connection: ASGI's `receive` and `send`, and the bytes that they are on the wire.

The head of an answer whose length is known waits for the body, as ASGI asks, and leaves with it in one write; that of
a stream leaves at once. Most requests have come whole before their application asks for them, so that nothing is
there to wait with until somebody has to wait.

Source: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import asyncio
import logging
import re
from http import HTTPStatus
from typing import Protocol

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.server import ServerState

from middleware.asgi import BODY, START, ASGIApp, Message, Scope

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
STATUS_LINES = {status: b"HTTP/1.1 %d " % status for status in range(100, 600)} | {
    status.value: b"HTTP/1.1 %d %b" % (status, status.phrase.encode()) for status in HTTPStatus
}
NO_BODY = (204, 304)
NO_TOKEN = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
"""What stands in no header's name (https://www.rfc-editor.org/rfc/rfc9110#name-tokens)."""
CONNECTION, LENGTH, CODING = b"\r\nconnection: ", b"\r\ncontent-length: ", b"\r\ntransfer-encoding: "
DECISIVE = frozenset({CONNECTION, LENGTH, CODING})
"""What says where the answer ends."""
CR, LF, NUL = b"\r\n\0"
MOST_NAMES = 1000

_plain: dict[bytes, bytes] = {}
"""A line end and `name: ` by the names that have been sent, but for the decisive ones."""
_logger = logging.getLogger("uvicorn.error")


class Connection(Protocol):
    """What a cycle asks of the connection that it is on."""

    transport: asyncio.Transport
    flow: FlowControl
    server_state: ServerState

    def answered(self) -> None:
        """The answer is complete."""
        ...

    def close(self) -> None:
        """Nothing follows what has been written."""
        ...


class Cycle:
    """`scope` and what the connection has read of the request's body, and how far the answer to it is."""

    __slots__ = (
        "_arrival",
        "_chunked",
        "_connection",
        "_flow",
        "_has_news",
        "_head",
        "_invited",
        "_left",
        "_parts",
        "_size",
        "_transport",
        "begun",
        "complete",
        "disconnected",
        "ignored",
        "keep_alive",
        "more_body",
        "scope",
        "task",
    )

    task: "asyncio.Task[None]"
    ignored: int
    """Bytes of the body that came after the answer."""

    def __init__(self, connection: Connection, scope: Scope, keep_alive: bool) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.disconnected = self.begun = self.complete = False
        self.more_body = True
        self.ignored = 0
        self._connection = connection
        self._transport = connection.transport
        self._flow = connection.flow
        self._parts: list[bytes] = []
        self._size = self._left = 0
        self._has_news = self._invited = self._chunked = False
        self._arrival: asyncio.Event | None = None
        self._head = b""

    # --- the connection's side

    def feed(self, body: bytes) -> None:
        """Keep a part of the body until the application asks; the client waits when there is much."""
        self._parts.append(body)
        self._size += len(body)
        if self._size > HIGH_WATER_LIMIT:
            self._flow.pause_reading()
        self._tell()

    def end_body(self) -> None:
        self.more_body = False
        self._tell()

    def disconnect(self) -> None:
        """The client has gone."""
        self.disconnected = True
        self._tell()

    def _tell(self) -> None:
        self._has_news = True
        if self._arrival is not None:
            self._arrival.set()

    async def run(self, app: ASGIApp) -> None:
        """Answer. Whatever the application does, the client learns that it is over."""
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:
            await self._fail("Exception in ASGI application\n", error)
        else:
            if not self.complete and not self.disconnected:
                await self._fail("ASGI callable returned without completing response.")
        finally:
            self._connection.server_state.tasks.discard(self.task)
            del self._connection  # which holds this cycle

    async def _fail(self, reason: str, error: BaseException | None = None) -> None:
        _logger.error(reason, exc_info=error)
        if not self.begun:
            await self._send_500()
        elif not self.complete and not self.disconnected:
            self._transport.write(self._head)  # of an answer that is seen to be broken, not of one that has not begun
            self.disconnect()  # what the application has left running must not complete it
            self._connection.close()

    async def _send_500(self) -> None:
        body = b"Internal Server Error"
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        await self.send({"type": START, "status": 500, "headers": headers})
        await self.send({"type": BODY, "body": body})

    # --- the application's side

    async def receive(self) -> Message:
        """What has come of the body since the last time, or that the exchange is over."""
        if self._flow.read_paused:
            self._flow.resume_reading()
        while not self._has_news:
            await self._wait()
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        self._has_news = False
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts, self._size = [], 0
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def _wait(self) -> None:
        self._invite()
        if self._arrival is None:
            self._arrival = asyncio.Event()
        self._arrival.clear()
        await self._arrival.wait()

    def _invite(self) -> None:
        """A client that asks first whether its body is wanted is told so, once."""
        if not self._invited and not self.begun and self.more_body:
            self._invited = True
            if any(name == b"expect" and value.lower() == b"100-continue" for name, value in self.scope["headers"]):
                self._transport.write(CONTINUE)

    async def send(self, message: Message) -> None:
        """Returns once the client reads fast enough. What comes after it has gone is dropped."""
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        if self.begun:
            self._go_on(message)
        else:
            self._begin(message)

    def _begin(self, message: Message) -> None:
        if message["type"] != START:
            raise RuntimeError(f"Expected ASGI message '{START}', but got '{message['type']}'.")
        self._head = self._render(message)
        self.begun = True
        if self._chunked:
            self._transport.write(self._head)
            self._head = b""

    def _render(self, message: Message) -> bytes:
        """The head as bytes; what it says of the connection and of the body's length is noted."""
        self._chunked, self._left = False, 0
        parts = [STATUS_LINES[message["status"]]]
        decisive: dict[bytes, bytes] = {}
        for name, value in (*self._connection.server_state.default_headers, *message.get("headers", ())):
            beginning = _plain.get(name)
            if beginning is None:
                beginning = _beginning_of(name)
                if beginning in DECISIVE:
                    decisive[beginning] = value
            parts.append(beginning)
            parts.append(value)
        _refuse_line_ends(parts[2::2])
        if CONNECTION in decisive and _says_close(decisive[CONNECTION]):
            self.keep_alive = False
        elif not self.keep_alive:
            parts += (CONNECTION, b"close")
        if LENGTH in decisive and CODING not in decisive:
            self._left = int(decisive[LENGTH])
        elif self.scope["method"] != "HEAD" and message["status"] not in NO_BODY:
            self._chunked = True
            if CODING not in decisive:
                parts += (CODING, b"chunked")
        parts.append(b"\r\n\r\n")
        return b"".join(parts)

    def _go_on(self, message: Message) -> None:
        if self.complete or message["type"] != BODY:
            raise RuntimeError(f"Unexpected ASGI message '{message['type']}'.")
        body = message.get("body", b"")
        more_body = message.get("more_body", False)
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more_body:
                data += LAST_CHUNK
        elif self.scope["method"] == "HEAD":
            data, self._head, self._left = self._head, b"", 0
        else:
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("Response content longer than Content-Length")
            data, self._head = self._head + body, b""
        if data:
            self._transport.write(data)
        if not more_body:
            self._end()

    def _end(self) -> None:
        if self._left:
            raise RuntimeError("Response content shorter than Content-Length")
        self.complete = True
        self._tell()
        if not self.keep_alive:
            self._connection.close()
        self._connection.answered()


def _beginning_of(name: bytes) -> bytes:
    if name == b"content-length":  # of nearly each answer
        return LENGTH
    if NO_TOKEN.search(name) or not name:
        raise RuntimeError(f"Invalid HTTP header name {name!r}.")
    beginning = b"\r\n" + name.lower() + b": "
    if len(_plain) < MOST_NAMES and beginning not in DECISIVE:
        _plain[name] = beginning
    return beginning


def _says_close(connection: bytes) -> bool:
    return b"close" in (token.strip() for token in connection.lower().split(b","))


def _refuse_line_ends(values: list[bytes]) -> None:
    """A header with one of them would be two."""
    text = b"".join(values)
    if CR in text or LF in text or NUL in text:
        raise RuntimeError("Invalid HTTP header value.")
