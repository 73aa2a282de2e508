"""The OpenAI request that a recorded Converse request is the translation of, and what of both has to be equal."""

import json
from typing import Any
from urllib.parse import unquote

from tests.wire.recordings import Case, Document

SUCCESS = ("status", "success")
MEDIA = {"html": "text/html", "pdf": "application/pdf", "txt": "text/plain", "csv": "text/csv", "md": "text/markdown"}


PLAIN = {"text", "toolUse", "reasoningContent", "cachePoint"}
"""Blocks of an assistant that OpenAI's fields can hold."""
OWN = {"guardrailConfig", "performanceConfig", "additionalModelResponseFieldPaths", "promptVariables"}


def model_of(case: Case, path: str) -> str:
    """The model that a recorded path names."""
    return unquote(path.removeprefix("/model/").rpartition("/")[0]) if path else case.id


def canonical(body: Document) -> Document:
    """The equivalent request in OpenAI's words."""
    config = body.get("inferenceConfig") or {}
    fields = body.get("additionalModelRequestFields") or {}
    own = {name: body[name] for name in OWN & body.keys()}
    if others := {name: value for name, value in fields.items() if name != "thinking"}:
        own["additionalModelRequestFields"] = others
    document = {
        "messages": [*_system(body.get("system")), *(each for turn in body["messages"] for each in _messages(turn))],
        "max_tokens": config.get("maxTokens"),
        "temperature": config.get("temperature"),
        "top_p": config.get("topP"),
        "stop": config.get("stopSequences"),
        "tools": _tools((body.get("toolConfig") or {}).get("tools")),
        "tool_choice": _choice((body.get("toolConfig") or {}).get("toolChoice")),
        "response_format": _format(body.get("outputConfig")),
        "thinking": fields.get("thinking"),
        "metadata": body.get("requestMetadata"),
        "service_tier": (body.get("serviceTier") or {}).get("type"),
        "bedrock": own or None,
    }
    return {name: value for name, value in document.items() if value is not None}


def comparable(body: Document) -> Document:
    """A Converse body with what means the same made the same: empty objects, defaults, neighbouring turns."""
    found: Document = {name: value for name, value in body.items() if value not in ({}, [])}
    turns: list[Document] = []
    for turn in found["messages"]:
        content = [_plain(block) for block in turn["content"]]
        if turns and turns[-1]["role"] == turn["role"]:
            turns[-1]["content"] += content
        else:
            turns.append({"role": turn["role"], "content": content})
    found["messages"] = turns
    if schema := found.get("outputConfig", {}).get("textFormat", {}).get("structure", {}).get("jsonSchema"):
        found["outputConfig"] = {**schema, "schema": json.loads(schema["schema"])}
    return found


def _plain(block: Document) -> Document:
    if result := block.get("toolResult"):
        return {"toolResult": {name: value for name, value in result.items() if (name, value) != SUCCESS}}
    return block


def _system(blocks: list[Document] | None) -> list[Document]:
    return [{"role": "system", "content": _parts(blocks)}] if blocks else []


def _messages(turn: Document) -> list[Document]:
    if turn["role"] == "assistant":
        return [_assistant(turn["content"])]
    told: list[Document] = []
    rest: list[Document] = []
    for block in turn["content"]:
        if "toolResult" in block:
            told.append(_result(block["toolResult"]))
        elif "cachePoint" in block and told and not rest:
            told[-1] |= _mark(block)
        else:
            rest.append(block)
    return [*told, *([{"role": "user", "content": _parts(rest)}] if rest else [])]


def _result(result: Document) -> Document:
    failed = {"is_error": True} if result.get("status") == "error" else {}
    return {"role": "tool", "tool_call_id": result["toolUseId"], "content": _parts(result["content"]), **failed}


def _assistant(blocks: list[Document]) -> Document:
    if any(not PLAIN & block.keys() or block.get("toolUse", {}).get("type") for block in blocks):
        return {"role": "assistant", "content": "", "bedrock": {"content": blocks}}
    said: list[Document] = []
    calls: list[Document] = []
    thoughts: list[Document] = []
    for block in blocks:
        if "toolUse" in block:
            calls.append(_call(block["toolUse"]))
        elif "reasoningContent" in block:
            thoughts.append(_thought(block["reasoningContent"]))
        elif "cachePoint" in block and calls:
            calls[-1] |= _mark(block)
        else:
            said.append(block)
    message = {"tool_calls": calls, "reasoning_details": thoughts}
    return {"role": "assistant", "content": _parts(said), **{name: each for name, each in message.items() if each}}


def _mark(block: Document) -> Document:
    ttl = block["cachePoint"].get("ttl")
    return {"cache_control": {"type": "ephemeral", **({"ttl": ttl} if ttl else {})}}


def _thought(content: Document) -> Document:
    if "redactedContent" in content:
        return {"type": "reasoning.encrypted", "data": content["redactedContent"]}
    return {"type": "reasoning.text", **content["reasoningText"]}


def _call(call: Document) -> Document:
    function = {"name": call["name"], "arguments": json.dumps(call["input"])}
    return {"id": call["toolUseId"], "type": "function", "function": function}


def _parts(blocks: list[Document]) -> list[Document]:
    parts: list[Document] = []
    for block in blocks:
        if "cachePoint" in block:
            parts[-1] |= _mark(block)
        else:
            parts.append(_part(block))
    return parts


def _part(block: Document) -> Document:
    kind, value = next(iter(block.items()))
    if kind == "text":
        return {"type": "text", "text": value}
    if kind == "image" and "bytes" in value["source"]:
        return {"type": "image_url", "image_url": {"url": _data(f"image/{value['format']}", value)}}
    if kind == "document" and "bytes" in value["source"]:
        file = {"filename": f"{value['name']}.{value['format']}", "file_data": _data(MEDIA[value["format"]], value)}
        return {"type": "file", "file": file}
    return {"type": kind, **block}


def _data(media_type: str, value: Document) -> str:
    return f"data:{media_type};base64,{value['source']['bytes']}"


def _tools(tools: list[Document] | None) -> list[Document] | None:
    found: list[Document] = []
    for tool in tools or ():
        if "cachePoint" in tool:
            found[-1] |= _mark(tool)
            continue
        if "systemTool" in tool:
            found.append(tool)
            continue
        spec = tool["toolSpec"]
        named = {name: spec[name] for name in ("name", "description", "strict") if name in spec}
        found.append({"type": "function", "function": {**named, "parameters": spec["inputSchema"]["json"]}})
    return found or None


def _choice(choice: Document | None) -> Any:
    if not choice:
        return None
    if "tool" in choice:
        return {"type": "function", "function": {"name": choice["tool"]["name"]}}
    return "auto" if "auto" in choice else "required"


def _format(config: Document | None) -> Document | None:
    if not config:
        return None
    found = config["textFormat"]["structure"]["jsonSchema"]
    return {"type": "json_schema", "json_schema": {**found, "schema": json.loads(found["schema"]), "strict": True}}
