"""Why: a Gemini stream has no terminator and may say STOP on every chunk, so its end is told when it is over.

Each chunk passes as it comes; finish reasons and usage wait for `close`, which needs a finish reason of every
candidate that was begun: without one the answer was cut.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from collections.abc import Iterable

from providers.contract import Call, Kind, ProviderError, Usage
from providers.document import encoded, load_object, loads
from providers.sse import DONE, Event, Splitter, event

from .answer import Reader
from .candidate import Document


class GeminiDecoder:
    """One stream. `ended` is never set: nothing says that no more will follow but the end of the connection."""

    __slots__ = ("_closed", "_reader", "_splitter", "ended", "failed", "usage")

    def __init__(self, call: Call) -> None:
        self._reader = Reader(call)
        self._splitter = Splitter()
        self.failed: ProviderError | None = None
        self._closed = False
        self.usage: Usage = self._reader.usage
        self.ended = False

    @property
    def finished(self) -> bool:
        """Whether every candidate that was begun has its finish reason, or the prompt was blocked."""
        return self._reader.finished

    def feed(self, data: bytes) -> bytes:
        if self.failed is not None:
            raise self.failed
        return b"" if self._closed else self._decoded(self._splitter.feed(data))

    def close(self) -> bytes:
        if self._closed:
            return b""
        out = b""
        if self.failed is None:
            out = self._decoded(each for each in self._splitter.rest() if _is_whole(each.data))
        if self.failed is None and not self.finished:
            self.failed = ProviderError(Kind.BROKEN, "The provider's answer was cut off: it is truncated.")
        if self.failed is not None:
            raise self.failed
        out += b"".join(self._ending())
        self._closed = True
        return out + DONE

    def _decoded(self, events: Iterable[Event]) -> bytes:
        out = []
        try:
            for each in events:
                for chunk in self._chunks(each.data):
                    out.append(chunk)
        except ProviderError as error:
            self.failed = error
            if not out:
                raise
        return b"".join(out)

    def _chunks(self, data: bytes) -> Iterable[bytes]:
        if data.strip() in (b"", b"[DONE]"):
            return
        for index, delta, logprobs in self._reader.read(load_object(data)):
            candidate = self._reader.candidates[index]
            if not candidate.begun:
                delta = {"role": "assistant", "content": "", **delta}
                candidate.begun = True
            if delta or logprobs:
                yield self._chunk([_choice(index, delta, logprobs)])

    def _ending(self) -> Iterable[bytes]:
        for index, candidate in sorted(self._reader.candidates.items()):
            yield self._chunk([{**_choice(index, candidate.rest(), None), **candidate.choice()}])
        if self._reader.call.wants_usage and (usage := self._reader.told_usage()) is not None:
            yield self._chunk([], usage=usage)

    def _chunk(self, choices: list[Document], **more: Document) -> bytes:
        head = self._reader.head
        return event(encoded({**head, "object": "chat.completion.chunk", "choices": choices, **more}))


def _choice(index: int, delta: Document, logprobs: Document | None) -> Document:
    choice: Document = {"index": index, "delta": delta, "finish_reason": None}
    return {**choice, "logprobs": logprobs} if logprobs else choice


def _is_whole(data: bytes) -> bool:
    """Whether an event without its blank line was meant so, and not cut."""
    try:
        return loads(data) is not None
    except ValueError:
        return False
