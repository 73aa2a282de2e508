"""Our own carrier against providers that break, cut, mix up or withhold what they say, over real sockets."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from providers.http1 import Http1Transport

from .server import plain, says, serving


@pytest.fixture
async def transport() -> AsyncIterator[Http1Transport]:
    opened = Http1Transport()
    yield opened
    await opened.aclose()


def asking(url: str, body: bytes = b"", connect: float = 5.0) -> httpx.Request:
    method = "POST" if body else "GET"
    return httpx.Request(method, url, content=body, extensions={"timeout": {"connect": connect}})


async def ask(transport: Http1Transport, url: str) -> httpx.Response:
    """The whole answer, read within seconds."""
    async with asyncio.timeout(5):
        response = await transport.handle_async_request(asking(url))
        try:
            await response.aread()
        finally:
            await response.aclose()
    return response


async def test_what_one_caller_left_unread_reaches_no_other(transport: Http1Transport) -> None:
    """An answer that had come whole when its reader left is not the beginning of the next one."""
    async with serving(says(plain(b"a secret"))) as server:
        response = await transport.handle_async_request(asking(server.url))
        await asyncio.sleep(0.05)
        await response.aclose()
        assert (await ask(transport, server.url)).content == b"a secret"
        assert server.connections == 2
