"""One case through the whole gateway: the official SDK on one side, the provider's answer on the other."""

import math
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import openai
from openai import AsyncStream

from tests.running import RunningGateway
from tests.upstream import Asked, FakeProvider
from tests.wire.reading import Reading, read_stream, read_whole
from tests.wire.recordings import Case, Document
from tests.wire.replay import Playing, Replay

KEY = "sk-of-the-provider"
AWS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret/+", "AWS_SESSION_TOKEN": "token"}
MESSAGES = [{"role": "user", "content": "Say something"}]
"""What is asked where the recorder kept only the answer."""
OUR_FAULT = {401, 402, 403}
"""Statuses of a provider that say something of our account with it: never the caller's business."""
BECOMES = {500: 502, 529: 503}
DONE = b"data: [DONE]"


HTTP: Any = import_module(openai.DefaultAsyncHttpxClient.__mro__[1].__module__)
"""The SDK's own HTTP library: httpx in some versions, httpx2 in others."""


class Tape(HTTP.AsyncBaseTransport):  # type: ignore[misc]
    """The SDK's transport, keeping the bytes of the last answer."""

    def __init__(self) -> None:
        self._transport = HTTP.AsyncHTTPTransport()
        self.heard = bytearray()

    async def handle_async_request(self, request: Any) -> Any:
        response = await self._transport.handle_async_request(request)
        self.heard = bytearray()
        response.stream = _Taped(response.stream, self.heard)
        return response

    async def aclose(self) -> None:
        await self._transport.aclose()


class _Taped(HTTP.AsyncByteStream):  # type: ignore[misc]
    def __init__(self, stream: Any, heard: bytearray) -> None:
        self._stream = stream
        self._heard = heard

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            self._heard += data
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()


@dataclass
class Heard:
    """What became of one call: what the application read or which error it got, and what the ledger says."""

    reading: Reading = field(default_factory=Reading)
    error: openai.APIError | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes = b""
    row: Mapping[str, Any] | None = None
    asked: list[Asked] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether the stream said that it is whole."""
        return DONE in self.data.splitlines()

    @property
    def status(self) -> int | None:
        """The status of an answer that was refused as a whole."""
        return self.error.status_code if isinstance(self.error, openai.APIStatusError) else None

    @property
    def billed(self) -> float:
        assert self.row is not None
        return int(self.row["billed_cost_nano"]) / 1e9


@dataclass
class Line:
    """A client, a gateway and a provider, connected."""

    gateway: RunningGateway
    provider: FakeProvider
    replay: Replay
    client: openai.AsyncOpenAI
    tape: Tape
    asked: dict[str, Heard] = field(default_factory=dict)

    async def ask_as_recorded(self, case: Case) -> Heard:
        """Play the case as it was recorded; once, however many tests look at what came of it."""
        if case.id not in self.asked:
            self.asked[case.id] = await self.ask(Playing(case))
        return self.asked[case.id]

    async def ask(self, playing: Playing, *, wants_usage: bool = False) -> Heard:
        """Play the recorded request; `wants_usage` asks for usage in a stream even if the recorded one did not."""
        request = request_of(playing.case, wants_usage=wants_usage)
        self.replay.play(playing)
        self.provider.asked.clear()
        heard = Heard()
        await self._hear(heard, self.client, f"{playing.case.row}:{playing.case.model}", request)
        heard.data, heard.asked = bytes(self.tape.heard), list(self.provider.asked)
        if request_id := heard.headers.get("x-request-id"):
            rows = await self.gateway.rows("select * from calls where request_id = $1", request_id)
            heard.row = dict(rows[0]) if rows else None
        return heard

    async def straight(self, case: Case) -> Reading:
        """What the SDK, with some knowledge of habits, reads from the provider itself."""
        self.replay.play(Playing(case))
        client = self.client.with_options(base_url=self.provider.base_url)
        heard = Heard(Reading(native=True))
        await self._hear(heard, client, case.model, request_of(case, wants_usage=True))
        return heard.reading

    async def _hear(self, heard: Heard, client: openai.AsyncOpenAI, model: str, request: Document) -> None:
        stream = request.get("stream") is True
        try:
            raw = await client.chat.completions.with_raw_response.create(
                model=model, messages=[], stream=stream or openai.omit, extra_body={**request, "model": model}
            )
            heard.headers = raw.headers
            answer: Any = raw.parse()
            if isinstance(answer, AsyncStream):
                async with answer:
                    await read_stream(answer, heard.reading)
            else:
                read_whole(answer, heard.reading)
        except openai.APIStatusError as error:
            heard.error, heard.headers = error, error.response.headers
        except openai.APIError as error:
            heard.error = error


def request_of(case: Case, *, wants_usage: bool = False) -> Document:
    """The request that was recorded, or one that may have led to this answer."""
    request = dict(case.request or {"messages": MESSAGES, "stream": case.asked_for_stream})
    if case.asked_for_stream and (wants_usage or case.request is None):
        request["stream_options"] = {"include_usage": True}
    return request


def arriving(case: Case, request: Document, *, stream_usage: bool) -> Document:
    """What the provider is to get of this request; `stream_usage`: whether it may be asked for usage in a stream."""
    document = {**request, "model": case.model}
    if not stream_usage:
        document.pop("stream_options", None)
    elif case.asked_for_stream:
        document["stream_options"] = {**(request.get("stream_options") or {}), "include_usage": True}
    return document


def asks_for_usage(request: Document) -> bool:
    return (request.get("stream_options") or {}).get("include_usage") is True


def expected_status(case: Case) -> int:
    """The status that our caller is to get for a refusal by the provider."""
    if case.status in OUR_FAULT or is_empty_account(case):
        return 502
    return BECOMES.get(case.status, case.status)


def is_empty_account(case: Case) -> bool:
    """OpenAI's word for it; DashScope's throttle says the same and means something else."""
    return case.status == 429 and b"insufficient_quota" in case.body and case.provider != "dashscope"


def expected_wait(case: Case) -> str | None:
    """`Retry-After` as our caller is to get it, from the provider's, in milliseconds or in seconds."""
    milliseconds = float(case.headers.get("retry-after-ms", 0))
    seconds = milliseconds / 1000 or float(case.headers.get("retry-after", 0))
    return str(math.ceil(seconds)) if seconds else None


def expected_words(case: Case) -> str:
    """The beginning of what the provider says, as the SDK reads it."""
    words = re.sub(r"^Error code: \d+( - )?", "", str(case.expected.get("message", "")))
    return words[:80]


def expected_tokens(usage: Document) -> dict[str, int]:
    """The ledger's counts: cached tokens within the input, reasoning within the output, whatever they are called."""
    prompt, completion = usage.get("prompt_tokens_details", {}), usage.get("completion_tokens_details", {})
    outside = ("cache_read_input_tokens", "prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens")
    cached = prompt.get("cached_tokens") or max(usage.get(name, 0) for name in outside)
    reasoning = completion.get("reasoning_tokens") or usage.get("reasoning_tokens", 0)
    tokens, output = usage["prompt_tokens"], usage["completion_tokens"]
    beside = reasoning if usage.get("total_tokens") == tokens + output + reasoning else 0
    return {
        "input_tokens": tokens,
        "cache_read_tokens": cached,
        "cache_write_tokens": prompt.get("cache_write_tokens") or 0,
        "output_tokens": output + beside,
        "reasoning_tokens": reasoning,
    }


def without_cost(usage: Document | None) -> Document | None:
    """Usage without what the gateway replaces."""
    return None if usage is None else {name: value for name, value in usage.items() if name != "cost"}
