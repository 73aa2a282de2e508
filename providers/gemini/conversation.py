"""Why: the same talk is told differently: parts instead of content, results matched by a function's name, one system.

All system and developer messages are joined, in order, in `systemInstruction`; a talk of nothing else is sent as the
user's. Results of tools that stand together become one turn, in the order of the calls that they answer: without
ids that is how Gemini matches them.

A thought signature has to come back on the very part that it came with. Answers carry it in `reasoning_details`, a
call's with the call's id, the text's without one; for clients that keep only the calls it also stands in the call's
`extra_content.google.thought_signature`, as in Google's OpenAI layer. A call that has lost it, or was another
model's, gets the mark that Google documents for that. Parts that OpenAI has no form for stand in a message's
`gemini.parts`.

Sources: https://ai.google.dev/gemini-api/docs/thought-signatures, .../function-calling, and for `reasoning_details`
https://openrouter.ai/docs/use-cases/reasoning-tokens#preserving-reasoning-blocks
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.document import loads
from providers.refusal import Tolerance, a_list, a_string, an_object, refused

from .media import KINDS, Media, Part
from .models import checks_signatures, takes_media_in_results

FORMAT = "google-gemini-v1"
"""OpenRouter's name for Gemini's reasoning details."""

UNSIGNED = "skip_thought_signature_validator"

_KNOWN = {"role", "content", "tool_calls", "tool_call_id", "refusal", "images", "gemini", "reasoning_details"}
_OF_TALK = {"gemini"}
_HARMLESS = {"cache_control", "annotations", "reasoning", "reasoning_content", "thinking_blocks"}
"""Marks of a cache that works by itself here, and fields of answers, which clients send back with the message."""


@dataclass(slots=True)
class Conversation:
    """One request's messages on their way into `contents` and `systemInstruction`."""

    model: str
    tolerance: Tolerance
    media: Media
    system: list[Part] = field(default_factory=list)
    contents: list[dict[str, Any]] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)
    _order: list[str] = field(default_factory=list)
    _results: list[tuple[int, list[Part]]] = field(default_factory=list)

    def read(self, messages: Any) -> None:
        """Raises `ProviderError` naming what cannot be expressed."""
        for index, message in enumerate(a_list(messages, "messages")):
            place = f"messages[{index}]"
            role = an_object(message, place).get("role")
            self._check(message, place)
            if role == "tool":
                self._results.append(self._result(message, place))
                continue
            self._flush()
            self._turn(role, message, place)
        self._flush()
        if self.system and not self.contents:
            self.contents, self.system = [{"role": "user", "parts": self.system}], []

    def _turn(self, role: Any, message: Mapping[str, Any], place: str) -> None:
        match role:
            case "system" | "developer":
                self.system += self._only_text(message.get("content"), f"{place}.content")
            case "user":
                parts = self._parts(message.get("content"), f"{place}.content")
                self._add("user", [*parts, *self._native(message, place)])
            case "assistant":
                self._add("model", self._answer(message, place))
            case _:
                raise refused(f"{place}.role", "must be system, developer, user, assistant or tool.")

    def _check(self, message: Mapping[str, Any], place: str) -> None:
        for name, value in message.items():
            if value is None or value in ([], {}, "") or name in _HARMLESS:
                continue
            if name in _KNOWN and (name not in _OF_TALK or message.get("role") in ("user", "assistant")):
                continue
            if (name, message.get("role")) != ("name", "tool"):
                self.tolerance.cannot(f"{place}.{name}", "has no place in Gemini's contents.")

    def _add(self, role: str, parts: list[Part]) -> None:
        if parts:
            self.contents.append({"role": role, "parts": parts})

    def _flush(self) -> None:
        """The results gathered so far as one turn, in the order of their calls."""
        if self._results:
            ordered = sorted(self._results, key=lambda each: each[0])
            self._results = []
            self._add("user", [part for _, parts in ordered for part in parts])

    def _only_text(self, content: Any, place: str) -> list[Part]:
        parts = self._parts(content, place)
        for index, part in enumerate(parts):
            if "text" not in part:
                raise refused(f"{place}[{index}]", "only text can stand in the system's instruction.")
        return [part for part in parts if part["text"]]

    def _parts(self, content: Any, place: str) -> list[Part]:
        if content is None:
            return []
        if isinstance(content, str):
            return [{"text": content}]
        each = (self._part(part, f"{place}[{index}]") for index, part in enumerate(a_list(content, place)))
        return [part for part in each if part is not None]

    def _part(self, part: Any, place: str) -> Part | None:
        if isinstance(part, str):
            return {"text": part}
        kind = an_object(part, place).get("type")
        if kind in ("text", "input_text", "output_text"):
            return {"text": a_string(part.get("text"), f"{place}.text")}
        if kind == "refusal":
            return {"text": a_string(part.get("refusal"), f"{place}.refusal")}
        if kind in KINDS:
            return self.media.part(part, place)
        self.tolerance.cannot(place, f"a part of type {str(kind)[:40]!r} has no place in Gemini's contents.")
        return None

    def _answer(self, message: Mapping[str, Any], place: str) -> list[Part]:
        details = _details(message)
        parts = [*_thoughts(details), *self._native(message, place)]
        content = message.get("content")
        texts = [] if content == "" else self._parts(content, f"{place}.content")
        if message.get("refusal"):
            texts.append({"text": a_string(message["refusal"], f"{place}.refusal")})
        images = self._images(message.get("images"), f"{place}.images")
        calls = self._calls(message, place, details)
        loose = [each["data"] for each in details if each.get("type") == "reasoning.encrypted" and not _id(each)]
        return [*parts, *_signed(texts, loose), *images, *calls]

    def _images(self, images: Any, place: str) -> list[Part]:
        """Images that the model made, each with the signature that it came with."""
        parts = self._parts(images, place)
        if len(parts) != len(images or ()):
            return parts
        signatures = [_googles(each) if isinstance(each, dict) else "" for each in images or ()]
        return [
            {**part, "thoughtSignature": signature} if signature else part
            for part, signature in zip(parts, signatures, strict=True)
        ]

    def _native(self, message: Mapping[str, Any], place: str) -> list[Part]:
        own = an_object(message.get("gemini") or {}, f"{place}.gemini")
        parts = a_list(own.get("parts") or [], f"{place}.gemini.parts")
        return [an_object(part, f"{place}.gemini.parts[{index}]") for index, part in enumerate(parts)]

    def _calls(self, message: Mapping[str, Any], place: str, details: list[dict[str, Any]]) -> list[Part]:
        kept = {
            _id(each): each["data"] for each in details if each.get("type") == "reasoning.encrypted" and _id(each)
        }
        parts = []
        self._order = []
        for index, call in enumerate(a_list(message.get("tool_calls") or [], f"{place}.tool_calls")):
            where = f"{place}.tool_calls[{index}]"
            if an_object(call, where).get("type", "function") != "function":
                self.tolerance.cannot(where, "only functions can be called.")
                continue
            part = self._call(call, where)
            if signature := kept.get(part["functionCall"].get("id", "")) or _googles(call):
                part["thoughtSignature"] = signature
            parts.append(part)
        if parts and checks_signatures(self.model) and not any("thoughtSignature" in part for part in parts):
            parts[0]["thoughtSignature"] = UNSIGNED
        return parts

    def _call(self, call: Mapping[str, Any], place: str) -> Part:
        function = an_object(call.get("function"), f"{place}.function")
        name = a_string(function.get("name"), f"{place}.function.name")
        found: Part = {"name": name, "args": _arguments(function.get("arguments"), f"{place}.function.arguments")}
        if call.get("id"):
            identifier = a_string(call["id"], f"{place}.id")
            self._names[identifier] = name
            self._order.append(identifier)
            found["id"] = identifier
        return {"functionCall": found}

    def _result(self, message: Mapping[str, Any], place: str) -> tuple[int, list[Part]]:
        """The place of a result among its turn's, and its parts."""
        identifier = a_string(message.get("tool_call_id"), f"{place}.tool_call_id")
        name = self._names.get(identifier) or message.get("name")
        if not isinstance(name, str) or not name:
            raise refused(f"{place}.tool_call_id", "is the id of no call before it, so its function has no name.")
        texts, media = self._told(message.get("content"), f"{place}.content")
        response: Part = {"id": identifier, "name": name, "response": texts}
        order = self._order.index(identifier) if identifier in self._order else len(self._order)
        if media and takes_media_in_results(self.model):
            response["parts"], media = media, []
        return order, [{"functionResponse": response}, *media]

    def _told(self, content: Any, place: str) -> tuple[dict[str, Any], list[Part]]:
        """A result as the object that Gemini wants, and the files in it."""
        if content is not None and not isinstance(content, str | list):
            return (content if isinstance(content, dict) else {"result": content}), []
        parts = self._parts(content, place)
        media = [part for part in parts if "text" not in part]
        text = "".join(part["text"] for part in parts if "text" in part)
        try:
            found = loads(text.encode()) if text.lstrip().startswith("{") else None
        except ValueError:
            found = None
        return (found if isinstance(found, dict) else {"result": text}), media


