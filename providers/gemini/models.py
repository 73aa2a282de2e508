"""Why: what a Gemini accepts goes by its generation, and only its name tells; a wire has nobody to ask.

A name without a number (`gemini-flash-latest`) is taken for the newest generation, a model that is no Gemini for the
oldest.

Sources: https://ai.google.dev/gemini-api/docs/thinking, .../thought-signatures, .../function-calling, .../openai
"""

import re
from typing import TypeAlias

Generation: TypeAlias = tuple[int, int]

_NUMBER = re.compile(r"gemini-(?:[a-z]+-)*?(\d{1,2})(?:\.(\d{1,2}))?(?![\d])")
_NEWEST = (99, 0)
_OLDEST = (0, 0)


def generation(model: str) -> Generation:
    """The model's number, whatever prefixes and dates stand around it."""
    if found := _NUMBER.search(model.lower()):
        return int(found[1]), int(found[2] or 0)
    return _NEWEST if "gemini" in model.lower() else _OLDEST


def has_levels(model: str) -> bool:
    """Whether its thinking is set by level; the older ones take a budget of tokens."""
    return generation(model) >= (3, 0)


def checks_signatures(model: str) -> bool:
    """Whether it refuses a function call that comes back without its thought signature."""
    return generation(model) >= (3, 0)


def takes_media_in_results(model: str) -> bool:
    """Whether a function's response may hold images and files."""
    return generation(model) >= (3, 0)


def fetches_urls(model: str) -> bool:
    """Whether Google fetches a public HTTPS URL by itself: every generation after 2.0.

    Source: https://ai.google.dev/gemini-api/docs/file-input-methods
    """
    return generation(model) >= (2, 5)
