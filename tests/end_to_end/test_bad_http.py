"""Broken, slow and oversized HTTP, byte by byte over raw sockets: a clear answer or a closed connection, soon."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import psutil
import pytest
import pytest_asyncio

from aigate.stores.keys import create_key
from tests.running import CHAT, RunningGateway, run_gateway, settings_of
from tests.upstream import FakeProvider

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEADER_TIMEOUT = 1.0
BODY_TIMEOUT = 1.0
LIMIT = 1_000_000
BODY = json.dumps(CHAT).encode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    postgres_url: str, template: str, redis_url: str
) -> AsyncIterator[tuple[RunningGateway, FakeProvider]]:
    """One gateway with short times and small limits, and its provider, for all tests of this file."""
    maker = await asyncpg.connect(postgres_url)
    await maker.execute(f'create database "bad_http" template "{template}"')
    await maker.close()
    async with FakeProvider() as provider:
        settings = settings_of(
            postgres_url.replace("/aigate?", "/bad_http?"),
            redis_url,
            provider.base_url,
            AIGATE_HEADER_TIMEOUT=str(HEADER_TIMEOUT),
            AIGATE_BODY_TIMEOUT=str(BODY_TIMEOUT),
            AIGATE_BODY_BYTES=str(LIMIT),
        )
        async with run_gateway(settings) as running:
            yield running, provider


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared: tuple[RunningGateway, FakeProvider]) -> AsyncIterator[RunningGateway]:
    """A gateway at which nothing must have been called and nothing written once the test is over."""
    running, provider = shared
    provider.asked.clear()
    await running.rows("delete from calls")
    yield running
    assert await running.calls() == []
    assert provider.calls == []


@pytest_asyncio.fixture(loop_scope="module")
async def open_gateway(shared: tuple[RunningGateway, FakeProvider]) -> RunningGateway:
    """The same gateway, for a test that calls the provider."""
    running, provider = shared
    provider.asked.clear()
    await running.rows("delete from calls")
    return running


@dataclass
class Peer:
    """One raw connection to the gateway."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self, within: float = 5.0) -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers and body."""
        async with asyncio.timeout(within):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            status = int(first.split()[1])
            return status, headers, await self.reader.readexactly(int(headers.get("content-length", "0")))

    async def refused(self, status: int, code: str, within: float = 5.0) -> dict[str, str]:
        """The headers of an OpenAI-shaped error of this status and code."""
        found, headers, body = await self.answer(within)
        assert (found, headers["content-type"]) == (status, "application/json")
        error = json.loads(body)["error"]
        assert (error["code"], bool(error["message"]), "type" in error, "param" in error) == (code, True, True, True)
        return headers

    async def closed(self, within: float = 3.0) -> bytes:
        """What comes until the gateway closes the connection."""
        async with asyncio.timeout(within):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def send(self, data: bytes) -> None:
        self.writer.write(data)


@asynccontextmanager
async def connected(gateway: RunningGateway, data: bytes = b"") -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(gateway.url).port)
    try:
        writer.write(data)
        yield Peer(reader, writer)
    finally:
        writer.close()


def head(gateway: RunningGateway, *lines: str, first: str = "POST /v1/chat/completions HTTP/1.1") -> bytes:
    """A request's head with a valid key."""
    return "\r\n".join([first, "host: x", f"authorization: Bearer {gateway.key}", *lines, "", ""]).encode()


# --- the body -------------------------------------------------------------------------------------------------


async def test_too_long_by_its_length(gateway: RunningGateway) -> None:
    """A body that says it is too long is refused before a byte of it has come."""
    async with connected(gateway, head(gateway, f"content-length: {LIMIT + 1}")) as peer:
        await peer.refused(413, "caller_body_too_large", within=BODY_TIMEOUT / 2)


