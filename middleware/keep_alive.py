"""Keeps a quiet stream open: a comment whenever nothing has passed for a while.

A model may think for minutes; load balancers cut connections that are silent for one. SSE comments are ignored by
every client (https://html.spec.whatwg.org/multipage/server-sent-events.html#authoring-notes). They are no part of
the answer: this layer stands outside idempotency, so they are never recorded.

One timer a stream, looked at once an interval: a chunk that passes costs a clock reading.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

from middleware.asgi import BODY, START, ASGIApp, Message, Receive, Scope, Send

COMMENT: Message = {"type": BODY, "body": b": keep-alive\n\n", "more_body": True}


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """`interval` in seconds; 0 is never."""

    app: ASGIApp
    interval: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.interval:
            await self.app(scope, receive, send)
            return
        heart = _Heart(send, self.interval)
        try:
            await self.app(scope, receive, heart.send)
        finally:
            heart.stop()


class _Heart:
    """Beats from the head of an event stream to its end."""

    __slots__ = ("_beat", "_body", "_interval", "_last", "_loop", "_send", "_sending", "_timer")

    def __init__(self, send: Send, interval: float) -> None:
        self._send = send
        self._interval = interval
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None

    def send(self, message: Message) -> Awaitable[None]:
        if self._timer is not None:
            return self._send_between(message)
        if message["type"] == START and _is_event_stream(message):
            return self._start(message)
        return self._send(message)

    async def _start(self, head: Message) -> None:
        await self._send(head)
        self._loop = asyncio.get_running_loop()
        self._sending = False
        self._body = b""
        self._last = self._loop.time()
        self._timer = self._loop.call_later(self._interval, self._look)

    async def _send_between(self, message: Message) -> None:
        if self._beat is not None:
            await self._beat
        self._sending = True
        try:
            await self._send(message)
        finally:
            self._sending = False
        self._last = self._loop.time()
        if message.get("more_body", False):
            self._body = message.get("body") or self._body
        else:
            self.stop()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._beat is not None:
            self._beat.cancel()

    def _look(self) -> None:
        quiet = self._loop.time() - self._last
        due = self._interval - quiet
        if due <= 0:
            if not self._sending and self._beat is None and self._is_between_events():
                self._beat = self._loop.create_task(self._comment())
            due = self._interval
        self._timer = self._loop.call_later(due, self._look)

    def _is_between_events(self) -> bool:
        return not self._body or self._body.endswith(b"\n\n")

    async def _comment(self) -> None:
        try:
            await self._send(dict(COMMENT))
        finally:
            self._beat = None


def _is_event_stream(message: Message) -> bool:
    for name, value in message.get("headers", ()):
        if name.lower() == b"content-type":
            return bool(value.startswith(b"text/event-stream"))
    return False
