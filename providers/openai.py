"""Why: nearly every provider speaks OpenAI's chat completions, each with habits of its own.

The canonical form is this very wire, so translating is mostly leaving alone: the model is replaced, usage is read
and priced, errors get their meaning, and a stream ends in one way. Nearly every chunk of a stream passes as the
bytes that came, without being split or parsed; only what carries usage, an error or a finish reason is looked into.

Source: https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import errors, usage
from .contract import NO_HEADERS, Call, Decoded, Kind, Pricing, ProviderError, Usage, WireRequest
from .document import dumps, load_object, loads
from .sse import Event, Splitter, event
from .streaming import StreamDecoder

_JSON = ((b"content-type", b"application/json"),)
_NULL_USAGE = b',"usage":null'


@dataclass(frozen=True, slots=True)
class OpenAIWire:
    """The wire of OpenAI and of whoever is compatible with it.

    `path` below the base URL; `holds`: the list that each of its answers has.
    `stream_usage`: ask for usage in streams; off for a provider that rejects `stream_options` (Mistral answers 422)
    and sends usage unasked: there the caller's own are taken out.
    `throttles_as_quota`: its per-minute throttle is a 429 worded `insufficient_quota` (DashScope), to be retried.
    """

    path: str = "/chat/completions"
    holds: str = "choices"
    stream_usage: bool = True
    throttles_as_quota: bool = False

    def request(self, call: Call) -> WireRequest:
        document = {**call.document, "model": call.model}
        if call.stream or "stream" in document:
            document["stream"] = call.stream
        if call.stream and self.stream_usage:
            options = document.get("stream_options")
            document["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        elif not self.stream_usage:
            document.pop("stream_options", None)
        return WireRequest(self.path, _JSON, dumps(document))

    def response(self, call: Call, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Decoded:
        document = load_object(body)
        if failed := _failure(document):
            raise errors.from_document(failed, throttles_as_quota=self.throttles_as_quota)
        if not isinstance(document.get(self.holds), list):
            raise ProviderError(Kind.BROKEN, f"The provider's answer holds no {self.holds}.", raw=list(document)[:20])
        decoded = Decoded(body)
        if (found := usage.find(document)) is not None:
            usage.read(found, decoded.usage)
            if call.pricing is not None or document.get("usage") is not found:
                _tell(document, found, decoded.usage, call.pricing)
                decoded.body = dumps(document)
        return decoded

    def stream(self, call: Call) -> "OpenAIDecoder":
        return OpenAIDecoder(call, self.throttles_as_quota)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return errors.from_answer(status, headers, body, throttles_as_quota=self.throttles_as_quota)


class OpenAIDecoder(StreamDecoder):
    """One stream. Comments and event names are dropped; whatever follows the terminator is ignored."""

    __slots__ = ("_call", "_finished", "_several", "_splitter", "_throttles_as_quota")

    def __init__(self, call: Call, throttles_as_quota: bool = False) -> None:
        super().__init__()
        self._call = call
        self._throttles_as_quota = throttles_as_quota
        self._splitter = Splitter()
        self._finished: dict[int, bool] = {}
        wanted = call.document.get("n")
        self._several = isinstance(wanted, int) and wanted > 1

    @property
    def finished(self) -> bool:
        """Whether the terminator, or a finish reason for every choice that was begun, has been seen."""
        return self.ended or (bool(self._finished) and all(self._finished.values()))

    def feed(self, data: bytes) -> bytes:
        if self.failed is not None:
            raise self.failed
        if self.ended:
            return b""
        if self._splitter.plain(data) and (passed := self._untouched(data)) is not None:
            return passed
        return super().feed(data)

    def _read(self, data: bytes) -> Iterable[bytes]:
        return map(self._event, self._splitter.feed(data))

    def _rest(self) -> Iterable[bytes]:
        return map(self._event, self._splitter.rest())

    def _untouched(self, data: bytes) -> bytes | None:
        """JSON, one event's or many, in which there is nothing to do; None if it has to be parsed.

        Inside a JSON string each quotation mark is escaped, so these bytes can only be keys.
        """
        if self._several or b'"error"' in data:
            return None
        if (reasons := data.count(b'"finish_reason"')) and reasons != data.count(b'"finish_reason":null'):
            return None
        if b'"usage"' not in data:
            return data
        if data.count(b'"usage"') != data.count(_NULL_USAGE):
            return None
        return data if self._call.wants_usage else data.replace(_NULL_USAGE, b"")

    def _event(self, each: Event) -> bytes:
        data = each.data
        if data.strip() in (b"[DONE]", b""):
            self.ended = self.ended or bool(data.strip())
            return b""
        if each.name == b"error":
            raise errors.from_document(_loose(data), throttles_as_quota=self._throttles_as_quota)
        if data.startswith(b"{") and data.endswith(b"}") and (passed := self._untouched(data)) is not None:
            return event(passed)
        return self._chunk(data)

    def _chunk(self, data: bytes) -> bytes:
        document = load_object(data)
        if failed := _failure(document) or (document if document.get("error") else None):
            raise errors.from_document(failed, throttles_as_quota=self._throttles_as_quota)
        self._note(document)
        found = usage.find(document)
        if found is not None:
            usage.read(found, self.usage)
        if not self._call.wants_usage:
            return self._without_usage(document, data)
        if found is None or (self._call.pricing is None and document.get("usage") is found):
            return event(data)
        _tell(document, found, self.usage, self._call.pricing)
        return event(dumps(document))

    def _without_usage(self, document: dict[str, Any], data: bytes) -> bytes:
        """The chunk as a caller expects it who did not ask for usage: we did."""
        if "usage" not in document:
            return event(data)
        if document.pop("usage") and not document.get("choices"):
            return b""
        return event(dumps(document))

    def _note(self, document: dict[str, Any]) -> None:
        for choice in _choices(document):
            index = choice.get("index") if self._several else 0
            index = index if isinstance(index, int) else 0
            if choice.get("finish_reason"):
                self._finished[index] = True
            elif self._several:
                self._finished.setdefault(index, False)


def _tell(document: dict[str, Any], found: dict[str, Any], counted: Usage, pricing: Pricing | None) -> None:
    """Put a provider's usage where applications look for it, with what it cost where that is known."""
    if pricing is not None:
        usage.write_cost(found, counted, pricing)
    document["usage"] = found


def _choices(document: dict[str, Any]) -> list[dict[str, Any]]:
    choices = document.get("choices")
    return [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []


def _failure(document: dict[str, Any]) -> dict[str, Any] | None:
    """The error that an answer or a chunk is; an `error` beside choices is one if a finish reason says so.

    Sources: https://openrouter.ai/docs/api-reference/errors; Mistral's error objects call themselves `error`.
    """
    choices = _choices(document)
    if (document.get("error") and not choices) or document.get("object") == "error":
        return document
    for choice in choices:
        if choice.get("finish_reason") == "error":
            return document if document.get("error") else {"error": choice.get("error") or {}}
    return None


def _loose(data: bytes) -> Any:
    try:
        return loads(data)
    except ValueError:
        return {"message": data.decode("utf-8", "replace")}
