"""Why: what an answer is worth depends on how its connection ended, so one place sees all of it.

Whatever is unusual (bytes that nobody asked for, a second answer, an answer before its request has left, one that was
not read to its end) spoils the connection: it is not used again, for the next caller would get what is left of it.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Protocol, cast

import httptools
import httpx

from .messages import Origin

MAX_HEAD_BYTES = 128 * 1024
"""Bytes that may come without any of a body: of a head, interim ones before it, or trailers."""
HIGH_WATER = 256 * 1024
"""Bytes of an answer, as they came, that may wait for their reader before the provider is held back."""


class Owner(Protocol):
    """Who keeps connections."""

    def opened(self, connection: "Connection") -> None: ...

    def lost(self, connection: "Connection") -> None: ...

    def put_back(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """One connection and the exchange that is on it."""

    def __init__(self, owner: Owner, origin: Origin) -> None:
        self.origin = origin
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self.owner = owner
        self.loop = asyncio.get_running_loop()
        self._arriving: dict[bytes, bytes] = {}
        self.parts: list[bytes] = []
        self.on_header = self._arriving.__setitem__  # no function of ours: providers send dozens
        self.on_body = self.parts.append
        self._parser = httptools.HttpResponseParser(self)
        self.transport = self._below = cast(asyncio.Transport, None)
        self.waiter: asyncio.Future[bytes] | None = None
        self._unanswered = False
        self._size = 0
        self._paused = False
        self.complete = True
        self._spoilt = False
        self.lost: httpx.TransportError | None = None

    async def secure(self, tls: ssl.SSLContext) -> None:
        """Speak TLS from now on. What was opened at first stays below it: TLS does not tell what waits there."""
        secured = await self.loop.start_tls(self._below, self, tls, server_hostname=self.origin[1])
        self.transport = cast(asyncio.Transport, secured)

    # --- the reader's side

    @property
    def reusable(self) -> bool:
        """Whether the exchange has ended, and been read to its end, so that another can follow it."""
        ended = self.complete and not self.parts
        return ended and not self._spoilt and self.lost is None and not self.transport.is_closing()

    def ask(self, head: bytes, body: bytes) -> "asyncio.Future[bytes]":
        """Begin an exchange. Done when the head of its answer has come; `TransportError` if it will not."""
        self.status = 0
        self._size = 0
        self.complete = False
        self._unanswered = True
        if len(body) < HIGH_WATER:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        self.waiter = waiter = self.loop.create_future()
        if self.lost is not None:
            self.tell(waiter)
        return waiter

    def take(self) -> bytes:
        """What has come of the body since the last time."""
        body = b"".join(self.parts)
        self.parts.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        return body

    def abort(self) -> None:
        """Close at once; an answer that has not ended does not end with it."""
        if self.lost is None:
            self.lost = httpx.ReadError("the connection was closed here before the answer ended")
        self.transport.abort()

    # --- the loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = self._below = cast(asyncio.Transport, transport)
        self.owner.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.owner.lost(self)
        if self.lost is not None:
            pass  # what was said first is the reason
        elif self.status:
            self.complete = self.complete or (exc is None and self._ends_with_connection())
            self.lost = httpx.ReadError(str(exc) if exc else "the connection was closed before the answer ended")
        else:
            self.lost = httpx.RemoteProtocolError(str(exc) if exc else "the connection was closed without an answer")
        if (waiter := self.waiter) is not None:
            self.tell(waiter)

    def data_received(self, data: bytes) -> None:
        if self.complete:
            self._spoilt = True  # nobody has asked for it, so nobody knows whose answer comes next
            self.transport.abort()
            return
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(f"what answered does not speak HTTP/1.1: {error}")
        if self._size > MAX_HEAD_BYTES:
            self._restrain()
        if (waiter := self.waiter) is not None:
            self.tell(waiter)

    def _restrain(self) -> None:
        """Hold back a provider that is faster than its reader; give one up that sends no body."""
        if not self.parts:
            self._break(f"the answer has over {MAX_HEAD_BYTES} bytes of headers")
        elif self._size > HIGH_WATER and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def _break(self, why: str) -> None:
        if self.complete:
            self._spoilt = True
        elif self.lost is None:
            self.lost = httpx.RemoteProtocolError(why)
        self.transport.abort()

    def tell(self, waiter: "asyncio.Future[bytes]") -> None:
        """Give what has come to who waits, if it is what is waited for: the head, then bytes of the body."""
        if waiter.done():
            pass  # whoever waited has gone
        elif self.status if self._unanswered else self.parts:
            waiter.set_result(b"" if self._unanswered else self.take())
            self._unanswered = False
        elif self.complete:
            _fail(waiter, StopAsyncIteration())
        elif self.lost is not None:
            _fail(waiter, self.lost)
        else:
            return
        self.waiter = None

    def _ends_with_connection(self) -> bool:
        """Whether the end of the connection is the end of the body (RFC 9112, 6.3)."""
        return self.fields.keys().isdisjoint((b"content-length", b"transfer-encoding"))

    # --- the parser's side

    def on_message_begin(self) -> None:
        self._arriving.clear()
        if self.complete:
            raise RuntimeError("a second answer to one request")  # which the parser turns into an error of its own

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if not self.complete and (status >= 200 or status == 101):
            self.status = status
            self.fields = {name.lower(): value for name, value in self._arriving.items()}

    def on_message_complete(self) -> None:
        if self.status and not self.complete:
            self.complete = True
            unsent = self.transport.get_write_buffer_size() or self._below.get_write_buffer_size()
            self._spoilt = bool(self._spoilt or unsent or not self._parser.should_keep_alive())


class Body(httpx.AsyncByteStream, AsyncIterator[bytes]):
    """The body of one answer, as it comes; `aclose` lets go of its connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection

    @property
    def ended(self) -> bool:
        """Whether all of it has been read."""
        connection = self._connection
        return connection is None or (connection.complete and not connection.parts)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    def __anext__(self) -> "asyncio.Future[bytes]":
        if (connection := self._connection) is None:
            raise StopAsyncIteration
        connection.waiter = waiter = connection.loop.create_future()
        if connection.parts or connection.complete or connection.lost is not None:
            connection.tell(waiter)
        return waiter

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.owner.put_back(connection)


def _fail(waiter: "asyncio.Future[bytes]", error: Exception) -> None:
    waiter.set_exception(error)
    waiter.exception()  # who is cancelled before it hears of this need not be told