@pytest.mark.parametrize("length", [str(10**30), "9" * 400])
async def test_absurd_length(gateway: RunningGateway, length: str) -> None:
    """A length that fits into no integer of a machine is no reason to fall over."""
    async with connected(gateway, head(gateway, f"content-length: {length}")) as peer:
        status, _, _ = await peer.answer()
        assert status in (400, 413)


async def test_too_long_in_chunks(gateway: RunningGateway) -> None:
    """A body that does not say how long it is, is refused once it is too long; 200 MB of it stay out of memory."""
    process = psutil.Process()
    before, started = process.memory_info().rss, time.perf_counter()
    piece = b"%x\r\n%s\r\n" % (1 << 16, b" " * (1 << 16))
    async with connected(gateway, head(gateway, "transfer-encoding: chunked")) as peer:
        with pytest.raises(ConnectionError):
            await _push(peer, piece, 200 * 16)
    assert process.memory_info().rss - before < 64 << 20
    assert time.perf_counter() - started < 5


async def test_refusal_of_a_long_body_can_be_read(gateway: RunningGateway) -> None:
    """Who sends a body that is somewhat too long reads why it was refused, not a broken connection."""
    response = await gateway.client.post("/v1/chat/completions", content=b" " * (3 * LIMIT))
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "caller_body_too_large"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/nowhere"])
async def test_too_long_wherever(gateway: RunningGateway, path: str) -> None:
    """The bound holds for every path, not only for the one that wants a body."""
    response = await gateway.client.request("GET", path, content=b" " * (LIMIT + 1))
    assert response.status_code == 413


async def test_body_shorter_than_its_length(gateway: RunningGateway) -> None:
    """A body that does not come is given up, and so is its connection."""
    async with connected(gateway, head(gateway, f"content-length: {len(BODY) + 1}") + BODY) as peer:
        await peer.refused(408, "caller_body_timeout", within=BODY_TIMEOUT * 3)
        assert await peer.closed() == b""


async def test_slow_body(gateway: RunningGateway) -> None:
    """A body that comes byte by byte has no more time than one that does not come."""
    async with connected(gateway, head(gateway, f"content-length: {len(BODY)}")) as peer:
        dribble = asyncio.create_task(_dribble(peer, BODY, 0.05))
        await peer.refused(408, "caller_body_timeout", within=BODY_TIMEOUT * 3)
        await peer.closed()
        dribble.cancel()


async def test_body_longer_than_its_length(open_gateway: RunningGateway) -> None:
    """What follows a body is not part of it, and no request either."""
    sent = head(open_gateway, f"content-length: {len(BODY)}") + BODY + b"}}}}\r\n\r\n"
    async with connected(open_gateway, sent) as peer:
        answers = await peer.closed()
    assert answers.count(b"HTTP/1.1 400") == 1
    assert len(await open_gateway.calls()) <= 1


async def test_client_leaves_amid_its_body(gateway: RunningGateway) -> None:
    """A client that leaves before its body is complete has ordered nothing."""
    async with connected(gateway, head(gateway, f"content-length: {len(BODY)}") + BODY[:20]) as peer:
        await asyncio.sleep(0.05)
        peer.writer.close()
    await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "lines",
    [
        ("content-length: 10", "transfer-encoding: chunked"),
        ("transfer-encoding: chunked", "content-length: 10"),
        ("content-length: 10", "content-length: 20"),
        ("content-length: 10", "content-length: 10"),
        ("content-length: -1",),
        ("content-length: +10",),
        ("content-length: 0x10",),
        ("content-length: ten",),
        ("transfer-encoding: gzip",),
        ("transfer-encoding: chunked, identity",),
        ("x-bad\x01name: 1",),
        ("no colon",),
        ("x-folded: 1", " and on"),
    ],
    ids=" & ".join,
)
async def test_ambiguous_head(gateway: RunningGateway, lines: tuple[str, ...]) -> None:
    """A head that two readers could understand in two ways (request smuggling) ends its connection."""
    async with connected(gateway, head(gateway, *lines) + b"0\r\n\r\n" + b" " * 20) as peer:
        await peer.refused(400, "caller_invalid_request")
        assert await peer.closed() == b""


