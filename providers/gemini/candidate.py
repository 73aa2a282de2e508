"""Why: one candidate's parts, whole or in a stream, become a message's fields in one way.

Text is `content`, thoughts are `reasoning_content`; thoughts and signatures also stand in `reasoning_details`, to be
given back. Calls without an id get one made of the answer's id and their number. Images are `images` (as OpenRouter
has them), audio is `audio`, sources of a search are `annotations`. What OpenAI has no form for (code that Google ran,
and what it gave) stands in `gemini.parts`. `native_finish_reason` is the provider's own word.

Source: https://ai.google.dev/api/generate-content#candidate
"""

import hashlib
from collections.abc import Mapping
from typing import Any, TypeAlias

from providers.document import encoded

from .arguments import Arguments
from .citations import Text
from .conversation import FORMAT

Document: TypeAlias = dict[str, Any]

MAX_OWN = 50
"""Fields of a candidate that are kept to its end."""

_FINISH = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "MALFORMED_FUNCTION_CALL": "stop",
    "MALFORMED_RESPONSE": "stop",
    "UNEXPECTED_TOOL_CALL": "stop",
    "TOO_MANY_TOOL_CALLS": "stop",
    "MISSING_THOUGHT_SIGNATURE": "stop",
    "NO_IMAGE": "stop",
    "CONTINUATION": "length",
}
"""Everything else is a reason not to let the answer through: `content_filter`."""

_NUMBERED = {
    1: "STOP",
    2: "MAX_TOKENS",
    3: "SAFETY",
    4: "RECITATION",
    5: "OTHER",
    6: "BLOCKLIST",
    7: "PROHIBITED_CONTENT",
    8: "SPII",
    9: "MALFORMED_FUNCTION_CALL",
}
"""Where the caller asked for enums as numbers. Source: google/cloud/aiplatform/v1/content.proto"""

_TOLD = {"content", "finishReason", "index", "logprobsResult", "tokenCount"}
_UNSPECIFIED = {"", 0, "FINISH_REASON_UNSPECIFIED"}
_SIDE = {"thought", "thoughtSignature", "videoMetadata", "partMetadata"}


