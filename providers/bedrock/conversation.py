"""Why: the same talk is told differently: turns that alternate, results as a user's blocks, system text apart.

All system and developer messages are joined, in order, in `system`, wherever they stand. Neighbours of one role
become one turn; in it the results of tools come first, as they must. Reasoning is given back from
`reasoning_details` (or LiteLLM's `thinking_blocks`); without a signature, or of another provider, it is nobody's to
give back and is left out, for models refuse it (https://github.com/aws-samples/bedrock-chat/pull/851), and so is a
message that holds nothing else (https://github.com/NousResearch/hermes-agent/issues/105780). A message's own
`bedrock.content` holds blocks that OpenAI has no form for, and is sent in place of everything else in it: answers
carry it where it is needed.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-call.html, and for
`reasoning_details` https://openrouter.ai/docs/use-cases/reasoning-tokens#preserving-reasoning-blocks
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from providers.canonical import add_turn, arguments_of, check_message
from providers.refusal import Tolerance, a_list, a_string, an_object, refused

from .models import Model
from .parts import Block, Files, blocks_of, distinct, marked

FORMAT = "anthropic-claude-v1"
"""OpenRouter's name for Claude's reasoning details; the signatures are the same wherever a Claude is asked."""

_UNSAFE = re.compile(r"[^a-zA-Z0-9_.:-]")
_UNSAFE_FOR_CLAUDE = re.compile(r"[^a-zA-Z0-9_-]")
_MOST_OF_AN_ID = 64
_FIELDS = {"role", "content", "tool_calls", "tool_call_id", "refusal", "is_error", "cache_control"}
_OF_SYSTEM = ("text", "guardContent", "cachePoint")
_OF_RESULTS = ("text", "json", "image", "document", "video", "searchResult")


def conversation(messages: Any, model: Model, files: Files) -> tuple[list[Block], list[dict[str, Any]]]:
    """The blocks of `system`, and the turns. Raises `ProviderError` naming what cannot be expressed."""
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(a_list(messages, "messages")):
        field = f"messages[{index}]"
        blocks = marked(_blocks(an_object(message, field), field, model, files), message)
        match message.get("role"):
            case "system" | "developer":
                system += _only(_OF_SYSTEM, blocks, f"{field}.content", files.tolerance)
            case "user" | "tool":
                add_turn(turns, "user", blocks, empty=True)
            case "assistant":
                add_turn(turns, "assistant", blocks)
            case _:
                raise refused(f"{field}.role", "must be system, developer, user, assistant or tool.")
    for turn in turns:
        if turn["role"] == "user":
            turn["content"] = _results_first(turn["content"])
    distinct(turns)
    return system, turns


def tool_id(value: Any, field: str, model: Model) -> str:
    """An id that is allowed there; other providers put bars into theirs, or make them longer.

    A Claude allows no dots and colons; others have them in their own ids.
    """
    unsafe = _UNSAFE_FOR_CLAUDE if model.house in ("anthropic", "") else _UNSAFE
    found = unsafe.sub("_", a_string(value, field))
    if len(found) <= _MOST_OF_AN_ID:
        return found
    return f"{found[:47]}_{hashlib.sha256(value.encode('utf-8', 'replace')).hexdigest()[:16]}"


def _results_first(blocks: list[Block]) -> list[Block]:
    """The results of tools, then the rest; a cache mark stays behind what it marks."""
    results: list[Block] = []
    rest: list[Block] = []
    place = rest
    for block in blocks:
        if "cachePoint" not in block:
            place = results if "toolResult" in block else rest
        place.append(block)
    return [*results, *rest]


def _blocks(message: dict[str, Any], field: str, model: Model, files: Files) -> list[Block]:
    own = an_object(message.get("bedrock") or {}, f"{field}.bedrock")
    if own.get("content"):
        place = f"{field}.bedrock.content"
        return [dict(an_object(each, place)) for each in a_list(own["content"], place)]
    check_message(message, field, _FIELDS, files.tolerance)
    match message.get("role"):
        case "tool":
            return _result(message, field, model, files)
        case "assistant":
            content = blocks_of(message.get("content"), f"{field}.content", files)
            told = [*content, *_refusal(message), *_calls(message, field, model, files.tolerance)]
            return [*_reasoning(message, field, model), *told] if told else []
    return blocks_of(message.get("content"), f"{field}.content", files)


def _result(message: Mapping[str, Any], field: str, model: Model, files: Files) -> list[Block]:
    """A tool's result, and a mark that stood in it; what is neither text nor parts is passed on as JSON."""
    content = message.get("content")
    parts = isinstance(content, list) and all(isinstance(each, dict | str) for each in content)
    if content is None or isinstance(content, str) or parts:
        blocks = blocks_of(content, f"{field}.content", files)
    else:
        blocks = [{"json": content}]
    identifier = tool_id(message.get("tool_call_id"), f"{field}.tool_call_id", model)
    inside = [block for block in blocks if "cachePoint" not in block]
    marks = [block for block in blocks if "cachePoint" in block]
    told = {"toolUseId": identifier, "content": _only(_OF_RESULTS, inside, f"{field}.content", files.tolerance)}
    failed = {"status": "error"} if message.get("is_error") is True else {}
    return [{"toolResult": {**told, **failed}}, *marks[-1:]]


