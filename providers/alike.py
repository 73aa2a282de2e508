"""Why: the chunks of a stream are alike but for a word each, so what was looked through once needs no second look.

Of a chunk that passed, what stands before and behind its text is kept. One that begins and ends with the same bytes,
and has no quotation mark and no line end between them, differs in nothing but letters of a JSON string: it passes in
the same way. So do several that came together.
"""

_TEXT = b'"delta":{"content":"'
_BACKSLASH, _QUOTE, _NEWLINE, _RETURN = b'\\"\n\r'


class Alike:
    """The last chunk of a stream that was looked through; none at first."""

    __slots__ = ("_after", "_before", "_seam", "_told_after", "_told_seam")

    def __init__(self) -> None:
        self._before = self._after = self._seam = self._told_after = self._told_seam = b""

    def learn(self, data: bytes, passed: bytes) -> None:
        """Keep the form of the last event of `data`, which was found to pass as `passed`: the same, or less."""
        data, passed = _last(data), _last(passed)
        start = data.find(_TEXT) + len(_TEXT)
        end = data.find(b'"', start)
        if start < len(_TEXT) or data.find(b"\n") != len(data) - 2 or not passed.startswith(data[:end]):
            return
        self._before, self._after, self._told_after = data[:start], data[end:], passed[end:]
        self._seam, self._told_seam = self._after + self._before, self._told_after + self._before

    def passed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The events that `data` begins with, as they are to be passed on, and what follows them; `None` for none.

        What follows may be of another form, or not whole.
        """
        before, after = self._before, self._after
        if not before or data[: len(before)] != before:
            return None
        if data.endswith(after, len(before)):
            texts, rest = data[len(before) : -len(after)].split(self._seam), b""
        else:
            *texts, last = data[len(before) :].split(self._seam)
            text, ended, rest = last.partition(after)
            if ended:
                texts.append(text)
            else:
                rest = before + last
        told = b"".join(texts)
        if not texts or _QUOTE in told or _NEWLINE in told or _RETURN in told:
            return None
        if _BACKSLASH in told and any(map(_is_escaping, texts)):
            return None
        if after == self._told_after:
            return data[: len(data) - len(rest)], rest
        return before + self._told_seam.join(texts) + self._told_after, rest


def _last(events: bytes) -> bytes:
    """The last event."""
    return events[:-2].rpartition(b"\n\n")[2] + b"\n\n"


def _is_escaping(text: bytes) -> bool:
    """Whether the quotation mark behind it belongs to it."""
    return text.endswith(b"\\")
