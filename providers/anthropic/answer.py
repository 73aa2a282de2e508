"""Why: an answer is a list of blocks there, and a text with things beside it here; whole or streamed, told alike.

Thinking is told as `reasoning_content`, and whole with its signature in `reasoning_details`, which a tool loop gives
back. Citations of web pages become annotations. An answer whose blocks the canonical fields cannot be put together
from again (server tools, citations, text between thinking) carries all of them in the message's `anthropic.content`.
The provider's own stop reason stands beside the finish reason, as OpenRouter's `native_finish_reason`. What else it
says of the answer (the container that code ran in, edits of the context) stands in the answer's `anthropic`.

Sources: https://platform.claude.com/docs/en/api/messages/create, .../build-with-claude/handling-stop-reasons,
.../build-with-claude/compaction, .../agents-and-tools/tool-use/advisor-tool
"""

from collections.abc import Mapping
from typing import Any

from providers.contract import Pricing, Usage
from providers.document import dumps
from providers.usage import write_cost

from .conversation import FORMAT
from .parts import Block
from .tools import JSON_TOOL

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_PHASES = {"thinking": 0, "redacted_thinking": 0, "text": 1, "tool_use": 2}
KINDS = tuple(_PHASES)
"""The types of blocks that canonical fields can hold."""

_EXTRAS = ("container", "context_management", "stop_sequence", "diagnostics", "input_transformations")
_COUNTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
_BESIDE = ("compaction", "advisor_message")
"""Iterations that the counts of a usage object leave out."""

_USAGE_EXTRAS = ("cache_creation", "server_tool_use", "iterations", "service_tier", "inference_geo", "speed")
_MOST = 10**15


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def message_of(blocks: list[Block], by_tool: bool) -> dict[str, Any]:
    """The assistant's message. `by_tool`: the answer is the arguments of `JSON_TOOL`."""
    written = "".join(text(block.get("text")) for block in blocks if block.get("type") == "text")
    calls = [block for block in blocks if block.get("type") == "tool_use"]
    if by_tool and (answers := [call for call in calls if call.get("name") == JSON_TOOL]):
        calls = [call for call in calls if call.get("name") != JSON_TOOL]
        written = "".join(arguments_of(answer) for answer in answers)
    message: dict[str, Any] = {"role": "assistant", "content": written or (None if calls else "")}
    reasoning = "".join(text(block.get("thinking")) for block in blocks if block.get("type") == "thinking")
    message.update({"reasoning_content": reasoning} if reasoning else {})
    details = [detail for block in blocks if (detail := reasoning_detail(block))]
    if details:
        message["reasoning_details"] = [{**detail, "index": index} for index, detail in enumerate(details)]
    if calls:
        message["tool_calls"] = [tool_call(call, arguments_of(call)) for call in calls]
    if annotations := _annotations(blocks):
        message["annotations"] = annotations
    if not by_tool and (carried := carried_of(blocks)):
        message["anthropic"] = carried
    return message


def tool_call(block: Mapping[str, Any], arguments: str) -> dict[str, Any]:
    function = {"name": text(block.get("name")), "arguments": arguments}
    return {"id": text(block.get("id")), "type": "function", "function": function}


def arguments_of(block: Mapping[str, Any]) -> str:
    return dumps(mapping(block.get("input"))).decode()


def reasoning_detail(block: Mapping[str, Any]) -> dict[str, Any] | None:
    """A block of thinking as OpenRouter tells it; None for any other."""
    if block.get("type") == "redacted_thinking":
        return {"type": "reasoning.encrypted", "data": text(block.get("data")), "format": FORMAT}
    if block.get("type") == "thinking":
        detail = {"type": "reasoning.text", "text": text(block.get("thinking")), "format": FORMAT}
        return {**detail, "signature": block["signature"]} if text(block.get("signature")) else detail
    return None


def annotations_of(block: Mapping[str, Any], start: int) -> list[dict[str, Any]]:
    """The web pages that a block of text cites. `start`: characters of text before it."""
    end = start + len(text(block.get("text")))
    citations = block.get("citations")
    found = []
    for each in citations if isinstance(citations, list) else ():
        if isinstance(each, dict) and isinstance(url := each.get("url"), str):
            cited = {"url": url, "title": text(each.get("title")), "start_index": start, "end_index": end}
            found.append({"type": "url_citation", "url_citation": cited})
    return found


def carried_of(blocks: list[Block]) -> dict[str, Any] | None:
    """All blocks, for a request to give back, where the canonical fields do not hold them; empty texts it refuses."""
    kept = [block for block in blocks if block.get("type") != "text" or text(block.get("text")).strip()]
    phase, texts = 0, 0
    for block in kept:
        this = _PHASES.get(text(block.get("type")), -1)
        texts += this == 1
        caller = mapping(block.get("caller")).get("type", "direct")
        if this < phase or texts > 1 or block.get("citations") or caller != "direct":
            return {"content": kept}
        phase = this
    return None


def extras_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a caller may need for the next request, or have asked for, and OpenAI has no field for."""
    return {name: document[name] for name in _EXTRAS if document.get(name)}


def finish_of(stop_reason: Any, has_calls: bool) -> str:
    """OpenAI's finish reason; a reason that is not known yet is an end like any other."""
    finish = _FINISH.get(text(stop_reason), "stop")
    return "stop" if finish == "tool_calls" and not has_calls else finish


def usage_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a usage object really says; in a stream a later one is cumulative, and may say less."""
    said = {name: found[name] for name in _COUNTS if _count(found, name) is not None}
    return {**said, **{name: found[name] for name in ("output_tokens_details", *_USAGE_EXTRAS) if found.get(name)}}


def read_usage(found: Mapping[str, Any], usage: Usage) -> None:
    """`input_tokens` is there what came neither from the cache nor went into it.

    A summary of the context, or an advisor's word, is a sampling of its own, billed, and counted only among the
    iterations; an advisor's at another model's price, which cannot be said here.
    """
    listed = found.get("iterations")
    beside = [each for each in listed if mapping(each).get("type") in _BESIDE] if isinstance(listed, list) else []
    sums = (sum(_count(each, name) or 0 for each in (found, *beside)) for name in _COUNTS)
    outside, read, written, output = (min(each, _MOST) for each in sums)
    usage.cache_read_tokens = read
    usage.cache_write_tokens = written
    usage.input_tokens = outside + read + written
    usage.output_tokens = output
    thought = _count(mapping(found.get("output_tokens_details")), "thinking_tokens") or 0
    usage.reasoning_tokens = min(thought, output)


def usage_object(usage: Usage, found: Mapping[str, Any], pricing: Pricing | None) -> dict[str, Any]:
    """OpenAI's usage; what `found`, the provider's, says more than that rides along."""
    told: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
    told.update({name: found[name] for name in _USAGE_EXTRAS if found.get(name)})
    if pricing is not None:
        write_cost(told, usage, pricing)
    return told


def _annotations(blocks: list[Block]) -> list[dict[str, Any]]:
    found, start = [], 0
    for block in blocks:
        if block.get("type") == "text":
            found += annotations_of(block, start)
            start += len(text(block.get("text")))
    return found


def _count(found: Mapping[str, Any], name: str) -> int | None:
    value = found.get(name)
    return value if type(value) is int and 0 <= value < _MOST else None
