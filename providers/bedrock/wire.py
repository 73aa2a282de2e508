"""Why: the one face of this package; what is said where stands in its other modules."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from providers.contract import NO_HEADERS, Call, Decoded, Kind, ProviderError, WireRequest
from providers.document import dumps, load_object
from providers.refusal import refused

from . import failures
from .answer import blocks_of, extras_of, finish_of, mapping, message_of, read_usage, usage_object
from .models import model_of
from .request import body_of, holds_files
from .stream import BedrockDecoder

_JSON = ((b"content-type", b"application/json"),)
_MODEL = re.compile(r"(?!\.+$)[A-Za-z0-9._:/-]{1,2048}")


@dataclass(frozen=True, slots=True)
class BedrockWire:
    """Converse and ConverseStream.

    `s3`: whether callers may name objects in S3, which Bedrock reads with this gateway's AWS identity.
    """

    s3: bool = False

    def request(self, call: Call) -> WireRequest:
        if not _MODEL.fullmatch(call.model):
            raise refused("model", "is neither an id of a Bedrock model nor an ARN.")
        try:
            body, missing = body_of(call, self.s3)
            data = dumps(body)
        except RecursionError:
            raise refused("messages", "is nested too deeply.") from None
        if missing:
            url, place = next(iter(missing.items()))
            raise refused(place, f"the file at {url[:200]!r} has not been fetched.")
        return WireRequest(_path(call), _JSON, data)

    def remote(self, call: Call) -> Mapping[str, str]:
        """The URLs whose files the request needs in `call.fetched`, each with the field that it stands in."""
        try:
            return body_of(call, self.s3)[1] if holds_files(call.document) else {}
        except RecursionError:
            raise refused("messages", "is nested too deeply.") from None

    def response(self, call: Call, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Decoded:
        document = load_object(body)
        try:
            return _decoded(document, call)
        except RecursionError:
            raise ProviderError(Kind.BROKEN, "The provider's answer is nested too deeply.") from None

    def stream(self, call: Call) -> BedrockDecoder:
        return BedrockDecoder(call)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return failures.from_answer(status, headers, body)


def _path(call: Call) -> str:
    """A colon stands as it is: transports unquote it, and the signature is over what is sent."""
    return f"/model/{quote(call.model, safe=':')}/{'converse-stream' if call.stream else 'converse'}"


def _decoded(document: dict[str, Any], call: Call) -> Decoded:
    if error := failures.from_document(document):
        raise error
    content = mapping(mapping(document.get("output")).get("message")).get("content")
    if not isinstance(content, list):
        raise ProviderError(Kind.BROKEN, "The provider's answer holds no message.", raw=list(document)[:20])
    reason = document.get("stopReason")
    message = message_of(blocks_of(content), model_of(call.model).house == "anthropic")
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": finish_of(reason, "tool_calls" in message),
        "native_finish_reason": reason,
    }
    head = {"id": "", "object": "chat.completion", "created": 0, "model": call.model}
    told: dict[str, Any] = {**head, "choices": [choice], **extras_of(document)}
    decoded = Decoded(b"")
    if found := mapping(document.get("usage")):
        read_usage(found, decoded.usage)
        told["usage"] = usage_object(decoded.usage, found, call.pricing)
    decoded.body = dumps(told)
    return decoded
