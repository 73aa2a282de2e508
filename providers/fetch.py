"""Why: a caller's URL, followed from inside our network, is a way into it; so files are fetched under guard, or not.

Only http and https, without credentials. A name is resolved once, every address that it has must be public, and the
connection goes to one of those and nowhere else: it is looked at again as the socket is opened, so that no second
answer of DNS counts. TLS still verifies the name. A redirect is a new URL with the same rules. Size, number, type and
time are bounded; no cookie, no proxy and no key of ours goes along.

Sources: https://owasp.org/www-community/attacks/Server_Side_Request_Forgery,
https://www.iana.org/assignments/iana-ipv6-special-registry
"""

import asyncio
import mimetypes
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from .contract import Kind, ProviderError

MAX_BYTES = 20 * 1024 * 1024
"""Of all files of one request together, and so of each."""
MAX_FILES = 20
MAX_REDIRECTS = 3
SECONDS = 10.0
TYPES = ("image/", "audio/", "application/pdf")

Address: TypeAlias = IPv4Address | IPv6Address
Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host name."""

_NAT64 = ip_network("64:ff9b::/96")
_SIX_TO_FOUR = ip_network("2002::/16")
_UNICAST = ip_network("2000::/3")
_REFUSED = tuple(ip_network(each) for each in ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20", "2001::/23"))
"""Special blocks that not every version of `ipaddress` knows; Teredo is among them."""
_VAGUE = {"", "application/octet-stream", "binary/octet-stream"}
_HEADERS = {"accept": "image/*, audio/*, application/pdf", "accept-encoding": "identity", "user-agent": "aigate"}


def is_public(address: Address) -> bool:
    """Whether this is an address of the open internet, also inside of what is embedded in it."""
    if isinstance(address, IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return is_public(inner)
        if address not in _UNICAST or address.scope_id is not None:
            return False
    if any(address in each for each in _REFUSED if each.version == address.version):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def resolve(host: str, port: int) -> Sequence[str]:
    """The system's own resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class Fetcher:
    """Gets files by URL, under guard. `permits` says which addresses may be spoken to; `seconds` bounds it all."""

    def __init__(
        self,
        resolver: Resolver = resolve,
        permits: Callable[[Address], bool] = is_public,
        *,
        tls: ssl.SSLContext | None = None,
        max_bytes: int = MAX_BYTES,
        seconds: float = SECONDS,
    ) -> None:
        self._resolver = resolver
        self._permits = permits
        self._tls = tls
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def fetch(self, remote: Mapping[str, str]) -> dict[str, tuple[str, bytes]]:
        """Media type and content of each URL; `remote` says which field of the request it stands in.

        Raises `ProviderError` (rejected, never sent) naming the field of the first that cannot be had.
        """
        if len(remote) > MAX_FILES:
            raise _refused(
                f"the request names more than {MAX_FILES} files to be fetched.", next(iter(remote.values()))
            )
        fetched: dict[str, tuple[str, bytes]] = {}
        left, until = self._max_bytes, asyncio.get_running_loop().time() + self._seconds
        for url, place in remote.items():
            try:
                async with asyncio.timeout_at(until):
                    fetched[url] = await self._followed(url, left)
            except TimeoutError:
                raise _refused(f"the files did not come within {self._seconds:g} s.", place) from None
            except _UnfitError as error:
                raise _refused(str(error), place) from error
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise _refused(f"the file cannot be fetched ({type(error).__name__}).", place) from error
            left -= len(fetched[url][1])
        return fetched

    async def _followed(self, url: str, limit: int) -> tuple[str, bytes]:
        place = _checked(URL(url))
        for _ in range(MAX_REDIRECTS + 1):
            found = await self._hop(place, limit)
            if isinstance(found, tuple):
                return found
            place = _checked(place.join(URL(found)))
        raise _UnfitError(f"the file is behind more than {MAX_REDIRECTS} redirects.")

    async def _hop(self, url: URL, limit: int) -> str | tuple[str, bytes]:
        """The file, or where it is said to be."""
        guard = _Guard(await self._addresses(url))
        connector = aiohttp.TCPConnector(
            resolver=guard, use_dns_cache=False, socket_factory=guard.socket, ssl=self._tls or True, force_close=True
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                requote_redirect_url=False,
            ) as session,
            session.get(url, allow_redirects=False, headers=_HEADERS) as response,
        ):
            if response.status in (301, 302, 303, 307, 308) and response.headers.get("location"):
                return response.headers["location"]
            if response.status != 200:
                raise _UnfitError(f"the file's server answered with status {response.status}.")
            return _media_type(response, url), await _read(response, limit)

    async def _addresses(self, url: URL) -> list[Address]:
        """Where the URL's host is; raises where any of it is not in public."""
        host, port = url.host or "", url.port or 0
        try:
            found = [ip_address(host)]
        except ValueError:
            found = [ip_address(each) for each in await self._resolver(host, port)]
        if not found or not all(self._permits(each) for each in found):
            raise _UnfitError("the file's address is not a public one.")
        return found


class _UnfitError(Exception):
    """Why a file is not taken; the words are the caller's to read."""


class _Guard(AbstractResolver):
    """Knows only the addresses that were checked, and lets no socket be opened to another."""

    def __init__(self, addresses: list[Address]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [self._result(each, host, port) for each in self._addresses]

    async def close(self) -> None:
        """Nothing is held."""

    def socket(self, info: Any) -> socket.socket:
        """Opens the socket of a connection; called with what is about to be connected to."""
        family, kind, protocol, _, address = info
        if ip_address(address[0]) not in self._addresses:
            raise _UnfitError("the file's address is not a public one.")
        opened = socket.socket(family, kind, protocol)
        opened.setblocking(False)
        return opened

    def _result(self, address: Address, host: str, port: int) -> ResolveResult:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        return ResolveResult(
            hostname=host, host=str(address), port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST
        )


def _checked(url: URL) -> URL:
    if url.scheme not in ("http", "https") or not url.host:
        raise _UnfitError("only http and https URLs are fetched.")
    if url.user is not None or url.password is not None:
        raise _UnfitError("a URL with a user or a password is not fetched.")
    return url


def _media_type(response: aiohttp.ClientResponse, url: URL) -> str:
    stated = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if stated in _VAGUE:
        stated = mimetypes.guess_type(url.path)[0] or stated
    if not stated.startswith(TYPES):
        raise _UnfitError(f"the file is {stated[:80]!r}, not an image, a PDF or audio.")
    if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise _UnfitError("the file came compressed, though it was asked for as it is.")
    return stated


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    if (response.content_length or 0) > limit:
        raise _UnfitError("the files are too large to be fetched.")
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > limit:
            raise _UnfitError("the files are too large to be fetched.")
    return bytes(data)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to, where it is a way of writing one."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _SIX_TO_FOUR:
        return address.sixtofour
    if address in _NAT64:
        return IPv4Address(address.packed[12:])
    return None


def _refused(why: str, place: str) -> ProviderError:
    return ProviderError(Kind.REJECTED, f"'{place}': {why}", status=400, param=place, sent=False)
