"""Whether a stream, as far as it came, says that the answer is finished; written apart from the decoder it judges."""

import json
import re

from tests.wire.recordings import Document


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