def _only(kinds: tuple[str, ...], blocks: list[Block], field: str, tolerance: Tolerance) -> list[Block]:
    found = [block for block in blocks if set(block) & set(kinds)]
    if len(found) < len(blocks):
        tolerance.cannot(field, f"nothing but {', '.join(kinds)} can stand there.")
    return found


def _refusal(message: Mapping[str, Any]) -> list[Block]:
    text = message.get("refusal")
    return [{"text": text}] if isinstance(text, str) and text else []


def _calls(message: Mapping[str, Any], field: str, model: Model, tolerance: Tolerance) -> list[Block]:
    blocks: list[Block] = []
    for index, call in enumerate(a_list(message.get("tool_calls") or [], f"{field}.tool_calls")):
        place = f"{field}.tool_calls[{index}]"
        if an_object(call, place).get("type", "function") != "function":
            tolerance.cannot(place, "only functions can be called.")
            continue
        function = an_object(call.get("function"), f"{place}.function")
        use = {
            "toolUseId": tool_id(call.get("id"), f"{place}.id", model),
            "name": a_string(function.get("name"), f"{place}.function.name"),
            "input": arguments_of(function.get("arguments"), f"{place}.function.arguments"),
        }
        blocks += marked([{"toolUse": use}], call)
    return blocks


def _reasoning(message: Mapping[str, Any], field: str, model: Model) -> list[Block]:
    details = a_list(message.get("reasoning_details") or [], f"{field}.reasoning_details")
    if not details and message.get("thinking_blocks"):
        blocks = a_list(message["thinking_blocks"], f"{field}.thinking_blocks")
        details = [_detail(each) for each in blocks if isinstance(each, dict)]
    found = [_thought(each, model.house in ("anthropic", "")) for each in details if isinstance(each, dict)]
    return [block for block in found if block]


def _detail(block: Mapping[str, Any]) -> Block:
    """One of LiteLLM's `thinking_blocks`, which are Claude's own, as OpenRouter tells it."""
    if block.get("type") == "redacted_thinking":
        return {"type": "reasoning.encrypted", "data": block.get("data"), "format": FORMAT}
    return {
        "type": "reasoning.text",
        "text": block.get("thinking"),
        "signature": block.get("signature"),
        "format": FORMAT,
    }


def _thought(detail: Mapping[str, Any], claude: bool) -> Block | None:
    if detail.get("format") not in ((None, FORMAT) if claude else (None,)):
        return None
    if detail.get("type") == "reasoning.encrypted" and isinstance(detail.get("data"), str):
        return {"reasoningContent": {"redactedContent": detail["data"]}}
    text, signature = detail.get("text"), detail.get("signature")
    if detail.get("type") != "reasoning.text" or not (isinstance(signature, str) and signature):
        return None
    return {"reasoningContent": {"reasoningText": {"text": str(text or ""), "signature": signature}}}
