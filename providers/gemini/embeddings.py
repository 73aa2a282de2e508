"""Why: Google embeds by three methods, and the model and the address decide which one it is.

The Gemini API takes all texts as one batch. Vertex takes a Gemini's one by one or as a batch, with the settings in an
object of their own, and every other model's as instances of a prediction. `taskType`, `title` and `autoTruncate` go
into `gemini` (or `vertex`): `{"gemini": {"taskType": "RETRIEVAL_QUERY"}}`.

Sources: https://ai.google.dev/api/embeddings,
https://docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api,
https://github.com/googleapis/python-genai (`Models.embed_content`: which method is whose)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from providers import embeddings
from providers.contract import NO_HEADERS, Call, Decoded, Decoder, ProviderError, WireRequest
from providers.document import load_object
from providers.embeddings import Asked
from providers.refusal import refused

from . import faults
from .request import ESCAPES, Document

_SEALED = {"model", "content", "contents", "requests", "instances"}
_OF_INSTANCES = {"taskType": "task_type", "task_type": "task_type", "title": "title"}
"""What a prediction is told with each text; all else are its parameters."""


@dataclass(frozen=True, slots=True)
class GeminiEmbeddings:
    """batchEmbedContents; `vertex`: embedContent, batchEmbedContents and predict."""

    vertex: bool = False

    def request(self, call: Call) -> WireRequest:
        name = call.model.removeprefix("models/").removeprefix("google/")
        if not name:
            raise refused("model", "names no model.")
        asked = embeddings.asked(call, ESCAPES, _SEALED)
        method, body = _vertex(name, asked) if self.vertex else ("batchEmbedContents", _batch(name, asked))
        return embeddings.asking(f"/models/{quote(name, safe='@')}:{method}", body, ESCAPES[0])

    def response(self, call: Call, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Decoded:
        document = load_object(body)
        if document.get("error"):
            raise faults.from_document(document)
        found = _embeddings(document)
        return embeddings.told(call, [each.get("values") for each in found], _tokens(document, found))

    def stream(self, call: Call) -> Decoder:
        raise refused("stream", "embeddings are not streamed.")

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return faults.from_answer(status, headers, body)


def _batch(name: str, asked: Asked) -> Document:
    settings = _settings(asked)
    return {"requests": [{"model": f"models/{name}", "content": _content(text), **settings} for text in asked.texts]}


def _vertex(name: str, asked: Asked) -> tuple[str, Document]:
    if "gemini" not in name.lower():
        return "predict", _prediction(asked)
    settings = _settings(asked)
    config = {"embedContentConfig": settings} if settings else {}
    requests = [{"content": _content(text), **config} for text in asked.texts]
    return ("embedContent", requests[0]) if len(requests) == 1 else ("batchEmbedContents", {"requests": requests})


def _prediction(asked: Asked) -> Document:
    settings = _settings(asked)
    of_each = {_OF_INSTANCES[name]: settings.pop(name) for name in _OF_INSTANCES if name in settings}
    body: Document = {"instances": [{"content": text, **of_each} for text in asked.texts]}
    return {**body, "parameters": settings} if settings else body


def _settings(asked: Asked) -> Document:
    size = {} if asked.dimensions is None else {"outputDimensionality": asked.dimensions}
    return {**size, **asked.own}


def _content(text: str) -> Document:
    return {"parts": [{"text": text}]}


def _embeddings(document: Document) -> list[Document]:
    """What each method calls its embeddings; an empty object for what is none, which has no values."""
    found = document.get("embeddings")
    if "predictions" in document:
        rows = document["predictions"]
        found = [_mapping(row).get("embeddings") for row in rows] if isinstance(rows, list) else None
    elif "embedding" in document:
        found = [document["embedding"]]
    return [_mapping(each) for each in found] if isinstance(found, list) else []


def _tokens(document: Document, found: list[Document]) -> Any:
    """The tokens of all texts, counted for the call or with each; None unless all are known."""
    if counted := _mapping(document.get("usageMetadata")).get("promptTokenCount"):
        return counted
    told = [_mapping(each.get("statistics")).get("token_count") for each in found]
    counts = [count for count in told if isinstance(count, int | float) and count > 0]
    return sum(counts) if len(counts) == len(found) else None


def _mapping(value: Any) -> Document:
    return value if isinstance(value, dict) else {}