@pytest.mark.parametrize("size", [b"zz", b"-1", b"fffffffffffffffff", b""])
async def test_bad_chunk(gateway: RunningGateway, size: bytes) -> None:
    """A chunk without a size ends the connection."""
    async with connected(gateway, head(gateway, "transfer-encoding: chunked") + size + b"\r\nabc\r\n") as peer:
        assert b" 400 " in (await peer.closed()).split(b"\r\n")[0]


async def test_gzip_bomb(gateway: RunningGateway) -> None:
    """A compressed body is refused by its header, before it is read, and never unpacked."""
    bomb = gzip.compress(b" " * 50_000_000)
    lines = (f"content-length: {len(bomb)}", "content-encoding: gzip")
    async with connected(gateway, head(gateway, *lines)) as peer:
        await peer.refused(415, "caller_unsupported_encoding", within=BODY_TIMEOUT / 2)


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, identity", "X"])
async def test_other_encodings(gateway: RunningGateway, encoding: str) -> None:
    """No other encoding is read either."""
    response = await gateway.client.post("/v1/chat/completions", content=BODY, headers={"content-encoding": encoding})
    assert response.status_code == 415


# --- the head -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [b"", b"P", b"POST /v1/chat/completions HTTP/1.1\r\n", b"GET /health HTTP/1.1\r\nhost: x\r\nx-slow: 1"],
    ids=["nothing", "a-byte", "first-line", "amid-a-header"],
)
async def test_head_does_not_come(gateway: RunningGateway, sent: bytes) -> None:
    """A connection on which no request comes is answered and closed in time."""
    async with connected(gateway, sent) as peer:
        await peer.refused(408, "caller_invalid_request", within=HEADER_TIMEOUT * 3)
        assert await peer.closed() == b""


async def test_slow_head(gateway: RunningGateway) -> None:
    """A head that comes byte by byte has no more time than one that does not come (Slowloris)."""
    async with connected(gateway) as peer:
        dribble = asyncio.create_task(_dribble(peer, b"GET / HTTP/1.1\r\nx-slow: " + b"a" * 1000, 0.02))
        await peer.refused(408, "caller_invalid_request", within=HEADER_TIMEOUT * 3)
        dribble.cancel()


async def test_second_head_does_not_come(gateway: RunningGateway) -> None:
    """The same holds for the second request of a connection, once it has begun."""
    async with connected(gateway, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n") as peer:
        assert (await peer.answer())[0] == 200
        peer.send(b"GET /hea")
        await peer.refused(408, "caller_invalid_request", within=HEADER_TIMEOUT * 3)


async def test_refused_body_does_not_come(gateway: RunningGateway) -> None:
    """The rest of a body that was refused has little time: nobody holds a connection by it, key or none."""
    async with connected(
        gateway, b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
    ) as peer:
        await peer.refused(401, "caller_invalid_api_key")
        dribble = asyncio.create_task(_dribble(peer, b" " * 90, 0.05))
        await peer.closed(within=HEADER_TIMEOUT * 3)
        dribble.cancel()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /health HTTP/1.1\r\nx-long: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"x-many: a\r\n" * 10_000 + b"\r\n",
        b"GET /health HTTP/1.1\r\n" + b"a:\r\n" * 50_000,
        b"GET /health?" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 70_000,
    ],
    ids=["long", "many", "many-short", "url", "unfinished"],
)
async def test_large_head(gateway: RunningGateway, sent: bytes) -> None:
    """A head over 64 kB is refused and its connection closed."""
    async with connected(gateway, sent) as peer:
        await peer.refused(431, "caller_invalid_request")


