"""Why: OpenAI asks for an effort, an old Claude for a number of tokens, a new one for both in places of their own.

`reasoning_effort` becomes adaptive thinking with an effort, and with a summary to read: the newest models keep their
thinking to themselves unless asked. For models before 4.6 it becomes a budget, at most half of what the answer may
have. OpenRouter's `reasoning` object is understood, too. The provider's own `thinking` passes as it is.

Sources: https://platform.claude.com/docs/en/build-with-claude/thinking, .../effort,
https://openrouter.ai/docs/use-cases/reasoning-tokens#controlling-reasoning-tokens
"""

from collections.abc import Mapping
from typing import Any

from providers.refusal import Tolerance, an_object, refused

from .models import Model
from .parts import Block

LEAST_BUDGET = 1024

_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 24_576, "max": 32_000}
_OFF = ("none", "off")


def thinking_of(
    document: Mapping[str, Any], model: Model, most: int, tolerance: Tolerance
) -> tuple[Block | None, str | None]:
    """`thinking` and `output_config.effort`, None where nothing is said. `most`: tokens that the answer may have."""
    effort, budget, hidden = _asked(document)
    own = document.get("thinking")
    if own is not None:
        if effort and not model.adaptive:
            tolerance.cannot("reasoning_effort", "says the same as 'thinking'; this model takes one of them.")
        return dict(an_object(own, "thinking")), _effort(effort) if model.adaptive else None
    if effort in _OFF:
        return {"type": "between_tools" if model.between_tools else "disabled"}, None
    if budget is None and effort is None:
        return None, None
    if budget is None and model.adaptive:
        return {"type": "adaptive", "display": "omitted" if hidden else "summarized"}, _effort(effort)
    thinking: Block = {"type": "enabled", "budget_tokens": _budget(effort, budget, most)}
    return ({**thinking, "display": "omitted"} if hidden else thinking), None


def a_count(value: Any, field: str) -> int:
    if type(value) is not int or value < 0:
        raise refused(field, "must be a number of tokens.")
    return value


def _asked(document: Mapping[str, Any]) -> tuple[str | None, int | None, bool]:
    """The effort, the budget in tokens, and whether the thinking is not to be shown."""
    effort = document.get("reasoning_effort")
    if effort is not None and (not isinstance(effort, str) or effort not in (*_BUDGETS, *_OFF)):
        raise refused("reasoning_effort", f"must be none, {', '.join(_BUDGETS)}.")
    reasoning = an_object(document.get("reasoning") or {}, "reasoning")
    budget = reasoning.get("max_tokens")
    if budget is not None:
        a_count(budget, "reasoning.max_tokens")
    effort = effort or reasoning.get("effort")
    if effort is not None and (not isinstance(effort, str) or effort not in (*_BUDGETS, *_OFF)):
        raise refused("reasoning.effort", f"must be none, {', '.join(_BUDGETS)}.")
    if effort is None and budget is None and isinstance(reasoning.get("enabled"), bool):
        effort = "medium" if reasoning["enabled"] else "none"
    return effort, budget, reasoning.get("exclude") is True


def _effort(effort: str | None) -> str | None:
    return None if effort in _OFF else "low" if effort == "minimal" else effort


def _budget(effort: str | None, budget: int | None, most: int) -> int:
    """The budget is spent from the answer's own bound, so half of that has to be left."""
    if budget is not None:
        return max(budget, LEAST_BUDGET)
    if most <= LEAST_BUDGET:
        raise refused("reasoning_effort", f"needs a max_tokens of more than {LEAST_BUDGET} on this model.")
    return min(_BUDGETS[effort or "medium"], max(LEAST_BUDGET, most // 2))
