"""Why: the chunks of a stream are alike but for a word each, so what was looked through once needs no second look.

Of a chunk that passed, what stands before and behind its text is kept. One that begins and ends with the same bytes,
and has no quotation mark between them, differs in nothing but letters of a JSON string: it passes in the same way.
"""

_TEXT = b'"delta":{"content":"'
_BACKSLASH, _QUOTE, _NEWLINE = b'\\"\n'


class Alike:
    """The last chunk of a stream that was looked through; none at first."""

    __slots__ = ("_after", "_before", "_length_after", "_start", "_told")

    def __init__(self) -> None:
        self._before = self._after = b""
        self._start = self._length_after = 0
        self._told: bytes | None = None

    def learn(self, data: bytes, passed: bytes) -> None:
        """Keep the form of one event, `data`, that was found to pass as `passed`: the same, or shorter at its end."""
        start = data.find(_TEXT) + len(_TEXT)
        end = data.find(b'"', start)
        if start < len(_TEXT) or data.find(b"\n") != len(data) - 2 or not passed.startswith(data[:end]):
            return
        self._before, self._after = data[:start], data[end:]
        self._start, self._length_after = start, len(data) - end
        self._told = passed[end:] if passed != data else None

    def passed(self, data: bytes) -> bytes | None:
        """`data`, a whole event, as it is to be passed on; `None` if it may be of another form."""
        start, end = self._start, len(data) - self._length_after
        if not start or end < start or data[:start] != self._before or data[end:] != self._after:
            return None
        text = data[start:end]
        if _QUOTE in text or _NEWLINE in text or data[end - 1] == _BACKSLASH:
            return None
        return data if self._told is None else data[:end] + self._told