async def test_endless_header(gateway: RunningGateway) -> None:
    """A header without an end does not fill the memory."""
    process = psutil.Process()
    before = process.memory_info().rss
    async with connected(gateway, b"GET / HTTP/1.1\r\nx-endless: ") as peer:
        with pytest.raises(ConnectionError):
            await _push(peer, b"a" * (1 << 16), 1600)
    assert process.memory_info().rss - before < 64 << 20


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 32,
        b"hello there\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"get /health HTTP/1.1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\nx-nul: a\x00b\r\n\r\n",
    ],
    ids=["bytes", "tls", "text", "short", "version", "lower", "non-ascii", "url", "connect", "http2", "nul"],
)
async def test_garbage(gateway: RunningGateway, sent: bytes) -> None:
    """What is no HTTP/1 request is answered in JSON and the connection closed; the gateway lives on."""
    async with connected(gateway, sent) as peer:
        await peer.refused(400, "caller_invalid_request")
        assert await peer.closed() == b""
    assert (await gateway.client.get("/health")).status_code == 200


async def test_upgrade(gateway: RunningGateway) -> None:
    """An upgrade that is not offered is ignored, as HTTP wants it."""
    upgrade = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: {}\r\n\r\n"
    for name in ("websocket", "h2c"):
        async with connected(gateway, upgrade.format(name).encode()) as peer:
            assert (await peer.answer())[0] == 200


# --- what HTTP allows -----------------------------------------------------------------------------------------


async def test_http_1_0(open_gateway: RunningGateway) -> None:
    """An HTTP/1.0 client gets its answer and the end of the connection."""
    sent = head(open_gateway, f"content-length: {len(BODY)}", first="POST /v1/chat/completions HTTP/1.0") + BODY
    async with connected(open_gateway, sent) as peer:
        status, headers, body = await peer.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert json.loads(body)["choices"]
        assert await peer.closed() == b""


async def test_pipelining(open_gateway: RunningGateway) -> None:
    """Requests sent without waiting are answered in their order."""
    call = head(open_gateway, f"content-length: {len(BODY)}") + BODY
    health = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    async with connected(open_gateway, call + health + call) as peer:
        answers = [await peer.answer() for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 200, 200]
    assert json.loads(answers[1][2])["service"] == "aigate"
    assert len(await open_gateway.calls()) == 2


