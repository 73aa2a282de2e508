"""Whether a stream, as far as it came, says that the answer is finished; written apart from the decoder it judges."""

import json
import re
from collections.abc import Iterator

from tests.wire.recordings import Case, Document


def events(data: bytes, *, ended: bool = True) -> list[bytes]:
    """The data of the whole events; the last one needs no blank line where the stream `ended`."""
    *whole, rest = re.split(rb"\r?\n\r?\n", data)
    blocks = [*whole, rest] if ended and _is_whole(rest) else whole
    return [data for block in blocks if (data := _data(block))]


def is_finished(data: bytes, *, several: bool, ended: bool) -> bool:
    """Whether the terminator, or the finish reason of each choice that had begun, is among these bytes."""
    finished: dict[int, bool] = {}
    for event in events(data, ended=ended):
        if event == b"[DONE]":
            return True
        for choice in json.loads(event).get("choices") or []:
            index = (choice.get("index") or 0) if several else 0
            finished[index] = finished.get(index, False) or bool(choice.get("finish_reason"))
    return bool(finished) and all(finished.values())


def is_over(case: Case, end: int, *, ended: bool) -> bool:
    """Whether the first bytes of a case hold the end of its answer, in its provider's words."""
    data = case.body[:end]
    if case.row == "anthropic":
        return any(_stops(json.loads(event)) for event in events(data, ended=ended))
    if case.row == "bedrock":
        return any(b":event-type\x07\x00\x0bmessageStop" in frame for frame in _frames(data))
    if case.row in ("gemini", "vertex"):
        return _has_reasons([json.loads(event) for event in events(data, ended=ended)])
    return is_finished(data, several=asks_for_several(case.request), ended=ended)


def _stops(event: Document) -> bool:
    """Whether an event of Messages says why the answer ends, or that it has."""
    return event["type"] == "message_stop" or bool((event.get("delta") or {}).get("stop_reason"))


def _has_reasons(answers: list[Document]) -> bool:
    """Whether each candidate of Gemini's that had begun says why it ends, or the prompt was blocked."""
    reasons: dict[int, bool] = {}
    for answer in answers:
        if "blockReason" in answer.get("promptFeedback", {}):
            return True
        for candidate in answer.get("candidates", ()):
            index = candidate.get("index", 0)
            reasons[index] = reasons.get(index, False) or "finishReason" in candidate
    return bool(reasons) and all(reasons.values())


def _frames(data: bytes) -> Iterator[bytes]:
    """AWS's whole frames: each begins with its length."""
    while len(data) >= 4 and len(data) >= (length := int.from_bytes(data[:4])):
        yield data[:length]
        data = data[length:]


def asks_for_several(request: Document | None) -> bool:
    wanted = (request or {}).get("n")
    return isinstance(wanted, int) and wanted > 1


def _data(block: bytes) -> bytes:
    return b"\n".join(line[5:].strip() for line in block.splitlines() if line.startswith(b"data:"))


def _is_whole(rest: bytes) -> bool:
    text = _data(rest)
    try:
        return text == b"[DONE]" or json.loads(text) is not None
    except ValueError:
        return False
