"""Why: some providers stream whether they were asked to or not, and who asked for a document must get one.

The pieces of a stream in OpenAI's form, put together to the completion that they tell.
"""

from typing import TypeVar

from .document import loads
from .message import Document, objects

_Kind = TypeVar("_Kind")

_TEXTS = ("content", "reasoning_content", "reasoning", "reasoning_text", "refusal")
_LISTS = ("reasoning_details", "annotations", "images", "content_parts")
_MARKS = (b"data:", b"event:", b":", b"id:", b"retry:")


def is_stream(body: bytes) -> bool:
    """Whether a body is a stream of events and no document: no JSON begins so."""
    return body[:64].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_MARKS)


def gathered(stream: bytes) -> Document:
    """One completion out of the events that a decoder gave out."""
    answer: Document = {}
    choices: dict[int, Document] = {}
    for event in stream.split(b"\n\n"):
        data = event.removeprefix(b"data: ").replace(b"\ndata: ", b"\n")
        if data and data != b"[DONE]":
            _chunk(loads(data), answer, choices)
    answer["object"] = str(answer.get("object") or "chat.completion").removesuffix(".chunk")
    answer["choices"] = [_whole(choices[index]) for index in sorted(choices)]
    return answer


def _chunk(chunk: Document, answer: Document, choices: dict[int, Document]) -> None:
    answer.update((name, value) for name, value in chunk.items() if name != "choices" and value is not None)
    for piece in objects(chunk.get("choices")):
        index = piece["index"] if type(piece.get("index")) is int else 0
        _add(choices.setdefault(index, {"index": index, "finish_reason": None}), piece)


def _add(choice: Document, piece: Document) -> None:
    for name, value in piece.items():
        if name == "delta" and isinstance(value, dict):
            _join(_held(choice, "message"), value)
        elif name == "text" and isinstance(value, str):
            choice["text"] = _kept(choice, "text", "") + value
        elif name == "logprobs" and isinstance(value, dict):
            _extend(_held(choice, "logprobs"), value)
        elif value is not None and name not in ("index", "delta", "message", "logprobs"):
            choice[name] = value


def _join(message: Document, delta: Document) -> None:
    for name, value in delta.items():
        if name in _TEXTS and isinstance(value, str):
            message[name] = _kept(message, name, "") + value
        elif name in _LISTS and isinstance(value, list):
            message[name] = [*_kept(message, name, []), *value]
        elif name == "tool_calls":
            for piece in objects(value):
                index = piece["index"] if type(piece.get("index")) is int else 0
                _call(_held(_held(message, name), str(index)), piece)
        elif name in ("audio", "function_call", "gemini") and isinstance(value, dict):
            _extend(_held(message, name), value)
        elif value is not None:
            message[name] = value


def _held(holder: Document, name: str) -> Document:
    held: Document = _kept(holder, name, {})
    holder[name] = held
    return held


def _kept(holder: Document, name: str, empty: _Kind) -> _Kind:
    """What has been put together so far; nothing, where it is of another kind."""
    found = holder.get(name)
    return found if isinstance(found, type(empty)) else empty


def _call(call: Document, piece: Document) -> None:
    for name, value in piece.items():
        if isinstance(value, dict):
            _extend(_held(call, name), value)
        elif name != "index" and value:
            call[name] = value


def _extend(held: Document, more: Document) -> None:
    """Texts and lists grow, a name or an id that is told again does not."""
    for name, value in more.items():
        kept = held.get(name)
        if isinstance(kept, str) and isinstance(value, str) and name not in ("name", "id"):
            held[name] = kept + value
        elif isinstance(kept, list) and isinstance(value, list):
            held[name] = [*kept, *value]
        elif value is not None and (value or not kept):
            held[name] = value


def _whole(choice: Document) -> Document:
    message = choice.get("message")
    if message is None:
        return choice
    if "tool_calls" in message:
        message["tool_calls"] = [call for _, call in sorted(message["tool_calls"].items(), key=_number)]
    return {**choice, "message": {"role": "assistant", "content": None, **message}}


def _number(item: tuple[str, Document]) -> int:
    return int(item[0])
