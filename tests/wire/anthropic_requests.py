"""A recorded request to Claude as the OpenAI request that it is the translation of, and both in comparable form."""

from typing import Any

from tests.wire.recordings import Document

PLAIN = {"text", "image", "document", "tool_use", "thinking", "redacted_thinking"}
"""Blocks of an assistant that OpenAI's fields can hold."""
CHOICES = {"auto": "auto", "none": "none", "any": "required"}
SAME = {"max_tokens", "temperature", "top_p", "top_k", "stream", "thinking", "cache_control", "service_tier"}


def canonical(body: Document) -> Document:
    """The equivalent OpenAI request."""
    document: Document = {name: body[name] for name in SAME & body.keys()}
    system = [{"role": "system", "content": _blocks(body["system"])}] if body.get("system") else []
    document["messages"] = [*system, *(each for message in body["messages"] for each in _messages(message))]
    if "tools" in body:
        document["tools"] = [_tool(tool) for tool in body["tools"]]
    if choice := body.get("tool_choice"):
        named = {"type": "function", "function": {"name": choice.get("name")}}
        document["tool_choice"] = named if choice["type"] == "tool" else CHOICES[choice["type"]]
        if "disable_parallel_tool_use" in choice:
            document["parallel_tool_calls"] = not choice["disable_parallel_tool_use"]
    if "stop_sequences" in body:
        document["stop"] = body["stop_sequences"]
    if user := body.get("metadata", {}).get("user_id"):
        document["user"] = user
    if found := body.get("output_format") or body.get("output_config", {}).get("format"):
        document["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": found["schema"]},
        }
    if effort := body.get("output_config", {}).get("effort"):
        document["anthropic"] = {"output_config": {"effort": effort}}
    return document


def comparable(body: Document) -> Document:
    """The request without spellings that mean the same."""
    found = {name: value for name, value in body.items() if value not in (None, False, [], {})}
    if "output_format" in found:  # the beta's name for it
        found["output_config"] = {"format": found.pop("output_format")}
    if "system" in found:
        found["system"] = _blocks(found["system"])
    found["messages"] = [{**each, "content": _told(each["content"])} for each in body["messages"]]
    choice = {name: value for name, value in (found.pop("tool_choice", None) or {}).items() if value}
    return {**found, "tool_choice": choice} if choice not in ({}, {"type": "auto"}) else found


def _blocks(content: Any) -> list[Document]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _told(content: Any) -> list[Document]:
    return [{name: value for name, value in block.items() if value is not False} for block in _blocks(content)]


def _messages(message: Document) -> list[Document]:
    blocks = _blocks(message["content"])
    if message["role"] == "assistant":
        return [_assistant(blocks)]
    if message["role"] == "system":
        return [{"role": "system", "content": blocks}]
    results = [_result(block) for block in blocks if block["type"] == "tool_result"]
    rest = [_part(block) for block in blocks if block["type"] != "tool_result"]
    return [*results, *([{"role": "user", "content": rest}] if rest else [])]


def _assistant(blocks: list[Document]) -> Document:
    kinds = [block["type"] for block in blocks]
    if not PLAIN.issuperset(kinds):
        return {"role": "assistant", "content": "", "anthropic": {"content": blocks}}
    message: Document = {
        "role": "assistant",
        "content": [_part(block) for block in blocks if block["type"] == "text"],
    }
    if calls := [_call(block) for block in blocks if block["type"] == "tool_use"]:
        message["tool_calls"] = calls
    if thoughts := [_thought(block) for block in blocks if "thinking" in block["type"]]:
        message["reasoning_details"] = thoughts
    return message


def _call(block: Document) -> Document:
    function = {"name": block["name"], "arguments": block["input"]}
    marked = {"cache_control": block["cache_control"]} if "cache_control" in block else {}
    return {"id": block["id"], "type": "function", "function": function, **marked}


def _thought(block: Document) -> Document:
    if block["type"] == "redacted_thinking":
        return {"type": "reasoning.encrypted", "data": block["data"]}
    return {"type": "reasoning.text", "text": block["thinking"], "signature": block["signature"]}


def _result(block: Document) -> Document:
    content = block.get("content", "")
    told = content if isinstance(content, str) else [_part(each) for each in content]
    marked = {name: block[name] for name in ("cache_control", "is_error") if name in block}
    return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": told, **marked}


def _part(block: Document) -> Document:
    source = block["source"] if isinstance(block.get("source"), dict) else {}
    marked = {"cache_control": block["cache_control"]} if "cache_control" in block else {}
    if source.get("type") == "base64":
        url = f"data:{source['media_type']};base64,{source['data']}"
        if block["type"] == "image":
            return {"type": "image_url", "image_url": {"url": url}, **marked}
        return {"type": "file", "file": {"file_data": url}, **marked}
    if source.get("type") == "url" and block["type"] == "image":
        return {"type": "image_url", "image_url": {"url": source["url"]}, **marked}
    return block


def _tool(tool: Document) -> Document:
    if tool.get("type", "custom") != "custom":
        return tool
    names = {"name": "name", "description": "description", "input_schema": "parameters", "strict": "strict"}
    function = {names[name]: value for name, value in tool.items() if name in names}
    marked = {"cache_control": tool["cache_control"]} if "cache_control" in tool else {}
    return {"type": "function", "function": function, **marked}
