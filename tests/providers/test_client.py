"""The client: one call, one answer, and what each failure means, over real sockets and both transports."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from pytest_httpx import HTTPXMock

from providers.catalog import ECHO, Provider
from providers.client import Client, Timeouts, Upstream
from providers.contract import Call, Kind, ProviderError
from providers.echo import EchoTransport
from providers.openai import OpenAIWire
from providers.transport import open_transport

from .server import STREAM_END, STREAM_HEAD, Server, breaks_off, chunk, plain, says, serving, stalls

ANSWER = orjson.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
)
WORD = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
TIMEOUTS = Timeouts(connect=2.0, first_byte=5.0, idle=5.0, total=20.0)


@pytest.fixture(params=["http1", "httpx"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def client(kind: Any) -> AsyncIterator[Client]:
    opened = Client(open_transport(kind), TIMEOUTS, max_answer_bytes=100_000)
    yield opened
    await opened.aclose()


@pytest.fixture
async def hasty(kind: Any) -> AsyncIterator[Client]:
    """A client that waits a quarter of a second for anything."""
    opened = Client(open_transport(kind), Timeouts(connect=0.25, first_byte=0.25, idle=0.25, total=10.0))
    yield opened
    await opened.aclose()


def at(url: str, **fields: Any) -> Provider:
    return Provider("acme", url, OpenAIWire(), api_key="secret", **fields)


def call(**fields: Any) -> Call:
    return Call(**{"model": "m", "document": {"messages": []}, **fields})


async def read(client: Client, server: Server, **fields: Any) -> Any:
    upstream = await client.open(at(server.url), call(**fields))
    return orjson.loads((await upstream.read()).body)


async def stream(client: Client, server: Server) -> bytes:
    upstream = await client.open(at(server.url), call(stream=True))
    try:
        return b"".join([each async for each in upstream.events()])
    finally:
        await upstream.aclose()


async def failure(awaited: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await awaited
    return caught.value


# --- answers ----------------------------------------------------------------------------------------------------


async def test_a_whole_answer_is_read_with_its_usage(client: Client) -> None:
    """The answer, and what it used."""
    async with serving(says(plain(ANSWER))) as server:
        upstream = await client.open(at(server.url), call())
        assert not upstream.streamed
        assert orjson.loads((await upstream.read()).body) == orjson.loads(ANSWER)
        assert upstream.usage.input_tokens == 3
        assert upstream.finished


async def test_the_request_says_what_it_has_to_and_no_more(client: Client) -> None:
    """The key, the type, no compression, no cookie; the host and the path of the row."""
    async with serving(says(plain(ANSWER))) as server:
        await read(client, server)
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        assert lines[0] == b"post /v1/chat/completions http/1.1"
        names = {line.partition(b":")[0] for line in lines[1:]}
        assert names - {b"connection"} == {
            *(b"host", b"accept", b"accept-encoding", b"user-agent"),
            *(b"authorization", b"content-type", b"content-length"),
        }
        assert b"authorization: bearer secret" in lines
        assert b"accept-encoding: identity" in lines
        assert orjson.loads(body) == {"messages": [], "model": "m"}


async def test_a_stream_is_read_as_it_comes_to_its_end(client: Client) -> None:
    """Whole events, the usage live, one terminator."""
    parts = [STREAM_HEAD, chunk(WORD[:10]), chunk(WORD[10:] + LAST), chunk(USAGE + DONE), STREAM_END]
    async with serving(says(*parts, pause=0.02)) as server:
        upstream = await client.open(at(server.url), call(stream=True))
        assert upstream.streamed
        events = [each async for each in upstream.events()]
        await upstream.aclose()
        assert b"".join(events) == WORD + LAST + DONE
        assert events[-1] == DONE
        assert upstream.usage.output_tokens == 2
        assert upstream.finished


async def test_the_connection_of_a_finished_stream_is_used_again(client: Client) -> None:
    """A stream that was read to its end leaves a connection behind."""
    async with serving(says(STREAM_HEAD, chunk(WORD + LAST + DONE), STREAM_END, pause=0.02)) as server:
        assert await stream(client, server) == await stream(client, server)
        assert server.connections == 1


async def test_a_provider_that_does_not_hang_up_after_the_terminator_delays_nothing(client: Client) -> None:
    """The terminator is the end, whatever the connection does."""
    async with serving(stalls(STREAM_HEAD, chunk(WORD + LAST + DONE))) as server:
        async with asyncio.timeout(2):
            assert await stream(client, server) == WORD + LAST + DONE


async def test_json_to_a_stream_request_is_read_whole(client: Client) -> None:
    """Some providers stream only some models."""
    async with serving(says(plain(ANSWER))) as server:
        upstream = await client.open(at(server.url), call(stream=True))
        assert not upstream.streamed
        assert orjson.loads((await upstream.read()).body) == orjson.loads(ANSWER)


@pytest.mark.parametrize(("name", "packed"), [("gzip", gzip.compress(ANSWER)), ("deflate", zlib.compress(ANSWER))])
async def test_a_compressed_answer_is_read_all_the_same(client: Client, name: str, packed: bytes) -> None:
    """We ask for plain bytes; not everybody listens."""
    async with serving(says(plain(packed, headers=f"content-encoding: {name}\r\n"))) as server:
        assert await read(client, server) == orjson.loads(ANSWER)


async def test_the_models_of_a_provider_can_be_listed(client: Client) -> None:
    """`GET /models`, with the key."""
    async with serving(says(plain(b'{"data":[{"id":"a"},"odd",{"id":"b"}]}'))) as server:
        assert await client.models(at(server.url), 1.0) == [{"id": "a"}, {"id": "b"}]
        assert server.requests[0].startswith(b"GET /v1/models ")
        assert b"Bearer secret" in server.requests[0]


async def test_a_local_provider_has_a_transport_of_its_own() -> None:
    """The echo goes through the same client as everybody."""
    client = Client(open_transport(), local={"echo": EchoTransport(0)})
    upstream = await client.open(
        ECHO, Call("echo", {"messages": [{"role": "user", "content": "hello you"}]}, stream=True)
    )
    out = b"".join([each async for each in upstream.events()])
    await upstream.aclose()
    assert b'"hello "' in out
    assert out.endswith(DONE)
    assert upstream.usage.output_tokens == 2
    assert [each["id"] for each in await client.models(ECHO, 1.0)] == ["echo"]
    await client.aclose()


async def test_it_speaks_to_what_pytest_httpx_stands_in_for(httpx_mock: HTTPXMock) -> None:
    """Whoever tests against this gateway can use the tools of httpx."""
    httpx_mock.add_response(url="https://acme.example/v1/chat/completions", method="POST", content=ANSWER)
    client = Client(open_transport("httpx"))
    upstream = await client.open(at("https://acme.example/v1"), call())
    assert orjson.loads((await upstream.read()).body) == orjson.loads(ANSWER)
    assert httpx_mock.get_requests()[0].headers["authorization"] == "Bearer secret"
    await client.aclose()


# --- failures before the answer ---------------------------------------------------------------------------------


async def test_a_refused_connection_cost_nothing(client: Client, unused_tcp_port: int) -> None:
    """No connection: nothing was sent."""
    error = await failure(client.open(at(f"http://127.0.0.1:{unused_tcp_port}"), call()))
    assert (error.kind, error.sent, error.status) == (Kind.UNREACHABLE, False, 0)


async def test_an_unknown_host_cost_nothing(client: Client) -> None:
    """`.invalid` never resolves (RFC 2606)."""
    error = await failure(client.open(at("http://nowhere.invalid/v1"), call()))
    assert (error.kind, error.sent) == (Kind.UNREACHABLE, False)


async def test_a_connection_in_the_clear_to_a_secure_address_cost_nothing(client: Client) -> None:
    """TLS that fails has carried no request."""
    async with serving(says(plain(ANSWER))) as server:
        error = await failure(client.open(at(server.url.replace("http:", "https:")), call()))
        assert (error.kind, error.sent) == (Kind.UNREACHABLE, False)


async def test_a_connection_lost_before_the_answer_may_have_cost_money(client: Client) -> None:
    """The request may have been read."""
    async with serving(breaks_off()) as server:
        error = await failure(client.open(at(server.url), call()))
        assert (error.kind, error.sent) == (Kind.BROKEN, True)


async def test_nothing_is_sent_twice(client: Client) -> None:
    """A second attempt is a second bill, also on a connection that was closed while it lay idle."""
    async with serving(breaks_off(plain(ANSWER))) as server:
        await read(client, server)
        error = await failure(client.open(at(server.url), call())) if server.hung_up.is_set() else None
        assert error is None or error.sent
        assert len(server.requests) <= 2


async def test_an_answer_that_does_not_begin_in_time_is_a_timeout(hasty: Client) -> None:
    """It may have cost money."""
    async with serving(stalls()) as server:
        error = await failure(hasty.open(at(server.url), call()))
        assert (error.kind, error.sent) == (Kind.TIMEOUT, True)


async def test_a_connection_that_is_not_made_in_time_cost_nothing() -> None:
    """The transport's own time-out of a connection."""

    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("slow", request=request)

    error = await failure(Client(httpx.MockTransport(slow)).open(at("http://h/v1"), call()))
    assert (error.kind, error.sent) == (Kind.TIMEOUT, False)


