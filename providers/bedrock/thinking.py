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

from providers.canonical import OFF, Reasoning, reasoning_of
from providers.refusal import Tolerance, an_object

from .models import Model
from .parts import Block


def thinking_of(
    document: Mapping[str, Any], model: Model, most: int | None, tolerance: Tolerance
) -> tuple[Block, str | None]:
    """`additionalModelRequestFields`, and `outputConfig.effort`. `most`: tokens that the answer may have."""
    asked = reasoning_of(document)
    if asked.hidden:
        tolerance.cannot("reasoning.exclude", "what was thought is told there.")
    effort = asked.effort
    if (own := document.get("thinking")) is not None:
        return _own(own, effort, model, tolerance)
    if effort is None and asked.budget is None:
        return {}, None
    match model.house:
        case "anthropic":
            return _claude(asked, model, most)
        case "amazon":
            return {"reasoningConfig": _nova(effort)}, None
        case "openai":
            return _openai(effort or "medium", model), None
    if effort in OFF or effort is None:
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


def _claude(asked: Reasoning, model: Model, most: int | None) -> tuple[Block, str | None]:
    if asked.effort in OFF:
        off = {"thinking": {"type": "between_tools" if model.between_tools else "disabled"}}
        return (off if model.adaptive else {}), None
    if asked.budget is None and model.adaptive:
        shown = {"display": "summarized"} if model.hides_thinking else {}
        return {"thinking": {"type": "adaptive", **shown}}, _effort(asked.effort)
    return {"thinking": {"type": "enabled", "budget_tokens": asked.tokens(most)}}, None


def _openai(effort: str, model: Model) -> Block:
    """The open models know three words, in a field of their own; the others are asked as by the Responses API."""
    if model.line == "gpt-oss":
        return {"reasoning_effort": _word(effort, ("low", "medium", "high"))}
    return {"reasoning": {"effort": "none" if effort in OFF else effort}}


def _nova(effort: str | None) -> Block:
    if effort in OFF:
        return {"type": "disabled"}
    return {"type": "enabled", "maxReasoningEffort": _word(effort or "medium", ("low", "medium", "high"))}


def _effort(effort: str | None) -> str | None:
    return None if effort in OFF else "low" if effort == "minimal" else effort


def _word(effort: str, words: tuple[str, ...]) -> str:
    """The nearest of the three words that are known."""
    return effort if effort in words else "low" if effort in ("minimal", *OFF) else "high"
