"""Why: blocks begin, grow and end there under an index of their own, while a client here only appends.

Text, thinking and arguments pass on as they grow; what can only be told whole (a signature with its thinking, a
citation with its text) follows its block. An answer is kept while it passes, for those, within `MAX_KEPT` characters.
A usage is the provider's once its end has said so: before, the count of the output is a beginning.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from collections.abc import Iterable
from typing import Any

from providers import errors
from providers.contract import Call, Kind, ProviderError
from providers.document import dumps, load_object, loads
from providers.sse import Splitter, event
from providers.streaming import StreamDecoder

from .answer import (
    KINDS,
    annotations_of,
    arguments_of,
    carried_of,
    extras_of,
    finish_of,
    mapping,
    read_usage,
    reasoning_detail,
    text,
    tool_call,
    usage_object,
    usage_of,
)
from .parts import Block
from .request import NAME
from .tools import JSON_TOOL

MAX_KEPT = 32 * 1024 * 1024
"""Characters of one answer; a model writes a million at most."""

_OF_A_BLOCK = 1000
"""What an empty one is counted as."""

_GROWS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
_KNOWN = {*_GROWS, "input_json_delta", "citations_delta"}
_KINDS = {"billing_error": Kind.QUOTA, "timeout_error": Kind.TIMEOUT, "request_too_large": Kind.REJECTED}


def failure(document: dict[str, Any]) -> ProviderError:
    """What an error inside a 200 means. Source: https://platform.claude.com/docs/en/api/errors"""
    error = errors.from_document(document)
    error.kind = _KINDS.get(text(mapping(document.get("error")).get("type")), error.kind)
    return error


class _Growing:
    """A block on its way. `call` is the index of the tool call that it is told as, `start` the text before it."""

    __slots__ = ("block", "call", "citations", "closed", "input", "is_answer", "others", "pieces", "start")

    def __init__(self, block: Block) -> None:
        self.block = block
        self.pieces: dict[str, list[str]] = {}
        self.input: list[str] = []
        self.citations: list[Any] = []
        self.others: dict[str, Any] = {}
        self.call: int | None = None
        self.is_answer = False
        self.start = 0
        self.closed = False

    def whole(self) -> Block:
        """The block as it stands in an answer that is not streamed. Raises `ValueError` for a cut input."""
        whole = {**self.block, **self.others}
        for name, pieces in self.pieces.items():
            whole[name] = text(whole.get(name)) + "".join(pieces)
        if self.citations:
            begun = whole.get("citations")
            whole["citations"] = [*(begun if isinstance(begun, list) else ()), *self.citations]
        written = "".join(self.input)
        if written and text(whole.get("type")).endswith("tool_use"):
            whole["input"] = loads(written.encode("utf-8", "replace"))
        return whole