@pytest.mark.parametrize(
    ("status", "kind_of"),
    [("401 Unauthorized", Kind.CREDENTIALS), ("429 Slow Down", Kind.RATE_LIMITED), ("500 Oops", Kind.FAILED)],
)
async def test_an_error_status_is_an_error(client: Client, status: str, kind_of: Kind) -> None:
    """With the provider's own words and the time to wait."""
    answer = plain(b'{"error":{"message":"no"}}', status, headers="retry-after: 7\r\n")
    async with serving(says(answer)) as server:
        error = await failure(client.open(at(server.url), call()))
        assert (error.kind, error.message, error.retry_after) == (kind_of, "no", 7.0)
        assert error.status == int(status[:3])


async def test_an_error_of_any_size_is_read_only_so_far(client: Client) -> None:
    """What is read of a refusal is bounded."""
    async with serving(says(plain(b"x" * 10_000_000, "500 Oops"))) as server:
        error = await failure(client.open(at(server.url), call()))
        assert len(error.message) == 500


async def test_a_refusal_that_breaks_off_is_a_refusal(client: Client) -> None:
    """The status has said enough."""
    answer = plain(b'{"error":{"message":"no"}}', "429 Slow Down").replace(b"length: 26", b"length: 99")
    async with serving(breaks_off(answer)) as server:
        assert (await failure(client.open(at(server.url), call()))).kind is Kind.RATE_LIMITED


async def test_a_redirect_is_an_error_and_not_followed(client: Client) -> None:
    """The key goes nowhere else."""
    async with serving(says(plain(b"", "307 Moved", headers="location: /elsewhere\r\n"))) as server:
        assert (await failure(client.open(at(server.url), call()))).kind is Kind.BROKEN
        assert len(server.requests) == 1


async def test_models_that_cannot_be_listed_are_an_error(client: Client) -> None:
    """A refusal, and an answer that is no list."""
    async with serving(says(plain(b"nope", "404 Not Found"))) as server:
        assert (await failure(client.models(at(server.url), 1.0))).kind is Kind.NOT_FOUND
    async with serving(says(plain(b"nope"))) as server:
        assert (await failure(client.models(at(server.url), 1.0))).kind is Kind.BROKEN


# --- failures within the answer ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        plain(b"<html>Sign in to the hotel network</html>", kind="text/html"),
        plain(ANSWER[:40]),
        plain(b""),
        plain(b"not gzip", headers="content-encoding: gzip\r\n"),
        plain(gzip.compress(ANSWER)[:-12], headers="content-encoding: gzip\r\n"),
        plain(ANSWER, headers="content-encoding: br\r\n"),
    ],
)
async def test_what_is_no_answer_is_broken(client: Client, answer: bytes) -> None:
    """A page, half a document, nothing, and encodings that nobody asked for."""
    async with serving(says(answer)) as server:
        upstream = await client.open(at(server.url), call())
        assert (await failure(upstream.read())).kind is Kind.BROKEN


async def test_an_answer_that_breaks_off_is_broken(client: Client) -> None:
    """Fewer bytes than were announced."""
    async with serving(breaks_off(plain(ANSWER)[:-10])) as server:
        error = await failure(read(client, server))
        assert (error.kind, error.sent) == (Kind.BROKEN, True)


@pytest.mark.parametrize("encoding", ["", "content-encoding: gzip\r\n"])
async def test_an_answer_over_the_limit_is_broken(client: Client, encoding: str) -> None:
    """Ten megabytes, as they are or as a bomb of ten thousand bytes."""
    body = b" " * 10_000_000
    async with serving(says(plain(gzip.compress(body) if encoding else body, headers=encoding))) as server:
        assert "larger" in (await failure(read(client, server))).message


async def test_a_page_to_a_stream_request_is_broken(client: Client) -> None:
    """It is not read as a stream without events."""
    async with serving(says(plain(b"<html></html>", kind="text/html"))) as server:
        upstream = await client.open(at(server.url), call(stream=True))
        assert not upstream.streamed
        assert (await failure(upstream.read())).kind is Kind.BROKEN


