"""Why: nearly every provider speaks OpenAI's chat completions, each with habits of its own.

The canonical form is this very wire, so translating is mostly leaving alone: the model is replaced, usage is read
and priced, errors get their meaning, reasoning and tool calls their one form (`message`, `deltas`), and a stream ends
in one way. Nearly every chunk of a stream passes as the bytes that came, without being split or parsed; only what
carries usage, an error, a finish reason, a call's beginning or reasoning under another name is looked into.

Source: https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import errors, message, usage
from .alike import Alike
from .contract import NO_HEADERS, Call, Decoded, Kind, ProviderError, WireRequest
from .deltas import Calls, needs_care
from .document import dumps, encoded, load_object, loads
from .gathered import gathered, is_stream
from .sse import Event, Splitter, event
from .streaming import StreamDecoder

_JSON = ((b"content-type", b"application/json"),)
_NULL_USAGE = b',"usage":null'

MAX_CHOICES = 1000


@dataclass(frozen=True, slots=True)
class OpenAIWire:
    """The wire of OpenAI and of whoever is compatible with it.

    `path` below the base URL; `holds`: the list that each of its answers has.
    `stream_usage`: ask for usage in streams; off for a provider that rejects `stream_options` (Mistral answers 422)
    and sends usage unasked: there the caller's own are taken out.
    `throttles_as_quota`: its per-minute throttle is a 429 worded `insufficient_quota` (DashScope), to be retried.
    `reasoning`: what it calls an assistant's reasoning that is given back to it, if it refuses `reasoning_content`.
    `renames`: fields that it refuses under OpenAI's name, and knows under another.
    `embeds_numbers`: embeddings are never asked of it in base64.
    """

    path: str = "/chat/completions"
    holds: str = "choices"
    stream_usage: bool = True
    throttles_as_quota: bool = False
    reasoning: message.Reasoning = "reasoning_content"
    renames: tuple[tuple[str, str], ...] = ()
    embeds_numbers: bool = False

    def request(self, call: Call) -> WireRequest:
        document = dict(call.document)
        document["model"] = call.model
        if self.renames or self.reasoning != "reasoning_content":
            self._reword(document)
        if call.stream or "stream" in document:
            document["stream"] = call.stream
        if not self.stream_usage:
            document.pop("stream_options", None)
        elif call.stream:
            options = document.get("stream_options")
            document["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        return WireRequest(self.path, _JSON, dumps(document))

    def _reword(self, document: dict[str, Any]) -> None:
        """Say in this provider's words what it refuses in OpenAI's."""
        for name, other in self.renames:
            if (value := document.pop(name, None)) is not None:
                document[other] = value
        if self.reasoning != "reasoning_content" and "messages" in document:
            document["messages"] = message.given_back(document["messages"], self.reasoning)

    def response(self, call: Call, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Decoded:
        if body[:1] != b"{" and self.holds == "choices" and is_stream(body):
            return self._gathered(call, body)
        document = load_object(body)
        changed = not (self.holds == "choices" and _is_settled(document)) and self._settle(document)
        decoded = Decoded(body)
        if (found := usage.find(document)) is not None:
            usage.read(found, decoded.usage, completes=self.holds == "choices")
            if call.pricing is not None:
                usage.write_cost(found, decoded.usage, call.pricing)
            if call.pricing is not None or document.get("usage") is not found:
                document["usage"] = found
                changed = True
        if changed:
            decoded.body = encoded(document)
        return decoded

    def _settle(self, document: dict[str, Any]) -> bool:
        """Put an answer into OpenAI's form; whether anything had to be changed. Raises for what is none."""
        choices = message.objects(document.get("choices"))
        if failed := _failure(document, choices):
            raise errors.from_document(failed, throttles_as_quota=self.throttles_as_quota)
        if not isinstance(document.get(self.holds), list):
            if errors.message_of(document):  # zAI: {"code": 401, "msg": "..."}
                raise errors.from_document(document, throttles_as_quota=self.throttles_as_quota)
            raise ProviderError(Kind.BROKEN, f"The provider's answer holds no {self.holds}.", raw=list(document)[:20])
        return _settle_choices(choices, document.get("id"))

    def _gathered(self, call: Call, body: bytes) -> Decoded:
        """The document that a stream tells, from a provider that streams although it was not asked to."""
        decoder = self.stream(replace(call, stream=True, wants_usage=True))
        document = gathered(decoder.feed(body) + decoder.close())
        if not document["choices"]:
            raise ProviderError(Kind.BROKEN, "The provider's answer holds no choices.")
        return Decoded(encoded(document), decoder.usage)

    def stream(self, call: Call) -> "OpenAIDecoder":
        return OpenAIDecoder(call, self.throttles_as_quota)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return errors.from_answer(status, headers, body, throttles_as_quota=self.throttles_as_quota)


