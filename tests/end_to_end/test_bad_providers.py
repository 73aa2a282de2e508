"""Providers that fail in every way, over real sockets: whose fault it was, what it cost, and nothing that hangs."""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from tests.running import RunningGateway, eventually, run_gateway, settings_of
from tests.upstream import (
    ANSWER,
    Asked,
    Behaviour,
    FakeProvider,
    answer,
    answer_json,
    chunk,
    raw,
    silent,
    sse,
    stream,
    words,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIRST_BYTE, IDLE, TOTAL, KEEP_ALIVE = 0.5, 0.3, 1.0, 0.15
LARGEST = 100_000
BROKEN = "provider_invalid_response"
SECRET = "sk-provider-secret"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    postgres_url: str, template: str, redis_url: str
) -> AsyncIterator[tuple[RunningGateway, FakeProvider]]:
    """One gateway with short times, and its provider, for all tests of this file."""
    maker = await asyncpg.connect(postgres_url)
    await maker.execute(f'create database "bad_providers" template "{template}"')
    await maker.close()
    async with FakeProvider() as provider:
        settings = settings_of(
            postgres_url.replace("/aigate?", "/bad_providers?"),
            redis_url,
            provider.base_url,
            AIGATE_UPSTREAM_FIRST_BYTE_TIMEOUT=str(FIRST_BYTE),
            AIGATE_UPSTREAM_IDLE_TIMEOUT=str(IDLE),
            AIGATE_UPSTREAM_TOTAL_TIMEOUT=str(TOTAL),
            AIGATE_UPSTREAM_ANSWER_BYTES=str(LARGEST),
            AIGATE_STREAM_KEEP_ALIVE=str(KEEP_ALIVE),
            DEEPSEEK_API_KEY="sk-another",
            DEEPSEEK_BASE_URL=f"http://127.0.0.1:{_closed_port()}/v1",
            GROQ_API_KEY="sk-another",
            GROQ_BASE_URL="http://no-such-host.invalid/v1",
        )
        async with run_gateway(settings) as running:
            await running.rows(
                "insert into price_rules (provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok) "
                "values ('deepseek', '*', 1, 1), ('groq', '*', 1, 1)"
            )
            yield running, provider


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared: tuple[RunningGateway, FakeProvider]) -> RunningGateway:
    running, fake = shared
    fake.asked.clear()
    fake.script.clear()
    await running.rows("delete from calls")
    return running


@pytest.fixture
def provider(shared: tuple[RunningGateway, FakeProvider]) -> FakeProvider:
    return shared[1]


async def row(gateway: RunningGateway) -> dict[str, Any]:
    """The one call of this test as the ledger has it."""
    (found,) = await gateway.calls()
    return dict(found)


