"""Why: Gemini counts thoughts beside the answer and search results beside the prompt; money needs one meaning.

`promptTokenCount` contains the cached tokens; what Google's own tools read comes on top
(`toolUsePromptTokenCount`), and so do thoughts on top of `candidatesTokenCount`, unless the total says otherwise.
A stream tells its counts with every chunk, each time the whole so far, and leaves out what has not begun: where an
answer breaks off while only its prompt is counted, the rest has to be estimated.

Source: https://ai.google.dev/api/generate-content#UsageMetadata
"""

from collections.abc import Mapping
from typing import Any

from providers.contract import Pricing, Usage
from providers.usage import write_cost

FIELDS = {
    "promptTokenCount",
    "cachedContentTokenCount",
    "toolUsePromptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "totalTokenCount",
    "promptTokensDetails",
    "toolUsePromptTokensDetails",
    "candidatesTokensDetails",
}

_MOST = 10**15
_MODALITIES = {2: "IMAGE", 4: "AUDIO"}
"""Their numbers, where the caller asked for enums as such."""


def read(found: Mapping[str, Any], usage: Usage) -> None:
    """Overwrite `usage` with a `usageMetadata`, if it counts anything."""
    prompt, tools = _count(found, "promptTokenCount"), _count(found, "toolUsePromptTokenCount")
    answer, thoughts = _count(found, "candidatesTokenCount"), _count(found, "thoughtsTokenCount")
    if not (prompt or tools or answer or thoughts):
        return
    total = _count(found, "totalTokenCount")
    within = thoughts <= answer and total == prompt + tools + answer
    usage.input_tokens = prompt + tools
    usage.cache_read_tokens = _count(found, "cachedContentTokenCount")
    usage.output_tokens = (answer if within else answer + thoughts) or max(total - usage.input_tokens, 0)
    usage.reasoning_tokens = thoughts
    usage.audio_tokens = _in(found, "AUDIO", "prompt") + _in(found, "AUDIO", "candidates")
    usage.image_tokens = _in(found, "IMAGE", "prompt") + _in(found, "IMAGE", "candidates")
    usage.source = "provider" if usage.input_tokens and usage.output_tokens else "none"


def written(found: Mapping[str, Any], usage: Usage, pricing: Pricing | None) -> dict[str, Any]:
    """OpenAI's usage object; `cost` in USD where there is a price and nothing has to be estimated."""
    prompt = {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": 0, **_details(found, "prompt")}
    completion = {"reasoning_tokens": usage.reasoning_tokens, **_details(found, "candidates")}
    document: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": completion,
    }
    if pricing is not None:
        write_cost(document, usage, pricing)
    return document


def _details(found: Mapping[str, Any], side: str) -> dict[str, int]:
    counts = {"audio_tokens": _in(found, "AUDIO", side), "image_tokens": _in(found, "IMAGE", side)}
    return {name: count for name, count in counts.items() if count}


def _in(found: Mapping[str, Any], modality: str, side: str) -> int:
    names = [f"{side}TokensDetails", *(["toolUsePromptTokensDetails"] if side == "prompt" else [])]
    listed = [each for name in names if isinstance(rows := found.get(name), list) for each in rows]
    return sum(
        _count(each, "tokenCount")
        for each in listed
        if isinstance(each, dict) and modality in (each.get("modality"), _modality(each.get("modality")))
    )


def _modality(value: Any) -> str | None:
    return _MODALITIES.get(value) if type(value) is int else None


def _count(found: Mapping[str, Any], name: str) -> int:
    value = found.get(name)
    return value if type(value) is int and 0 < value < _MOST else 0
