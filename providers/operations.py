"""Why: a provider that speaks OpenAI's wire speaks it for embeddings and plain completions, too, on other paths.

What the same provider is for another operation is the same row with another wire; where it has none, `None`.

Source: https://platform.openai.com/docs/api-reference/embeddings/create
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from .catalog import Provider
from .contract import Wire
from .openai import OpenAIWire


def for_embeddings(providers: Mapping[str, Provider]) -> dict[str, Provider | None]:
    """The providers as they are asked for embeddings."""
    return _with_wires(providers, lambda wire: replace(wire, path="/embeddings", holds="data", stream_usage=False))


def for_completions(providers: Mapping[str, Provider]) -> dict[str, Provider | None]:
    """The providers as they are asked to complete a prompt."""
    return _with_wires(providers, lambda wire: replace(wire, path="/completions"))


def _with_wires(
    providers: Mapping[str, Provider], change: Callable[[OpenAIWire], Wire]
) -> dict[str, Provider | None]:
    return {
        name: replace(provider, wire=change(provider.wire)) if isinstance(provider.wire, OpenAIWire) else None
        for name, provider in providers.items()
    }
