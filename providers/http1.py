"""Why: carrying one call to a provider and back is most of a gateway's work, and general clients make it the dearest.

One HTTP/1.1 exchange at a time on a kept-alive connection, over asyncio's protocols and llhttp (`httptools`, which
uvicorn parses with, too), behind httpx's transport interface. What a gateway must not do is not here at all: retries,
redirects, cookies, decompression. Nor are proxies and HTTP/2: for a proxy there is httpx's own transport.

Sources: https://www.rfc-editor.org/rfc/rfc9112, https://www.python-httpx.org/advanced/transports/
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any, TypeAlias, cast

import aiohappyeyeballs
import httptools
import httpx

KEEPALIVE = 45.0
"""Seconds that an idle connection is kept: shorter than the 60 after which load balancers close theirs."""
MAX_HEAD_BYTES = 128 * 1024
"""Bytes that may come without any of a body: of a head, interim ones before it, or trailers."""
HIGH_WATER = 256 * 1024
"""Bytes of an answer that may wait for their reader before the provider is held back."""
DNS_TTL = 30.0
"""Seconds for which the addresses of a name are kept."""
HAPPY_EYEBALLS_DELAY = 0.25
"""Seconds until the next address of a name is tried beside the first (RFC 8305)."""

Origin: TypeAlias = tuple[str, str, int]


class Http1Transport(httpx.AsyncBaseTransport):
    """`keepalive` in seconds; `tls` says whom to trust, and is httpx's own where it is not given. Nothing is opened
    before the first call, and `aclose` closes all of it.

    Raises what httpx documents: `ConnectError`, `ConnectTimeout`, `RemoteProtocolError`, `ReadError`. Of a request's
    time-outs only `connect` is kept here, over name, connection and TLS; who waits for the answer bounds the rest.
    """

    def __init__(self, *, keepalive: float = KEEPALIVE, tls: ssl.SSLContext | None = None) -> None:
        self._keepalive = keepalive
        self._open: set[_Connection] = set()
        self._idle: dict[Origin, dict[_Connection, float]] = {}
        self._resolved: dict[tuple[str, int], tuple[float, asyncio.Task[list[Any]]]] = {}
        self._reaper: asyncio.TimerHandle | None = None
        self._tls = tls

    @property
    def connections(self) -> int:
        """How many are open, idle ones too."""
        return len(self._open)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        # the name as it is looked up: `url.host` is for people, and Python writes some of those names otherwise
        origin = url.scheme, url.raw_host.decode(), url.port or (443 if url.scheme == "https" else 80)
        connection = self._waiting(origin) or await self._connect(origin, request.extensions)
        try:
            if isinstance(request, Prepared):
                connection.ask(request.head, request.body)
            else:
                connection.ask(head_of(request.method, url, request.headers), await request.aread())
            while not connection.status:
                await connection.change()
        except BaseException:
            connection.abort()
            raise
        return Arrived(connection.status, connection.headers, _Body(self, connection))

    async def aclose(self) -> None:
        for connection in list(self._open):
            connection.abort()
        if self._reaper is not None:
            self._reaper.cancel()
        await asyncio.sleep(0)  # a connection that was aborted is closed in the next turn of the loop

    def put_back(self, connection: "_Connection") -> None:
        """Keep a connection that has come to the end of its answer for the next request; close any other."""
        if not connection.reusable:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        self._idle.setdefault(connection.origin, {})[connection] = loop.time()
        if self._reaper is None:
            self._reaper = loop.call_later(self._keepalive, self._reap)

    def opened(self, connection: "_Connection") -> None:
        self._open.add(connection)

    def lost(self, connection: "_Connection") -> None:
        self._open.discard(connection)
        if (idle := self._idle.get(connection.origin)) is not None:
            idle.pop(connection, None)
            if not idle:
                del self._idle[connection.origin]

    def _waiting(self, origin: Origin) -> "_Connection | None":
        """The idle connection that was used last."""
        idle = self._idle.get(origin)
        while idle:
            connection, since = idle.popitem()
            if connection.reusable and asyncio.get_running_loop().time() - since < self._keepalive:
                return connection
            connection.abort()
        return None

    def _reap(self) -> None:
        """Close what nobody has used for a while."""
        loop = asyncio.get_running_loop()
        self._reaper = None
        for idle in self._idle.values():
            for connection, since in idle.items():
                if loop.time() - since >= self._keepalive:
                    connection.abort()
        if self._idle:
            self._reaper = loop.call_later(self._keepalive, self._reap)

    async def _connect(self, origin: Origin, extensions: Any) -> "_Connection":
        scheme, host, port = origin
        try:
            async with asyncio.timeout(extensions.get("timeout", {}).get("connect")):
                opened = await aiohappyeyeballs.start_connection(
                    await self._addresses(host, port), happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY
                )
                return await self._established(opened, origin, self._context() if scheme == "https" else None)
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"no connection to {host}:{port} in time") from error
        except (OSError, RuntimeError, UnicodeError) as error:
            # uvloop raises RuntimeError where asyncio raises OSError; UnicodeError says that this can be no name
            raise httpx.ConnectError(str(error) or type(error).__name__) from error

    async def _established(self, opened: socket.socket, origin: Origin, tls: ssl.SSLContext | None) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self, origin), sock=opened)
        except BaseException:
            opened.close()
            raise
        if tls is not None:
            try:
                await connection.secure(tls)
            except BaseException:
                connection.abort()
                self.lost(connection)  # nobody else says so of one that breaks in its handshake
                raise
        return connection

    async def _addresses(self, host: str, port: int) -> list[Any]:
        """Where `host` is. A name is asked for once, however many wait for it; a failure is nobody's but theirs."""
        loop = asyncio.get_running_loop()
        until, lookup = self._resolved.get((host, port), (0.0, None))
        if lookup is None or until < loop.time() or _failed(lookup):
            lookup = asyncio.ensure_future(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            self._resolved[host, port] = loop.time() + DNS_TTL, lookup
        return await asyncio.shield(lookup)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = httpx.create_ssl_context(trust_env=False)
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


def _failed(lookup: "asyncio.Task[list[Any]]") -> bool:
    return lookup.done() and (lookup.cancelled() or lookup.exception() is not None)


def head_of(method: str, url: httpx.URL, headers: httpx.Headers) -> bytes:
    """Request line and headers. Raises `LocalProtocolError` if a value holds a line end: it would make another."""
    fields = headers.raw
    parts = [method.encode(), b" ", url.raw_path, b" HTTP/1.1\r\n"]
    for name, value in fields:
        parts += (name, b": ", value, b"\r\n")
    parts.append(b"\r\n")
    head = b"".join(parts)
    if head.count(b"\n") != len(fields) + 2 or head.count(b"\r") != len(fields) + 2:
        raise httpx.LocalProtocolError("a header of the request holds a line end")
    return head


class Prepared(httpx.Request):
    """A request whose head was written before: all calls of a wire have the same one, but for the body's length.

    It is httpx's request to whoever asks; its headers are made then (httpx works them out anew each time, 10 us).
    """

    def __init__(
        self, method: str, url: httpx.URL, fields: httpx.Headers, head: bytes, body: bytes, extensions: dict[str, Any]
    ) -> None:
        self.method = method
        self.url = url
        self.extensions = extensions
        self.stream = httpx.ByteStream(body)
        self.head = b"%scontent-length: %d\r\n\r\n" % (head[:-2], len(body)) if body else head
        self.body = self._content = body
        self._fields = fields

    @property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # an attribute there, and written by nobody
        length = [(b"content-length", b"%d" % len(self.body))] if self.body else []
        return httpx.Headers([*self._fields.raw, *length])


class Arrived(httpx.Response):
    """An answer as it came; it is httpx's response, with headers, to whoever asks for them.

    `fields` has the headers by their names in lower case; of several with the same name, the last.
    """

    def __init__(self, status: int, fields: list[tuple[bytes, bytes]], stream: httpx.AsyncByteStream) -> None:
        self._raw = fields
        self.fields = dict(fields)
        self.status_code = status
        self.stream = stream
        self.extensions = {}
        self.is_closed = self.is_stream_consumed = False
        self._request, self._num_bytes_downloaded = None, 0

    @property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # an attribute there, and written by nobody
        return httpx.Headers(self._raw)


class _Connection(asyncio.Protocol):
    """One connection and the exchange that is on it."""

    def __init__(self, pool: Http1Transport, origin: Origin) -> None:
        self.origin = origin
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport = self._below = cast(asyncio.Transport, None)
        self._waiter: asyncio.Future[None] | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        self.parts: list[bytes] = []
        self._waiting_bytes = 0
        self._head_bytes = 0
        self._paused = False
        self.complete = True
        self._spoilt = False
        self._lost: httpx.TransportError | None = None

    async def secure(self, tls: ssl.SSLContext) -> None:
        """Speak TLS from now on. What was opened at first stays below it: TLS does not tell what waits there."""
        secured = await self._loop.start_tls(self._below, self, tls, server_hostname=self.origin[1])
        self._transport = cast(asyncio.Transport, secured)

    # --- the reader's side

    @property
    def reusable(self) -> bool:
        """Whether the exchange has ended, and been read to its end, so that another can follow it."""
        ended = self.complete and not self.parts
        return ended and not self._spoilt and self._lost is None and not self._transport.is_closing()

    def ask(self, head: bytes, body: bytes) -> None:
        """Begin an exchange."""
        self.status = 0
        self._head_bytes = 0
        self.complete = False
        if len(body) < HIGH_WATER:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    def change(self) -> "asyncio.Future[None]":
        """Done when there is more of the answer. Raises `TransportError` if the connection is lost."""
        if self._lost is not None:
            raise self._lost
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def take(self) -> bytes:
        """What has come of the body since the last time."""
        parts, self.parts = self.parts, []
        self._waiting_bytes = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def abort(self) -> None:
        """Close at once; an answer that has not ended does not end with it."""
        if self._lost is None:
            self._lost = httpx.ReadError("the connection was closed here before the answer ended")
        self._transport.abort()

    # --- the loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = self._below = cast(asyncio.Transport, transport)
        self._pool.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.lost(self)
        if self._lost is not None:
            pass  # what was said first is the reason
        elif self.status:
            self.complete = self.complete or (exc is None and self._ends_with_connection())
            self._lost = httpx.ReadError(str(exc) if exc else "the connection was closed before the answer ended")
        else:
            self._lost = httpx.RemoteProtocolError(str(exc) if exc else "the connection was closed without an answer")
        self._wake()

    def data_received(self, data: bytes) -> None:
        if self.complete:
            self._spoilt = True  # nobody has asked for it, so nobody knows whose answer comes next
            self._transport.abort()
            return
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(f"what answered does not speak HTTP/1.1: {error}")
        if self._head_bytes > MAX_HEAD_BYTES:
            self._break(f"the answer has over {MAX_HEAD_BYTES} bytes of headers")
        self._wake()

    def _break(self, why: str) -> None:
        if self.complete:
            self._spoilt = True
        elif self._lost is None:
            self._lost = httpx.RemoteProtocolError(why)
        self._transport.abort()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _ends_with_connection(self) -> bool:
        """Whether the end of the connection is the end of the body (RFC 9112, 6.3)."""
        names = {name for name, _ in self.headers}
        return not names & {b"content-length", b"transfer-encoding"}

    # --- the parser's side

    def on_message_begin(self) -> None:
        self._fields = []
        self._spoilt = self._spoilt or self.complete  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # what comes later are trailers: nobody asked for them (RFC 9110, 6.5.1)
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if not self.complete and (status >= 200 or status == 101):
            self.status, self.headers = status, self._fields

    def on_body(self, data: bytes) -> None:
        if self.complete:
            return
        self.parts.append(data)
        self._head_bytes = 0
        self._waiting_bytes += len(data)
        if self._waiting_bytes > HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.status and not self.complete:
            self.complete = True
            self._spoilt = self._spoilt or not self._parser.should_keep_alive() or self._is_sending()

    def _is_sending(self) -> bool:
        """Whether the answer came before all of the request had left."""
        return self._transport.get_write_buffer_size() > 0 or self._below.get_write_buffer_size() > 0


class _Body(httpx.AsyncByteStream, AsyncIterator[bytes]):
    """The body of one answer; `aclose` lets go of its connection."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Http1Transport, connection: _Connection) -> None:
        self._pool = pool
        self._connection: _Connection | None = connection

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while (connection := self._connection) is not None:
            if connection.parts:
                return connection.take()
            if connection.complete:
                break
            await connection.change()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.put_back(connection)
