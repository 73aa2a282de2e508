"""Why: some providers stream whether they were asked to or not, and who asked for a document must get one.

The pieces of a stream in OpenAI's form, put together to the completion that they tell.
"""

from typing import Any

from .document import load_object
from .message import Document, objects

_TEXTS = ("content", "reasoning_content", "reasoning", "reasoning_text", "refusal")
_LISTS = ("reasoning_details", "annotations", "images", "content_parts")
_HOLDERS = ("audio", "function_call", "gemini")
_MARKS = (b"data:", b"event:", b":", b"id:", b"retry:")


class _Pieces(list[str]):
    """A text that is still coming: joined once, for joining it again and again takes time without end."""


def is_stream(body: bytes) -> bool:
    """Whether a body is a stream of events and no document: no JSON begins so."""
    return body[:64].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_MARKS)


def gathered(stream: bytes) -> Document:
    """One completion out of the events that a decoder gave out. Raises `ProviderError` for one that is no JSON."""
    answer: Document = {}
    choices: dict[int, Document] = {}
    for event in stream.split(b"\n\n"):
        data = event.removeprefix(b"data: ").replace(b"\ndata: ", b"\n")
        if data and data != b"[DONE]":
            _chunk(load_object(data), answer, choices)
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
            _grow(choice, name, value)
        elif name == "logprobs" and isinstance(value, dict):
            _extend(_held(choice, "logprobs"), value)
        elif value is not None and name not in ("index", "delta", "message", "logprobs"):
            choice[name] = value


def _join(message: Document, delta: Document) -> None:
    for name, value in delta.items():
        if (name in _TEXTS and isinstance(value, str)) or (name in _LISTS and isinstance(value, list)):
            _grow(message, name, value)
        elif name == "tool_calls":
            for piece in objects(value):
                index = piece["index"] if type(piece.get("index")) is int else 0
                _call(_held(_held(message, name), str(index)), piece)
        elif name in _HOLDERS and isinstance(value, dict):
            _extend(_held(message, name), value)
        elif value is not None:
            message[name] = value


def _held(holder: Document, name: str) -> Document:
    """What has been put together so far; nothing, where it is of another kind."""
    kept = holder.get(name)
    held: Document = kept if isinstance(kept, dict) else {}
    holder[name] = held
    return held


def _call(call: Document, piece: Document) -> None:
    for name, value in piece.items():
        if isinstance(value, dict):
            _extend(_held(call, name), value)
        elif name != "index" and value:
            call[name] = value


def _extend(held: Document, more: Document) -> None:
    """Texts and lists grow, a name or an id that is told again does not."""
    for name, value in more.items():
        if isinstance(value, list) or (isinstance(value, str) and name not in ("name", "id")):
            _grow(held, name, value)
        elif value is not None and (value or not held.get(name)):
            held[name] = value


def _grow(holder: Document, name: str, value: str | list[Any]) -> None:
    kept = holder.get(name)
    if isinstance(value, str):
        if not isinstance(kept, _Pieces):
            holder[name] = kept = _Pieces()
        kept.append(value)
    elif isinstance(kept, list) and not isinstance(kept, _Pieces):
        kept.extend(value)
    else:
        holder[name] = [*value]


def _settled(held: Any, depth: int = 5) -> Any:
    """Every text in one piece, as far down as texts are put together."""
    if isinstance(held, _Pieces):
        return "".join(held)
    return {name: _settled(each, depth - 1) for name, each in held.items()} if depth and type(held) is dict else held


def _whole(choice: Document) -> Document:
    found: Document = _settled(choice)
    message = found.get("message")
    if message is None:
        return found
    if "tool_calls" in message:
        message["tool_calls"] = [call for _, call in sorted(message["tool_calls"].items(), key=_number)]
    return {**found, "message": {"role": "assistant", "content": None, **message}}


def _number(item: tuple[str, Document]) -> int:
    return int(item[0])