class AnthropicDecoder(StreamDecoder):
    """One stream, as chat completion chunks. Pings, event names and unknown events are dropped."""

    __slots__ = (
        "_begun",
        "_blocks",
        "_by_tool",
        "_call",
        "_calls",
        "_details",
        "_extras",
        "_finish",
        "_head",
        "_kept",
        "_most_kept",
        "_prefix",
        "_reason",
        "_splitter",
        "_used",
        "_written",
    )

    def __init__(self, call: Call, by_tool: bool = False, most_kept: int = MAX_KEPT) -> None:
        super().__init__()
        self._call = call
        self._by_tool = by_tool
        self._splitter = Splitter()
        self._finish: str | None = None
        self._begun = False
        self._introduce("", call.model)
        self._blocks: dict[int, _Growing] = {}
        self._calls = 0
        self._details = 0
        self._written = 0
        self._kept = 0
        self._most_kept = most_kept
        self._reason: Any = None
        self._extras: dict[str, Any] = {}
        self._used: dict[str, Any] = {}

    @property
    def finished(self) -> bool:
        """Whether a stop reason or the terminator has been seen."""
        return self.ended or self._finish is not None

    def _read(self, data: bytes) -> Iterable[bytes]:
        return (self._event(each.data) for each in self._splitter.feed(data))

    def _rest(self) -> Iterable[bytes]:
        return (self._event(each.data) for each in self._splitter.rest())

    def _ending(self) -> Iterable[bytes]:
        if self._finish is None:
            yield self._end(self._reason)
        yield self._usage_chunk()

    def _event(self, data: bytes) -> bytes:
        if data.strip() in (b"[DONE]", b""):  # of those who only imitate the API
            self.ended = bool(data.strip())
            return b""
        document = load_object(data)
        match document.get("type"):
            case "message_start":
                return self._begin(mapping(document.get("message")))
            case "content_block_start":
                return self._open(document.get("index"), mapping(document.get("content_block")))
            case "content_block_delta":
                return self._grow(self._growing(document.get("index")), mapping(document.get("delta")))
            case "content_block_stop":
                return self._shut(self._growing(document.get("index")))
            case "message_delta":
                return self._message(document)
            case "message_stop":
                self.ended = True
            case "error":
                raise failure(document)
            case None if document.get("error"):
                raise failure(document)
        return b""

    def _introduce(self, identifier: str, model: str) -> None:
        self._head = {"id": identifier, "object": "chat.completion.chunk", "created": 0, "model": model}
        self._prefix = b"data: " + dumps(self._head)[:-1] + b',"choices":['

    def _begin(self, message: dict[str, Any]) -> bytes:
        """Some begin twice, and some with blocks, or even a stop reason, that are there already."""
        if self._begun:
            return b""
        self._begun = True
        self._count(found := mapping(message.get("usage")))
        self._introduce(text(message.get("id")), text(message.get("model")) or self._call.model)
        self._extras.update(extras_of(message))
        self._reason = message.get("stop_reason")
        if found and self._reason is not None:
            self.usage.source = "provider"
        out = [self._chunk({"role": "assistant", "content": ""})]
        content = message.get("content")
        blocks = [each for each in content if isinstance(each, dict)] if isinstance(content, list) else []
        for index, block in enumerate(blocks, -len(blocks)):
            out += [self._open(index, block), self._shut(self._blocks[index])]
        return b"".join(out)

    def _count(self, found: dict[str, Any]) -> None:
        self._used.update(usage_of(found))
        read_usage(self._used, self.usage)

    def _open(self, index: Any, block: Block) -> bytes:
        if type(index) is not int or index in self._blocks:
            raise ProviderError(Kind.BROKEN, "The provider began a part of its answer twice.")
        self._keep(dumps(block))
        self._kept += _OF_A_BLOCK
        self._blocks[index] = growing = _Growing(block)
        match block.get("type"):
            case "text":
                growing.start = self._written
                return self._told("content", text(block.get("text")))
            case "thinking":
                return self._told("reasoning_content", text(block.get("thinking")))
            case "tool_use":
                return self._open_call(growing)
        return b""

    def _open_call(self, growing: _Growing) -> bytes:
        growing.is_answer = self._by_tool and growing.block.get("name") == JSON_TOOL
        if growing.is_answer:
            return b""
        growing.call = self._calls
        self._calls += 1
        return self._chunk({"tool_calls": [{"index": growing.call, **tool_call(growing.block, "")}]})

    def _growing(self, index: Any) -> _Growing:
        found = self._blocks.get(index) if type(index) is int else None
        if found is None:
            raise ProviderError(Kind.BROKEN, "The provider continued a part of its answer that it never began.")
        return found

    def _grow(self, growing: _Growing, delta: dict[str, Any]) -> bytes:
        kind = text(delta.get("type"))
        if kind == "input_json_delta" and (piece := text(delta.get("partial_json"))):
            growing.input.append(self._keep(piece))
            return self._arguments(growing, piece)
        if kind == "citations_delta" and isinstance(delta.get("citation"), dict):
            self._keep(dumps(delta))
            growing.citations.append(delta["citation"])
        if kind not in _KNOWN and growing.block.get("type") not in KINDS:
            self._grow_unknown(growing, delta)
        name = _GROWS.get(kind, "")
        if not (piece := self._keep(text(delta.get(name)))):
            return b""
        growing.pieces.setdefault(name, []).append(piece)
        if name == "signature":
            return b""
        return self._told("content" if name == "text" else "reasoning_content", piece)

    def _grow_unknown(self, growing: _Growing, delta: dict[str, Any]) -> None:
        """A delta of a block that is only carried, such as `compaction`: texts grow, all else is replaced."""
        self._keep(dumps(delta))
        for name, value in delta.items():
            if isinstance(value, str) and name != "type":
                growing.pieces.setdefault(name, []).append(value)
            elif value is not None and name != "type":
                growing.others[name] = value

    def _arguments(self, growing: _Growing, piece: str) -> bytes:
        if growing.is_answer:
            return self._told("content", piece)
        if growing.call is None:
            return b""
        return self._chunk({"tool_calls": [{"index": growing.call, "function": {"arguments": piece}}]})

    def _shut(self, growing: _Growing) -> bytes:
        """The end of a block: what of it can only be told whole."""
        if growing.closed:
            return b""
        growing.closed = True
        kind = growing.block.get("type")
        if kind == "tool_use":
            return b"" if any(growing.input) else self._arguments(growing, arguments_of(growing.block))
        if kind == "text" and (growing.citations or growing.block.get("citations")):
            annotations = annotations_of(growing.whole(), growing.start)
            return self._chunk({"annotations": annotations}) if annotations else b""
        if kind in ("thinking", "redacted_thinking") and (detail := reasoning_detail(growing.whole())):
            self._details += 1
            return self._chunk({"reasoning_details": [{**detail, "index": self._details - 1}]})
        return b""

    def _message(self, document: dict[str, Any]) -> bytes:
        delta = mapping(document.get("delta"))
        if found := mapping(document.get("usage")):
            self._count(found)
            self.usage.source = "provider"
        self._extras.update({**extras_of(document), **extras_of(delta)})
        if delta.get("stop_reason") is None or self._finish is not None:
            return b""
        out = b""
        if explanation := text(mapping(delta.get("stop_details")).get("explanation")):
            out = self._chunk({"refusal": explanation})
        return out + self._end(delta["stop_reason"])

    def _end(self, reason: Any) -> bytes:
        """Everything that is still open, what a request has to give back, and the finish reason."""
        out = b"".join([self._shut(growing) for growing in self._blocks.values()])
        if not self._by_tool and (carried := self._carried()):
            out += self._chunk({"anthropic": carried})
        self._finish = finish_of(reason, self._calls > 0)
        end = {"index": 0, "delta": {}, "finish_reason": self._finish, "native_finish_reason": reason}
        beside = {NAME: self._extras} if self._extras else {}
        return out + event(dumps({**self._head, "choices": [end], **beside}))

    def _carried(self) -> dict[str, Any] | None:
        try:
            return carried_of([self._blocks[index].whole() for index in sorted(self._blocks)])
        except ValueError:  # the answer ends in the middle of a tool's input: nobody can give that back
            return None

    def _told(self, name: str, piece: str) -> bytes:
        if not piece:
            return b""
        if name == "content":
            self._written += len(piece)
        return self._chunk({name: piece})

    def _chunk(self, delta: dict[str, Any]) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        return self._prefix + dumps(choice) + b"]}\n\n"

    def _usage_chunk(self) -> bytes:
        if not self._call.wants_usage or self.usage.source != "provider":
            return b""
        told = usage_object(self.usage, self._used, self._call.pricing)
        return event(dumps({**self._head, "choices": [], "usage": told}))

    def _keep(self, piece: Any) -> Any:
        self._kept += len(piece)
        if self._kept > self._most_kept:
            raise ProviderError(Kind.BROKEN, f"The provider's answer is longer than {self._most_kept} characters.")
        return piece
