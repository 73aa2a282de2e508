"""A retry never costs twice: one key, one answer.

A request that carries an `Idempotency-Key` claims it for its organisation before anything is called. Whoever comes
with the same key and the same request gets the same answer, byte for byte, marked `Idempotent-Replayed: true`: from
the store when it is finished, from its first byte and then live while it runs, here or on another replica. Another
request under the same key is refused. What failed before money was spent is forgotten, so that the retry runs again.

It stands outside metering, so a replay is never billed, and outside disconnect, so the answer of a held key is
finished although its client has left: it waits there for the retry.

Source: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from middleware.asgi import BODY, DISCONNECT, START, ASGIApp, Message, Receive, Scope, Send
from middleware.claims import Claim, Held, Running, Taken, claim_of
from middleware.exchange import Answer, Exchange, exchange_of
from middleware.faults import CallerFault, ClientDisconnected, Fault, IdempotencyConflict, IdempotencyKeyReused
from middleware.live_answer import LiveAnswer, LiveAnswers

RETRY_AFTER = 2.0
"""Seconds after which to come back when too many wait for one answer."""
REPLAYED = (b"idempotent-replayed", b"true")


class HolderGone(Exception):
    """Who held the key has ended without an answer: the key can be claimed again."""


class Store(Protocol):
    """Keeps keys and answers. Each method raises `StoreUnavailable` if it cannot."""

    async def claim(self, claim: Claim) -> Answer | Running | Taken | Held:
        """Hold the key for this request, or say what stands in the way: its answer, or who holds it."""
        ...

    async def release(self, claim: Claim) -> None:
        """End the hold: the next request with this key runs again. Survives the cancellation of its caller."""
        ...


class Tail(Protocol):
    """Reads a running answer of another replica."""

    def follow(self, claim: Claim, running: Running) -> AsyncIterator[Message]:
        """The messages of the running answer, from the first to the last.

        Raises `HolderGone` if it ends without one before anything was passed on, a `Fault` if it does afterwards.
        """
        ...


@dataclass(frozen=True, slots=True)
class Idempotency:
    """`render` turns a fault into the answer that a retry is given; `most_followers` of one answer on a replica."""

    app: ASGIApp
    store: Store
    tail: Tail
    live: LiveAnswers
    render: Callable[[Fault], Answer]
    most_followers: int

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        exchange = exchange_of(scope)
        claim = claim_of(scope, exchange)
        if claim is None:
            return self.app(scope, receive, send)
        return self._answer(claim, exchange, scope, receive, exchange.observe(send))

    async def _answer(self, claim: Claim, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        running = await self._running(claim)
        if running is None:
            await self._lead(claim, scope, receive, send)
        elif claim.joins(running.age):
            await self._follow(running, exchange, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _running(self, claim: Claim) -> LiveAnswer | None:
        """The answer that is made for this key here. Raises `IdempotencyKeyReused` if it is another request's.

        Whether the key is that request's is known only once its claim is: another replica may hold it for this one.
        """
        while (running := self.live.of_key(claim.org_id, claim.key)) is not None:
            if running.fingerprint == claim.fingerprint:
                return running
            if await running.is_of_its_key():
                raise _reused()
        return None

    async def _follow(self, running: LiveAnswer, exchange: Exchange, receive: Receive, send: Send) -> None:
        if running.followers >= self.most_followers:
            raise IdempotencyConflict(
                "Too many requests wait for the answer of this Idempotency-Key.", retry_after=RETRY_AFTER
            )
        running.followers += 1
        try:
            await _while_there(receive, _pass_on(running.follow(), exchange, send))
        finally:
            running.followers -= 1

    async def _lead(self, claim: Claim, scope: Scope, receive: Receive, send: Send) -> None:
        """Be the one on this replica that claims the key; others that come meanwhile follow."""
        live = self.live.begin(claim.org_id, claim.key, claim.request_id, claim.fingerprint)
        try:
            await self._claim(claim, live, scope, receive, send)
        except Fault as fault:
            live.end(fault)
            raise
        finally:
            live.end()
            self.live.forget(claim.org_id, claim.key)

    async def _claim(self, claim: Claim, live: LiveAnswer, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        while True:
            state = await self.store.claim(claim)
            if isinstance(state, Taken):
                raise _reused()
            live.confirm()
            match state:
                case None:
                    await self._run(claim, live, exchange, scope, send)
                case Answer() as answer:
                    await _pass_on(_messages(answer), exchange, live.tee(send))
                case Running(age=age) if not claim.joins(age):
                    await self.app(scope, receive, live.tee(send))
                case Running() as running:
                    passing = _pass_on(self.tail.follow(claim, running), exchange, live.tee(send))
                    try:
                        await _while_there(receive, passing, needed=live.is_followed)
                    except HolderGone:
                        continue
            return

    async def _run(self, claim: Claim, live: LiveAnswer, exchange: Exchange, scope: Scope, send: Send) -> None:
        recording = exchange.recording = _Recording(claim.key, live, self.render)
        try:
            await self.app(scope, _never_disconnected, live.tee(send))
        finally:
            exchange.recording = None
            if not recording.taken:
                await self.store.release(claim)


class _Recording:
    """What metering asks for when the answer ends, to make it durable with the settlement."""

    __slots__ = ("_live", "_render", "key", "taken")

    def __init__(self, key: str, live: LiveAnswer, render: Callable[[Fault], Answer]) -> None:
        self.key = key
        self.taken = False
        self._live = live
        self._render = render

    def end(self, message: Message | None, fault: Fault | None) -> Answer | None:
        answer = self._answer(message, fault)
        self.taken = answer is not None
        return answer

    def _answer(self, message: Message | None, fault: Fault | None) -> Answer | None:
        if message is not None:
            try:
                return self._live.answer(message)
            except CallerFault as too_long:
                return self._render(too_long)
        if fault is None or self._live.start is not None:
            return None
        return self._render(fault)


async def _pass_on(messages: AsyncIterator[Message], exchange: Exchange, send: Send) -> None:
    async for message in messages:
        if not exchange.replayed:
            exchange.replayed = True
            exchange.billed = 0
            exchange.headers.append(REPLAYED)
        await send(message)


async def _while_there(
    receive: Receive, passing: Coroutine[Any, Any, None], *, needed: Callable[[], bool] = lambda: False
) -> None:
    """Pass an answer on until its end, or until its client has left and nobody else needs it."""
    task, gone = asyncio.ensure_future(passing), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and not needed():
            raise ClientDisconnected("The client left while it waited for the answer of its Idempotency-Key.")
        await task
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _messages(answer: Answer) -> AsyncIterator[Message]:
    yield {"type": START, "status": answer.status, "headers": [*answer.headers, _length(answer.body)]}
    yield {"type": BODY, "body": answer.body, "more_body": False}


def _length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % len(body)


async def _never_disconnected() -> Message:
    await asyncio.Event().wait()
    return DISCONNECT


def _reused() -> IdempotencyKeyReused:
    return IdempotencyKeyReused("This Idempotency-Key was used before, for another request.")
