"""Why: what a canonical request means does not depend on whom it is told to.

Here stands what wires that speak in blocks read alike out of OpenAI's request: arguments of calls, turns that
alternate, schemas that have to be closed, bounds, and how hard to think. What raises is a `ProviderError` that names
the field.

Sources: https://platform.openai.com/docs/api-reference/chat/create,
https://openrouter.ai/docs/use-cases/reasoning-tokens#controlling-reasoning-tokens
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .document import loads
from .refusal import Tolerance, a_count, an_object, refused

LEAST_BUDGET = 1024
OFF = ("none", "off")

_OF_ANSWERS = {
    "annotations", "citations", "reasoning", "reasoning_content", "reasoning_details", "thinking_blocks", "parsed",
    "anthropic", "bedrock", "gemini", "vertex",
}  # fmt: skip
"""Fields of our own answers, which come back when a client keeps the whole message, whoever goes on with the talk."""

_ASK_EMPTY = ("web_search_options",)
"""Objects that ask for something even if they are empty."""

_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 24_576, "max": 32_000}


@dataclass(frozen=True, slots=True)
class Reasoning:
    """How hard to think: in a word, or in tokens; `hidden`: without telling what was thought."""

    effort: str | None
    budget: int | None
    hidden: bool

    def tokens(self, most: int | None) -> int:
        """The budget. It is spent from the answer's own bound `most`, so half of that has to be left."""
        if self.budget is not None:
            return max(self.budget, LEAST_BUDGET)
        if most is not None and most <= LEAST_BUDGET:
            raise refused("reasoning_effort", f"needs a max_tokens of more than {LEAST_BUDGET} on this model.")
        asked = _BUDGETS[self.effort or "medium"]
        return asked if most is None else min(asked, max(LEAST_BUDGET, most // 2))


def reasoning_of(document: Mapping[str, Any]) -> Reasoning:
    """`reasoning_effort`, or OpenRouter's `reasoning`."""
    reasoning = an_object(document.get("reasoning") or {}, "reasoning")
    budget = reasoning.get("max_tokens")
    if budget is not None:
        a_count(budget, "reasoning.max_tokens")
    effort = _word(document.get("reasoning_effort"), "reasoning_effort")
    effort = effort or _word(reasoning.get("effort"), "reasoning.effort")
    if effort is None and budget is None and isinstance(reasoning.get("enabled"), bool):
        effort = "medium" if reasoning["enabled"] else "none"
    return Reasoning(effort, budget, reasoning.get("exclude") is True)


def most_tokens(document: Mapping[str, Any]) -> int | None:
    """How long the answer may get, None where nothing is said."""
    for name in ("max_completion_tokens", "max_tokens"):
        if document.get(name) is not None:
            return a_count(document[name], name)
    return None


def check(
    document: Mapping[str, Any], known: Collection[str], defaults: Mapping[str, Any], tolerance: Tolerance
) -> None:
    """Refuse the fields that are not `known`, but for values that ask for nothing."""
    for name, value in document.items():
        if name in known or value is None or (value in ([], {}) and name not in _ASK_EMPTY):
            continue
        if name not in defaults or value != defaults[name]:
            tolerance.cannot(name, f"has no place there; the provider's own fields go into '{tolerance.escape}'.")


def check_message(message: Mapping[str, Any], field: str, known: Collection[str], tolerance: Tolerance) -> None:
    """The same for a message's fields; the name of a tool stands in its call already."""
    for name, value in message.items():
        if name in known or name in _OF_ANSWERS or value is None or value in ([], {}, ""):
            continue
        if name != "name" or message.get("role") != "tool":
            tolerance.cannot(f"{field}.{name}", "has no place in a message there.")


def check_tool(tool: Mapping[str, Any], field: str, known: Collection[str], tolerance: Tolerance) -> None:
    """The same for the fields of a tool, or of its function."""
    for name, value in tool.items():
        if name not in known and value is not None:
            tolerance.cannot(f"{field}.{name}", "has no place in a tool there.")


def add_turn(turns: list[dict[str, Any]], role: str, blocks: list[dict[str, Any]], *, empty: bool = False) -> None:
    """Neighbours of one role become one turn; one without a block is none, unless it may be `empty`."""
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    elif blocks or empty:
        turns.append({"role": role, "content": blocks})


def arguments_of(arguments: Any, field: str) -> dict[str, Any]:
    """A call's arguments as an object."""
    try:
        found = loads(arguments.encode("utf-8", "replace") or b"{}") if isinstance(arguments, str) else arguments
    except ValueError:
        found = None
    if arguments is not None and not isinstance(found, dict):
        raise refused(field, "must be a JSON object.")
    return found or {}


def closed(schema: Any) -> Any:
    """The schema with its objects closed: an answer without further fields fits the caller's all the same."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(value) for name, value in schema.items()}
    kind = schema.get("type")
    if (kind == "object" or (isinstance(kind, list) and "object" in kind)) and isinstance(
        found.get("properties"), dict
    ):
        found.setdefault("additionalProperties", False)
    return found


def _word(effort: Any, field: str) -> str | None:
    if effort is not None and (not isinstance(effort, str) or effort not in (*_BUDGETS, *OFF)):
        raise refused(field, f"must be none, {', '.join(_BUDGETS)}.")
    return effort
