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
_Watched: TypeAlias = tuple[Exchange, Receive, float]


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
        task = self.lookout.add(exchange, receive, self.drain_timeout)
        try:
            await self.app(scope, receive, exchange.observe(send))
        except asyncio.CancelledError:
            await exchange.release()
            if not self.lookout.has_cancelled(task) or task.uncancel() > 0:
                raise
            raise ClientDisconnected("The client left before the answer ended.") from None
        finally:
            self.lookout.discard(task)


class Lookout:
    """Lets watches begin when their tasks are `NOTICED_AFTER` old, and at least half of that: one timer for all."""

    __slots__ = ("_loop", "_new", "_old", "_watches")

    def __init__(self) -> None:
        self._new: dict[_Task, _Watched] = {}
        self._old: dict[_Task, _Watched] = {}
        self._watches: dict[_Task, _Watch] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, exchange: Exchange, receive: Receive, drain_timeout: float) -> _Task:
        """The current task, which answers this request."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - a coroutine that runs has its task
        self._new[task] = exchange, receive, drain_timeout
        if self._loop is not loop:
            self._sleep(loop)
        return task

    def discard(self, task: _Task) -> None:
        """Whatever happens to the task now is not the client's doing."""
        if self._new.pop(task, None) is None and self._old.pop(task, None) is None:
            self._watches.pop(task).end()

    def has_cancelled(self, task: _Task) -> bool:
        """Whether the task was cancelled because its client has left."""
        return task in self._watches and self._watches[task].cancelled

    def _sleep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.call_later(NOTICED_AFTER / 2, self._look, loop, context=Context())

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        for task, watched in self._old.items():
            self._watches[task] = _Watch(task, *watched)
        self._old, self._new = self._new, {}
        if self._old:
            self._sleep(loop)
        else:
            self._loop = None


class _Watch:
    __slots__ = ("_drain_timeout", "_exchange", "_receive", "_task", "_watcher", "cancelled")

    def __init__(self, task: _Task, exchange: Exchange, receive: Receive, drain_timeout: float) -> None:
        self.cancelled = False
        self._task = task
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
            self._task.cancel()