class Candidate:
    """One choice of an answer. `take` gives what is new of it as a delta; `own` is what only Google has."""

    __slots__ = ("_calls", "_details", "_id", "_index", "_open", "_text", "begun", "own", "reason")

    def __init__(self, identifier: str, index: int) -> None:
        self.reason: str | None = None
        self.begun = False
        self.own: Document = {}
        self._id = identifier
        self._index = index
        self._calls = 0
        self._details = 0
        self._open: tuple[int, Arguments] | None = None
        self._text = Text()

    def take(self, document: Document) -> Document:
        """Raises `ProviderError` for what cannot be understood."""
        delta: Document = {}
        content = document.get("content")
        for part in _objects(content.get("parts") if isinstance(content, dict) else None):
            self._part(part, delta)
        reason = document.get("finishReason")
        if isinstance(reason, str | int) and reason not in _UNSPECIFIED:
            self.end(_NUMBERED.get(reason, str(reason)) if isinstance(reason, int) else reason)
        grounded = self._text.annotations(document.get("groundingMetadata"))
        if found := [*grounded, *self._text.quoted(document.get("citationMetadata"))]:
            delta["annotations"] = found
        self.note(document)
        return _joined(delta)

    def note(self, fields: Mapping[str, Any]) -> None:
        """Keep what there is no other place for, as it was said last."""
        for name, value in fields.items():
            if value and name not in _TOLD and (name in self.own or len(self.own) < MAX_OWN):
                self.own[name] = value

    def choice(self) -> Document:
        """What is told of it when it is over."""
        told = {"finish_reason": self.finish, "native_finish_reason": self.reason}
        return {**told, "gemini": self.own} if self.own else told

    def end(self, reason: str) -> None:
        """The provider's word for why it ended; the last one counts, for some repeat STOP on every chunk."""
        self.reason = reason[:100]

    def rest(self) -> Document:
        """What is left to be told when the answer is over: the arguments of a call that was never closed."""
        delta: Document = {}
        self._close_call(delta)
        return _joined(delta)

    @property
    def finish(self) -> str:
        """Why it ended, in OpenAI's words."""
        found = "stop" if self.reason is None else _FINISH.get(self.reason, "content_filter")
        return "tool_calls" if found == "stop" and self._calls else found

    def _part(self, part: Document, delta: Document) -> None:
        signature = part.get("thoughtSignature")
        signature = signature if isinstance(signature, str) and signature else None
        text = part.get("text")
        if part.get("thought") is True:
            self._thought(part, text, signature, delta)
            return
        if isinstance(call := part.get("functionCall"), dict):
            self._call(call, signature, delta)
            return
        if isinstance(text, str):
            delta.setdefault("content", []).append(text)
            self._text.add(text)
        elif self._media(part.get("inlineData"), signature, delta):
            return
        elif part.keys() - _SIDE:
            delta.setdefault("gemini", {"parts": []})["parts"].append(part)
            return
        if signature:
            self._detail(delta, "reasoning.encrypted", data=signature)

    def _thought(self, part: Document, text: Any, signature: str | None, delta: Document) -> None:
        """A summary in words; an image of a thought is no image of the answer."""
        if not isinstance(text, str):
            delta.setdefault("gemini", {"parts": []})["parts"].append(part)
            return
        delta.setdefault("reasoning_content", []).append(text)
        self._detail(delta, "reasoning.text", text=text, **({"signature": signature} if signature else {}))

    def _detail(self, delta: Document, kind: str, **fields: Any) -> None:
        detail = {"type": kind, **fields, "format": FORMAT, "index": self._details}
        delta.setdefault("reasoning_details", []).append(detail)
        self._details += 1

    def _media(self, blob: Any, signature: str | None, delta: Document) -> bool:
        """Whether this is an image or a sound, and so can be said in OpenAI's words."""
        kind, data = (blob.get("mimeType"), blob.get("data")) if isinstance(blob, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(data, str):
            return False
        if kind.startswith("image/"):
            image = {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
            delta.setdefault("images", []).append({**image, **_signed(signature)})
            return True
        if not kind.startswith("audio/"):
            return False
        empty = {"id": f"audio_{self._id}", "data": [], "expires_at": 0, "transcript": ""}
        delta.setdefault("audio", empty)["data"].append(data)
        if signature:
            self._detail(delta, "reasoning.encrypted", data=signature)
        return True

    def _call(self, call: Document, signature: str | None, delta: Document) -> None:
        name = call.get("name")
        if self._open is None and not (name or call.get("args") or call.get("partialArgs")):
            return
        if self._open is None or (isinstance(name, str) and name):
            self._close_call(delta)
            self._begin(call, name if isinstance(name, str) else "", signature, delta)
        if self._open is not None:
            arguments = self._open[1]
            if isinstance(given := call.get("args"), dict):
                arguments.give(given)
            for partial in _objects(call.get("partialArgs")):
                arguments.take(partial)
            if call.get("willContinue") is not True:
                self._close_call(delta)

    def _begin(self, call: Document, name: str, signature: str | None, delta: Document) -> None:
        own = call.get("id")
        identifier = own if isinstance(own, str) and own else self._made_id()
        told: Document = {"index": self._calls, "id": identifier, "type": "function"}
        told["function"] = {"name": name, "arguments": ""}
        if signature:
            self._detail(delta, "reasoning.encrypted", data=signature, id=identifier)
            told |= _signed(signature)
        delta.setdefault("tool_calls", []).append(told)
        self._open = (self._calls, Arguments())
        self._calls += 1

    def _close_call(self, delta: Document) -> None:
        if self._open is None:
            return
        index, arguments = self._open
        self._open = None
        text = encoded(arguments.whole()).decode()
        calls = delta.setdefault("tool_calls", [])
        if calls and calls[-1]["index"] == index:
            calls[-1]["function"]["arguments"] += text
        else:
            calls.append({"index": index, "function": {"arguments": text}})

    def _made_id(self) -> str:
        seed = f"{self._id}/{self._index}/{self._calls}"
        return f"call_{hashlib.sha256(seed.encode('utf-8', 'replace')).hexdigest()[:24]}"


def _signed(signature: str | None) -> Document:
    """A signature on the very thing that it belongs to, as Google's OpenAI layer has it."""
    return {"extra_content": {"google": {"thought_signature": signature}}} if signature else {}


def _objects(value: Any) -> list[Document]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _joined(delta: Document) -> Document:
    """The delta with the pieces of its texts made one."""
    for name in ("content", "reasoning_content"):
        if name in delta:
            delta[name] = "".join(delta[name])
    if "audio" in delta:
        delta["audio"]["data"] = "".join(delta["audio"]["data"])
    return delta