class OpenAIDecoder(StreamDecoder):
    """One stream. Comments and event names are dropped; whatever follows the terminator is ignored."""

    __slots__ = (
        "_alike",
        "_astray",
        "_begun",
        "_call",
        "_calls",
        "_finished",
        "_several",
        "_splitter",
        "_throttles_as_quota",
    )

    def __init__(self, call: Call, throttles_as_quota: bool = False) -> None:
        super().__init__()
        self._call = call
        self._throttles_as_quota = throttles_as_quota
        self._splitter = Splitter()
        self._finished: dict[int, bool] = {}
        self._calls: dict[int, Calls] = {}
        self._alike = Alike()
        self._astray = False
        self._begun = False
        self._several = _wants_several(call.document)

    @property
    def finished(self) -> bool:
        """Whether the terminator, or a finish reason for every choice that was begun, has been seen.

        A terminator alone ends nothing: there was no answer.
        """
        return (self.ended and self._begun) or (bool(self._finished) and all(self._finished.values()))

    def feed(self, data: bytes) -> bytes:
        if self.failed is not None:
            raise self.failed
        if self.ended:
            return b""
        if not self._splitter.kept and (alike := self._alike.passed(data)) is not None:
            told, rest = alike
            return told + self._following(rest) if rest else told
        if self._splitter.plain(data):
            self._begun = True
            if (passed := self._untouched(data)) is not None:
                self._alike.learn(data, passed)
                return passed
            if data.find(b"\n") == len(data) - 2:  # one event: there is nothing to be split
                return self._single(data[6:-2])
        return super().feed(data)

    def _following(self, rest: bytes) -> bytes:
        """What is told of bytes that came behind events: an error waits until those are told."""
        try:
            return self.feed(rest)
        except ProviderError:
            return b""

    def _read(self, data: bytes) -> Iterable[bytes]:
        return map(self._event, self._splitter.feed(data))

    def _rest(self) -> Iterable[bytes]:
        return map(self._event, self._splitter.rest())

    def _untouched(self, data: bytes) -> bytes | None:
        """JSON, one event's or many, in which there is nothing to do; None if it has to be parsed.

        Inside a JSON string each quotation mark is escaped, so these bytes can only be keys.
        """
        if self._several or data.find(b'"error"') >= 0:
            return None
        if (reasons := data.count(b'"finish_reason"')) and reasons != data.count(b'"finish_reason":null'):
            return None
        if needs_care(data, self._astray):
            return None
        if data.find(b'"usage"') < 0:
            return data
        if data.count(b'"usage"') != data.count(_NULL_USAGE):
            return None
        return data if self._call.wants_usage else data.replace(_NULL_USAGE, b"")

    def _single(self, data: bytes) -> bytes:
        try:
            return self._chunk(data)
        except ProviderError as error:
            self.failed = error
            raise

    def _event(self, each: Event) -> bytes:
        data = each.data
        if data.strip() in (b"[DONE]", b""):
            self.ended = self.ended or bool(data.strip())
            return b""
        if each.name == b"error":
            raise errors.from_document(_loose(data), throttles_as_quota=self._throttles_as_quota)
        self._begun = True
        if data.startswith(b"{") and data.endswith(b"}") and (passed := self._untouched(data)) is not None:
            return event(passed)
        return self._chunk(data)

    def _chunk(self, data: bytes) -> bytes:
        document = load_object(data)
        choices = message.objects(document.get("choices"))
        if failed := _failure(document, choices) or (document if document.get("error") else None):
            raise errors.from_document(failed, throttles_as_quota=self._throttles_as_quota)
        if self._note(document, choices):
            data = encoded(document)
        found = usage.find(document)
        if found is not None:
            usage.read(found, self.usage)
        if not self._call.wants_usage:
            return self._without_usage(document, data)
        if found is None or (self._call.pricing is None and document.get("usage") is found):
            return event(data)
        if self._call.pricing is not None:
            usage.write_cost(found, self.usage, self._call.pricing)
        document["usage"] = found
        return event(encoded(document))

    def _without_usage(self, document: dict[str, Any], data: bytes) -> bytes:
        """The chunk as a caller expects it who did not ask for usage: we did."""
        if "usage" not in document:
            return event(data)
        if document.pop("usage") and not document.get("choices"):
            return b""
        return event(encoded(document))

    def _note(self, document: dict[str, Any], choices: list[dict[str, Any]]) -> bool:
        """Keep in mind what each choice says of itself, and settle its form; whether anything had to be changed."""
        changed = False
        for choice in choices:
            index = choice.get("index") if self._several else 0
            index = index if isinstance(index, int) else 0
            if choice.get("finish_reason"):
                self._finished[index] = True
            elif self._several:
                self._finished.setdefault(index, False)
            if len(self._finished) > MAX_CHOICES:
                raise ProviderError(Kind.BROKEN, "The provider's answer has too many choices.")
            if "delta" not in choice and isinstance(choice.get("message"), dict):  # a document in place of events
                choice["delta"] = choice.pop("message")
                changed = True
            if isinstance(delta := choice.get("delta"), dict):
                changed = self._settle(delta, index, f"{document.get('id')}/{index}") or changed
        return changed

    def _settle(self, delta: dict[str, Any], index: int, seed: str) -> bool:
        changed = message.settle(delta)
        if delta.get("tool_calls"):
            calls = self._calls.setdefault(index, Calls())
            changed = calls.settle(delta, seed) or changed
            self._astray = self._astray or calls.astray
        return changed


