"""Why: the chunks of a stream are alike but for a word each, so what was looked through once needs no second look.

Of a chunk that passed, what stands before and behind its text is kept. One that begins and ends with the same bytes,
and has no quotation mark between them, differs in nothing but letters of a JSON string: it passes in the same way.
"""

_TEXT = b'"delta":{"content":"'
_BACKSLASH = 0x5C


class Alike:
    """The last chunk of a stream that was looked through; none at first."""

    __slots__ = ("_after", "_before", "_told")

    def __init__(self) -> None:
        self._before = self._after = self._told = b""

    def learn(self, data: bytes, passed: bytes) -> None:
        """Keep the form of one event, `data`, that was found to pass as `passed`: the same, or shorter at its end."""
        start = data.find(_TEXT) + len(_TEXT)
        end = data.find(b'"', start)
        if start < len(_TEXT) or data.find(b"\n") != len(data) - 2 or not passed.startswith(data[:end]):
            return
        self._before, self._after, self._told = data[:start], data[end:], passed[end:]

    def passed(self, data: bytes) -> bytes | None:
        """`data`, a whole event, as it is to be passed on; `None` if it may be of another form."""
        before, after = self._before, self._after
        if not before or not (data.startswith(before) and data.endswith(after)):
            return None
        start, end = len(before), len(data) - len(after)
        if end < start or data.find(b'"', start, end) >= 0 or data.find(b"\n", start, end) >= 0:
            return None
        if data[end - 1] == _BACKSLASH:
            return None
        return data if after == self._told else data[:end] + self._told
