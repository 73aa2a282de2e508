"""Why: every decoder keeps the same books, and an answer that broke must not look whole on any wire.

A wire says what bytes mean; what is seen to here is that nothing is read after the end, that an error waits until the
events before it are told and is raised ever after, and that a terminator is written once, and only behind an answer
that its provider has finished.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable

from .contract import Kind, ProviderError, Usage
from .sse import DONE


class StreamDecoder(ABC):
    """A `Decoder`, but for `finished` and the translation itself."""

    __slots__ = ("_closed", "ended", "failed", "usage")

    def __init__(self, usage: Usage | None = None) -> None:
        self.usage = usage or Usage()
        self.ended = False
        self.failed: ProviderError | None = None
        self._closed = False

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether the provider has ended its answer: a finish reason or its terminator has been seen."""

    @abstractmethod
    def _read(self, data: bytes) -> Iterable[bytes]:
        """The canonical events that `data` completes, one by one; what follows `ended` is not asked for."""

    def _rest(self) -> Iterable[bytes]:
        """What still stands unread when the connection ends."""
        return ()

    def _ending(self) -> Iterable[bytes]:
        """What is told before the terminator."""
        return ()

    def feed(self, data: bytes) -> bytes:
        if self.failed is not None:
            raise self.failed
        return b"" if self.ended or self._closed else self._gathered(self._read(data))

    def close(self) -> bytes:
        if self._closed:
            return b""
        out = b""
        if self.failed is None and not self.ended:
            out = self._gathered(self._rest())
        if self.failed is None and not self.finished:
            self.failed = ProviderError(Kind.BROKEN, "The provider's answer was cut off: it is truncated.")
        if self.failed is None:
            out += self._gathered(self._ending())
        if self.failed is not None:
            raise self.failed
        self._closed = True
        return out + DONE

    def _gathered(self, events: Iterable[bytes]) -> bytes:
        out = []
        over = self.ended
        try:
            for each in events:
                out.append(each)
                if self.ended and not over:
                    break
        except ProviderError as error:
            self.failed = error
        except RecursionError:
            self.failed = ProviderError(Kind.BROKEN, "The provider's answer is nested too deeply.")
        if self.failed is not None and not any(out):
            raise self.failed
        return b"".join(out)
