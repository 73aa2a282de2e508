"""Why: providers send JSON that strict parsers refuse (NaN, half an emoji); one odd token must not lose an answer.

orjson reads and writes nearly everything; what it refuses goes to the standard library, which is lenient and slow.
"""

import json
from typing import Any

import orjson

from .contract import Kind, ProviderError


def loads(data: bytes) -> Any:
    """Raises `ValueError` for what is no JSON at all."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return _leniently(data)


def load_object(data: bytes) -> dict[str, Any]:
    """A JSON object; raises `ProviderError` (broken) for anything else."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            document = _leniently(data)
        except ValueError:
            raise ProviderError(Kind.BROKEN, "The provider's answer is not JSON.", raw=excerpt(data)) from None
    if not isinstance(document, dict):
        raise ProviderError(Kind.BROKEN, "The provider's answer is not a JSON object.", raw=excerpt(data))
    return document


def dumps(document: Any) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:
        return json.dumps(document, separators=(",", ":")).encode()


def encoded(document: Any) -> bytes:
    """What we send on of an answer; raises `ProviderError` (broken) for what is nested too deeply to be written."""
    try:
        return orjson.dumps(document)
    except TypeError:
        try:
            return dumps(document)
        except RecursionError:
            raise ProviderError(Kind.BROKEN, "The provider's answer is nested too deeply.") from None


def excerpt(data: bytes, limit: int = 2000) -> str:
    """The beginning of `data` as text, for an error's `raw`."""
    return data[:limit].decode("utf-8", "replace")


def _leniently(data: bytes) -> Any:
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
