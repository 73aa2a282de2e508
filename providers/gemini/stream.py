"""Why: a Gemini stream has no terminator and may say STOP on every chunk, so its end is told when it is over.

Each chunk passes as it comes; finish reasons and usage wait for `close`, which needs a finish reason of every
candidate that was begun: without one the answer was cut.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from collections.abc import Iterable

from providers.contract import Call
from providers.document import encoded, load_object
from providers.sse import Splitter, event
from providers.streaming import StreamDecoder

from .answer import Reader
from .candidate import Document


class GeminiDecoder(StreamDecoder):
    """One stream. `ended` is never set: nothing says that no more will follow but the end of the connection."""

    __slots__ = ("_reader", "_splitter")

    def __init__(self, call: Call) -> None:
        self._reader = Reader(call)
        self._splitter = Splitter()
        super().__init__(self._reader.usage)

    @property
    def finished(self) -> bool:
        """Whether every candidate that was begun has its finish reason, or the prompt was blocked."""
        return self._reader.finished

    def _read(self, data: bytes) -> Iterable[bytes]:
        return (chunk for each in self._splitter.feed(data) for chunk in self._chunks(each.data))

    def _rest(self) -> Iterable[bytes]:
        return (chunk for each in self._splitter.rest() for chunk in self._chunks(each.data))

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
