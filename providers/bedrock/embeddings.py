"""Why: Converse does not embed; InvokeModel does, and there each house speaks as it likes.

Amazon's Titan takes one text a call, and several are refused: each would be a call of its own, and a call is one row
of the ledger. Cohere's Embed wants to know what the vectors are for; unless `{"bedrock": {"input_type": ...}}` says
so, they are taken for documents to be searched. Kinds of vectors other than float are asked for in the house's own
word, one kind a call: `{"bedrock": {"embedding_types": ["int8"]}}` (Titan: `embeddingTypes`).

Titan counts tokens in its answer, Cohere in a header that Bedrock puts on every answer of InvokeModel.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed-v3.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed-v4.html
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from providers import embeddings
from providers.contract import NO_HEADERS, Call, Decoded, Decoder, ProviderError, WireRequest
from providers.document import load_object
from providers.embeddings import Asked
from providers.refusal import refused

from . import failures
from .answer import mapping
from .request import NAME

_HOUSE = re.compile(r"(?:^|[./:])(?:(?P<cohere>cohere\.embed-)|amazon\.titan-embed-(?:g1-)?text-)")
_ONE_SIZE = re.compile(r"titan-embed-(g1-|text-v1)|cohere\.embed-(english|multilingual)-")
"""Models whose vectors have one size only."""

_SEALED = {"modelId", "inputText", "inputImage", "texts", "images", "inputs"}
_TITAN, _COHERE = "embeddingTypes", "embedding_types"
_KINDS = ("float", "int8", "uint8", "binary", "ubinary")


@dataclass(frozen=True, slots=True)
class BedrockEmbeddings:
    """InvokeModel of Titan's and Cohere's models that embed texts."""

    def request(self, call: Call) -> WireRequest:
        cohere = _is_cohere(call.model)
        asked = embeddings.asked(call, (NAME,), _SEALED)
        _kind(asked.own, _COHERE if cohere else _TITAN)
        if asked.dimensions is not None and _ONE_SIZE.search(call.model):
            raise refused("dimensions", "this model's vectors have one size only.")
        body = _to_cohere(asked) if cohere else _to_titan(asked)
        return embeddings.asking(f"/model/{quote(call.model, safe=':')}/invoke", body, NAME)

    def response(self, call: Call, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Decoded:
        document = load_object(body)
        if error := failures.from_document(document):
            raise error
        own = mapping(call.document.get(NAME))
        if _is_cohere(call.model):
            billed = mapping(mapping(document.get("meta")).get("billed_units")).get("input_tokens")
            return embeddings.told(call, _of_cohere(document, _kind(own, _COHERE)), billed or _counted(headers))
        counted = document.get("inputTextTokenCount") or _counted(headers)
        return embeddings.told(call, [_of_titan(document, _kind(own, _TITAN))], counted)

    def stream(self, call: Call) -> Decoder:
        raise refused("stream", "embeddings are not streamed.")

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return failures.from_answer(status, headers, body)


def _is_cohere(model: str) -> bool:
    """Whether it is one of Cohere's, and not Titan. Raises `ProviderError` for whose language is not spoken here."""
    found = _HOUSE.search(model)
    if found is None:
        raise refused("model", "is not known to embed: amazon.titan-embed-text-... and cohere.embed-... are.")
    return found["cohere"] is not None


def _counted(headers: Mapping[str, str]) -> int | None:
    """What Bedrock says that the input has been, in tokens."""
    count = headers.get("x-amzn-bedrock-input-token-count", "")
    return int(count) if count.isascii() and count.isdigit() and len(count) < 16 else None


def _to_titan(asked: Asked) -> dict[str, Any]:
    if len(asked.texts) > 1:
        raise refused("input", "Titan embeds one text a call: send several calls.")
    size = {} if asked.dimensions is None else {"dimensions": asked.dimensions}
    return {"inputText": asked.texts[0], **size, **asked.own}


def _to_cohere(asked: Asked) -> dict[str, Any]:
    size = {} if asked.dimensions is None else {"output_dimension": asked.dimensions}
    usual = {"input_type": "search_document", _COHERE: ["float"]}
    return {"texts": asked.texts, **usual, **size, **asked.own}


def _of_titan(document: Mapping[str, Any], kind: str) -> Any:
    return document.get("embedding") if kind == "float" else mapping(document.get("embeddingsByType")).get(kind)


def _of_cohere(document: Mapping[str, Any], kind: str) -> Any:
    """By kind where kinds were asked for, else the bare list (`response_type`: embeddings_floats)."""
    found = document.get("embeddings")
    return found.get(kind) if isinstance(found, dict) else found


def _kind(own: Mapping[str, Any], field: str) -> str:
    """The kind of vectors that is asked for; OpenAI's answer has a place for one."""
    given = own.get(field)
    if given is None:
        return "float"
    if not isinstance(given, list) or len(given) != 1 or given[0] not in _KINDS:
        raise refused(f"{NAME}.{field}", f"must be a list of one of {', '.join(_KINDS)}.")
    return str(given[0])
