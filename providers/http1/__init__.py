"""Why: carrying one call to a provider and back is most of a gateway's work, and general clients make it the dearest.

One HTTP/1.1 exchange at a time on a kept-alive connection, over asyncio's protocols and llhttp (`httptools`, which
uvicorn parses with, too), behind httpx's transport interface. What a gateway must not do is not here at all: retries,
redirects, cookies, decompression. Nor are proxies and HTTP/2: for a proxy there is httpx's own transport.

Measured in one run on one core: ASGI, the call and JSON both ways, and a streamed chunk, in us of CPU (CPython 3.11,
uvloop, 32 calls, then 100 streams x 50 chunks a second; medians of five rounds).

|                                  | JSON call | chunk, as fast as it goes | chunk, paced |
|----------------------------------|-----------|---------------------------|--------------|
| nginx, `proxy_pass` alone        |        17 |                       2.5 |           14 |
| this                             |        56 |                       4.6 |           27 |
| pyreqwest 0.15 (Rust), own API   |        77 |                      15   |           41 |
| httpx-aiohttp 0.2, its transport |       257 |                       7.2 |           51 |
| httpx 0.28, `AsyncHTTPTransport` |     1,089 |                      46   |          122 |

- `pool`: the transport: which connection carries a request, and how one is opened
- `connection`: the exchange on a connection, from the bytes of the request to those of the answer
- `messages`: httpx's request and response, without what they cost

Sources: https://www.rfc-editor.org/rfc/rfc9112, https://www.python-httpx.org/advanced/transports/
"""

from .messages import Arrived, Prepared, Target
from .pool import KEEPALIVE, Http1Transport

__all__ = ["KEEPALIVE", "Arrived", "Http1Transport", "Prepared", "Target"]
