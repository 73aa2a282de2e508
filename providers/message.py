"""Why: clients read one form of an answer, OpenAI's, and each compatible provider bends it somewhere.

Reasoning comes out as `reasoning_content`, whatever its provider calls it; the provider's own field stays beside it,
for clients that know it. Content that is a list of parts (Mistral) becomes text, its thinking `reasoning_content`,
and parts that are neither stand in `content_parts`. A tool call has an id, a type and arguments that are text.

Some refuse `reasoning_content` in what they get back: `given_back` calls it what they call it.

Sources: https://docs.mistral.ai/capabilities/reasoning, https://console.groq.com/docs/reasoning,
https://openrouter.ai/docs/use-cases/reasoning-tokens, https://inference-docs.cerebras.ai/capabilities/reasoning
"""

import hashlib
from typing import Any, Literal, TypeAlias

from .document import encoded

Document: TypeAlias = dict[str, Any]

Reasoning = Literal["reasoning_content", "reasoning", "thinking"]
"""What a provider calls it in a request; `thinking`: a part of a list that is the content."""

_NAMES = ("reasoning", "reasoning_text")
"""Of Groq, OpenRouter, Ollama, Cerebras and newer vLLM; of Copilot."""
_ELSEWHERE = frozenset((*_NAMES, "reasoning_details"))
_UNPLAIN = frozenset((*_ELSEWHERE, "tool_calls"))


def is_plain(message: Document) -> bool:
    """Whether neither `settle` nor `settle_calls` finds anything to do in a whole message, which has a content."""
    return type(message["content"]) is not list and _UNPLAIN.isdisjoint(message)


def settle(part: Document) -> bool:
    """Put a message, or a delta of one, into OpenAI's form; whether anything had to be changed."""
    content = part.get("content")
    listed = isinstance(content, list)
    if isinstance(content, list):
        _flatten(content, part)
    if not _ELSEWHERE.isdisjoint(part) and not part.get("reasoning_content") and (text := _reasoning(part)):
        part["reasoning_content"] = text
        return True
    return listed


def settle_calls(message: Document, seed: str) -> bool:
    """The same for the tool calls of a whole message; `seed` makes the ids that are missing."""
    changed = False
    for number, call in enumerate(objects(message.get("tool_calls"))):
        changed = complete(call, f"{seed}/{number}") or changed
        function = call.get("function")
        if isinstance(function, dict) and function.get("arguments") is None:
            function["arguments"] = ""
            changed = True
    return changed


def complete(call: Document, seed: str) -> bool:
    """Give a call what OpenAI's always have: an id, a type, arguments as text; whether anything was missing."""
    changed = text_arguments(call)
    if not call.get("id"):
        call["id"] = f"call_{hashlib.sha256(seed.encode('utf-8', 'replace')).hexdigest()[:24]}"
        changed = True
    if not call.get("type"):
        call["type"] = "function"
        changed = True
    return changed


def text_arguments(call: Document) -> bool:
    """Arguments that came as an object become the text of it."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(arguments := function.get("arguments"), dict):
        return False
    function["arguments"] = encoded(arguments).decode()
    return True


def given_back(messages: Any, name: Reasoning) -> Any:
    """The messages of a request with the assistant's reasoning under the provider's name; never changes them."""
    if not isinstance(messages, list):
        return messages
    return [_renamed(each, name) if _tells_reasoning(each) else each for each in messages]


def objects(value: Any) -> list[Document]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _tells_reasoning(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "assistant" and "reasoning_content" in message


def _renamed(message: Document, name: Reasoning) -> Document:
    message = dict(message)
    text = message.pop("reasoning_content")
    if not isinstance(text, str) or not text:
        return message
    if name == "reasoning":
        message.setdefault("reasoning", text)
        return message
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}] if content else []
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
    return {**message, "content": [thought, *(content or [])]}


def _flatten(content: list[Any], part: Document) -> None:
    texts, thoughts, others = [], [], []
    for each in content:
        if isinstance(each, str):
            texts.append(each)
        elif isinstance(each, dict) and each.get("type") == "thinking":
            thoughts.append(_text_of(each.get("thinking")))
        elif isinstance(each, dict) and isinstance(each.get("text"), str):
            texts.append(each["text"])
        else:
            others.append(each)
    part["content"] = "".join(texts) or None
    if thought := "".join(thoughts):
        part["reasoning_content"] = thought
    if others:
        part["content_parts"] = others


def _text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "".join(text for each in objects(value) if isinstance(text := each.get("text"), str))


def _reasoning(part: Document) -> str:
    for name in _NAMES:
        if isinstance(value := part.get(name), str) and value:
            return value
    if not (details := part.get("reasoning_details")):
        return ""
    found = (each.get("text") or each.get("summary") for each in objects(details))
    return "".join(text for text in found if isinstance(text, str))
