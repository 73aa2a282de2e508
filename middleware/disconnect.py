"""Stops the work when its client leaves. Innermost: what it cancels is exactly the handler and its upstream call.

ASGI servers do not: after a disconnect their `send` does nothing and the handler runs to its end, at the
operator's cost. A watcher therefore waits for `http.disconnect` beside the handler; it is a task, so it begins only
with what takes a while (`NOTICED_AFTER`). Where the target says `drain`, the provider's answer is read on, for at
most `drain_timeout` seconds. What is cancelled is closed here, too, before the settlement, which may take its time.
Once the last message is on its way nothing is cancelled any more: the settlement that happens there must not be
disturbed.
"""

import asyncio
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from middleware.asgi import ASGIApp, Receive, Scope, Send
from middleware.exchange import Exchange, Outcome, exchange_of
from middleware.faults import ClientDisconnected

NOTICED_AFTER = 0.05
"""Seconds for which nobody looks whether the client is still there, at most."""


_Task: TypeAlias = "asyncio.Task[Any]"
_Watched: TypeAlias = tuple[_Task, Exchange, Receive, float]


@dataclass(frozen=True, slots=True)
class Disconnect:
    app: ASGIApp
    drain_timeout: float = 0.0
    lookout: "Lookout" = field(default_factory=lambda: Lookout())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        number = self.lookout.add(exchange, receive, self.drain_timeout)
        try:
            await self.app(scope, receive, exchange.observe(send))
        except asyncio.CancelledError:
            await exchange.release()
            task = self.lookout.cancelled_task(number)
            if task is None or task.uncancel() > 0:
                raise
            raise ClientDisconnected("The client left before the answer ended.") from None
        finally:
            self.lookout.discard(number)


class Lookout:
    """Lets watches begin when their requests are `NOTICED_AFTER` old, and at least half of that: one timer for all.

    Each request has a number of its own: a task may answer one inside another.
    """

    __slots__ = ("_last", "_loop", "_new", "_old", "_watches")

    def __init__(self) -> None:
        self._last = 0
        self._new: dict[int, _Watched] = {}
        self._old: dict[int, _Watched] = {}
        self._watches: dict[int, _Watch] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, exchange: Exchange, receive: Receive, drain_timeout: float) -> int:
        """The number of this request, which the current task answers."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - a coroutine that runs has its task
        self._last = number = self._last + 1
        self._new[number] = task, exchange, receive, drain_timeout
        if self._loop is not loop:
            self._sleep(loop)
        return number

    def discard(self, number: int) -> None:
        """Whatever happens to the request's task now is not the client's doing."""
        if self._new.pop(number, None) is None and self._old.pop(number, None) is None:
            self._watches.pop(number).end()

    def cancelled_task(self, number: int) -> "_Task | None":
        """The request's task, if it was cancelled because its client has left."""
        watch = self._watches.get(number)
        return watch.task if watch is not None and watch.cancelled else None

    def _sleep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.call_later(NOTICED_AFTER / 2, self._look, loop, context=Context())

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        for number, watched in self._old.items():
            self._watches[number] = _Watch(*watched)
        self._old, self._new = self._new, {}
        if self._old:
            self._sleep(loop)
        else:
            self._loop = None


class _Watch:
    __slots__ = ("_drain_timeout", "_exchange", "_receive", "_watcher", "cancelled", "task")

    def __init__(self, task: _Task, exchange: Exchange, receive: Receive, drain_timeout: float) -> None:
        self.task = task
        self.cancelled = False
        self._exchange = exchange
        self._receive = receive
        self._drain_timeout = drain_timeout
        self._watcher = asyncio.get_running_loop().create_task(self._wait())

    def end(self) -> None:
        self._watcher.cancel()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        target = self._exchange.target
        if target is not None and target.drain and not self._exchange.ending:
            await asyncio.sleep(self._drain_timeout)
        if not self._exchange.ending:
            self.cancelled = True
            self._exchange.outcome = Outcome.CLIENT_DISCONNECT
            self.task.cancel()
