"""The books that every decoder keeps, on a decoder whose events are lines."""

from collections.abc import Iterable

import pytest

from providers.contract import Kind, ProviderError
from providers.sse import DONE
from providers.streaming import StreamDecoder


class Lines(StreamDecoder):
    """`.` is a finish reason, `!` the terminator, `?` an error, `(` too deep a nesting."""

    def __init__(self) -> None:
        super().__init__()
        self.reason = False
        self.ending: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        return self.ended or self.reason

    def _read(self, data: bytes) -> Iterable[bytes]:
        return map(self._line, data.decode().splitlines())

    def _ending(self) -> Iterable[bytes]:
        return map(self._line, self.ending)

    def _line(self, line: str) -> bytes:
        if line == "?":
            raise ProviderError(Kind.FAILED, "the provider's own words")
        if line == "(":
            raise RecursionError
        self.ended = self.ended or line == "!"
        self.reason = self.reason or line == "."
        return line.encode()


def test_an_error_waits_for_the_events_before_it() -> None:
    """They are told first; then the error is raised, as often as anybody asks."""
    decoder = Lines()
    assert decoder.feed(b"a\n?\nb") == b"a"
    for again in (lambda: decoder.feed(b"c"), decoder.close, decoder.close):
        with pytest.raises(ProviderError, match="own words"):
            again()


def test_nothing_is_read_after_the_terminator() -> None:
    """Neither in the same bytes nor in later ones."""
    decoder = Lines()
    assert decoder.feed(b"a\n!\n?") == b"a!"
    assert decoder.feed(b"b") == b""
    assert decoder.close() == DONE


def test_the_end_is_told_once() -> None:
    """The terminator of a finished answer, and then nothing more."""
    decoder = Lines()
    decoder.ending = ("usage", "more")
    decoder.feed(b"!")
    assert decoder.close() == b"usagemore" + DONE
    assert (decoder.close(), decoder.feed(b"a")) == (b"", b"")


def test_an_answer_that_was_not_finished_is_broken() -> None:
    """A connection that ends says nothing about the answer."""
    decoder = Lines()
    decoder.feed(b"a")
    with pytest.raises(ProviderError) as caught:
        decoder.close()
    assert caught.value.kind is Kind.BROKEN
    assert caught.value is decoder.failed


@pytest.mark.parametrize("ending", ["?", "("])
def test_what_breaks_in_the_ending_is_an_error(ending: str) -> None:
    """No terminator stands behind it."""
    decoder = Lines()
    decoder.ending = ("usage", ending)
    decoder.feed(b".")
    with pytest.raises(ProviderError):
        decoder.close()


def test_an_answer_nested_too_deeply_is_broken() -> None:
    """A recursion that ends in Python's limit is the answer's fault, and no defect."""
    with pytest.raises(ProviderError, match="nested"):
        Lines().feed(b"(")