async def test_expect_continue(open_gateway: RunningGateway) -> None:
    """A client that asks first is told to go on."""
    async with connected(
        open_gateway, head(open_gateway, f"content-length: {len(BODY)}", "expect: 100-continue")
    ) as peer:
        assert (await peer.reader.readuntil(b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.send(BODY)
        assert (await peer.answer())[0] == 200


async def test_expect_continue_too_long(gateway: RunningGateway) -> None:
    """A client that asks first is spared sending what will be refused."""
    async with connected(gateway, head(gateway, f"content-length: {LIMIT + 1}", "expect: 100-continue")) as peer:
        await peer.refused(413, "caller_body_too_large")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/chat/completions", "POST"),
        ("OPTIONS", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models", "GET"),
        ("PATCH", "/v1/models/openai:gpt-4o", "GET"),
        ("POST", "/v1/models", "GET"),
        ("POST", "/v1/usage/", "GET"),
        ("GET", "/v1/embeddings/", "POST"),
    ],
)
async def test_wrong_method(gateway: RunningGateway, method: str, path: str, allowed: str) -> None:
    """The wrong method is told the right one."""
    response = await gateway.client.request(method, path, content=b"{}")
    assert response.status_code == 405
    assert response.headers["allow"] == allowed
    assert response.json()["error"]["code"] == "caller_method_not_allowed"


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/"])
async def test_wrong_method_of_operations(gateway: RunningGateway, path: str) -> None:
    """Operations are asked by GET, and say so in the same form."""
    response = await gateway.client.post(path)
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
    error = response.json()["error"]
    assert (error["code"], error["type"], error["param"]) == (
        "caller_method_not_allowed",
        "invalid_request_error",
        None,
    )


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/nowhere", "/v1", "/v1/", "/v2/chat/completions", "/v1/%00", "/%ff%fe"])
async def test_unknown_path(gateway: RunningGateway, method: str, path: str) -> None:
    """There is nothing, and the answer says so in JSON."""
    response = await gateway.client.request(method, path, content=b"{}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "caller_unknown_path"


@pytest.mark.parametrize("path", ["/v1/%63hat/completions", "/v1/chat%2Fcompletions"])
async def test_escaped_path(gateway: RunningGateway, path: str) -> None:
    """Another spelling is no path of ours, and is named as it was sent: POST is not told to use POST."""
    response = await gateway.client.post(path, content=b"{}")
    assert response.status_code == 404
    assert response.json()["error"]["message"] == f"There is nothing at POST {path}."


async def test_path_without_version(gateway: RunningGateway) -> None:
    """The usual mistake, a base_url without /v1, is named."""
    response = await gateway.client.post("/chat/completions", json=CHAT)
    assert response.status_code == 404
    assert "/v1/chat/completions" in response.json()["error"]["message"]


async def test_head(gateway: RunningGateway) -> None:
    """`HEAD /` is what SDKs and load balancers knock with."""
    response = await gateway.client.head("/")
    assert (response.status_code, response.content) == (200, b"")


# --- the key --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"authorization": "Bearer sk-proj-something"},
        {"authorization": "Bearer aig__"},
        {"authorization": "Bearer aig_0123456789abcdef_secret"},
        {"authorization": "Bearer aig_'; drop table api_keys; --_x"},
        {"authorization": "Bearer " + "x" * 10_000},
        {"authorization": "Bearer schlüssel".encode()},
        {"authorization": b"Bearer \xff\xfe"},
        {"x-api-key": ""},
        {"x-api-key": "nothing"},
        {"x-api-key": b"\xc3\xbc"},
    ],
    ids=lambda headers: str(headers)[:50],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/nowhere"])
async def test_no_valid_key(gateway: RunningGateway, path: str, headers: dict[str, Any]) -> None:
    """Without a valid key nothing is done, and the answer says how to send one, not what was wrong with it."""
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as stranger:
        response = await stranger.post(path, content=BODY, headers=headers)
    assert response.status_code == 401
    error = response.json()["error"]
    assert (error["code"], error["type"]) == ("caller_invalid_api_key", "authentication_error")
    assert response.headers["www-authenticate"] == 'Bearer realm="aigate"'
    assert response.headers["x-should-retry"] == "false"


async def test_stranger_s_body_is_not_read(gateway: RunningGateway) -> None:
    """A stranger is refused before the body has come."""
    async with connected(
        gateway, b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"
    ) as peer:
        await peer.refused(401, "caller_invalid_api_key", within=BODY_TIMEOUT / 2)


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER  {}"])
async def test_bearer(open_gateway: RunningGateway, form: str) -> None:
    """The scheme's letters may be of either case (RFC 9110)."""
    assert (await open_gateway.chat(authorization=form.format(open_gateway.key))).status_code == 200


async def test_x_api_key(open_gateway: RunningGateway) -> None:
    """The header of other SDKs is as good."""
    async with httpx.AsyncClient(base_url=open_gateway.url, trust_env=False) as client:
        response = await client.post("/v1/chat/completions", json=CHAT, headers={"x-api-key": open_gateway.key})
    assert response.status_code == 200


async def test_both_headers(open_gateway: RunningGateway) -> None:
    """With both headers it is `Authorization` that counts, valid or not."""
    other = await create_key(open_gateway.database, "other")
    assert (await open_gateway.chat(x_api_key="nothing")).status_code == 200
    response = await open_gateway.chat(authorization="Bearer nothing", x_api_key=other)
    assert response.status_code == 401


async def _dribble(peer: Peer, data: bytes, pause: float) -> None:
    for byte in data:
        peer.send(bytes([byte]))
        await asyncio.sleep(pause)


async def _push(peer: Peer, piece: bytes, times: int) -> None:
    for _ in range(times):
        peer.send(piece)
        await peer.writer.drain()
