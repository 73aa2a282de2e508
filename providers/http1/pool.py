"""Why: a handshake costs more than a call, so connections are kept; which one may be used again is decided here."""

import asyncio
import socket
import ssl
from typing import Any

import aiohappyeyeballs
import httpx

from .connection import Body, Connection
from .messages import Arrived, Origin, Prepared, head_of, origin_of

KEEPALIVE = 45.0
"""Seconds that an idle connection is kept: shorter than the 60 after which load balancers close theirs."""
DNS_TTL = 30.0
"""Seconds for which the addresses of a name are kept."""
HAPPY_EYEBALLS_DELAY = 0.25
"""Seconds until the next address of a name is tried beside the first (RFC 8305)."""


class Http1Transport(httpx.AsyncBaseTransport):
    """`keepalive` in seconds; `tls` says whom to trust, and is httpx's own where it is not given. Nothing is opened
    before the first call, and `aclose` closes all of it.

    Raises what httpx documents: `ConnectError`, `ConnectTimeout`, `RemoteProtocolError`, `ReadError`. Of a request's
    time-outs only `connect` is kept here, over name, connection and TLS; who waits for the answer bounds the rest.
    """

    def __init__(self, *, keepalive: float = KEEPALIVE, tls: ssl.SSLContext | None = None) -> None:
        self._keepalive = keepalive
        self._open: set[Connection] = set()
        self._idle: dict[Origin, dict[Connection, float]] = {}
        self._resolved: dict[tuple[str, int], tuple[float, asyncio.Task[list[Any]]]] = {}
        self._reaper: asyncio.TimerHandle | None = None
        self._tls = tls

    @property
    def connections(self) -> int:
        """How many are open, idle ones too."""
        return len(self._open)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if isinstance(request, Prepared):
            origin, head, body = request.target.origin, request.head, request.body
        else:
            origin, body = origin_of(request.url), await request.aread()
            head = head_of(request.method, request.url, request.headers) + b"\r\n"
        connection = self._waiting(origin) or await self._connect(origin, request.extensions)
        try:
            await connection.ask(head, body)
        except BaseException:
            connection.abort()
            raise
        if not connection.complete:
            return Arrived(connection.status, connection.fields, Body(connection))
        answer = Arrived(connection.status, connection.fields, connection.take())
        self.put_back(connection)
        return answer

    async def aclose(self) -> None:
        for connection in list(self._open):
            connection.abort()
        if self._reaper is not None:
            self._reaper.cancel()
        await asyncio.sleep(0)  # a connection that was aborted is closed in the next turn of the loop

    def put_back(self, connection: Connection) -> None:
        """Keep a connection that has come to the end of its answer for the next request; close any other."""
        if not connection.reusable:
            connection.abort()
            return
        loop = connection.loop
        self._idle.setdefault(connection.origin, {})[connection] = loop.time()
        if self._reaper is None:
            self._reaper = loop.call_later(self._keepalive, self._reap)

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if (idle := self._idle.get(connection.origin)) is not None:
            idle.pop(connection, None)
            if not idle:
                del self._idle[connection.origin]

    def _waiting(self, origin: Origin) -> Connection | None:
        """The idle connection that was used last."""
        idle = self._idle.get(origin)
        while idle:
            connection, since = idle.popitem()
            if connection.loop.time() - since < self._keepalive and not connection.transport.is_closing():
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

    async def _connect(self, origin: Origin, extensions: Any) -> Connection:
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

    async def _established(self, opened: socket.socket, origin: Origin, tls: ssl.SSLContext | None) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: Connection(self, origin), sock=opened)
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
