"""Why: a chunk may not pay for a timer, and what is timed out must be our waiting, never the caller's.

`asyncio.timeout` costs microseconds each time and cannot span a `yield`: it would cancel whoever reads the stream.
Here a wait only notes when it began, and one timer for many calls looks now and then at all that wait. It cancels
the task that waits for too long, as `asyncio.timeout` does: never early, and at most about a sixteenth of the
shortest limit late.

Source: https://docs.python.org/3/library/asyncio-task.html#asyncio.Task.uncancel
"""

import asyncio
from contextvars import Context

from .contract import Kind, ProviderError

LOOKS = 16
"""Within the shortest limit."""
SHORTEST_PAUSE = 0.001
"""Seconds between two looks, at least."""


class Lookout:
    """Looks at watches of which no limit is under `shortest` seconds; its timer runs as long as there are any."""

    __slots__ = ("_loop", "_pause", "watches")

    def __init__(self, shortest: float) -> None:
        self._pause = max(shortest / LOOKS, SHORTEST_PAUSE)
        self.watches: set[Watch] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, watch: "Watch", loop: asyncio.AbstractEventLoop) -> None:
        self.watches.add(watch)
        if self._loop is not loop:
            self._sleep(loop)

    def _sleep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.call_later(self._pause, self._look, loop, context=Context())

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self.watches = {each for each in self.watches if each.look(now)}
        if self.watches:
            self._sleep(loop)
        else:
            self._loop = None


class Watch:
    """Bounds each wait (`limit`) and all of a call (`total`), in seconds; `then` is the limit after `go_on`.

    Who waits says `begin`, and then `go_on` or `rest`, or `end`, which tells whether the wait or the call took too
    long. `task` is the one that waits now. Who has many of a kind gives them a `lookout` for their shortest limit.
    """

    __slots__ = ("_cancelling", "_due", "_ends", "_lookout", "_loop", "_since", "limit", "task", "then")

    def __init__(self, limit: float, total: float, then: float | None = None, lookout: Lookout | None = None) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self.limit = limit
        self.then = limit if then is None else then
        self._ends = loop.time() + total
        self.task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._due = False
        self._lookout = lookout or Lookout(min(limit, self.then, total))
        self._lookout.add(self, loop)

    def stop(self) -> None:
        """No more waits follow. May be called twice."""
        self._lookout.watches.discard(self)

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

    def rest(self) -> None:
        """The wait has ended well; the next has the same limit. Raises `ProviderError` if its end came too late."""
        if self._due:  # who was waited for has kept the cancellation to itself
            late = self.end()
            if late is not None:
                raise late
        self.task = None

    def end(self) -> ProviderError | None:
        """The wait has ended otherwise; the error that it is, if it was cancelled here."""
        task, self.task = self.task, None
        due, self._due = self._due, False
        if due and task is not None and task.uncancel() <= self._cancelling:
            return self._error()
        return None

    def look(self, now: float) -> bool:
        """Cancel the task that has waited for too long, once; whether another look may be needed."""
        if self.task is not None and not self._due and now >= min(self._since + self.limit, self._ends):
            return not self._loop.is_closed() and self._cancel(self.task)
        return now < self._ends

    def _cancel(self, task: "asyncio.Task[object]") -> bool:
        """Unless somebody else has just cancelled it: if it still waits at the next look, it means to go on."""
        before, self._cancelling = self._cancelling, task.cancelling()
        if before == self._cancelling:
            self._due = True
            task.cancel()
        return True

    def _error(self) -> ProviderError:
        if self._loop.time() >= self._ends:
            return ProviderError(Kind.TIMEOUT, "The provider's answer took longer than a call may take.")
        return ProviderError(Kind.TIMEOUT, f"The provider sent nothing for {self.limit:g} seconds.")
