"""Why: whoever embeds in a language of its own is asked, and answers, as OpenAI does; what that means stands here.

A request is texts, dimensions and a format; tokens are words of one model's vocabulary, and so refused. What OpenAI
has no field for goes into an object named after the provider, which is merged into the request; what the call is
routed and metered by is sealed there. `base64` is little-endian float32, made here: providers tell numbers.

Where the provider tells no count, `usage` is null, and the ledger's row is an estimate.

Source: https://platform.openai.com/docs/api-reference/embeddings
"""

import math
import sys
from array import array
from base64 import b64encode
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from . import usage
from .contract import Call, Decoded, Kind, ProviderError, WireRequest
from .document import dumps
from .refusal import Tolerance, an_object, refused

_JSON = ((b"content-type", b"application/json"),)
_KNOWN = {"model", "input", "dimensions", "encoding_format", "stream", "user"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for embeddings. `own` is what the caller says in the provider's words."""

    texts: list[str]
    dimensions: int | None
    own: Mapping[str, Any]


def asked(call: Call, escapes: tuple[str, ...], sealed: AbstractSet[str]) -> Asked:
    """What is asked for; `escapes` name the caller's own objects, in which no field of `sealed` may stand.

    Raises `ProviderError` naming what cannot be expressed.
    """
    document = call.document
    own = _own(document, escapes, sealed)
    tolerance = Tolerance(escapes[0], own.pop("lenient", False) is True)
    for name, value in document.items():
        if value is not None and name not in _KNOWN and name not in escapes:
            tolerance.cannot(name, f"has no place here; the provider's own fields go into '{escapes[0]}'.")
    if document.get("stream"):
        raise refused("stream", "embeddings are not streamed.")
    if document.get("encoding_format") not in (None, "float", "base64"):
        raise refused("encoding_format", "must be float or base64.")
    return Asked(texts_of(document), _dimensions(document), own)


def texts_of(document: Mapping[str, Any]) -> list[str]:
    """The texts to be embedded. Raises `ProviderError` for tokens."""
    given = document.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise refused("input", "must be a string or a list of strings.")
    if not all(isinstance(text, str) for text in texts):
        raise refused("input", "tokens cannot be expressed in a request to this provider: send text.")
    return texts


def asking(path: str, body: Mapping[str, Any], escape: str) -> WireRequest:
    """The request to be sent; only what the caller put into `escape` can keep it from being one."""
    try:
        return WireRequest(path, _JSON, dumps(body))
    except RecursionError:
        raise refused(escape, "is nested too deeply.") from None


def told(call: Call, vectors: Any, tokens: Any) -> Decoded:
    """OpenAI's answer with one vector a text; `tokens` is what the provider counted, if it is a count.

    Raises `ProviderError` (broken) for anything but vectors of finite numbers, one a text.
    """
    wanted = len(texts_of(call.document))
    if not isinstance(vectors, list) or len(vectors) != wanted:
        raise ProviderError(Kind.BROKEN, f"The provider's answer does not hold one embedding for each of {wanted}.")
    packed = call.document.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": vector_of(vector, packed)}
        for index, vector in enumerate(vectors)
    ]
    decoded = Decoded(b"")
    counted = _usage(call, tokens, decoded)
    decoded.body = dumps({"object": "list", "data": data, "model": call.model, "usage": counted})
    return decoded


def _own(document: Mapping[str, Any], escapes: tuple[str, ...], sealed: AbstractSet[str]) -> dict[str, Any]:
    own: dict[str, Any] = {}
    for escape in escapes:
        found = an_object(document.get(escape) or {}, escape)
        for name in found:
            if name in sealed:
                raise refused(f"{escape}.{name}", "is what the call is routed and metered by: set it outside.")
        own.update(found)
    return own


def _dimensions(document: Mapping[str, Any]) -> int | None:
    value = document.get("dimensions")
    if value is not None and type(value) is not int:
        raise refused("dimensions", "must be a whole number.")
    return value


def vector_of(values: Any, packed: bool) -> Any:
    """The numbers as they came, or as float32 in base64."""
    if not isinstance(values, list) or not values or not set(map(type, values)) <= {int, float}:
        raise _no_vector()
    try:
        numbers = array("f", values)
    except OverflowError:
        raise _no_vector() from None
    if not math.isfinite(sum(numbers)):
        raise _no_vector()
    if not packed:
        return values
    if sys.byteorder == "big":
        numbers.byteswap()
    return b64encode(numbers).decode()


def _no_vector() -> ProviderError:
    return ProviderError(Kind.BROKEN, "The provider's answer holds an embedding that is no list of finite numbers.")


def _usage(call: Call, tokens: Any, decoded: Decoded) -> dict[str, Any] | None:
    """OpenAI's usage object; None where there is no count: no text has no tokens."""
    usage.read({"prompt_tokens": tokens}, decoded.usage, completes=False)
    if decoded.usage.source == "none":
        return None
    counted = decoded.usage.input_tokens
    found: dict[str, Any] = {"prompt_tokens": counted, "total_tokens": counted}
    if call.pricing is not None:
        usage.write_cost(found, decoded.usage, call.pricing)
    return found
