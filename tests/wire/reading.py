"""What an application reads from an answer with the official SDK: the same whether it came whole or as a stream."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion_usage import CompletionUsage

from tests.wire.recordings import Document


@dataclass
class Reading:
    """The first choice of an answer, and the usage of all. `native`: as its provider tells it, without us."""

    text: str = ""
    reasoning: str = ""
    tool_calls: list[Document] = field(default_factory=list)
    finish: str | None = None
    usage: Document | None = None
    choices: set[int] = field(default_factory=set)
    details: list[Document] = field(default_factory=list)
    refusal: str = ""
    native: bool = False

    def note_part(self, part: Any) -> None:
        """Add a message, or a part of one."""
        self._note_content(getattr(part, "content", None))
        self.details += getattr(part, "reasoning_details", None) or []
        self.refusal += getattr(part, "refusal", None) or ""
        reasoning = getattr(part, "reasoning_content", None)
        if self.native and not reasoning:
            reasoning = getattr(part, "reasoning", None) or self._of_details(part)
        if isinstance(reasoning, str):
            self.reasoning += reasoning

    def _note_content(self, content: Any) -> None:
        """Text; from a provider itself also Mistral's list of parts: text, and thinking that holds such a list."""
        if isinstance(content, str):
            self.text += content
        for part in content if isinstance(content, list) and self.native else ():
            if part["type"] == "text":
                self.text += part["text"]
            elif part["type"] == "thinking":
                self.reasoning += "".join(each.get("text", "") for each in part["thinking"])

    def _of_details(self, part: Any) -> str:
        """OpenRouter's way to tell it, where it is the only one (Snowflake)."""
        return "".join(each.get("text") or "" for each in getattr(part, "reasoning_details", None) or ())


def read_whole(answer: ChatCompletion, reading: Reading | None = None) -> Reading:
    reading = reading or Reading()
    reading.usage, reading.choices = _usage(answer.usage), {choice.index or 0 for choice in answer.choices}
    choice = answer.choices[0]
    reading.note_part(choice.message)
    reading.tool_calls = [_tool_call(call.function.name, call.function.arguments) for call in _calls(choice.message)]
    reading.finish = choice.finish_reason
    return reading


async def read_stream(chunks: AsyncIterator[ChatCompletionChunk], reading: Reading) -> None:
    """Into `reading`, so that what came before an error is not lost."""
    calls: dict[int, list[str]] = {}
    async for chunk in chunks:
        reading.usage = _usage(chunk.usage) or reading.usage
        for choice in chunk.choices:
            reading.choices.add(choice.index or 0)
            if choice.index:
                continue
            reading.finish = choice.finish_reason or reading.finish
            reading.note_part(choice.delta)
            for call in _calls(choice.delta):
                name_and_arguments = calls.setdefault(call.index, ["", ""])
                name_and_arguments[0] += call.function.name or ""
                name_and_arguments[1] += call.function.arguments or ""
        reading.tool_calls = [_tool_call(*calls[index]) for index in sorted(calls)]


def _calls(part: Any) -> list[Any]:
    return getattr(part, "tool_calls", None) or []


def _tool_call(name: str, arguments: Any) -> Document:
    try:
        return {"name": name, "arguments": json.loads(arguments)}
    except (TypeError, ValueError):
        return {"name": name, "arguments": arguments}


def _usage(usage: CompletionUsage | None) -> Document | None:
    return None if usage is None else usage.model_dump(exclude_none=True)
