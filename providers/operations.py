"""Why: a provider that speaks OpenAI's wire speaks it for embeddings and plain completions, too, on other paths.

What the same provider is for another operation is the same row with another wire; where it has none, `None`. Google
and Bedrock embed in languages of their own; the legacy completions are nobody's but OpenAI's.

Source: https://platform.openai.com/docs/api-reference/embeddings/create
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from .bedrock import BedrockWire
from .bedrock.embeddings import BedrockEmbeddings
from .catalog import Provider
from .contract import Wire
from .gemini import GeminiWire
from .gemini.embeddings import GeminiEmbeddings
from .openai import OpenAIWire
from .vectors import OpenAIEmbeddings

_CHAT = "/chat/completions"


def for_embeddings(providers: Mapping[str, Provider]) -> dict[str, Provider | None]:
    """The providers as they are asked for embeddings."""
    return _with_wires(providers, _embedding)


def for_completions(providers: Mapping[str, Provider]) -> dict[str, Provider | None]:
    """The providers as they are asked to complete a prompt."""
    return _with_wires(providers, _completing)


def _embedding(provider: Provider) -> Wire | None:
    wire = provider.wire
    if isinstance(wire, OpenAIWire):
        there = replace(wire, path=_elsewhere(wire, "/embeddings"), holds="data", stream_usage=False)
        return OpenAIEmbeddings(there)
    if isinstance(wire, GeminiWire):
        return GeminiEmbeddings(vertex=provider.name == "vertex")
    return BedrockEmbeddings() if isinstance(wire, BedrockWire) else None


def _completing(provider: Provider) -> Wire | None:
    wire = provider.wire
    return replace(wire, path=_elsewhere(wire, "/completions")) if isinstance(wire, OpenAIWire) else None


def _elsewhere(wire: OpenAIWire, place: str) -> str:
    """The path with all that stands around its end: Azure's names a deployment and a version."""
    return wire.path.replace(_CHAT, place)


def _with_wires(
    providers: Mapping[str, Provider], wire_of: Callable[[Provider], Wire | None]
) -> dict[str, Provider | None]:
    return {
        name: replace(provider, wire=wire) if (wire := wire_of(provider)) is not None else None
        for name, provider in providers.items()
    }
