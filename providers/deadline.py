"""Why: a chunk may not pay for a timer, and what is timed out must be our waiting, never the caller's.

`asyncio.timeout` costs microseconds each time and cannot span a `yield`: it would cancel whoever reads the stream.
Here one timer lives as long as the call; a wait only notes when it began. The timer looks at that, goes back to
sleep, or cancels the waiting task, as `asyncio.timeout` does.

Source: https://docs.python.org/3/library/asyncio-task.html#asyncio.Task.uncancel
"""

import asyncio
from types import TracebackType

from .contract import Kind, ProviderError


class Watch:
    """Bounds each wait (`limit`) and all of a call (`total`), in seconds; `then` is the limit after `go_on`.

    Used as `with watch: await ...`; raises `ProviderError` (timeout) when the wait or the call took too long. What
    waits again and again says the same by `begin`, and then `go_on` or `end`. `task` is the one that waits now.
    """

    __slots__ = ("_cancelling", "_due", "_ends", "_handle", "_loop", "_since", "limit", "task", "then")

    def __init__(self, limit: float, total: float, then: float | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self.limit = limit
        self.then = limit if then is None else then
        self._ends = now + total
        self._since = now
        self.task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._due = False
        # early enough for either limit: one timer a call
        self._handle: asyncio.TimerHandle | None = self._loop.call_at(now + min(limit, self.then, total), self._look)

    def stop(self) -> None:
        """No more waits follow. May be called twice."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def begin(self) -> None:
        """The running task waits from now on. Raises `ProviderError` if the call has no time left."""
        self._since = now = self._loop.time()
        if now >= self._ends:
            raise self._error()
        self.task = asyncio.current_task(self._loop)

    def go_on(self) -> None:
        """The wait has ended well, and so the answer has begun: the next may take as long as `then` said."""
        self.task = None
        self.limit = self.then

    def end(self) -> ProviderError | None:
        """The wait has ended otherwise; the error that it is, if it was cancelled here."""
        task, self.task = self.task, None
        if self._due and task is not None and task.uncancel() <= self._cancelling:
            self._due = False
            return self._error()
        return None

    __enter__ = begin

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and not self._due:
            self.task = None
        elif (late := self.end()) is not None:
            raise late from None

    def _sleep(self, until: float) -> None:
        self._handle = self._loop.call_at(min(until, self._ends), self._look)

    def _look(self) -> None:
        self._handle = None
        now = self._loop.time()
        if self.task is None:
            if now < self._ends:
                self._sleep(now + min(self.limit, self.then))
        elif now < min(self._since + self.limit, self._ends):
            self._sleep(min(self._since + self.limit, now + self.then))  # the next wait may have less
        else:
            self._due = True
            self._cancelling = self.task.cancelling()
            self.task.cancel()

    def _error(self) -> ProviderError:
        if self._loop.time() >= self._ends:
            return ProviderError(Kind.TIMEOUT, "The provider's answer took longer than a call may take.")
        return ProviderError(Kind.TIMEOUT, f"The provider sent nothing for {self.limit:g} seconds.")
