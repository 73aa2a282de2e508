"""Why: httpx's transport interface is the one seam between us and the network, and two carriers fit behind it.

httpx-aiohttp's transport is the default: it costs a tenth of httpx's own. Its traps are dealt with here, so that the
client sees only what httpx documents: aiohttp's queue of 100 connections, its cookie jar, and its way of reporting
a refused connection, a lost one and a connect time-out all as `ConnectTimeout`.

Source: https://www.python-httpx.org/advanced/transports/
"""

import asyncio
from typing import Literal

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

Carrier = Literal["aiohttp", "httpx"]

KEEPALIVE = 60.0
DNS_TTL = 30
MAX_HEADER_BYTES = 32 * 1024
"""Of one header line; aiohttp's own 8 kB are too few for some proxies' policies."""


def open_transport(
    kind: Carrier = "aiohttp",
    *,
    max_connections: int | None = None,
    keepalive: float = KEEPALIVE,
    trust_env: bool = False,
) -> httpx.AsyncBaseTransport:
    """A transport for `Client`; nothing is opened before the first call, and `aclose` closes all of it.

    `max_connections`: None is no limit, for waiting in a queue looks like a slow provider. `keepalive`: seconds that
    an idle connection stays open. `trust_env`: whether `HTTPS_PROXY` and its like are obeyed.
    """
    if kind == "aiohttp":
        return _AiohttpTransport(max_connections or 0, keepalive, trust_env)
    if kind == "httpx":
        limits = httpx.Limits(
            max_connections=max_connections, max_keepalive_connections=None, keepalive_expiry=keepalive
        )
        return httpx.AsyncHTTPTransport(
            verify=httpx.create_ssl_context(trust_env=trust_env),
            limits=limits,
            trust_env=trust_env,
            proxy=_proxy() if trust_env else None,
        )
    raise ValueError(f"unknown transport {kind!r}: aiohttp or httpx")


class _AiohttpTransport(AiohttpTransport):
    """httpx-aiohttp's transport with a session of our own and the exceptions that httpx documents."""

    def __init__(self, max_connections: int, keepalive: float, trust_env: bool) -> None:
        super().__init__(trust_env=trust_env)
        self._max_connections = max_connections
        self._keepalive = keepalive
        self._trust_env = trust_env
        self.client = self._session

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._max_connections,
            keepalive_timeout=self._keepalive,
            ttl_dns_cache=DNS_TTL,
            ssl=self.ssl_context,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=self._trust_env,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except httpx.ConnectTimeout as error:
            raise _as_documented(error) from error.__cause__
        except aiohttp.ClientError as error:  # what answered does not speak HTTP
            raise httpx.RemoteProtocolError(str(error)) from error


def _as_documented(error: httpx.ConnectTimeout) -> httpx.TransportError:
    cause = error.__cause__
    if isinstance(cause, aiohttp.ClientConnectorError):  # refused, no such host, TLS
        return httpx.ConnectError(str(error))
    if isinstance(cause, asyncio.TimeoutError):
        return error
    return httpx.RemoteProtocolError(str(error))  # the connection was there, and was lost


def _proxy() -> httpx.Proxy | None:
    from urllib.request import getproxies

    found = getproxies()
    address = found.get("https") or found.get("http") or found.get("all")
    return httpx.Proxy(address) if address else None
