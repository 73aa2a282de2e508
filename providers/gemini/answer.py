"""Why: a whole answer and a stream are made of the same documents, so that both are read by one reader.

A prompt that is blocked has no candidate but a reason: it becomes one answer, empty and filtered. Asked without
`alt=sse`, or by a proxy's whim, a stream is a JSON list of its documents; that, or a stream that nobody asked for, is
read as the one answer that it is.

Source: https://ai.google.dev/api/generate-content#generatecontentresponse
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from providers.contract import Call, Decoded, Kind, ProviderError, Usage
from providers.document import encoded, excerpt, load_object, loads
from providers.gathered import is_stream
from providers.sse import Splitter

from . import counts, faults
from .candidate import Candidate, Document
from .logprobs import logprobs_of

MAX_CANDIDATES = 128


class Reader:
    """Reads an answer's documents one after the other. `head` is what every chunk of it says."""

    __slots__ = ("_found", "_said", "call", "candidates", "head", "usage")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.usage = Usage()
        self.candidates: dict[int, Candidate] = {}
        self.head: Document = {"id": "", "created": 0, "model": call.model}
        self._found: Document = {}
        self._said = False
        """Whether there is anything in the answer; an empty one has no tokens, and nothing to be estimated."""

    @property
    def finished(self) -> bool:
        """Whether every candidate that was begun has ended."""
        return bool(self.candidates) and all(each.reason is not None for each in self.candidates.values())

    def read(self, document: Document) -> Iterable[tuple[int, Document, Document | None]]:
        """Each candidate's news in this document: its index, its delta, its logprobs. Raises `ProviderError`."""
        if document.get("error"):
            raise faults.from_document(document)
        self._note(document)
        rows = document.get("candidates")
        rows = [each for each in rows if isinstance(each, dict)] if isinstance(rows, list) else []
        for row in rows:
            index = row.get("index") if type(row.get("index")) is int else 0
            delta = self._candidate(index).take(row)
            self._said = self._said or bool(delta)
            yield index, delta, logprobs_of(row.get("logprobsResult"))
        feedback = document.get("promptFeedback")
        if not rows and isinstance(feedback, dict) and (reason := feedback.get("blockReason")):
            self._candidate(0).end(f"BLOCKED_{reason}" if isinstance(reason, int) else str(reason))
            self._candidate(0).note({"promptFeedback": feedback})
            yield 0, {}, None
        if self.usage.input_tokens and not self.usage.output_tokens:
            self.usage.source = "provider" if self.finished and not self._said else "none"

    def told_usage(self) -> Document | None:
        """OpenAI's usage object, None where the provider has told none."""
        if not (self.usage.input_tokens or self.usage.output_tokens):
            return None
        return counts.written(self._found, self.usage, self.call.pricing)

    def _candidate(self, index: int) -> Candidate:
        if index not in self.candidates:
            if len(self.candidates) >= MAX_CANDIDATES:
                raise ProviderError(Kind.BROKEN, "The provider's answer has too many candidates.")
            self.candidates[index] = Candidate(str(self.head["id"]), index)
        return self.candidates[index]

    def _note(self, document: Document) -> None:
        for name, ours in (("responseId", "id"), ("modelVersion", "model")):
            if isinstance(value := document.get(name), str) and value:
                self.head[ours] = value
        self.head["created"] = self.head["created"] or _seconds(document.get("createTime"))
        if isinstance(found := document.get("usageMetadata"), dict):
            self._found.update({name: found[name] for name in found.keys() & counts.FIELDS})
            counts.read(self._found, self.usage)


def response(call: Call, body: bytes) -> Decoded:
    """A whole answer as OpenAI's. Raises `ProviderError` for what is none."""
    reader = Reader(call)
    messages: dict[int, Document] = {}
    told: dict[int, list[Any]] = {}
    for document in _documents(body):
        for index, delta, logprobs in reader.read(document):
            _gather(messages.setdefault(index, {}), delta)
            told.setdefault(index, []).extend((logprobs or {}).get("content", ()))
    if not reader.candidates:
        raise ProviderError(Kind.BROKEN, "The provider's answer holds no candidates.", raw=excerpt(body))
    if not reader.finished and (body.lstrip()[:1] != b"{" or not any(messages.values())):
        raise ProviderError(Kind.BROKEN, "The provider's answer was cut off: it is truncated.", raw=excerpt(body))
    choices = []
    for index, candidate in sorted(reader.candidates.items()):
        _gather(messages[index], candidate.rest())
        choice = {"index": index, "message": _message(messages[index]), **candidate.choice()}
        choice["logprobs"] = {"content": told[index]} if told[index] else None
        choices.append(choice)
    answer = {**reader.head, "object": "chat.completion", "choices": choices}
    if (usage := reader.told_usage()) is not None:
        answer["usage"] = usage
    return Decoded(encoded(answer), reader.usage)


def _documents(body: bytes) -> list[Document]:
    if is_stream(body):
        splitter = Splitter()
        events = [*splitter.feed(body), *splitter.rest()]
        return [load_object(each.data) for each in events if each.data.strip() not in (b"", b"[DONE]")]
    try:
        found = loads(body)
    except ValueError:
        raise ProviderError(Kind.BROKEN, "The provider's answer is not JSON.", raw=excerpt(body)) from None
    listed = found if isinstance(found, list) else [found]
    if not all(isinstance(each, dict) for each in listed):
        raise ProviderError(Kind.BROKEN, "The provider's answer is not a JSON object.", raw=excerpt(body))
    return listed


def _gather(message: Document, delta: Document) -> None:
    """Add what is new to what is there, piece by piece; `_message` joins the pieces."""
    for name, value in delta.items():
        if name == "gemini":
            message.setdefault("gemini", {"parts": []})["parts"] += value["parts"]
        elif name == "audio":
            message.setdefault("audio", {**value, "data": []})["data"].append(value["data"])
        elif isinstance(value, str):
            message.setdefault(name, []).append(value)
        else:
            message.setdefault(name, []).extend(value)


def _message(gathered: Document) -> Document:
    message: Document = {"role": "assistant", "content": None, **gathered}
    for name in ("content", "reasoning_content"):
        if isinstance(message.get(name), list):
            message[name] = "".join(message[name])
    if "audio" in message:
        message["audio"]["data"] = "".join(message["audio"]["data"])
    if "tool_calls" in message:
        message["tool_calls"] = _whole_calls(message["tool_calls"])
    return message


def _whole_calls(pieces: list[Document]) -> list[Document]:
    calls: dict[int, Document] = {}
    for piece in pieces:
        index = piece.pop("index")
        if index in calls:
            calls[index]["function"]["arguments"] += piece["function"]["arguments"]
        else:
            calls[index] = piece
    return [calls[index] for index in sorted(calls)]


def _seconds(value: Any) -> int:
    """Vertex says when the answer was made; the Gemini API does not, and then 0 is told."""
    try:
        return int(datetime.fromisoformat(value).timestamp()) if isinstance(value, str) else 0
    except (ValueError, OverflowError):
        return 0