def refusal(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json"), response.text
    error = response.json()["error"]
    assert (error["code"], bool(error["message"]), "type" in error, "param" in error) == (code, True, True, True)
    return dict(error)


def events(response: httpx.Response) -> list[Any]:
    """The documents of a stream, and `[DONE]` as it is; comments left out."""
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    found = [part.removeprefix("data: ") for part in response.text.split("\n\n") if part.startswith("data: ")]
    return [each if each == "[DONE]" else json.loads(each) for each in found]


# --- answers in one piece -------------------------------------------------------------------------------------

HTML = b"<html><head><title>502 Bad Gateway</title></head><body><script>x()</script>nginx</body></html>"
WHOLE = json.dumps(ANSWER).encode()
CUT = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(WHOLE) + WHOLE[:50]


@pytest.mark.parametrize(
    ("behaviour", "status", "code", "retry", "state"),
    [
        pytest.param(answer(200, HTML, "text/html"), 502, BROKEN, None, "settled", id="html-200"),
        pytest.param(answer(502, HTML, "text/html"), 502, "provider_error", None, "void", id="html-502"),
        pytest.param(answer(200, WHOLE[:60], "application/json"), 502, BROKEN, None, "settled", id="truncated"),
        pytest.param(raw(CUT, close=True), 502, BROKEN, None, "settled", id="cut"),
        pytest.param(answer_json({"id": "x"}), 502, BROKEN, None, "settled", id="no-choices"),
        pytest.param(answer_json({"choices": "x"}), 502, BROKEN, None, "settled", id="choices-no-list"),
        pytest.param(answer_json([ANSWER]), 502, BROKEN, None, "settled", id="list"),
        pytest.param(answer(200, b"", "application/json"), 502, BROKEN, None, "settled", id="empty"),
        pytest.param(answer(200, b"", ""), 502, BROKEN, None, "settled", id="nothing"),
        pytest.param(
            answer(200, b"x" * (LARGEST + 1), "application/json"), 502, BROKEN, None, "settled", id="gigantic"
        ),
        pytest.param(raw(b"", close=True), 502, BROKEN, None, "settled", id="hangs-up"),
        pytest.param(raw(b"SSH-2.0-OpenSSH\r\n", close=True), 502, BROKEN, None, "settled", id="no-http"),
        pytest.param(
            raw(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000, close=True),
            502,
            BROKEN,
            None,
            "settled",
            id="large-head",
        ),
        pytest.param(
            answer_json({"error": {"message": "no"}}), 502, "provider_error", None, "void", id="error-in-200"
        ),
        pytest.param(
            answer_json({"error": {"code": 429, "message": "slow"}}),
            429,
            "provider_rate_limited",
            None,
            "void",
            id="429-in-200",
        ),
        pytest.param(
            answer_json({"error": {"message": "bad"}}, 400),
            400,
            "caller_rejected_by_provider",
            "false",
            "void",
            id="400",
        ),
        pytest.param(
            answer_json({"error": {"message": "no", "code": "content_filter"}}, 400),
            400,
            "caller_content_filtered",
            "false",
            "void",
            id="filtered",
        ),
        pytest.param(
            answer_json({"error": {"message": "Content violates usage guidelines."}}, 403),
            403,
            "caller_content_filtered",
            "false",
            "void",
            id="filtered-403",
        ),
        pytest.param(
            answer_json({"error": {"message": "no", "code": "context_length_exceeded"}}, 400),
            400,
            "caller_context_length_exceeded",
            "false",
            "void",
            id="too-long",
        ),
        pytest.param(
            answer_json({"error": {"message": "key"}}, 401),
            502,
            "gateway_provider_credentials",
            "false",
            "void",
            id="401",
        ),
        pytest.param(
            answer_json({"error": {"message": "money"}}, 402),
            502,
            "gateway_provider_credentials",
            "false",
            "void",
            id="402",
        ),
        pytest.param(
            answer_json({"error": {"message": "who"}}, 403),
            502,
            "gateway_provider_credentials",
            "false",
            "void",
            id="403",
        ),
        pytest.param(
            answer_json({"error": {"message": "no"}}, 404), 404, "caller_model_not_found", "false", "void", id="404"
        ),
        pytest.param(
            answer_json({"detail": "no"}, 422), 422, "caller_rejected_by_provider", "false", "void", id="422"
        ),
        pytest.param(answer(429, b"", "text/plain"), 429, "provider_rate_limited", None, "void", id="429"),
        pytest.param(answer_json({"error": "x"}, 500), 502, "provider_error", None, "void", id="500"),
        pytest.param(answer(503, b"busy", "text/plain"), 503, "provider_overloaded", None, "void", id="503"),
        pytest.param(answer_json({}, 529), 503, "provider_overloaded", None, "void", id="529"),
        pytest.param(answer(599, b"\xff\xfe", "x/y"), 502, "provider_error", None, "void", id="599"),
        pytest.param(silent(), 504, "provider_timeout", None, "settled", id="silent"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
async def test_failure(
    gateway: RunningGateway,
    provider: FakeProvider,
    behaviour: Behaviour,
    status: int,
    code: str,
    retry: str | None,
    state: str,
    streamed: bool,
) -> None:
    """Each failure has its status, its code, its word to SDKs on retrying, and its row in the ledger."""
    provider.script.append(behaviour)
    response = await gateway.chat({"stream": streamed})
    if response.headers["content-type"].startswith("text/event-stream"):
        assert events(response)[-1]["error"]["code"] == code  # its head had to leave before the provider spoke
    else:
        refusal(response, status, code)
        assert response.headers.get("x-should-retry") == retry
    found = await row(gateway)
    assert (found["state"], found["outcome"], found["billed_cost_nano"]) == (state, "upstream_error", 0)
    assert len(provider.calls) == 1


async def test_retry_after(gateway: RunningGateway, provider: FakeProvider) -> None:
    """When the provider says when to come back, so do we."""
    provider.script.append(answer_json({"error": {"message": "slow down"}}, 429, "retry-after: 7"))
    response = await gateway.chat()
    error = refusal(response, 429, "provider_rate_limited")
    assert response.headers["retry-after"] == "7"
    assert "slow down" in error["message"]
    assert error["metadata"]["provider_name"] == "openai"


@pytest.mark.parametrize("status", [401, 403])
async def test_provider_s_words_on_our_key(gateway: RunningGateway, provider: FakeProvider, status: int) -> None:
    """A provider that refuses our key is our fault, and what it says of the key is not for the caller."""
    words = {"error": {"message": f"Incorrect API key provided: {SECRET}", "code": "invalid_api_key"}}
    provider.script.append(answer_json(words, status, f"x-key: {SECRET}", 'www-authenticate: Basic realm="x"'))
    response = await gateway.chat()
    refusal(response, 502, "gateway_provider_credentials")
    assert "Incorrect" not in response.text
    assert SECRET not in response.text + str(response.headers)
    assert "www-authenticate" not in response.headers


@pytest.mark.parametrize("status", [400, 500])
async def test_provider_quotes_our_key(gateway: RunningGateway, provider: FakeProvider, status: int) -> None:
    """Whatever a provider quotes in its errors, our key for it does not reach the caller."""
    words = {"error": {"message": f"got {SECRET}", "headers": [{"authorization": f"Bearer {SECRET}"}]}}
    provider.script.append(answer_json(words, status))
    response = await gateway.chat()
    assert "got" in response.text
    assert SECRET not in response.text


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect(gateway: RunningGateway, provider: FakeProvider, status: int) -> None:
    """A redirect is never followed, least of all with the key, and costs nothing."""
    async with FakeProvider() as elsewhere:
        location = f"location: {elsewhere.base_url}/chat/completions"
        provider.script.append(answer(status, b"", "text/html", location))
        refusal(await gateway.chat(), 502, BROKEN)
        assert elsewhere.asked == []
        assert elsewhere.open_connections == 0
    assert len(provider.calls) == 1
    assert (await row(gateway))["state"] == "void"


@pytest.mark.parametrize("name", ["deepseek", "groq"], ids=["refused-port", "no-such-host"])
@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
async def test_unreachable(gateway: RunningGateway, name: str, streamed: bool) -> None:
    """Where there was no connection nothing was sent, so nothing is billed."""
    response = await gateway.chat({"model": f"{name}:x", "stream": streamed})
    refusal(response, 502, "provider_unreachable")
    found = await row(gateway)
    assert (found["state"], found["outcome"]) == ("void", "upstream_error")


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
async def test_compressed_answer(gateway: RunningGateway, provider: FakeProvider, encoding: str) -> None:
    """A provider that compresses although it was asked not to is understood."""
    provider.script.append(answer(200, gzip.compress(WHOLE), "application/json", f"content-encoding: {encoding}"))
    response = await gateway.chat()
    assert response.json()["choices"] == ANSWER["choices"]
    assert "content-encoding" not in response.headers
    assert (await row(gateway))["input_tokens"] == 12


async def test_gzip_bomb(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A small answer that would be a large one is given up at the limit."""
    bomb = gzip.compress(b'{"choices": [], "x": "' + b" " * 50_000_000 + b'"}')
    provider.script.append(answer(200, bomb, "application/json", "content-encoding: gzip"))
    refusal(await gateway.chat(), 502, BROKEN)


async def test_unasked_encoding(gateway: RunningGateway, provider: FakeProvider) -> None:
    """An encoding that nobody asked for and nobody knows is a broken answer."""
    provider.script.append(answer(200, b"????", "application/json", "content-encoding: br"))
    refusal(await gateway.chat(), 502, BROKEN)


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
async def test_dribble(gateway: RunningGateway, provider: FakeProvider, streamed: bool) -> None:
    """An answer that comes byte by byte, never idle for long, ends with the total time."""
    provider.script.append(_dribbling("text/event-stream" if streamed else "application/json"))
    async with asyncio.timeout(TOTAL * 2):
        response = await gateway.chat({"stream": streamed})
    if streamed:
        assert events(response)[-1]["error"]["code"] == "provider_timeout"
    else:
        refusal(response, 504, "provider_timeout")
    await eventually(lambda: provider.open_connections == 0, within=1)
    found = await row(gateway)
    assert (found["state"], found["outcome"]) == ("settled", "upstream_error")


# --- streams --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "code", "outcome"),
    [
        pytest.param(
            stream(*sse(*words("a")[:2], done=False), then=60), "provider_timeout", "upstream_error", id="endless"
        ),
        pytest.param(stream(*sse(*words("a")[:2], done=False), end=False), BROKEN, "truncated", id="cut"),
        pytest.param(stream(*sse(*words("a")[:2], done=False)), BROKEN, "truncated", id="no-terminator"),
        pytest.param(
            stream(*sse(words("a")[1], {"error": {"message": "x", "code": 503}}, done=False)),
            "provider_overloaded",
            "upstream_error",
            id="error-event",
        ),
        pytest.param(
            stream(*sse(words("a")[1], done=False), b"data: {no json\n\n"), BROKEN, "truncated", id="no-json"
        ),
        pytest.param(stream(*sse(words("a")[1], done=False), b'data: {"choi'), BROKEN, "truncated", id="cut-event"),
    ],
)
async def test_stream_breaks(
    gateway: RunningGateway, provider: FakeProvider, behaviour: Behaviour, code: str, outcome: str
) -> None:
    """A stream that breaks ends in an error event, never in [DONE], and its connection upstream is closed."""
    provider.script.append(behaviour)
    found = events(await gateway.chat({"stream": True}))
    assert "[DONE]" not in found
    assert found[-1]["error"]["code"] == code
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in found[:-1]) == "a"
    settled = await row(gateway)
    assert (settled["state"], settled["outcome"]) == ("settled", outcome)


async def test_no_json_inside_a_stream(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A stream with an event that is no JSON ends like any other that breaks, and is settled."""
    provider.script.append(stream(*sse(words("a")[1], done=False), b"data: {no json}\n\n"))
    response = await gateway.chat({"stream": True})
    assert BROKEN in response.text
    settled = await row(gateway)
    assert (settled["state"], settled["outcome"]) == ("settled", "truncated")


@pytest.mark.parametrize("end", [True, False], ids=["ends", "hangs-up"])
async def test_stream_without_a_terminator(gateway: RunningGateway, provider: FakeProvider, end: bool) -> None:
    """An answer that has a finish reason is whole, whatever becomes of its connection."""
    provider.script.append(stream(*sse(*words("a"), done=False), end=end))
    found = events(await gateway.chat({"stream": True}))
    assert found[-1] == "[DONE]"
    settled = await row(gateway)
    assert (settled["outcome"], settled["input_tokens"]) == ("ok", 12)


@pytest.mark.parametrize("events_sent", [b"", b": comment\n\n", b"data: [DONE]\n\n", b"\n\n\n"])
async def test_empty_stream(gateway: RunningGateway, provider: FakeProvider, events_sent: bytes) -> None:
    """A stream in which nothing was said does not hang, and ends in one way or the other."""
    provider.script.append(answer(200, events_sent, "text/event-stream"))
    async with asyncio.timeout(2):
        await gateway.chat({"stream": True})
    assert (await row(gateway))["state"] == "settled"


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
async def test_json_to_a_stream_request(gateway: RunningGateway, provider: FakeProvider, content_type: str) -> None:
    """A provider that does not stream is passed on as the stream that was asked for: an SDK reads nothing else."""
    provider.script.append(answer(200, WHOLE, content_type))
    document, done = events(await gateway.chat({"stream": True}))
    assert (document["choices"][0]["delta"]["content"], done) == ("Hello there", "[DONE]")
    assert "usage" not in document
    found = await row(gateway)
    assert (found["state"], found["outcome"], found["input_tokens"]) == ("settled", "ok", 12)


async def test_late_json_to_a_stream_request(gateway: RunningGateway, provider: FakeProvider) -> None:
    """The same after the stream's head has left: the answer comes as one event and the terminator."""
    provider.script.append(_late(KEEP_ALIVE * 2.5, answer(200, WHOLE, "application/json")))
    response = await gateway.chat({"stream": True})
    document, done = events(response)
    assert (document["object"], done) == ("chat.completion.chunk", "[DONE]")
    assert document["choices"][0]["delta"]["content"] == "Hello there"
    assert response.text.startswith(": ")
    found = await row(gateway)
    assert (found["state"], found["outcome"], found["input_tokens"]) == ("settled", "ok", 12)


@pytest.mark.parametrize(
    ("behaviour", "code", "state"),
    [
        (answer_json({"error": {"message": "slow"}}, 429), "provider_rate_limited", "void"),
        (answer_json({"error": {"message": SECRET}}, 401), "gateway_provider_credentials", "void"),
        (answer(200, HTML, "text/html"), BROKEN, "settled"),
        (raw(b"", close=True), BROKEN, "settled"),
    ],
    ids=["429", "401", "html", "hangs-up"],
)
async def test_late_failure_of_a_stream(
    gateway: RunningGateway, provider: FakeProvider, behaviour: Behaviour, code: str, state: str
) -> None:
    """After the head has left a failure is the stream's only event, and costs no more for that."""
    provider.script.append(_late(KEEP_ALIVE * 2.5, behaviour))
    response = await gateway.chat({"stream": True})
    (event,) = events(response)
    assert event["error"]["code"] == code
    assert SECRET not in response.text
    found = await row(gateway)
    assert (found["state"], found["outcome"]) == (state, "upstream_error")


async def test_late_stream(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A provider that thinks before it streams is waited for, with comments meanwhile."""
    provider.script.append(_late(KEEP_ALIVE * 2.5, stream(*sse(*words("a", "b")))))
    response = await gateway.chat({"stream": True})
    assert response.text.startswith(": ")
    assert events(response)[-1] == "[DONE]"
    assert (await row(gateway))["outcome"] == "ok"


async def test_endless_stream(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A stream that never ends, and is never idle, ends with the total time."""
    provider.script.append(stream(*sse(*[chunk({"content": "a"})] * 10_000, done=False), pause=0.01))
    async with asyncio.timeout(TOTAL * 2):
        found = events(await gateway.chat({"stream": True}))
    assert found[-1]["error"]["code"] == "provider_timeout"
    await eventually(lambda: provider.open_connections == 0, within=1)


async def test_event_without_an_end(gateway: RunningGateway, provider: FakeProvider) -> None:
    """One event that grows for ever is given up, long before it fills the memory."""
    provider.script.append(stream(b"data: {", *[b" " * 1_000_000] * 200))
    async with asyncio.timeout(5):
        response = await gateway.chat({"stream": True})
    assert BROKEN in response.text
    await eventually(lambda: provider.open_connections == 0, within=1)


async def test_connections_are_let_go(gateway: RunningGateway, provider: FakeProvider) -> None:
    """After failures of each sort no connection stays open but idle ones that can be used again."""
    failures = [raw(CUT, close=True), silent(), stream(*sse(words("a")[1], done=False), then=60)]
    for _ in range(5):
        provider.script.extend(failures)
        await asyncio.gather(*(gateway.chat({"stream": number == 2}) for number in range(3)))
    await eventually(lambda: provider.open_connections == 0, within=1)


def _late(seconds: float, then: Behaviour) -> Behaviour:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await then(asked, writer)

    return behave


def _dribbling(content_type: str) -> Behaviour:
    """One byte now and then, more often than the idle time-out allows, for ever."""

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n\r\n".encode())
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(IDLE / 3)

    return behave


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
