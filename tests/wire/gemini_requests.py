"""A recorded request to Gemini, told back in OpenAI's words; and when two requests to Gemini mean the same."""

import json
import re
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from tests.wire.recordings import Document

OPAQUE = {"args", "response", "parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema"}


def canonical(value: Any, opaque: bool = False) -> Any:
    """Names in camel case, nothing empty, schemas in small letters: protobuf's JSON reads either."""
    if isinstance(value, dict):
        if opaque:
            return {name: canonical(each, True) for name, each in value.items()}
        found = {_camel(name): canonical(each, _camel(name) in OPAQUE) for name, each in value.items()}
        for name, other in (("parameters", "parametersJsonSchema"), ("responseSchema", "responseJsonSchema")):
            if isinstance(found.get(name), dict):
                found[other] = _lower(found.pop(name))
        return {name: each for name, each in found.items() if each is not None and each is not False}
    if isinstance(value, list):
        return [canonical(each, opaque) for each in value]
    return value


def _camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)


def _lower(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            name: each.lower() if name == "type" and isinstance(each, str) else _lower(each)
            for name, each in schema.items()
        }
    return [_lower(each) for each in schema] if isinstance(schema, list) else schema


def meaning(body: Document) -> Document:
    """Without what says nothing: empty objects and texts, ids (which only match calls to results), own defaults."""
    body = {name: value for name, value in body.items() if value not in ({}, [], None) and name != "model"}
    config = dict(body.get("generationConfig") or {})
    if config.get("candidateCount") == 1:
        del config["candidateCount"]
    body["generationConfig"] = config
    body["contents"] = [_content(each) for each in body["contents"]]
    if system := body.get("systemInstruction"):
        body["systemInstruction"] = _content({**system, "role": ""})
    if tools := body.get("tools"):
        body["tools"] = sorted((_tool(each) for each in tools), key=str)
    return body


def _content(content: Document) -> Document:
    parts = content["parts"] if isinstance(content["parts"], list) else [content["parts"]]
    return {"role": content.get("role") or "user", "parts": [_bare(part) for part in parts]}


def _bare(part: Document) -> Document:
    part = dict(part)
    for name in ("functionCall", "functionResponse"):
        if name in part:
            part[name] = {key: value for key, value in part[name].items() if key != "id"}
    if part.get("thoughtSignature") == "skip_thought_signature_validator":
        del part["thoughtSignature"]
    return part


def _tool(tool: Document) -> Document:
    if "functionDeclarations" not in tool:
        return tool
    declared = [{k: v for k, v in each.items() if v not in ("", {})} for each in tool["functionDeclarations"]]
    return {**tool, "functionDeclarations": declared}


def fits_the_sdk(body: Document) -> None:
    """Whether the provider's own SDK, where it is installed, knows every field of this body."""
    if find_spec("google") is None or find_spec("google.genai") is None:
        return
    types = import_module("google.genai.types")
    kinds: dict[str, Any] = {
        "systemInstruction": types.Content,
        "toolConfig": types.ToolConfig,
        "generationConfig": types.GenerationConfig,
    }
    for content in body["contents"]:
        types.Content.model_validate(content)
    for tool in body.get("tools", ()):
        types.Tool.model_validate(tool)
    for setting in body.get("safetySettings", ()):
        if not isinstance(setting["category"], int):  # Google takes the number of a category; its SDK only the name
            types.SafetySetting.model_validate(setting)
    for name, kind in kinds.items():
        if name in body:
            kind.model_validate(body[name])


NAMES = {
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "maxOutputTokens": "max_tokens",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
    "seed": "seed",
    "candidateCount": "n",
    "stopSequences": "stop",
    "responseLogprobs": "logprobs",
    "logprobs": "top_logprobs",
}


