"""Why: the one face of this package; what is said where stands in its other modules."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from providers import errors
from providers.contract import NO_HEADERS, Call, Decoded, Kind, ProviderError, WireRequest
from providers.document import dumps, load_object
from providers.refusal import refused

from .answer import extras_of, finish_of, mapping, message_of, read_usage, text, usage_object
from .request import NAME, answers_by_tool, body_of
from .stream import AnthropicDecoder, failure

_JSON = (b"content-type", b"application/json")
_USED_UP = re.compile(r"specified api usage limits|(usage credits|extra usage) (is|are) required")
_CONTEXT = re.compile(r"exceeds? (the )?context limit|context_window")


@dataclass(frozen=True, slots=True)
class AnthropicWire:
    """Messages. Authentication and `anthropic-version` are the provider's row's; its base URL ends with `/v1`."""

    path: str = "/messages"
    models_path: str = "/models?limit=1000"
    """All of them: without a limit there are 20. Source: https://platform.claude.com/docs/en/api/models/list"""

    def request(self, call: Call) -> WireRequest:
        try:
            body, betas = body_of(call)
            data = dumps(body)
        except RecursionError:
            raise refused("messages", "is nested too deeply.") from None
        headers = (_JSON, (b"anthropic-beta", ",".join(betas).encode())) if betas else (_JSON,)
        return WireRequest(self.path, headers, data)

    def response(self, call: Call, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Decoded:
        document = load_object(body)
        try:
            return _decoded(document, call)
        except RecursionError:
            raise ProviderError(Kind.BROKEN, "The provider's answer is nested too deeply.") from None

    def stream(self, call: Call) -> AnthropicDecoder:
        return AnthropicDecoder(call, answers_by_tool(call))

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Some 400 and 429 are about the account, in words alone."""
        error = errors.from_answer(status, headers, body)
        words = error.message.lower()
        if status == 400 and _CONTEXT.search(words):
            error.kind = Kind.CONTEXT_LENGTH
        elif status in (400, 429) and _USED_UP.search(words):
            error.kind = Kind.QUOTA
        elif status == 400 and "organization has been disabled" in words:
            error.kind = Kind.CREDENTIALS
        return error


def _decoded(document: dict[str, Any], call: Call) -> Decoded:
    if document.get("type") == "error" or document.get("error"):
        raise failure(document)
    if not isinstance(document.get("content"), list):
        raise ProviderError(Kind.BROKEN, "The provider's answer holds no content.", raw=list(document)[:20])
    decoded = Decoded(b"")
    told = _completion(document, answers_by_tool(call))
    if found := mapping(document.get("usage")):
        read_usage(found, decoded.usage)
        decoded.usage.source = "provider"
        told["usage"] = usage_object(decoded.usage, found, call.pricing)
    decoded.body = dumps(told)
    return decoded


def _completion(document: Mapping[str, Any], by_tool: bool) -> dict[str, Any]:
    blocks = [block for block in document["content"] if isinstance(block, dict)]
    message = message_of(blocks, by_tool)
    if explanation := text(mapping(document.get("stop_details")).get("explanation")):
        message["refusal"] = explanation
    reason = document.get("stop_reason")
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": finish_of(reason, "tool_calls" in message),
        "native_finish_reason": reason,
    }
    head = {"id": text(document.get("id")), "object": "chat.completion", "created": 0}
    told: dict[str, Any] = {**head, "model": text(document.get("model")), "choices": [choice]}
    return {**told, NAME: extras} if (extras := extras_of(document)) else told
