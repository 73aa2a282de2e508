"""Answers of Claude, made by hand, and how a client reads ours."""

from collections.abc import Iterable
from typing import Any

import orjson

from providers.anthropic import AnthropicWire
from providers.contract import Call, Usage

WIRE = AnthropicWire()
DONE = b"data: [DONE]\n\n"
SIGNED = "anthropic-claude-v1"
USAGE = {"input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": 7}
READ = Usage(input_tokens=17, cache_read_tokens=5, cache_write_tokens=2, output_tokens=7, source="provider")
TOLD = {
    "prompt_tokens": 17,
    "completion_tokens": 7,
    "total_tokens": 24,
    "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
THOUGHT = {"type": "thinking", "thinking": "Hm", "signature": "sig"}
HIDDEN = {"type": "redacted_thinking", "data": "xyz"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"town": "Ulm"}}
SEARCH = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "q"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []}
CITATION = {"type": "web_search_result_location", "url": "https://a.example", "title": "A", "cited_text": "c"}
BY_TOOL = {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}}


def priced(usage: Usage) -> int:
    return usage.input_tokens * 1000 + usage.output_tokens * 2000


def call(model: str = "claude-opus-4-6", **fields: Any) -> Call:
    document = fields.pop("document", {"messages": []})
    return Call(**{"model": model, "document": document, "wants_usage": True, **fields})


def text(written: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": written, **more}


def answer(*blocks: Any, stop: str | None = "end_turn", **fields: Any) -> bytes:
    head = {"type": "message", "id": "msg_1", "model": "claude-x", "role": "assistant"}
    return orjson.dumps({**head, "content": list(blocks), "stop_reason": stop, "usage": USAGE, **fields})


def choice(*blocks: Any, made: Call | None = None, **fields: Any) -> dict[str, Any]:
    document = orjson.loads(WIRE.response(made or call(), answer(*blocks, **fields)).body)
    return document["choices"][0]


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (each["type"].encode(), orjson.dumps(each)) for each in events)


START = sse(
    {"type": "message_start", "message": {"id": "msg_1", "model": "claude-x", "usage": {**USAGE, "output_tokens": 1}}}
)
PING = sse({"type": "ping"})
STOP = sse({"type": "message_stop"})


def delta(stop: str | None = "end_turn", **more: Any) -> bytes:
    usage = {"output_tokens": 7}
    return sse({"type": "message_delta", "delta": {"stop_reason": stop, **more}, "usage": usage})


def block(index: int, begin: dict[str, Any], *deltas: dict[str, Any], closed: bool = True) -> bytes:
    grown = [{"type": "content_block_delta", "index": index, "delta": each} for each in deltas]
    end = [{"type": "content_block_stop", "index": index}] if closed else []
    return sse({"type": "content_block_start", "index": index, "content_block": begin}, *grown, *end)


def streamed(index: int, whole: dict[str, Any]) -> bytes:
    """A block as the API streams it."""
    kind = whole["type"]
    if kind == "text":
        cited = [{"type": "citations_delta", "citation": each} for each in whole.get("citations", ())]
        pieces = [{"type": "text_delta", "text": each} for each in whole["text"]]
        return block(index, text(""), *cited, *pieces)
    if kind == "thinking":
        pieces = [{"type": "thinking_delta", "thinking": each} for each in whole["thinking"]]
        return block(
            index, {**whole, "thinking": "", "signature": ""}, *pieces,
            {"type": "signature_delta", "signature": whole["signature"]},
        )  # fmt: skip
    if kind.endswith("tool_use"):
        written = orjson.dumps(whole["input"]).decode()
        pieces = [{"type": "input_json_delta", "partial_json": each} for each in ("", written[:3], written[3:])]
        return block(index, {**whole, "input": {}}, *pieces)
    return block(index, whole)


def decode(*parts: bytes, made: Call | None = None) -> tuple[bytes, Usage]:
    decoder = WIRE.stream(made or call(stream=True))
    out = b"".join([decoder.feed(part) for part in parts])
    return out + decoder.close(), decoder.usage


def chunks(out: bytes) -> list[Any]:
    return [orjson.loads(each.removeprefix(b"data: ")) for each in out.split(b"\n\n") if each and each != DONE[:-2]]


def gathered(out: bytes) -> dict[str, Any]:
    """The message that a client puts together from a stream, and the choice's last fields."""
    message: dict[str, Any] = {}
    end: dict[str, Any] = {}
    for chunk in chunks(out):
        for each in chunk["choices"]:
            _gather(message, each["delta"])
            end.update({name: value for name, value in each.items() if name != "delta" and value is not None})
    return {"message": message, **end}


def _gather(message: dict[str, Any], part: dict[str, Any]) -> None:
    for name, value in part.items():
        if name == "tool_calls":
            for piece in value:
                calls = message.setdefault("tool_calls", [])
                if piece["index"] == len(calls):
                    calls.append({**piece, "function": dict(piece["function"])})
                else:
                    calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
        elif name == "role" or name not in message:
            message[name] = value
        else:
            message[name] = message[name] + value


def stream_of(blocks: Iterable[dict[str, Any]], stop: str = "end_turn") -> bytes:
    return START + PING + b"".join(streamed(*each) for each in enumerate(blocks)) + delta(stop) + STOP