def as_openai(body: Document) -> Document:
    """The request that an OpenAI client would have made; what has no place in one goes into `gemini`."""
    own = {name: body[name] for name in ("cachedContent", "safetySettings") if body.get(name)}
    config = dict(body.get("generationConfig") or {})
    document: Document = {ours: config.pop(name) for name, ours in NAMES.items() if name in config}
    if (modalities := config.pop("responseModalities", None)) is not None:
        document["modalities"] = [each.lower() for each in modalities]
    if config.pop("responseMimeType", None):
        schema = config.pop("responseJsonSchema", None)
        holder = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        document["response_format"] = holder if schema else {"type": "json_object"}
    if (thinking := config.pop("thinkingConfig", None)) is not None:
        budget = thinking.get("thinkingBudget")
        document["thinking"] = {"type": "enabled", "budget_tokens": budget} if budget else {"type": "disabled"}
    if config:
        own["generationConfig"] = config
    document["messages"] = [*_system(body), *_messages(body["contents"])]
    document.update(_tools(body))
    return {**document, **({"gemini": own} if own else {})}


def _system(body: Document) -> list[Document]:
    system = body.get("systemInstruction")
    if not system:
        return []
    parts = system["parts"] if isinstance(system["parts"], list) else [system["parts"]]
    return [{"role": "system", "content": [{"type": "text", "text": part["text"]} for part in parts]}]


def _tools(body: Document) -> Document:
    document: Document = {}
    tools: list[Document] = []
    for tool in body.get("tools") or ():
        rest = {name: value for name, value in tool.items() if name != "functionDeclarations"}
        if rest:
            tools.append(rest)
        for declared in tool.get("functionDeclarations") or ():
            function = {name: declared[name] for name in ("name", "description") if name in declared}
            function["parameters"] = declared.get("parametersJsonSchema") or {}
            tools.append({"type": "function", "function": function})
    if tools:
        document["tools"] = tools
    config = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    names = config.get("allowedFunctionNames") or []
    if len(names) == 1:
        document["tool_choice"] = {"type": "function", "function": {"name": names[0]}}
    elif mode := {"AUTO": "auto", "ANY": "required", "NONE": "none"}.get(config.get("mode", "")):
        document["tool_choice"] = mode
    return document


def _messages(contents: list[Document]) -> list[Document]:
    messages: list[Document] = []
    ids: dict[str, list[str]] = {}
    for number, content in enumerate(contents):
        parts = content["parts"] if isinstance(content["parts"], list) else [content["parts"]]
        if content.get("role") == "model":
            messages.append(_assistant(parts, number, ids))
            continue
        results = [part["functionResponse"] for part in parts if "functionResponse" in part]
        messages += [_result(each, ids) for each in results]
        others = [_part(part) for part in parts if "functionResponse" not in part]
        if others:
            messages.append({"role": "user", "content": others})
    return messages


def _assistant(parts: list[Document], number: int, ids: dict[str, list[str]]) -> Document:
    message: Document = {"role": "assistant", "content": [], "tool_calls": [], "reasoning_details": []}
    for index, part in enumerate(parts):
        signed = {"type": "reasoning.encrypted", "data": part.get("thoughtSignature"), "format": "google-gemini-v1"}
        if "functionCall" in part:
            called = part["functionCall"]
            identifier = called.get("id") or f"call_{number}_{index}"
            ids.setdefault(called["name"], []).append(identifier)
            function = {"name": called["name"], "arguments": json.dumps(called.get("args") or {})}
            message["tool_calls"].append({"id": identifier, "type": "function", "function": function})
            signed["id"] = identifier
        elif "text" in part:
            message["content"].append({"type": "text", "text": part["text"]})
        else:
            message.setdefault("gemini", {"parts": []})["parts"].append(part)
            continue
        if signed["data"]:
            message["reasoning_details"].append(signed)
    return message


def _result(response: Document, ids: dict[str, list[str]]) -> Document:
    waiting = ids[response["name"]]
    identifier = response.get("id") or waiting[0]
    waiting.remove(identifier)
    return {"role": "tool", "tool_call_id": identifier, "content": json.dumps(response["response"])}


def _part(part: Document) -> Document:
    if "text" in part:
        return {"type": "text", "text": part["text"]}
    if blob := part.get("inlineData"):
        return {"type": "image_url", "image_url": {"url": f"data:{blob['mimeType']};base64,{blob['data']}"}}
    file = part["fileData"]
    return {"type": "file", "file": {"file_id": file["fileUri"], "format": file.get("mimeType")}}
