"""AWS event-stream frames, made by hand, and a small stream of them."""

import base64
import struct
from typing import Any
from zlib import crc32

import orjson


def _header(name: str, value: str) -> bytes:
    return struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()


def raw_frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One frame, with both of its checksums."""
    return sealed(b"".join(_header(name, value) for name, value in headers.items()), payload)


def sealed(head: bytes, payload: bytes) -> bytes:
    """A frame of any head, with checksums that fit."""
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    prelude += struct.pack(">I", crc32(prelude))
    message = prelude + head + payload
    return message + struct.pack(">I", crc32(message))


def frame(kind: str, payload: dict[str, Any]) -> bytes:
    """An event."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return raw_frame(headers, orjson.dumps(payload))


def exception(kind: str, payload: dict[str, Any]) -> bytes:
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return raw_frame(headers, orjson.dumps(payload))


def delta(index: int, **fields: Any) -> bytes:
    return frame("contentBlockDelta", {"contentBlockIndex": index, "delta": fields, "p": "abcd"})


def stop(index: int) -> bytes:
    return frame("contentBlockStop", {"contentBlockIndex": index})


def tool(index: int, identifier: str, name: str, **more: Any) -> bytes:
    use = {"toolUseId": identifier, "name": name, **more}
    return frame("contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": use}})


def end(reason: str = "end_turn", **more: Any) -> bytes:
    return frame("messageStop", {"stopReason": reason, **more})


def metadata(**usage: int) -> bytes:
    counts = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15, **usage}
    return frame("metadata", {"usage": counts, "metrics": {"latencyMs": 1}})


START = frame("messageStart", {"role": "assistant", "p": "abc"})
REDACTED = base64.b64encode(b"secret").decode()

TEXT = START + delta(0, text="Hel") + delta(0, text="lo") + stop(0) + end() + metadata()
THOUGHT = (
    START
    + delta(0, reasoningContent={"text": "Let me "})
    + delta(0, reasoningContent={"text": "think."})
    + delta(0, reasoningContent={"signature": "sig"})
    + stop(0)
    + delta(1, reasoningContent={"redactedContent": REDACTED})
    + stop(1)
    + delta(2, text="I ask.")
    + stop(2)
    + tool(3, "tooluse_1", "weather")
    + delta(3, toolUse={"input": '{"city":'})
    + delta(3, toolUse={"input": '"Bonn"}'})
    + stop(3)
    + tool(4, "tooluse_2", "now")
    + delta(4, toolUse={"input": ""})
    + stop(4)
    + end("tool_use")
    + metadata(cacheReadInputTokens=100, cacheWriteInputTokens=20)
)
