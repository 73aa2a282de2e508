"""Why: OpenAI asks for an effort, an old Claude for a number of tokens, a new one for both in places of their own.

`reasoning_effort` becomes adaptive thinking with an effort, and with a summary to read: the newest models keep their
thinking to themselves unless asked. For models before 4.6 it becomes a budget, at most half of what the answer may
have. OpenRouter's `reasoning` object is understood, too. The provider's own `thinking` passes as it is.

Sources: https://platform.claude.com/docs/en/build-with-claude/thinking, .../effort,
https://openrouter.ai/docs/use-cases/reasoning-tokens#controlling-reasoning-tokens
"""

from collections.abc import Mapping
from typing import Any

from providers.canonical import OFF, reasoning_of
from providers.refusal import Tolerance, an_object

from .models import Model
from .parts import Block


def thinking_of(
    document: Mapping[str, Any], model: Model, most: int, tolerance: Tolerance
) -> tuple[Block | None, str | None]:
    """`thinking` and `output_config.effort`, None where nothing is said. `most`: tokens that the answer may have."""
    asked = reasoning_of(document)
    effort = asked.effort
    own = document.get("thinking")
    if own is not None:
        if effort and not model.adaptive:
            tolerance.cannot("reasoning_effort", "says the same as 'thinking'; this model takes one of them.")
        return dict(an_object(own, "thinking")), _effort(effort) if model.adaptive else None
    if effort in OFF:
        return {"type": "between_tools" if model.between_tools else "disabled"}, None
    if asked.budget is None and effort is None:
        return None, None
    if asked.budget is None and model.adaptive:
        return {"type": "adaptive", "display": "omitted" if asked.hidden else "summarized"}, _effort(effort)
    thinking: Block = {"type": "enabled", "budget_tokens": asked.tokens(most)}
    return ({**thinking, "display": "omitted"} if asked.hidden else thinking), None


def _effort(effort: str | None) -> str | None:
    return None if effort in OFF else "low" if effort == "minimal" else effort
