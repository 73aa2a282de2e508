"""The two carriers behind httpx's transport interface, over real sockets."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from providers.transport import Carrier, open_transport

from .server import plain, says, serving


@pytest.fixture(params=["http1", "httpx"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncBaseTransport]:
    opened = open_transport(request.param)
    yield opened
    await opened.aclose()


def get(url: str) -> httpx.Request:
    return httpx.Request("GET", url, extensions={"timeout": {"connect": 5.0, "pool": 5.0}})


async def body(transport: httpx.AsyncBaseTransport, url: str) -> bytes:
    response = await transport.handle_async_request(get(url))
    try:
        return await response.aread()
    finally:
        await response.aclose()


async def test_a_connection_is_used_again(transport: httpx.AsyncBaseTransport) -> None:
    """A second call pays for no second handshake."""
    async with serving(says(plain(b"{}"))) as server:
        for _ in range(3):
            assert await body(transport, server.url) == b"{}"
        assert server.connections == 1


async def test_no_call_waits_for_another_ones_connection(transport: httpx.AsyncBaseTransport) -> None:
    """More than aiohttp's 100 and httpx's 10 answers can be open at once."""
    async with serving(says(b"", plain(b"{}"), pause=0.3)) as server:
        await asyncio.gather(*(body(transport, server.url) for _ in range(130)))
        assert server.connections == 130


async def test_no_cookie_is_kept(transport: httpx.AsyncBaseTransport) -> None:
    """One caller's answer must not colour another one's request."""
    async with serving(says(plain(b"{}", headers="set-cookie: a=b\r\n"))) as server:
        await body(transport, server.url)
        await body(transport, server.url)
        assert b"cookie" not in server.requests[-1].lower()


async def test_no_redirect_is_followed(transport: httpx.AsyncBaseTransport) -> None:
    """A key must not be carried somewhere else."""
    async with serving(says(plain(b"", "302 Found", headers="location: /elsewhere\r\n"))) as server:
        response = await transport.handle_async_request(get(server.url))
        await response.aclose()
        assert response.status_code == 302
        assert len(server.requests) == 1


async def test_a_refused_connection_is_a_connect_error(
    transport: httpx.AsyncBaseTransport, unused_tcp_port: int
) -> None:
    """httpx-aiohttp alone would call it a time-out."""
    with pytest.raises(httpx.ConnectError):
        await transport.handle_async_request(get(f"http://127.0.0.1:{unused_tcp_port}/"))


async def test_an_unknown_host_is_a_connect_error(transport: httpx.AsyncBaseTransport) -> None:
    """`.invalid` never resolves (RFC 2606)."""
    with pytest.raises(httpx.ConnectError):
        await transport.handle_async_request(get("http://nowhere.invalid/"))


async def test_a_connection_lost_before_the_answer_is_no_connect_error(transport: httpx.AsyncBaseTransport) -> None:
    """The request may have arrived, and may cost money."""

    async def hang_up(writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with serving(hang_up) as server:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await transport.handle_async_request(get(server.url))


async def test_a_transport_that_was_never_used_can_be_closed(transport: httpx.AsyncBaseTransport) -> None:
    """Nothing is opened before the first call."""
    await transport.aclose()


def test_an_unknown_kind_is_refused() -> None:
    """A typing error in the settings is found at start."""
    wrong: Carrier = "curl"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="curl"):
        open_transport(wrong)
