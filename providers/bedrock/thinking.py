"""Why: how hard a model is to think is asked in one word here, and by each house in a field of its own there.

A Claude from 4.6 on thinks as it sees fit, steered by `outputConfig.effort`; an older one takes a budget, at most
half of what the answer may have. Nova and OpenAI's models have fields of their own; whoever else thinks is told by
`outputConfig.effort`, which is Converse's. OpenRouter's `reasoning` object is understood, too. The provider's own
`thinking` passes to a Claude as it is.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-extended-thinking.html,
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_OutputConfig.html,
https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html
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
    document: Mapping[str, Any], model: Model, most: int | None, tolerance: Tolerance
) -> tuple[Block, str | None]:
    """`additionalModelRequestFields`, and `outputConfig.effort`. `most`: tokens that the answer may have."""
    effort, budget = _asked(document, tolerance)
    if (own := document.get("thinking")) is not None:
        return _own(own, effort, model, tolerance)
    if effort is None and budget is None:
        return {}, None
    match model.house:
        case "anthropic":
            return _claude(effort, budget, model, most)
        case "amazon":
            return {"reasoningConfig": _nova(effort)}, None
        case "openai":
            return {"reasoning_effort": _word(effort or "medium", ("low", "medium", "high"))}, None
    if effort in _OFF or effort is None:
        tolerance.cannot("reasoning_effort", "this model's reasoning can be steered by low, medium or high only.")
        return {}, None
    return {}, _effort(effort)


def _own(own: Any, effort: str | None, model: Model, tolerance: Tolerance) -> tuple[Block, str | None]:
    thinking = dict(an_object(own, "thinking"))
    if model.house not in ("anthropic", ""):
        tolerance.cannot("thinking", "is a Claude's; use reasoning_effort.")
        return {}, None
    if effort and not model.adaptive:
        tolerance.cannot("reasoning_effort", "says the same as 'thinking'; this model takes one of them.")
    return {"thinking": thinking}, _effort(effort) if effort and model.adaptive else None


def _claude(effort: str | None, budget: int | None, model: Model, most: int | None) -> tuple[Block, str | None]:
    if effort in _OFF:
        return ({"thinking": {"type": "disabled"}} if model.adaptive else {}), None
    if budget is None and model.adaptive:
        shown = {"display": "summarized"} if model.hides_thinking else {}
        return {"thinking": {"type": "adaptive", **shown}}, _effort(effort)
    return {"thinking": {"type": "enabled", "budget_tokens": _budget(effort, budget, most)}}, None


def _nova(effort: str | None) -> Block:
    if effort in _OFF:
        return {"type": "disabled"}
    return {"type": "enabled", "maxReasoningEffort": _word(effort or "medium", ("low", "medium", "high"))}


def _asked(document: Mapping[str, Any], tolerance: Tolerance) -> tuple[str | None, int | None]:
    """The effort, and the budget in tokens."""
    reasoning = an_object(document.get("reasoning") or {}, "reasoning")
    if reasoning.get("exclude"):
        tolerance.cannot("reasoning.exclude", "what was thought is told there.")
    budget = reasoning.get("max_tokens")
    if budget is not None:
        a_count(budget, "reasoning.max_tokens")
    effort = document.get("reasoning_effort") or reasoning.get("effort")
    if effort is None and budget is None and isinstance(reasoning.get("enabled"), bool):
        effort = "medium" if reasoning["enabled"] else "none"
    if effort is not None and (not isinstance(effort, str) or effort not in (*_BUDGETS, *_OFF)):
        raise refused("reasoning_effort", f"must be none, {', '.join(_BUDGETS)}.")
    return effort, budget


def a_count(value: Any, field: str) -> int:
    if type(value) is not int or value < 0:
        raise refused(field, "must be a number of tokens.")
    return value


def _effort(effort: str | None) -> str | None:
    return None if effort in _OFF else "low" if effort == "minimal" else effort


def _word(effort: str, words: tuple[str, ...]) -> str:
    """The nearest of the three words that are known."""
    return effort if effort in words else "low" if effort in ("minimal", *_OFF) else "high"


def _budget(effort: str | None, budget: int | None, most: int | None) -> int:
    """The budget is spent from the answer's own bound, so half of that has to be left."""
    if budget is not None:
        return max(budget, LEAST_BUDGET)
    if most is not None and most <= LEAST_BUDGET:
        raise refused("reasoning_effort", f"needs a max_tokens of more than {LEAST_BUDGET} on this model.")
    asked = _BUDGETS[effort or "medium"]
    return asked if most is None else min(asked, max(LEAST_BUDGET, most // 2))
