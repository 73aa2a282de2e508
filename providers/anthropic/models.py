"""Why: what a Claude accepts goes by its generation, and only its name tells; a wire has nobody to ask.

A name without a number that says `claude` is taken for the newest generation; any other name belongs to somebody
else who speaks Messages, of whom only what all of them know is expected.

Sources: https://platform.claude.com/docs/en/about-claude/models/overview (output limits),
https://platform.claude.com/docs/en/build-with-claude/thinking, .../structured-outputs,
.../mid-conversation-system-messages
"""

import re
from dataclasses import dataclass

_NUMBER = re.compile(r"claude-(?:([a-z]+)-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_NEWEST = (99, 0)


@dataclass(frozen=True, slots=True)
class Model:
    """`max_tokens`: how long an answer may get when the caller sets no bound. The others: what it understands."""

    max_tokens: int
    adaptive: bool
    """Thinking of its own measure, steered by effort; the older ones take a budget of tokens."""
    schemas: bool
    """`output_config.format`; the older ones are made to call a tool instead."""
    between_tools: bool = False
    """Its thinking is not turned off by `disabled` but by `between_tools`."""
    midway: bool = False
    """A system message may stand among the turns; the others have it in front of all."""


def model_of(name: str) -> Model:
    """What is known of the model with this name, whatever prefixes and dates a platform puts around it."""
    found = _NUMBER.search(name.lower())
    if found is None and "claude" not in name.lower():
        return Model(max_tokens=8192, adaptive=False, schemas=False)
    line = found[1] if found else None
    number = (int(found[2]), int(found[3] or 0)) if found else _NEWEST
    return Model(
        max_tokens=_most(number),
        adaptive=number >= (4, 6),
        schemas=number >= (4, 5),
        between_tools=line == "sonnet" and number >= (5, 5),
        midway=line == "opus" and number >= (4, 8),
    )


def _most(number: tuple[int, int]) -> int:
    """OpenAI's default is what the model can say, so ours is the model's own limit.

    Before 4.5 a bound that does not fit beside the prompt is refused, so the generations with a window of 200,000
    get half of their limit.
    """
    if number >= (4, 6):
        return 128_000
    if number >= (4, 5):
        return 64_000
    if number >= (3, 7):
        return 32_000
    return 8192 if number >= (3, 5) else 4096
