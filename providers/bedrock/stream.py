"""Why: blocks begin, grow and end there under an index of their own, while a client here only appends.

Text, reasoning and arguments pass on as they grow; what can only be told whole (reasoning with its signature, a
picture, a citation with its text) follows its block. An answer is kept while it passes, for those, within `MAX_KEPT`
characters. It is finished by a stop reason; usage follows in the last event, and without it is not known.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

import base64
import binascii
from collections.abc import Iterable
from typing import Any

from providers.contract import Call, Kind, ProviderError
from providers.document import dumps, load_object, loads
from providers.sse import event
from providers.streaming import StreamDecoder

from . import failures
from .answer import (
    annotations_of,
    blocks_of,
    call_of,
    carried_of,
    extras_of,
    finish_of,
    image_of,
    mapping,
    read_usage,
    reasoning_detail,
    text,
    tool_call,
    usage_object,
)
from .frames import Frame, Frames
from .models import model_of
from .parts import Block

MAX_KEPT = 32 * 1024 * 1024
"""Characters of one answer; a model writes a million at most."""

_OF_A_BLOCK = 1000
"""What an empty one is counted as."""


class _Growing:
    """A block on its way. `call` is the index of the tool call that it is told as, `before` the text before it."""

    __slots__ = ("before", "begun", "call", "citations", "closed", "pieces", "results")

    def __init__(self, begun: Block, before: int) -> None:
        self.begun = begun
        self.before = before
        self.call: int | None = None
        self.pieces: dict[str, list[str]] = {}
        self.citations: list[Block] = []
        self.results: list[Block] = []
        self.closed = False

    @property
    def use(self) -> Block:
        return mapping(self.begun.get("toolUse"))

    def joined(self, name: str) -> str:
        return "".join(self.pieces.get(name, ()))

    def whole(self) -> Block:
        """The block as it stands in an answer that is not streamed. Raises `ValueError` for a cut input."""
        if self.use:
            return {"toolUse": {**self.use, "input": loads(self.joined("input").encode("utf-8", "replace") or b"{}")}}
        if result := mapping(self.begun.get("toolResult")):
            return {"toolResult": {**result, "content": self.results}}
        if "bytes" in self.pieces:
            source = {"bytes": _joined_base64(self.pieces["bytes"])}
            return {"image": {**mapping(self.begun.get("image")), "source": source}}
        if "redactedContent" in self.pieces:
            return {"reasoningContent": {"redactedContent": _joined_base64(self.pieces["redactedContent"])}}
        if {"reasoning", "signature"} & set(self.pieces):
            signed = {"signature": self.joined("signature")} if "signature" in self.pieces else {}
            return {"reasoningContent": {"reasoningText": {"text": self.joined("reasoning"), **signed}}}
        if self.citations:
            content = [{"text": self.joined("text")}]
            return {"citationsContent": {"content": content, "citations": self.citations}}
        return {"text": self.joined("text")}


class BedrockDecoder(StreamDecoder):
    """One stream, as chat completion chunks. Padding and unknown events are dropped."""

    __slots__ = (
        "_blocks",
        "_call",
        "_calls",
        "_claude",
        "_details",
        "_finish",
        "_frames",
        "_head",
        "_kept",
        "_used",
        "_written",
    )

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call
        self._claude = model_of(call.model).house == "anthropic"
        self._frames = Frames()
        self._finish: str | None = None
        self._head: dict[str, Any] = {"id": "", "object": "chat.completion.chunk", "created": 0, "model": call.model}
        self._blocks: dict[int, _Growing] = {}
        self._calls = 0
        self._details = 0
        self._kept = 0
        self._written = 0
        self._used: dict[str, Any] = {}

    @property
    def finished(self) -> bool:
        """Whether a stop reason has been seen."""
        return self._finish is not None

    def _read(self, data: bytes) -> Iterable[bytes]:
        return map(self._frame, self._frames.feed(data))

    def _ending(self) -> Iterable[bytes]:
        yield self._usage_chunk()

    def _frame(self, frame: Frame) -> bytes:
        if frame.headers.get(":message-type") in ("exception", "error"):
            raise failures.from_frame(frame.headers, frame.payload)
        match frame.headers.get(":event-type"):
            case "messageStart":
                return self._chunk({"role": "assistant", "content": ""})
            case "contentBlockStart":
                return self._began(load_object(frame.payload))
            case "contentBlockDelta":
                return self._grew(load_object(frame.payload))
            case "contentBlockStop":
                return self._shut(self._block(load_object(frame.payload), {}))
            case "messageStop":
                return self._stopped(load_object(frame.payload))
            case "metadata":
                return self._metadata(load_object(frame.payload))
        return b""

    def _block(self, document: dict[str, Any], begun: Block) -> _Growing:
        """The block that an event is of; a text begins without an event."""
        index = document.get("contentBlockIndex")
        index = index if type(index) is int else -1
        if (growing := self._blocks.get(index)) is None:
            self._keep(_OF_A_BLOCK + len(dumps(begun)))
            self._blocks[index] = growing = _Growing(begun, self._written)
        return growing

    def _began(self, document: dict[str, Any]) -> bytes:
        begun = mapping(document.get("start"))
        growing = self._block(document, begun)
        if growing.begun is not begun or not (use := call_of(begun)):
            return b""
        growing.call, self._calls = self._calls, self._calls + 1
        return self._chunk({"tool_calls": [{"index": growing.call, **tool_call(use, "")}]})

    def _grew(self, document: dict[str, Any]) -> bytes:
        growing = self._block(document, {})
        delta = mapping(document.get("delta"))
        reasoning = mapping(delta.get("reasoningContent"))
        out = b""
        if self._piece(growing, "text", delta.get("text")):
            self._written += len(delta["text"])
            out = self._chunk({"content": delta["text"]})
        for name in ("signature", "redactedContent"):
            self._piece(growing, name, reasoning.get(name))
        if self._piece(growing, "reasoning", reasoning.get("text")):
            out += self._chunk({"reasoning_content": reasoning["text"]})
        if citation := mapping(delta.get("citation")):
            self._keep(len(dumps(citation)))
            growing.citations.append(citation)
            out += self._chunk({"citations": [citation]})
        for result in blocks_of(delta.get("toolResult")):
            self._keep(len(dumps(result)))
            growing.results.append(result)
        self._piece(growing, "bytes", mapping(mapping(delta.get("image")).get("source")).get("bytes"))
        return out + self._input(growing, mapping(delta.get("toolUse")).get("input"))

    def _input(self, growing: _Growing, piece: Any) -> bytes:
        if isinstance(piece, dict | list):
            piece = dumps(piece).decode()
        if not self._piece(growing, "input", piece) or growing.call is None:
            return b""
        return self._chunk({"tool_calls": [{"index": growing.call, "function": {"arguments": piece}}]})

    def _piece(self, growing: _Growing, name: str, piece: Any) -> bool:
        """Keep a piece of a block; whether there is one."""
        if not text(piece):
            return False
        self._keep(len(piece))
        growing.pieces.setdefault(name, []).append(piece)
        return True

    def _shut(self, growing: _Growing) -> bytes:
        """The end of a block: what of it can only be told whole."""
        if growing.closed:
            return b""
        growing.closed = True
        if growing.use:
            return b"" if "input" in growing.pieces else self._input(growing, "{}")
        whole = growing.whole()
        if detail := reasoning_detail(whole, self._claude):
            self._details += 1
            return self._chunk({"reasoning_details": [{**detail, "index": self._details - 1}]})
        if image := image_of(whole):
            return self._chunk({"images": [image]})
        annotations = annotations_of(whole, growing.before)
        return self._chunk({"annotations": annotations}) if annotations else b""

    def _stopped(self, document: dict[str, Any]) -> bytes:
        """Everything that is still open, what a request has to give back, and the finish reason."""
        if self._finish is not None:
            return b""
        reason = document.get("stopReason")
        out = b"".join([self._shut(growing) for growing in self._blocks.values()])
        if carried := self._carried():
            out += self._chunk({"bedrock": carried})
        self._finish = finish_of(reason, self._calls > 0)
        end = {"finish_reason": self._finish, "native_finish_reason": reason}
        choice: dict[str, Any] = {"index": 0, "delta": {}, **end}
        return out + event(dumps({**self._head, "choices": [choice], **extras_of(document)}))

    def _carried(self) -> dict[str, Any] | None:
        try:
            return carried_of([self._blocks[index].whole() for index in sorted(self._blocks)])
        except ValueError:  # the answer ends in the middle of a tool's input: nobody can give that back
            return None

    def _metadata(self, document: dict[str, Any]) -> bytes:
        if found := mapping(document.get("usage")):
            read_usage(found, self.usage)
            self._used = found
        self.ended = True
        extras = extras_of(document)
        return event(dumps({**self._head, "choices": [], **extras})) if extras else b""

    def _chunk(self, delta: dict[str, Any]) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        return event(dumps({**self._head, "choices": [choice]}))

    def _usage_chunk(self) -> bytes:
        if not self._call.wants_usage or self.usage.source != "provider":
            return b""
        told = usage_object(self.usage, self._used, self._call.pricing)
        return event(dumps({**self._head, "choices": [], "usage": told}))

    def _keep(self, size: int) -> None:
        self._kept += size
        if self._kept > MAX_KEPT:
            raise ProviderError(Kind.BROKEN, f"The provider's answer is longer than {MAX_KEPT} characters.")


def _joined_base64(pieces: list[str]) -> str:
    """One text out of several, each of which may end in padding."""
    try:
        return base64.b64encode(b"".join([base64.b64decode(each, validate=True) for each in pieces])).decode()
    except (binascii.Error, ValueError):
        return "".join(pieces)
