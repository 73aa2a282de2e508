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

from middleware.asgi import ASGIApp, Receive, Scope, Send
from middleware.exchange import Exchange, Outcome, exchange_of
from middleware.faults import ClientDisconnected

NOTICED_AFTER = 0.05
"""Seconds for which nobody looks whether the client is still there, at most."""


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
        watch = _Watch(exchange, receive, self.drain_timeout)
        self.lookout.add(watch)
        try:
            await self.app(scope, receive, exchange.observe(send))
        except asyncio.CancelledError:
            await exchange.release()
            if not watch.cancelled or watch.task.uncancel() > 0:
                raise
            raise ClientDisconnected("The client left before the answer ended.") from None
        finally:
            self.lookout.discard(watch)
            watch.end()


class Lookout:
    """Lets watches begin when they are `NOTICED_AFTER` old, and at least half of that: with one timer for all."""

    __slots__ = ("_loop", "_new", "_old")

    def __init__(self) -> None:
        self._new: set[_Watch] = set()
        self._old: set[_Watch] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, watch: "_Watch") -> None:
        self._new.add(watch)
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._sleep(loop)

    def discard(self, watch: "_Watch") -> None:
        self._new.discard(watch)
        self._old.discard(watch)

    def _sleep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.call_later(NOTICED_AFTER / 2, self._look, loop, context=Context())

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        for watch in self._old:
            watch.begin()
        self._old, self._new = self._new, set()
        if self._old:
            self._sleep(loop)
        else:
            self._loop = None


class _Watch:
    __slots__ = ("_drain_timeout", "_exchange", "_receive", "_watcher", "cancelled", "task")

    def __init__(self, exchange: Exchange, receive: Receive, drain_timeout: float) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has its task
        self.task = task
        self.cancelled = False
        self._exchange = exchange
        self._receive = receive
        self._drain_timeout = drain_timeout
        self._watcher: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Whatever happens now is not the client's doing."""
        if self._watcher is not None:
            self._watcher.cancel()

    def begin(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._wait())

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
