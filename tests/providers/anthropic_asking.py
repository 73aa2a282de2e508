"""How the tests of Claude's requests ask."""

from typing import Any

import orjson
import pytest

from providers.anthropic import AnthropicWire
from providers.contract import Call, Kind, ProviderError

WIRE = AnthropicWire()
NEW, OLD, OLDER = "claude-opus-4-6", "claude-sonnet-4-5-20250929", "claude-3-5-haiku-20241022"
ASK = {"role": "user", "content": "hi"}
PIXEL = "aGVsbG8="
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a town", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Ulm"}'}}
USED = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"town": "Ulm"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def sent(*messages: Any, model: str = NEW, stream: bool = False, **fields: Any) -> dict[str, Any]:
    document = {"model": "anthropic:x", "messages": list(messages) or [ASK], **fields}
    before = orjson.dumps(document)
    body = orjson.loads(WIRE.request(Call(model, document, stream)).body)
    assert orjson.dumps(document) == before, "a retry translates the same call again"
    return body


def refused(*messages: Any, **fields: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        sent(*messages, **fields)
    error = caught.value
    assert (error.kind, error.status, error.sent) == (Kind.REJECTED, 400, False)
    assert error.param is not None
    assert error.param in error.message
    return error


def blocks(*messages: Any, **fields: Any) -> Any:
    """The content of the first turn."""
    return sent(*messages, **fields)["messages"][0]["content"]


def text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def image(url: Any, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def source(media_type: str, data: str) -> dict[str, Any]:
    return {"type": "base64", "media_type": media_type, "data": data}


def result(content: Any, identifier: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": identifier, "content": content}


def schema_format() -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