def _wants_several(document: Mapping[str, Any]) -> bool:
    """Whether more than one choice is asked for: by `n`, or by several prompts at once."""
    wanted, prompt = document.get("n"), document.get("prompt")
    if isinstance(wanted, int) and wanted > 1:
        return True
    return isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int)


def _is_settled(document: dict[str, Any]) -> bool:
    """Whether an answer is one, and each choice a message in OpenAI's form that calls no tools, as nearly always."""
    try:
        choices = document["choices"]
        for choice in choices:
            if choice["finish_reason"] == "error" or not message.is_plain(choice["message"]):
                return False
    except (KeyError, TypeError):
        return False
    return type(choices) is list and "error" not in document and document.get("object") != "error"


def _settle_choices(choices: list[dict[str, Any]], identifier: Any) -> bool:
    changed = False
    for index, choice in enumerate(choices):
        if isinstance(told := choice.get("message"), dict):
            changed = message.settle(told) or changed
            if told.get("tool_calls"):
                changed = message.settle_calls(told, f"{identifier}/{index}") or changed
    return changed


def _failure(document: dict[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The error that an answer or a chunk is; an `error` beside choices is one if a finish reason says so.

    Sources: https://openrouter.ai/docs/api-reference/errors; Mistral's error objects call themselves `error`.
    """
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
