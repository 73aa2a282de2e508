"""Why: SDKs ask for embeddings in base64 by themselves, and read garbage where a provider does not heed that.

Ollama, LM Studio and others answer with numbers whatever was asked; OpenAI's SDK for JavaScript reads those as packed
ones and keeps a quarter of them. DashScope knows no base64, OpenRouter loses such an answer with some models: those
are asked for numbers. Whoever asked for base64 gets base64, and whoever did not gets numbers.

Sources: https://help.aliyun.com/en/model-studio/text-embedding-synchronous-api,
https://github.com/openai/openai-node/blob/master/src/resources/embeddings.ts
"""

import re
import sys
from array import array
from base64 import b64decode
from binascii import Error
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .contract import NO_HEADERS, Call, Decoded, Decoder, Kind, ProviderError, WireRequest
from .document import encoded, load_object
from .embeddings import vector_of
from .openai import OpenAIWire

_NUMBERS = re.compile(rb'"embedding"\s*:\s*\[')
_PACKED = re.compile(rb'"embedding"\s*:\s*"')


@dataclass(frozen=True, slots=True)
class OpenAIEmbeddings:
    """A provider's wire as it embeds."""

    wire: OpenAIWire

    def request(self, call: Call) -> WireRequest:
        if self.wire.embeds_numbers and _wants_base64(call):
            call = replace(call, document={**call.document, "encoding_format": "float"})
        return self.wire.request(call)

    def response(self, call: Call, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Decoded:
        decoded = self.wire.response(call, body)
        wanted = _wants_base64(call)
        if (_NUMBERS if wanted else _PACKED).search(decoded.body):
            decoded.body = _converted(decoded.body, packed if wanted else unpacked)
        return decoded

    def stream(self, call: Call) -> Decoder:
        return self.wire.stream(call)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return self.wire.error(status, headers, body)


def packed(vector: Any) -> Any:
    """A list of numbers as little-endian float32 in base64; anything else as it is."""
    return vector_of(vector, True) if isinstance(vector, list) else vector


def unpacked(vector: Any) -> Any:
    """The numbers of what `packed` makes; anything else as it is."""
    if not isinstance(vector, str):
        return vector
    try:
        numbers = array("f", b64decode(vector, validate=True))
    except (Error, ValueError):
        raise _no_vector() from None
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _wants_base64(call: Call) -> bool:
    return call.document.get("encoding_format") == "base64"


def _converted(body: bytes, convert: Any) -> bytes:
    document = load_object(body)
    for row in document["data"]:
        if isinstance(row, dict) and "embedding" in row:
            row["embedding"] = convert(row["embedding"])
    return encoded(document)


def _no_vector() -> ProviderError:
    return ProviderError(Kind.BROKEN, "The provider's answer holds an embedding that is no list of numbers.")