def _details(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Our own reasoning details; those of other providers are nobody's to give back."""
    found = message.get("reasoning_details")
    ours = (each for each in found if isinstance(each, dict)) if isinstance(found, list) else ()
    return [
        each
        for each in ours
        if each.get("format") == FORMAT
        and (each.get("type") != "reasoning.encrypted" or isinstance(each.get("data"), str))
    ]


def _thoughts(details: list[dict[str, Any]]) -> Iterator[Part]:
    """Thoughts that are signed; the others are summaries, which Gemini does not read."""
    for each in details:
        if each.get("type") == "reasoning.text" and isinstance(each.get("signature"), str):
            yield {"text": str(each.get("text") or ""), "thought": True, "thoughtSignature": each["signature"]}


def _signed(texts: list[Part], signatures: list[str]) -> list[Part]:
    """The text with its signature on its last part; further ones on parts of their own."""
    if texts and signatures:
        texts = [*texts[:-1], {**texts[-1], "thoughtSignature": signatures[0]}]
        signatures = signatures[1:]
    return [*texts, *({"text": "", "thoughtSignature": each} for each in signatures)]


def _id(detail: Mapping[str, Any]) -> str:
    value = detail.get("id")
    return value if isinstance(value, str) else ""


def _googles(call: Mapping[str, Any]) -> str:
    """The signature as Google's OpenAI layer keeps it in a call."""
    found: Any = call
    for name in ("extra_content", "google", "thought_signature"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""


def _arguments(value: Any, place: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    text = a_string(value if value is not None else "", place).strip()
    try:
        found = loads(text.encode()) if text else {}
    except ValueError:
        found = None
    return an_object(found, place)
