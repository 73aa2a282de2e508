"""Our own carrier against providers that break, cut, mix up or withhold what they say, over real sockets."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.http1 import Http1Transport

from .server import STREAM_END, Script, Server, breaks_off, chunk, plain, says, serving, stalls


@pytest.fixture
async def transport() -> AsyncIterator[Http1Transport]:
    opened = Http1Transport()
    yield opened
    await opened.aclose()


def presenting(certificate: Path) -> ssl.SSLContext:
    """What a server needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def trusting(certificate: Path) -> ssl.SSLContext:
    """What a client needs."""
    return ssl.create_default_context(cafile=certificate)


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

    async def head_first(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n")
        await asyncio.sleep(0.02)
        writer.write(b"a secret")

    async with serving(head_first) as server:
        response = await transport.handle_async_request(asking(server.url))
        await asyncio.sleep(0.05)
        await response.aclose()
        assert (await ask(transport, server.url)).content == b"a secret"
        assert server.connections == 2


async def test_an_answer_that_came_with_its_head_is_read(transport: Http1Transport) -> None:
    """Nothing of it is left on the connection, whether or not its caller looks at it."""
    answers = iter([plain(b"a secret"), plain(b"another")])

    async def one_each(writer: asyncio.StreamWriter) -> None:
        writer.write(next(answers))

    async with serving(one_each) as server:
        response = await transport.handle_async_request(asking(server.url))
        assert (await ask(transport, server.url)).content == b"another"
        assert await response.aread() == b"a secret"
        assert server.connections == 1


UNTIL_IT_CLOSES = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"


async def test_an_answer_without_length_ends_with_its_connection(transport: Http1Transport) -> None:
    """RFC 9112, 6.3: there is no other sign of its end."""
    async with serving(breaks_off(UNTIL_IT_CLOSES + b"{}")) as server:
        assert (await ask(transport, server.url)).content == b"{}"


async def test_an_answer_without_length_does_not_end_where_we_close(transport: Http1Transport) -> None:
    """A gateway that shuts down leaves it broken off, never whole."""
    async with serving(stalls(UNTIL_IT_CLOSES + b"{}")) as server:
        response = await transport.handle_async_request(asking(server.url))
        reading = asyncio.ensure_future(response.aread())
        await asyncio.sleep(0.05)
        await transport.aclose()
        with pytest.raises(httpx.ReadError):
            await reading
        await response.aclose()


async def test_an_answer_without_length_does_not_end_with_a_reset(transport: Http1Transport) -> None:
    """What was lost on the way is not known."""

    async def reset(writer: asyncio.StreamWriter) -> None:
        writer.write(UNTIL_IT_CLOSES + b"{}")
        await asyncio.sleep(0.05)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with serving(reset) as server:
        with pytest.raises(httpx.ReadError):
            await ask(transport, server.url)


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
BROKEN = {
    "length and chunks": CHUNKED[:-2] + b"content-length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "a length below nothing": b"HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\nabc",
    "garbage before": b"\0\0" + plain(b"abc"),
    "no HTTP": b"hello",
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 3\n\nabc",
    "no size of a chunk": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000,
    "endless interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000,
}


@pytest.mark.parametrize("said", BROKEN.values(), ids=BROKEN)
async def test_what_is_no_http_is_refused(transport: Http1Transport, said: bytes) -> None:
    """At once, whatever may follow; and the next request is on another connection."""
    async with serving(stalls(said)) as server:
        for _ in range(2):
            with pytest.raises(httpx.RemoteProtocolError, match=r"HTTP/1\.1|over"):
                await ask(transport, server.url)
        assert server.connections == 2


CUT = {
    "a body": plain(b"abc")[:-1],
    "a chunk": CHUNKED + b"3\r\nab",
    "between chunks": CHUNKED + b"3\r\nabc\r\n",
    "the last chunk": CHUNKED + b"3\r\nabc\r\n0\r\n",
    "another encoding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc",
}


@pytest.mark.parametrize("said", CUT.values(), ids=CUT)
async def test_what_is_cut_is_not_whole(transport: Http1Transport, said: bytes) -> None:
    """Wherever the connection ends before the answer does."""
    async with serving(breaks_off(said)) as server:
        with pytest.raises(httpx.ReadError, match="before the answer ended"):
            await ask(transport, server.url)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 O", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_no_head_is_no_answer(transport: Http1Transport, said: bytes) -> None:
    """An interim answer is none either."""
    async with serving(breaks_off(said)) as server:
        with pytest.raises(httpx.RemoteProtocolError, match="without an answer"):
            await ask(transport, server.url)


BODILESS = [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"]


@pytest.mark.parametrize("said", BODILESS)
async def test_some_answers_have_no_body(transport: Http1Transport, said: bytes) -> None:
    """Whatever length they name; the next one is on the same connection."""
    async with serving(says(said)) as server:
        for _ in range(2):
            assert (await ask(transport, server.url)).content == b""
        assert server.connections == 1


async def test_interim_answers_are_passed_over(transport: Http1Transport) -> None:
    """Neither their status nor their headers are the answer's."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    async with serving(says(interim, plain(b"{}"), pause=0.02)) as server:
        for _ in range(2):
            response = await ask(transport, server.url)
            assert (response.status_code, response.content) == (200, b"{}")
            assert "link" not in response.headers
        assert server.connections == 1


@pytest.mark.parametrize("more", [b"garbage", plain(b"an answer to nobody"), b"HTTP/1.1 100 Continue\r\n\r\n"])
@pytest.mark.parametrize("pause", [0, 0.05])
async def test_what_follows_an_answer_is_nobodys(transport: Http1Transport, more: bytes, pause: float) -> None:
    """It is not the next one's: the connection is left, whether it comes with the answer or while nobody asks."""
    async with serving(says(plain(b"{}"), more, pause=pause)) as server:
        for number in range(1, 4):
            assert (await ask(transport, server.url)).content == b"{}"
            await asyncio.sleep(0.1)
            assert server.connections == number


@pytest.mark.parametrize("head", ["HTTP/1.0 200 OK\r\n", "HTTP/1.1 200 OK\r\nconnection: close\r\n"])
async def test_who_says_that_it_closes_is_not_asked_again(transport: Http1Transport, head: str) -> None:
    """Not even where it leaves the connection open."""
    async with serving(says(f"{head}content-length: 2\r\n\r\n{{}}".encode())) as server:
        for _ in range(2):
            assert (await ask(transport, server.url)).content == b"{}"
        assert server.connections == 2


async def test_a_connection_that_was_closed_while_idle_is_not_used(transport: Http1Transport) -> None:
    """Nor one on which nobody has asked for long."""

    async def answer_and_leave(writer: asyncio.StreamWriter) -> None:
        writer.write(plain(b"{}"))
        asyncio.get_running_loop().call_later(0.03, writer.close)

    async with serving(answer_and_leave) as server:
        for _ in range(2):
            assert (await ask(transport, server.url)).content == b"{}"
            await asyncio.sleep(0.1)


async def test_idle_connections_are_closed_after_a_while() -> None:
    """Before a load balancer does it in the middle of a request."""
    transport = Http1Transport(keepalive=0.1)
    async with serving(says(plain(b"{}"))) as server:
        await ask(transport, server.url)
        async with asyncio.timeout(2):
            await server.hung_up.wait()
    await transport.aclose()


async def test_trailers_are_no_headers(transport: Http1Transport) -> None:
    """What comes behind the body says nothing of how it was to be read."""
    said = CHUNKED + chunk(b"{}") + b"0\r\ncontent-type: text/html\r\n\r\n"
    async with serving(says(said[:-2], said[-2:], pause=0.02)) as server:
        for _ in range(2):
            response = await ask(transport, server.url)
            assert (response.content, response.headers.raw) == (b"{}", [(b"transfer-encoding", b"chunked")])
        assert server.connections == 1


@pytest.mark.parametrize("endless", [b"x: y\r\n", b"x: ", b"x"], ids=["fields", "values", "a name"])
async def test_endless_trailers_are_refused(transport: Http1Transport, endless: bytes) -> None:
    """They would fill the memory while no byte of a body comes."""
    async with serving(stalls(CHUNKED + chunk(b"{}") + b"0\r\n" + endless * 500_000)) as server:
        with pytest.raises(httpx.RemoteProtocolError, match="bytes of headers"):
            await ask(transport, server.url)


async def test_a_body_of_many_small_chunks_is_no_head(transport: Http1Transport) -> None:
    """Each piece of it begins the count of what is none anew."""
    async with serving(says(*[CHUNKED, *[chunk(b"x")] * 30_000, STREAM_END])) as server:
        assert (await ask(transport, server.url)).content == b"x" * 30_000


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_an_answer_before_the_whole_request_ends_its_connection(certificate: Path, secure: bool) -> None:
    """What of the body has not left would be taken for the next request."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(plain(b"{}", "413 Too Large"))

    writers: list[asyncio.StreamWriter] = []
    transport = Http1Transport(tls=trusting(certificate))
    tls = presenting(certificate) if secure else None
    async with await asyncio.start_server(refuse, "127.0.0.1", 0, ssl=tls) as server:
        url = f"http{'s' * secure}://localhost:{server.sockets[0].getsockname()[1]}/"
        for number in (1, 2):
            async with asyncio.timeout(5):
                response = await transport.handle_async_request(asking(url, b"x" * 8_000_000))
            assert (response.status_code, await response.aread()) == (413, b"{}")
            await response.aclose()
            assert len(writers) == number
        for writer in writers:
            writer.transport.abort()
    await transport.aclose()


@contextlib.asynccontextmanager
async def secured(certificate: Path, script: Script) -> AsyncIterator[tuple[Server, int]]:
    """A server that speaks TLS, and its port."""
    server = Server(script)
    async with await asyncio.start_server(server.answer, "127.0.0.1", 0, ssl=presenting(certificate)) as listening:
        yield server, listening.sockets[0].getsockname()[1]


async def test_tls_is_spoken_with_who_has_the_name(certificate: Path) -> None:
    """Large answers come whole, and the connection is used again."""
    transport = Http1Transport(tls=trusting(certificate))
    text = b"x" * 3_000_000
    async with secured(certificate, says(plain(text))) as (server, port):
        for _ in range(3):
            assert (await ask(transport, f"https://localhost:{port}/")).content == text
        assert server.connections == 1
        await transport.aclose()


@pytest.mark.parametrize(("host", "known"), [("127.0.0.1", True), ("localhost", False)], ids=["name", "issuer"])
async def test_a_certificate_is_looked_at(certificate: Path, host: str, known: bool) -> None:
    """Another name's, and one of an unknown issuer, are no connection; nothing is sent and nothing stays open."""
    transport = Http1Transport(tls=trusting(certificate) if known else None)
    async with secured(certificate, says(plain(b"{}"))) as (server, port):
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await transport.handle_async_request(asking(f"https://{host}:{port}/"))
        await asyncio.sleep(0.05)
        assert (server.requests, transport.connections) == ([], 0)
    await transport.aclose()


async def test_who_speaks_no_tls_is_no_connection() -> None:
    """Neither one who answers in plain text, nor one who says nothing at all."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if not silent:
            writer.write(plain(b"{}"))
        await reader.read()
        writer.close()

    transport = Http1Transport()
    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/"
        silent = False
        with pytest.raises(httpx.ConnectError):
            await transport.handle_async_request(asking(url))
        silent = True
        with pytest.raises(httpx.ConnectTimeout):
            await transport.handle_async_request(asking(url, connect=0.1))
        await asyncio.sleep(0.05)
        assert transport.connections == 0
    await transport.aclose()


async def test_an_answer_over_tls_that_is_cut_is_not_whole(certificate: Path) -> None:
    """As without it."""
    transport = Http1Transport(tls=trusting(certificate))
    async with secured(certificate, breaks_off(plain(b"abc")[:-1])) as (_, port):
        with pytest.raises(httpx.ReadError):
            await ask(transport, f"https://localhost:{port}/")
        await asyncio.sleep(0.05)
        assert transport.connections == 0
    await transport.aclose()


async def test_a_slow_reader_holds_the_provider_back(transport: Http1Transport) -> None:
    """An answer is not piled up in memory, and all of it comes in the end."""
    sent = 0

    async def pour(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(CHUNKED)
        for _ in range(500):
            writer.write(chunk(b"x" * 100_000))
            await writer.drain()
            sent += 100_000
        writer.write(STREAM_END)

    async with serving(pour) as server:
        response = await transport.handle_async_request(asking(server.url))
        await asyncio.sleep(0.3)
        assert sent < 30_000_000
        async with asyncio.timeout(10):
            assert len(await response.aread()) == 50_000_000
        await response.aclose()
        assert len((await ask(transport, server.url)).content) == 50_000_000
        assert server.connections == 1


@pytest.mark.parametrize("said", [b"", plain(b"abc")[:-1]], ids=["head", "body"])
async def test_who_is_cancelled_leaves_no_connection(transport: Http1Transport, said: bytes) -> None:
    """Neither while the head is awaited nor within the body: the provider sees it at once."""
    async with serving(stalls(said)) as server:
        asked = asyncio.ensure_future(ask(transport, server.url))
        await asyncio.sleep(0.1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        async with asyncio.timeout(2):
            await server.hung_up.wait()


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nx: y", "a\rb"])
async def test_a_header_cannot_begin_another(transport: Http1Transport, value: str) -> None:
    """Nothing is sent."""
    async with serving(says(plain(b"{}"))) as server:
        request = asking(server.url)
        request.headers["authorization"] = value
        with pytest.raises(httpx.LocalProtocolError):
            await transport.handle_async_request(request)
        assert not server.requests


class Names(asyncio.SelectorEventLoop):
    """A loop whose resolver takes `pause` seconds, says what `answers` say, and remembers what it was asked."""

    def __init__(self, *answers: object, pause: float = 0.0) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[object] = []
        self.pause = pause

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        self.asked.append(host)
        await asyncio.sleep(self.pause)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return await super().getaddrinfo(answer, port, type=socket.SOCK_STREAM)


def resolved(names: Names, main: Callable[[Http1Transport, str], Awaitable[None]]) -> None:
    """Run `main` with a transport and the port of a server that answers."""

    async def run() -> None:
        transport = Http1Transport()
        async with serving(says(plain(b"{}"))) as server:
            await main(transport, server.url.rpartition(":")[2])
        await transport.aclose()

    with asyncio.Runner(loop_factory=lambda: names) as runner:
        runner.run(run())


def test_a_name_is_asked_for_once() -> None:
    """However many wait for it, and not again for a while."""
    names = Names("127.0.0.1", pause=0.05)

    async def main(transport: Http1Transport, port: str) -> None:
        for _ in range(2):
            await asyncio.gather(*(ask(transport, f"http://provider:{port}") for _ in range(5)))

    resolved(names, main)
    assert names.asked == ["provider"]


def test_a_failed_look_up_is_not_kept() -> None:
    """Nor one that fails after all who waited for it had gone."""
    names = Names(OSError("away"), "127.0.0.1", pause=0.1)

    async def main(transport: Http1Transport, port: str) -> None:
        with pytest.raises(httpx.ConnectTimeout):
            await transport.handle_async_request(asking(f"http://provider:{port}", connect=0.05))
        await asyncio.sleep(0.1)
        assert (await ask(transport, f"http://provider:{port}")).content == b"{}"

    resolved(names, main)
    assert len(names.asked) == 2


def test_all_who_wait_for_a_name_learn_that_there_is_none() -> None:
    """And the next one asks again."""
    names = Names(OSError("no such name"), "127.0.0.1", pause=0.05)

    async def main(transport: Http1Transport, port: str) -> None:
        url = f"http://provider:{port}"
        failures = await asyncio.gather(*(ask(transport, url) for _ in range(3)), return_exceptions=True)
        assert [type(failure) for failure in failures] == [httpx.ConnectError] * 3
        assert (await ask(transport, url)).content == b"{}"

    resolved(names, main)


def test_an_international_name_is_looked_up_as_it_is_written_in_the_url() -> None:
    """Python's own codec makes "fass" of "faß", which is somebody else."""
    names = Names("127.0.0.1")

    async def main(transport: Http1Transport, port: str) -> None:
        await ask(transport, f"http://faß.example:{port}")

    resolved(names, main)
    assert names.asked == ["xn--fa-hia.example"]


async def test_what_can_be_no_name_is_a_connect_error(transport: Http1Transport) -> None:
    """An empty label is what a typing error in a base URL makes."""
    with pytest.raises(httpx.ConnectError):
        await transport.handle_async_request(asking("http://a..example/"))


def test_an_address_of_ip_version_6_is_one() -> None:
    """Without the brackets that a URL has it in."""
    names = Names("127.0.0.1")

    async def main(transport: Http1Transport, port: str) -> None:
        await ask(transport, f"http://[::1]:{port}")

    resolved(names, main)
    assert names.asked == ["::1"]