@pytest.mark.parametrize("ending", [STREAM_END, b""])
async def test_a_stream_without_an_end_is_broken_after_what_had_come(client: Client, ending: bytes) -> None:
    """Ended in good order or cut: without a finish reason it is truncated."""
    async with serving(breaks_off(STREAM_HEAD, chunk(WORD), ending)) as server:
        upstream = await client.open(at(server.url), call(stream=True))
        out, error = await collected(upstream)
        assert (out, error.kind, error.sent) == (WORD, Kind.BROKEN, True)
        assert not upstream.finished


async def test_a_stream_that_is_cut_after_its_finish_reason_is_whole(client: Client) -> None:
    """Nothing of the answer is missing."""
    async with serving(breaks_off(STREAM_HEAD, chunk(WORD + LAST))) as server:
        assert await stream(client, server) == WORD + LAST + DONE


async def test_an_error_in_a_stream_is_raised_after_what_had_come(client: Client) -> None:
    """The caller gets the beginning, and the reason why there is no end."""
    bad = b'data: {"error":{"message":"boom","code":503}}\n\n'
    async with serving(says(STREAM_HEAD, chunk(WORD + bad), STREAM_END)) as server:
        out, error = await collected(await client.open(at(server.url), call(stream=True)))
        assert (out, error.kind, error.message) == (WORD, Kind.OVERLOADED, "boom")


async def test_a_stream_that_stalls_is_a_timeout(hasty: Client) -> None:
    """`idle` bounds each wait."""
    async with serving(stalls(STREAM_HEAD, chunk(WORD))) as server:
        out, error = await collected(await hasty.open(at(server.url), call(stream=True)))
        assert (out, error.kind) == (WORD, Kind.TIMEOUT)


async def test_a_slow_stream_is_no_timeout(hasty: Client) -> None:
    """Longer than `idle` in all, but never silent for so long."""
    parts = [STREAM_HEAD, *[chunk(WORD)] * 4, chunk(LAST), STREAM_END]
    async with serving(says(*parts, pause=0.1)) as server:
        assert await stream(hasty, server) == WORD * 4 + LAST + DONE


async def test_a_caller_who_reads_slowly_is_not_timed_out(hasty: Client) -> None:
    """What is timed is the provider, not the caller of this gateway."""
    async with serving(says(STREAM_HEAD, chunk(WORD), chunk(LAST), STREAM_END, pause=0.05)) as server:
        upstream = await hasty.open(at(server.url), call(stream=True))
        async for _ in upstream.events():
            await asyncio.sleep(0.6)
        await upstream.aclose()
        assert upstream.finished


async def test_a_call_has_a_total(kind: Any) -> None:
    """However lively the stream."""
    client = Client(open_transport(kind), Timeouts(idle=5.0, total=0.3))
    async with serving(says(STREAM_HEAD, *[chunk(WORD)] * 100, pause=0.05)) as server:
        out, error = await collected(await client.open(at(server.url), call(stream=True)))
        assert error.kind is Kind.TIMEOUT
        assert 0 < len(out) < 20 * len(WORD)
    await client.aclose()


async def collected(upstream: Upstream) -> tuple[bytes, ProviderError]:
    """What came, and the failure at its end."""
    out = b""
    try:
        async for each in upstream.events():
            out += each
    except ProviderError as error:
        return out, error
    finally:
        await upstream.aclose()
    raise AssertionError(f"no failure after {out!r}")


# --- leaving early ----------------------------------------------------------------------------------------------


async def test_closing_in_the_middle_hangs_up(client: Client) -> None:
    """Who pays by the token wants the provider to stop."""
    async with serving(stalls(STREAM_HEAD, chunk(WORD))) as server:
        upstream = await client.open(at(server.url), call(stream=True))
        events = upstream.events()
        await anext(events)
        await upstream.aclose()
        await upstream.aclose()
        async with asyncio.timeout(1):
            await server.hung_up.wait()


@pytest.mark.parametrize("parts", [(), (STREAM_HEAD,), (STREAM_HEAD, chunk(WORD))])
async def test_a_cancelled_task_hangs_up(client: Client, parts: tuple[bytes, ...]) -> None:
    """Before the head, before the first event, and in the middle."""
    async with serving(stalls(*parts)) as server:
        task = asyncio.ensure_future(stream(client, server))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(1):
            await server.hung_up.wait()


async def test_closing_while_another_task_reads_hangs_up(client: Client) -> None:
    """The exit stack of a request may close what its handler still reads."""
    async with serving(stalls(STREAM_HEAD, chunk(WORD))) as server:
        upstream = await client.open(at(server.url), call(stream=True))
        task = asyncio.ensure_future(collected(upstream))
        await asyncio.sleep(0.1)
        await upstream.aclose()
        async with asyncio.timeout(1):
            await server.hung_up.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
