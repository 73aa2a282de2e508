"""Why: the same talk is told differently: turns that alternate, results as a user's blocks, system text apart.

All system and developer messages are joined, in order, in the top-level `system`, wherever they stand, as Anthropic's
own OpenAI layer does it; but where the model knows of such turns, one between a user and the answer stays there.
Neighbours of one role become one turn; in it the results of tools come first, as they must. Thinking is given back
from `reasoning_details` (or LiteLLM's `thinking_blocks`); reasoning without a signature, or of another provider, is
nobody's to give back and is left out. A message's own `anthropic.content` holds blocks that OpenAI has no form for,
and is sent in place of everything else in it: answers carry it where it is needed.

Sources: https://platform.claude.com/docs/en/build-with-claude/working-with-messages, .../tool-use/handle-tool-calls,
https://platform.claude.com/docs/en/cli-sdks-libraries/libraries/openai-sdk, and for `reasoning_details`
https://openrouter.ai/docs/use-cases/reasoning-tokens#preserving-reasoning-blocks
"""

import re
from collections.abc import Mapping
from typing import Any

from providers.canonical import add_turn, arguments_of, check_message
from providers.refusal import Tolerance, a_list, a_string, an_object, refused

from .parts import Block, blocks_of, mark

FORMAT = "anthropic-claude-v1"
"""OpenRouter's name for Claude's reasoning details."""

_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")
_UNTOUCHABLE = ("thinking", "redacted_thinking")

_FIELDS = {"role", "content", "tool_calls", "tool_call_id", "refusal", "is_error", "cache_control"}


def conversation(
    messages: Any, tolerance: Tolerance, *, midway: bool = False
) -> tuple[list[Block], list[dict[str, Any]]]:
    """The blocks of `system`, and the turns. Raises `ProviderError` naming what cannot be expressed.

    `midway`: whether system text may be a turn of its own.
    """
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    answered = _answered(a_list(messages, "messages")) if midway else []
    for index, message in enumerate(a_list(messages, "messages")):
        field = f"messages[{index}]"
        blocks = _marked(_blocks(an_object(message, field), field, tolerance), message)
        match message.get("role"):
            case "system" | "developer":
                text = _only_text(blocks, field, tolerance)
                if midway and turns and turns[-1]["role"] != "assistant" and answered[index]:
                    add_turn(turns, "system", text)
                else:
                    system += text
            case "user" | "tool":
                add_turn(turns, "user", blocks, empty=True)
            case "assistant":
                add_turn(turns, "assistant", blocks)
            case _:
                raise refused(f"{field}.role", "must be system, developer, user, assistant or tool.")
    for turn in turns:
        if turn["role"] == "user":
            turn["content"].sort(key=lambda block: block.get("type") != "tool_result")
    return system, turns


def tool_id(value: Any, field: str) -> str:
    """An id that is allowed there; other providers put dots and bars into theirs."""
    return _UNSAFE.sub("_", a_string(value, field))


def _answered(messages: list[Any]) -> list[bool]:
    """Of each message whether the next turn is the assistant's: one that was given, or the one that is asked for."""
    found = []
    following: Any = "assistant"
    for message in reversed(messages):
        found.append(following == "assistant")
        role = message.get("role") if isinstance(message, dict) else None
        following = following if role in ("system", "developer") else role
    return found[::-1]


def _only_text(blocks: list[Block], field: str, tolerance: Tolerance) -> list[Block]:
    found = [block for block in blocks if block.get("type") == "text"]
    if len(found) < len(blocks):
        tolerance.cannot(f"{field}.content", "only text can stand in a system message.")
    return found


def _marked(blocks: list[Block], message: Mapping[str, Any]) -> list[Block]:
    """A mark on the whole message is one on its last block; thinking cannot carry any."""
    if blocks and message.get("cache_control") and blocks[-1].get("type") not in _UNTOUCHABLE:
        blocks[-1] = mark(blocks[-1], message)
    return blocks


def _blocks(message: dict[str, Any], field: str, tolerance: Tolerance) -> list[Block]:
    if message.get("anthropic") and (carried := _carried(message["anthropic"], f"{field}.anthropic")):
        return carried
    check_message(message, field, _FIELDS, tolerance)
    content = blocks_of(message.get("content"), f"{field}.content", tolerance)
    match message.get("role"):
        case "tool":
            return [_result(message, content, field)]
        case "assistant":
            calls = _calls(message, field, tolerance) if message.get("tool_calls") else []
            return [*_thinking(message, field), *content, *_refusal(message), *calls]
    return content


def _carried(own: Any, field: str) -> list[Block]:
    content = a_list(an_object(own, field).get("content") or [], f"{field}.content")
    return [dict(an_object(each, f"{field}.content")) for each in content]


def _result(message: Mapping[str, Any], content: list[Block], field: str) -> Block:
    identifier = tool_id(message.get("tool_call_id"), f"{field}.tool_call_id")
    told = message["content"] if isinstance(message.get("content"), str) else content
    block = {"type": "tool_result", "tool_use_id": identifier, "content": told}
    return {**block, "is_error": True} if message.get("is_error") is True else block


def _refusal(message: Mapping[str, Any]) -> list[Block]:
    text = message.get("refusal")
    return [{"type": "text", "text": text}] if isinstance(text, str) and text else []


def _calls(message: Mapping[str, Any], field: str, tolerance: Tolerance) -> list[Block]:
    blocks = []
    for index, call in enumerate(a_list(message["tool_calls"], f"{field}.tool_calls")):
        place = f"{field}.tool_calls[{index}]"
        if an_object(call, place).get("type", "function") != "function":
            tolerance.cannot(place, "only functions can be called.")
            continue
        function = an_object(call.get("function"), f"{place}.function")
        block = {
            "type": "tool_use",
            "id": tool_id(call.get("id"), f"{place}.id"),
            "name": a_string(function.get("name"), f"{place}.function.name"),
            "input": arguments_of(function.get("arguments"), f"{place}.function.arguments"),
        }
        blocks.append(mark(block, call))
    return blocks


def _thinking(message: Mapping[str, Any], field: str) -> list[Block]:
    if details := message.get("reasoning_details"):
        found = [_thought(each) for each in a_list(details, f"{field}.reasoning_details") if isinstance(each, dict)]
        return [block for block in found if block]
    if not (thoughts := message.get("thinking_blocks")):
        return []
    blocks = a_list(thoughts, f"{field}.thinking_blocks")
    return [dict(each) for each in blocks if isinstance(each, dict) and each.get("type") in _UNTOUCHABLE]


def _thought(detail: Mapping[str, Any]) -> Block | None:
    if detail.get("format") not in (None, FORMAT):
        return None
    if detail.get("type") == "reasoning.encrypted" and isinstance(detail.get("data"), str):
        return {"type": "redacted_thinking", "data": detail["data"]}
    if detail.get("type") == "reasoning.text" and isinstance(signature := detail.get("signature"), str) and signature:
        return {"type": "thinking", "thinking": str(detail.get("text") or ""), "signature": signature}
    return None
