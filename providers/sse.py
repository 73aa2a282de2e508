"""Why: server-sent events arrive cut at any byte, and a streamed chunk must cost next to nothing.

`Splitter` follows the WHATWG rules (CRLF, LF or CR; comments; a `data` of several lines; a byte order mark) and is
bounded. A bare JSON object in place of an event, as Gemini and Ollama write an error into a stream that has begun, is
one, too. `Splitter.plain` recognises, without splitting, the bytes that nearly every chunk of a well-behaved provider
consists of: those may pass as they are.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from collections.abc import Iterator
from typing import NamedTuple

from .contract import Kind, ProviderError
from .document import loads

DONE = b"data: [DONE]\n\n"
"""The terminator of OpenAI's streams."""

MAX_EVENT_BYTES = 8 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: its name (empty where none was given) and its data, lines joined with LF."""

    name: bytes
    data: bytes


def event(data: bytes) -> bytes:
    """One event on the wire, in the only form that the gateway sends."""
    if b"\n" in data:
        data = data.replace(b"\n", b"\ndata: ")
    return b"data: " + data + b"\n\n"


class Splitter:
    """Whole events out of bytes at any chunking; an event over `limit` bytes raises `ProviderError` (broken).

    `kept` is what has come of an event that is not whole yet.
    """

    __slots__ = ("_after_cr", "_begun", "_limit", "_size", "_tail", "kept")

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self.kept: list[bytes] = []
        self._size = 0
        self._tail = b""
        self._after_cr = False
        self._begun = False

    def plain(self, data: bytes) -> bool:
        r"""Whether nothing is carried over and `data` is a sequence of `data: {...}\n\n` and nothing else."""
        if self.kept or not (data.startswith(b"data: {") and data.endswith(b"}\n\n")):
            return False
        newlines = data.count(b"\n")
        if newlines > 2 and 2 * data.count(b"}\n\ndata: {") + 2 != newlines:
            return False
        if data.find(b"\r") >= 0 or len(data) > self._limit:  # CPython 3.11's `in` raises and catches: 0.5 us
            return False
        self._begun = True
        self._after_cr = False
        return True

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that `data` completes; raises where one is too large, after those before it."""
        data = self._normalised(data)
        if not data:
            return
        boundary = b"\n\n" in data or (self._tail == b"\n" and data[:1] == b"\n")
        self._keep(data)
        if boundary:
            *blocks, rest = self._taken().split(b"\n\n")
            self._keep(rest)
            yield from self._parsed(blocks)
        if self._size > self._limit + 1:  # one more: the line end of an event that is just not over
            raise self._too_large()

    def rest(self) -> Iterator[Event]:
        """What stands after the last blank line, where its provider did not care to end it; a cut one is not told."""
        yield from (each for each in self._parsed([self._taken()]) if _is_whole(each.data))

    def _normalised(self, data: bytes) -> bytes:
        if not self._begun:
            data = self._without_mark(data)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _without_mark(self, data: bytes) -> bytes:
        """The first bytes of the stream without a byte order mark; held back while they may become one."""
        head = self._taken() + data
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._keep(head)
            return b""
        self._begun = True
        return head.removeprefix(_BOM)

    def _keep(self, data: bytes) -> None:
        if data:
            self.kept.append(data)
            self._size += len(data)
            self._tail = data[-1:]

    def _taken(self) -> bytes:
        kept = b"".join(self.kept)
        self.kept, self._size, self._tail = [], 0, b""
        return kept

    def _parsed(self, blocks: list[bytes]) -> Iterator[Event]:
        for block in blocks:
            if len(block) > self._limit:
                raise self._too_large()
            if (parsed := _parse(block)) is not None:
                yield parsed

    def _too_large(self) -> ProviderError:
        return ProviderError(Kind.BROKEN, f"The provider sent an event of more than {self._limit} bytes.")


def _is_whole(data: bytes) -> bool:
    """Whether an event without its blank line was meant so, and not cut."""
    try:
        return data.strip() == b"[DONE]" or loads(data) is not None
    except ValueError:
        return False


def _parse(block: bytes) -> Event | None:
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    if not data and block.lstrip().startswith(b"{"):
        return Event(name, block.strip())
    return Event(name, b"\n".join(data)) if data else None
