"""A mock provider that costs next to nothing and keeps its own bill; a process of its own.

The model's name says what it answers, whoever stands between, so that every target is sent the same bytes:

- `json`: a chat completion; `json-50` after 50 ms
- `stream-100-20`: 100 chunks, one every 20 ms; `stream-100-0` as fast as it goes, each with a write of its own

`GET /bill` is what the customer with the key `CUSTOMER`, who is the gateway, has been answered so far, in calls and
tokens. It ends when its standard input does.
"""

import asyncio
import json
import re
import sys
from dataclasses import asdict, dataclass
from typing import Any, cast

import uvloop

MODEL = re.compile(rb'"model"\s*:\s*"(?:[a-z]+:)?(?P<kind>json|stream)(?:-(?P<first>\d+))?(?:-(?P<second>\d+))?')
LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
CUSTOMER = b"sk-benchmark"
LONGEST_REQUEST = 64 * 1024 * 1024
USAGES = tuple((100 + 7 * n, 20 + 3 * n) for n in range(16))
"""Prompt and completion tokens, taken in turn: a ledger that swaps or repeats two calls has another sum."""
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM_END = b"0\r\n\r\n"


@dataclass(slots=True)
class Bill:
    """What a provider would charge for."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self) -> int:
        """Charge one more call; the number of its usage."""
        number = self.calls % len(USAGES)
        self.calls += 1
        self.prompt_tokens += USAGES[number][0]
        self.completion_tokens += USAGES[number][1]
        return number


def _usage(number: int) -> dict[str, int]:
    prompt, completion = USAGES[number]
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _document(number: int) -> bytes:
    message = {"role": "assistant", "content": "Hello there, how may I help you today? " * 4}
    document = {
        "id": "chatcmpl-BenchmarkBenchmarkBenchmark",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _usage(number),
        "system_fingerprint": "fp_0123456789",
    }
    return _answer(document)


def _answer(document: object) -> bytes:
    body = json.dumps(document, separators=(",", ":")).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _chunk(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
    document = {
        "id": "chatcmpl-BenchmarkBenchmarkBenchmark",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "gpt-4o-2024-08-06",
        "system_fingerprint": "fp_0123456789",
        "choices": choices,
        "usage": usage,
    }
    return _framed(b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n")


def _framed(event: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(event), event)


ANSWERS = tuple(_document(number) for number in range(len(USAGES)))
WORD = _chunk([{"index": 0, "delta": {"content": " token"}, "logprobs": None, "finish_reason": None}])
LAST = _chunk([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}])
ENDS = tuple(LAST + _chunk([], _usage(number)) + _framed(b"data: [DONE]\n\n") for number in range(len(USAGES)))


class Connection(asyncio.Protocol):
    """One kept-alive connection, one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, bill: Bill) -> None:
        self._loop = loop
        self._bill = bill
        self._buffer = b""
        self._transport: asyncio.Transport
        self._timer: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer = data = self._buffer + data if self._buffer else data
        head = data.find(b"\r\n\r\n")
        if head < 0:
            return
        length = LENGTH.search(data, 0, head + 2)
        whole = head + 4 + (int(length[1]) if length else 0)
        if whole > LONGEST_REQUEST:
            self._transport.close()
        elif len(data) >= whole:
            self._buffer = data[whole:]
            self._serve(data, head)

    def _serve(self, data: bytes, head: int) -> None:
        if data.startswith(b"GET "):
            self._transport.write(_answer(asdict(self._bill)))
            return
        if data.find(CUSTOMER, 0, head) < 0:
            self._bill = Bill()  # whoever asks past the gateway
        model = MODEL.search(data, head)
        kind = model["kind"] if model else b"json"
        first, second = (int(model[name] or 0) if model else 0 for name in ("first", "second"))
        if kind == b"stream":
            self._transport.write(STREAM_HEAD)
            self._word(first, second / 1000, self._loop.time())
        elif first:
            self._timer = self._loop.call_later(first / 1000, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        self._transport.write(ANSWERS[self._bill.add()])

    def _word(self, left: int, pause: float, due: float) -> None:
        if self._transport.is_closing():
            return
        if left == 0:
            self._transport.write(ENDS[self._bill.add()] + STREAM_END)
            return
        self._transport.write(WORD)
        due += pause
        if pause:
            self._timer = self._loop.call_at(due, self._word, left - 1, pause, due)
        else:
            self._timer = self._loop.call_soon(self._word, left - 1, pause, due)


async def serve(port: int) -> None:
    """Answer on loopback until standard input ends: whoever started us holds its other end."""
    loop = asyncio.get_running_loop()
    bill = Bill()
    server = await loop.create_server(lambda: Connection(loop, bill), "127.0.0.1", port, backlog=4096)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
