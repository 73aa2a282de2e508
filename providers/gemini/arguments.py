"""Why: Vertex can stream a call's arguments as values at paths, and OpenAI's clients only join pieces of JSON text.

Values may come out of the order of the text, so a call's arguments are put together and told when they are whole.
What is kept for it is bounded, as is each path: a provider's mistake must not become ours.

Source: https://docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling#streaming-fc
"""

import re
from typing import Any, TypeAlias

from providers.contract import Kind, ProviderError

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 100_000

_Key: TypeAlias = str | int
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,6})\]|\['((?:[^'\\]|\\.)*)'\]|\[\"((?:[^\"\\]|\\.)*)\"\]")
_VALUES = ("numberValue", "boolValue")


class Arguments:
    """The arguments of one call, as far as they have come."""

    __slots__ = ("_given", "_pieces", "_size")

    def __init__(self) -> None:
        self._given: dict[str, Any] = {}
        self._pieces: dict[str, list[str] | Any] = {}
        self._size = 0

    def give(self, arguments: dict[str, Any]) -> None:
        """Arguments that came as a whole."""
        self._given.update(arguments)

    def take(self, partial: dict[str, Any]) -> None:
        """One `partialArgs` entry. Raises `ProviderError` (broken) where they grow beyond all bounds."""
        path = partial.get("jsonPath")
        if not isinstance(path, str):
            raise _broken()
        text = partial.get("stringValue")
        self._size += len(path) + (len(text) if isinstance(text, str) else 8)
        if self._size > MAX_BYTES or len(self._pieces) > MAX_VALUES:
            raise _broken()
        if isinstance(text, str):
            kept = self._pieces.setdefault(path, [])
            if isinstance(kept, list):
                kept.append(text)
            return
        found = [partial[name] for name in _VALUES if name in partial]
        self._pieces[path] = found[0] if found and isinstance(found[0], int | float) else None

    def whole(self) -> dict[str, Any]:
        """All of them. Raises `ProviderError` (broken) for paths that lead nowhere."""
        root: Any = self._given
        for path, value in self._pieces.items():
            root = _put(root, _steps(path), "".join(value) if isinstance(value, list) else value)
        if not isinstance(root, dict):
            raise _broken()
        return root


def _steps(path: str) -> list[_Key]:
    steps: list[_Key] = []
    position = 1 if path.startswith("$") else -1
    while 0 <= position < len(path):
        found = _STEP.match(path, position)
        if found is None or len(steps) > MAX_DEPTH:
            raise _broken()
        position = found.end()
        steps.append(int(found[2]) if found[2] else _unescaped(found[1] or found[3] or found[4] or ""))
    if not steps:
        raise _broken()
    return steps


def _unescaped(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name)


def _put(root: Any, steps: list[_Key], value: Any) -> Any:
    holder = root
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        below = value if following is None else ([] if isinstance(following, int) else {})
        if isinstance(step, int) and isinstance(holder, list) and step <= len(holder):
            if step == len(holder):
                holder.append(below)
            elif following is None:
                holder[step] = value
        elif isinstance(step, str) and isinstance(holder, dict):
            holder[step] = value if following is None else holder.get(step, below)
        else:
            raise _broken()
        holder = holder[step]
    return root


def _broken() -> ProviderError:
    return ProviderError(Kind.BROKEN, "The provider's streamed arguments of a call cannot be understood.")
