"""Why: every OpenAI-compatible provider counts in its own words, and money needs one meaning.

`read` turns any of the known forms into `Usage`: `input_tokens` with the cached ones in it, `output_tokens` with the
reasoning. Providers send null, floats, text and negative numbers here; such a count is 0, never an exception. A half
that nobody counts is not free: what has no prompt or no completion is no usage, and has to be estimated.

Sources: https://platform.openai.com/docs/api-reference/chat/object and the providers' own pages, named below.
"""

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from .contract import Pricing, Usage

_REASONING, _AUDIO, _IMAGE = ("reasoning_tokens",), ("audio_tokens",), ("image_tokens",)
_CACHE_READ = ("cached_tokens", "cache_read_input_tokens", "cache_read_tokens")
_CACHE_READ_OUTSIDE = ("prompt_cache_hit_tokens", "num_cached_tokens", *_CACHE_READ)
"""Outside the details: DeepSeek's word, Mistral's, then Moonshot's, Venice's and other gateways'."""

_CACHE_WRITE = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")

_OPENAI = frozenset(
    ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details")
)
"""All that OpenAI's hold: what other providers add need not be looked for there."""

_NANO = Decimal(1_000_000_000)
_MOST = 10**15


def find(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The usage object of an answer or a chunk, where the provider keeps it; None where there is none.

    Moonshot puts it into the last choice, Groq (also) into `x_groq`.
    """
    if isinstance(found := document.get("usage"), dict) and found:
        return found
    places: list[Any] = []
    choices = document.get("choices")
    if isinstance(choices, list):
        places.extend(reversed(choices))
    places.append(document.get("x_groq"))
    for place in places:
        if isinstance(place, dict) and isinstance(found := place.get("usage"), dict) and found:
            return found
    return None


def read(document: Mapping[str, Any], usage: Usage, *, completes: bool = True) -> None:
    """Overwrite `usage` with what a provider's usage object says; the counts of a stream are cumulative.

    Half a usage is overwritten, but overwrites none. `completes`: the answer has tokens, too, as all but embeddings
    have.
    """
    prompt = _count(document.get("prompt_tokens")) or _count(document.get("input_tokens"))
    completion = _count(document.get("completion_tokens")) or _count(document.get("output_tokens"))
    source = "provider"
    half = not prompt or (completes and not completion)
    if half:
        prompt, completion = _with_rest(document, prompt, completion, completes)
        if not prompt or (completes and not completion):
            if usage.source == source:
                return
            source = "none"
    usage.source, usage.input_tokens, usage.output_tokens = source, prompt, completion
    usage.cache_read_tokens = usage.cache_write_tokens = usage.reasoning_tokens = 0
    usage.audio_tokens = usage.image_tokens = 0
    usage.provider_cost = None
    if len(document) == 3 and completion and not half and "total_tokens" in document:
        return  # it says no more
    _read_details(document, usage)
    if usage.reasoning_tokens and _is_beside(document, usage):
        usage.output_tokens += usage.reasoning_tokens


def _with_rest(document: Mapping[str, Any], prompt: int, completion: int, completes: bool) -> tuple[int, int]:
    """The half that is counted, and the one that the total tells beside it."""
    rest = max(_count(document.get("total_tokens")) - prompt - completion, 0)
    if prompt:
        return prompt, rest
    return (rest, completion) if completion or not completes else (0, 0)


def _read_details(document: Mapping[str, Any], usage: Usage) -> None:
    if prompt := _details(document, "prompt_tokens_details", "input_tokens_details"):
        usage.cache_read_tokens = _first(prompt, _CACHE_READ)
        usage.cache_write_tokens = _first(prompt, _CACHE_WRITE)
    if completion := _details(document, "completion_tokens_details", "output_tokens_details"):
        usage.reasoning_tokens = _first(completion, _REASONING)
    for each in (prompt, completion):
        if each:
            usage.audio_tokens += _first(each, _AUDIO)
            usage.image_tokens += _first(each, _IMAGE)
    if not document.keys() <= _OPENAI:
        usage.cache_read_tokens = usage.cache_read_tokens or _first(document, _CACHE_READ_OUTSIDE)
        usage.cache_write_tokens = usage.cache_write_tokens or _first(document, _CACHE_WRITE)
        usage.reasoning_tokens = usage.reasoning_tokens or _first(document, _REASONING)
        usage.provider_cost = _provider_cost(document)


def write_cost(document: dict[str, Any], usage: Usage, pricing: Pricing) -> None:
    """Put `cost` in USD into a usage object, in the place of the provider's own; none if it has to be estimated."""
    if usage.source == "none":
        document.pop("cost", None)
    else:
        document["cost"] = pricing(usage) / 1e9


def _is_beside(document: Mapping[str, Any], usage: Usage) -> bool:
    """Whether the reasoning is counted beside the completion tokens and not in them, as xAI does.

    Its total tells; without one, that there is more of it.

    Source: https://docs.x.ai/docs/guides/reasoning
    """
    total = _count(document.get("total_tokens"))
    if not total:
        return usage.reasoning_tokens > usage.output_tokens
    return total == usage.input_tokens + usage.output_tokens + usage.reasoning_tokens


def _details(document: Mapping[str, Any], *names: str) -> Mapping[str, Any] | None:
    """The details that count anything; of two, the first."""
    for name in names:
        if isinstance(found := document.get(name), dict):
            return found if any(found.values()) else None
    return None


def _first(document: Mapping[str, Any], names: tuple[str, ...]) -> int:
    """The first count that is not 0: an empty detail must not hide the word that a provider really uses."""
    for name in names:
        if name in document and (found := _count(document[name])):
            return found
    return 0


def _count(value: Any) -> int:
    if type(value) is int:
        return value if 0 < value < _MOST else 0
    return int(value) if isinstance(value, float) and value.is_integer() and 0 < value < _MOST else 0


def _provider_cost(document: Mapping[str, Any]) -> int | None:
    """The provider's own charge in 1e-9 USD: OpenRouter's number, Perplexity's object, xAI's ticks of 1e-10 USD."""
    cost = document.get("cost")
    if cost is None and "cost_in_usd_ticks" not in document:
        return None
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    if _is_amount(cost):
        return int((Decimal(str(cost)) * _NANO).to_integral_value(ROUND_HALF_EVEN))
    ticks = document.get("cost_in_usd_ticks")
    return round(Decimal(ticks) / 10) if isinstance(ticks, int) and _is_amount(ticks) else None


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST
