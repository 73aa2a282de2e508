"""Asking Bedrock in a test: each request that is made is held against botocore's own model of the service."""

import copy
from typing import Any

import orjson
import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

from providers.bedrock import BedrockWire
from providers.contract import Call, Kind, ProviderError

WIRE = BedrockWire()
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ADAPTIVE = "us.anthropic.claude-opus-4-6-v1"
NOVA = "us.amazon.nova-2-lite-v1:0"
USER = {"role": "user", "content": "hi"}
FUNCTION = {"name": "f", "description": "does", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": FUNCTION}]
SPEC = {"toolSpec": {"name": "f", "description": "does", "inputSchema": {"json": FUNCTION["parameters"]}}}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
}
RESULT = {"role": "tool", "tool_call_id": "t1", "content": "done"}
MARK = {"cache_control": {"type": "ephemeral"}}
POINT = {"cachePoint": {"type": "default"}}
PNG = "data:image/png;base64,QUJD"

INPUT = (
    ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2")).operation_model("Converse").input_shape
)


def sent(*messages: dict[str, Any], model: str = CLAUDE, **fields: Any) -> dict[str, Any]:
    document = {"model": "x", "messages": list(messages) or [USER], **fields}
    before = copy.deepcopy(document)
    body = orjson.loads(WIRE.request(Call(model, document)).body)
    assert document == before
    report = ParamValidator().validate({**body, "modelId": model}, INPUT)
    assert not report.has_errors(), report.generate_report()
    return body


def refused(*messages: dict[str, Any], model: str = CLAUDE, **fields: Any) -> str | None:
    """The field that a request is refused for."""
    with pytest.raises(ProviderError) as caught:
        sent(*messages, model=model, **fields)
    assert (caught.value.kind, caught.value.status, caught.value.sent) == (Kind.REJECTED, 400, False)
    return caught.value.param


def turns(*messages: dict[str, Any], model: str = CLAUDE) -> list[Any]:
    return [(turn["role"], turn["content"]) for turn in sent(*messages, model=model)["messages"]]


def parts(*content: Any) -> list[Any]:
    return sent({"role": "user", "content": list(content)})["messages"][0]["content"]
