"""Stops the work when its client leaves. Innermost: what it cancels is exactly the handler and its upstream call.

ASGI servers do not: after a disconnect uvicorn's `send` does nothing and the handler runs to its end, at the
operator's cost. A watcher therefore waits for `http.disconnect` beside the handler. Where the target says `drain`,
the provider's answer is read on, for at most `drain_timeout` seconds. What is cancelled is closed here, too, before
the settlement, which may take its time. Once the last message is on its way nothing is cancelled any more: the
settlement that happens there must not be disturbed.
"""

import asyncio
from dataclasses import dataclass

from middleware.asgi import ASGIApp, Message, Receive, Scope, Send
from middleware.exchange import Exchange, Outcome, exchange_of
from middleware.faults import ClientDisconnected


@dataclass(frozen=True, slots=True)
class Disconnect:
    app: ASGIApp
    drain_timeout: float = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        watch = _Watch(exchange, send, self.drain_timeout)
        watcher = asyncio.create_task(watch.wait(receive))
        try:
            await self.app(scope, receive, watch.send)
        except asyncio.CancelledError:
            await exchange.resources.aclose()
            if not watch.cancelled or watch.task.uncancel() > 0:
                raise
            raise ClientDisconnected("The client left before the answer ended.") from None
        finally:
            watch.ending = True
            watcher.cancel()


class _Watch:
    __slots__ = ("_drain_timeout", "_exchange", "_send", "cancelled", "ending", "task")

    def __init__(self, exchange: Exchange, send: Send, drain_timeout: float) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has its task
        self.task = task
        self.ending = False
        self.cancelled = False
        self._exchange = exchange
        self._send = send
        self._drain_timeout = drain_timeout

    async def send(self, message: Message) -> None:
        if self._exchange.is_ending(message):
            self.ending = True
        await self._send(message)

    async def wait(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        target = self._exchange.target
        if target is not None and target.drain and not self.ending:
            await asyncio.sleep(self._drain_timeout)
        self._stop()

    def _stop(self) -> None:
        if not self.ending:
            self.cancelled = True
            self._exchange.outcome = Outcome.CLIENT_DISCONNECT
            self.task.cancel()
