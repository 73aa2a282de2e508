"""An answer while it is made, kept from its first message on, for those who come later with the same key.

Followers read at their own pace what has been kept and then wait for more; the maker never waits for them. What is
kept has a bound: over it nothing more is kept, and neither followers nor the store can have the answer any more.
"""

import asyncio
import time
from collections.abc import AsyncIterator

from middleware.asgi import BODY, START, Message, Send, is_last
from middleware.exchange import Answer
from middleware.faults import CallerFault, Fault, GatewayFault

ONE_TRANSMISSION = {b"transfer-encoding", b"content-length", b"connection", b"date"}
"""Headers that say how bytes travel, not what they are."""


class LiveAnswer:
    """`longest` in bytes; `request_id` and `fingerprint` are those of the request that is answered."""

    __slots__ = (
        "_longest",
        "_parts",
        "_size",
        "_waiting",
        "begun",
        "confirmed",
        "ended",
        "fault",
        "fingerprint",
        "followers",
        "request_id",
        "start",
    )

    def __init__(self, request_id: str, fingerprint: bytes, longest: int) -> None:
        self.request_id = request_id
        self.fingerprint = fingerprint
        self.followers = 0
        self.begun = time.monotonic()
        self.start: Message | None = None
        self.confirmed = False
        self.ended = False
        self.fault: Fault | None = None
        self._longest = longest
        self._parts: list[bytes] = []
        self._size = 0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def age(self) -> float:
        """Seconds since the request came."""
        return time.monotonic() - self.begun

    @property
    def too_long(self) -> bool:
        """Whether the answer has grown over what is kept."""
        return self._size > self._longest

    def is_followed(self) -> bool:
        return self.followers > 0

    def tee(self, send: Send) -> Send:
        """A `send` that passes each message on and then keeps it."""

        async def send_and_keep(message: Message) -> None:
            await send(message)
            self._keep(message)

        return send_and_keep

    def confirm(self) -> None:
        """The key is bound to this request: an answer to it is what the key stands for."""
        self.confirmed = True
        self._wake()

    async def is_of_its_key(self) -> bool:
        """Whether the key is bound to this request, once that is known."""
        while not (self.confirmed or self.ended):
            await self._change()
        return self.confirmed

    def end(self, fault: Fault | None = None) -> None:
        """Nothing follows. Without a fault and without its last message, the answer is broken off."""
        if not self.ended:
            self.ended = True
            self.fault = fault or GatewayFault("The answer was broken off before its end.")
        self._wake()

    async def follow(self) -> AsyncIterator[Message]:
        """The messages from the first to the last. Raises the fault that ended the answer instead."""
        while self.start is None:
            await self._more()
        if self.too_long and self.fault is not None:
            raise self.fault
        yield dict(self.start)
        passed = 0
        while passed < len(self._parts) or not self.ended:
            if passed == len(self._parts):
                await self._more()
                continue
            body = b"".join(self._parts[passed:])
            passed = len(self._parts)
            yield {"type": BODY, "body": body, "more_body": True}
        if self.fault is not None:
            raise self.fault
        yield {"type": BODY, "body": b"", "more_body": False}

    def answer(self, last: Message) -> Answer:
        """The whole answer, `last` being the message that has not been kept yet. Raises `CallerFault` if too long."""
        body = last.get("body", b"")
        if self._size + len(body) > self._longest:
            raise CallerFault("The answer for this Idempotency-Key is too large to be kept; it was billed once.")
        start = self.start or {}
        headers = [
            (bytes(name), bytes(value))
            for name, value in start.get("headers", ())
            if name.lower() not in ONE_TRANSMISSION
        ]
        return Answer(start.get("status", 200), tuple(headers), b"".join([*self._parts, body]))

    def _keep(self, message: Message) -> None:
        if message["type"] == START:
            self.start = {**message, "headers": list(message.get("headers", ()))}
        else:
            self._keep_body(message.get("body", b""))
            if is_last(message) and not self.ended:
                self.ended = True
        self._wake()

    def _keep_body(self, body: bytes) -> None:
        self._size += len(body)
        if self.too_long:
            self._parts.clear()
            self.end(
                CallerFault("The answer for this Idempotency-Key is too large to be shared; it was billed once.")
            )
        elif body:
            self._parts.append(body)

    async def _more(self) -> None:
        if self.fault is not None:
            raise self.fault
        await self._change()

    async def _change(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def _wake(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


class LiveAnswers:
    """The answers that are being made on this replica, by organisation and key; `longest` in bytes for each."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._by_key: dict[tuple[int, str], LiveAnswer] = {}
        self._by_request: dict[str, LiveAnswer] = {}

    def of_key(self, org_id: int, key: str) -> LiveAnswer | None:
        return self._by_key.get((org_id, key))

    def of_request(self, request_id: str) -> LiveAnswer | None:
        return self._by_request.get(request_id)

    def begin(self, org_id: int, key: str, request_id: str, fingerprint: bytes) -> LiveAnswer:
        live = LiveAnswer(request_id, fingerprint, self._longest)
        self._by_key[org_id, key] = self._by_request[request_id] = live
        return live

    def forget(self, org_id: int, key: str) -> None:
        """Later requests with this key find its answer in the store."""
        del self._by_request[self._by_key.pop((org_id, key)).request_id]
