"""Why: httpx's transport interface is the one seam between us and the network, and two carriers fit behind it.

`http1` is our own and the default: of all that were measured it costs least (the table is in `http1`). `httpx` is
slower by far; it obeys proxies, and rules our own out where an operator suspects it.

Source: https://www.python-httpx.org/advanced/transports/
"""

from typing import Literal

import httpx

from .http1 import KEEPALIVE, Http1Transport

Carrier = Literal["http1", "httpx"]


def open_transport(kind: Carrier = "http1", *, keepalive: float = KEEPALIVE) -> httpx.AsyncBaseTransport:
    """A transport for `Client`; nothing is opened before the first call, and `aclose` closes all of it.

    There is no limit to connections: waiting in a queue would look like a slow provider. `keepalive`: seconds that an
    idle connection stays open. `httpx` goes through the proxy that `HTTPS_PROXY` and its like name.
    """
    if kind == "http1":
        return Http1Transport(keepalive=keepalive)
    if kind == "httpx":
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=keepalive)
        return httpx.AsyncHTTPTransport(verify=httpx.create_ssl_context(), limits=limits, proxy=_proxy())
    raise ValueError(f"unknown transport {kind!r}: http1 or httpx")


def _proxy() -> httpx.Proxy | None:
    from urllib.request import getproxies

    found = getproxies()
    address = found.get("https") or found.get("http") or found.get("all")
    return httpx.Proxy(address) if address else None
