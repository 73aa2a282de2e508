"""Why: a gateway must be tried out, tested and measured without a key, yet without a path of its own in the code.

A transport that answers as OpenAI's API would, with the words of the last user message. So `echo:echo` goes through
the same client, wire and metering as everybody else. Tokens are counted honestly by a stated rule: one for each
word, that is, for each run of characters without white space.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx

from .document import dumps, loads
from .sse import DONE, event

MODEL = "echo"
MOST_CHOICES = 128

_WORD = re.compile(r"\s*\S+\s*")


class EchoTransport(httpx.AsyncBaseTransport):
    """Answers `POST .../chat/completions` and `GET .../models`. `pause`: seconds between two words of a stream."""

    def __init__(self, pause: float = 0.02) -> None:
        self._pause = pause
        self._count = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method == "GET" and path.endswith("/models"):
            listed = {"id": MODEL, "object": "model", "created": 0, "owned_by": "aigate"}
            return _json(200, {"object": "list", "data": [listed]})
        if request.method == "POST" and path.endswith("/chat/completions"):
            return self._chat(await request.aread())
        return _refusal(404, f"Unknown path: {request.method} {path}", "unknown_url")

    def _chat(self, body: bytes) -> httpx.Response:
        try:
            document = loads(body)
        except ValueError:
            document = None
        if not isinstance(document, dict) or not isinstance(document.get("messages"), list):
            return _refusal(400, "The body is no chat completions request.", None)
        if document.get("model") != MODEL:
            return _refusal(404, f"The model `{document.get('model')}` does not exist.", "model_not_found")
        self._count += 1
        answer = _Answer(document, f"chatcmpl-echo-{self._count}")
        if document.get("stream"):
            stream = _Paced(answer.chunks(), self._pause)
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=stream)
        return _json(200, answer.whole())


class _Paced(httpx.AsyncByteStream):
    def __init__(self, chunks: list[bytes], pause: float) -> None:
        self._chunks = chunks
        self._pause = pause

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number, chunk in enumerate(self._chunks):
            if number and self._pause:
                await asyncio.sleep(self._pause)
            yield chunk


class _Answer:
    """What is said to one request, whole or in chunks."""

    def __init__(self, document: Mapping[str, Any], identifier: str) -> None:
        messages = [each for each in document["messages"] if isinstance(each, dict)]
        said = [each for each in messages if each.get("role") == "user"]
        words = _WORD.findall(_text(said[-1].get("content"))) if said else []
        most = _positive(document.get("max_completion_tokens")) or _positive(document.get("max_tokens"))
        self._words = words[:most]
        self._finish = "length" if most and len(words) > most else "stop"
        self._times = min(_positive(document.get("n")) or 1, MOST_CHOICES)
        prompt = sum(len(_text(each.get("content")).split()) for each in messages)
        completion = len(self._words) * self._times
        self._usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        options = document.get("stream_options")
        self._tells_usage = isinstance(options, dict) and options.get("include_usage") is True
        self._head = {"id": identifier, "created": int(time.time()), "model": MODEL}

    def whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(self._words)}
        choices = [
            {"index": index, "message": message, "logprobs": None, "finish_reason": self._finish}
            for index in range(self._times)
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self._usage}

    def chunks(self) -> list[bytes]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": word} for word in self._words]
        chunks = [self._chunk(delta, None) for delta in deltas]
        chunks.append(self._chunk({}, self._finish))
        if self._tells_usage:
            chunks.append(self._event({"choices": [], "usage": self._usage}))
        return [*chunks, DONE]

    def _chunk(self, delta: dict[str, Any], finish: str | None) -> bytes:
        """The same step of each choice."""
        return b"".join(
            self._event({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})
            for index in range(self._times)
        )

    def _event(self, part: dict[str, Any]) -> bytes:
        return event(dumps({**self._head, "object": "chat.completion.chunk", **part}))


def _text(content: Any) -> str:
    """The words of a message, in whichever of OpenAI's forms; what is no text is named in brackets."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [each for each in content if isinstance(each, dict)]
    return " ".join(
        str(each.get("text", "")) if each.get("type") == "text" else f"[{_named(each)}]" for each in parts
    )


def _named(part: Mapping[str, Any]) -> str:
    return str(part.get("type", "part")).removeprefix("input_").removesuffix("_url")


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _json(status: int, document: dict[str, Any]) -> httpx.Response:
    return httpx.Response(status, headers={"content-type": "application/json"}, content=dumps(document))


def _refusal(status: int, message: str, code: str | None) -> httpx.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return _json(status, {"error": error})
