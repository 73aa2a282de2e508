"""The running answer of another replica: its first byte and on through Redis, its end through PostgreSQL if need be.

Nothing is published while nobody asks. Who waits for another replica's answer asks it (publish/subscribe on the
holder's channel); the holder then follows its own live answer, as any waiting client would, into a Redis stream,
which the asker reads. Whatever Redis loses, a look into PostgreSQL makes good: there stands the whole answer once it
is finished, and of it only the bytes not yet passed on are taken. So with Redis gone, the wait is longer and the
answer the same.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import orjson
import redis.asyncio as redis
from loguru import logger
from redis.exceptions import RedisError

from aigate.stores.idempotency import PostgresIdempotency
from aigate.stores.journal import pack_headers, unpack_headers
from middleware.asgi import BODY, START, Message, is_last
from middleware.claims import Claim, Running
from middleware.exchange import Answer
from middleware.faults import Fault, GatewayFault, IdempotencyConflict
from middleware.idempotency import HolderGone
from middleware.live_answer import LiveAnswer, LiveAnswers

CHANNEL = "{aigate}:asked:"
STREAM = "{aigate}:live:"
KEPT = 60
"""Seconds for which a stream outlives its last entry in Redis."""
LOOK_EVERY = 0.5
"""Seconds without news after which PostgreSQL is looked at, and the holder asked again."""
PAUSE = 0.25
"""Seconds until Redis is tried again."""


class RedisTail:
    """The `Tail` port of the idempotency layer, and its other end. `longest` in seconds for one answer."""

    def __init__(
        self,
        url: str,
        replica_id: str,
        live: LiveAnswers,
        answers: PostgresIdempotency,
        *,
        timeout: float,
        longest: float,
    ) -> None:
        self._client: redis.Redis = redis.Redis.from_url(
            url, socket_timeout=timeout + LOOK_EVERY, socket_connect_timeout=timeout
        )
        self._replica_id = replica_id
        self._live = live
        self._answers = answers
        self._longest = longest
        self._relays: dict[str, asyncio.Task[None]] = {}
        self._serving: asyncio.Task[None] | None = None

    async def follow(self, claim: Claim, running: Running) -> AsyncIterator[Message]:
        status, passed, last_id = 0, 0, "0"
        deadline = time.monotonic() + self._longest
        while time.monotonic() < deadline:
            entries = await self._read(running, last_id)
            for entry_id, fields in entries:
                last_id = entry_id
                message = _fresh(fields, status > 0, passed)
                if message is None:
                    continue
                status = message.get("status", status)
                passed += len(message.get("body", b""))
                yield message
                if is_last(message):
                    return
            if entries:
                continue
            owner, found = await self._answers.look(claim)
            if isinstance(found, Answer):
                if status and (owner != running.request_id or found.status != status or len(found.body) < passed):
                    raise _broken()  # it is another answer than the one that was begun
                for message in _rest(found, status > 0, passed):
                    yield message
                return
            if found is None or owner != running.request_id:
                break
        else:
            raise IdempotencyConflict("The answer of this Idempotency-Key takes very long.", retry_after=PAUSE)
        if status:
            raise _broken()
        raise HolderGone

    def start(self) -> None:
        self._serving = asyncio.create_task(self._serve())

    async def stop(self) -> None:
        tasks = [*self._relays.values(), *([self._serving] if self._serving else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def _read(self, running: Running, last_id: str) -> list[tuple[str, dict[bytes, bytes]]]:
        """What is new in the stream; nothing after a while without news, or while Redis is away."""
        stream = STREAM + running.request_id
        try:
            if running.replica_id != self._replica_id:
                question = orjson.dumps({"request_id": running.request_id})
                await self._client.publish(CHANNEL + running.replica_id, question)
            answer: Any = await self._client.xread({stream: last_id}, block=int(LOOK_EVERY * 1000))
        except (RedisError, OSError):
            await asyncio.sleep(PAUSE)
            return []
        return [(entry_id.decode(), fields) for _, entries in answer for entry_id, fields in entries]

    async def _serve(self) -> None:
        """Listen on this replica's channel; whatever breaks, begin again."""
        while True:
            try:
                async with self._client.pubsub() as channel:
                    await channel.subscribe(CHANNEL + self._replica_id)
                    while True:
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=LOOK_EVERY)
                        if message is not None:
                            self._relay(orjson.loads(message["data"])["request_id"])
            except (RedisError, OSError):
                await asyncio.sleep(PAUSE)
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                logger.warning("what was asked of this replica cannot be understood: {!r}", error)

    def _relay(self, request_id: str) -> None:
        live = self._live.of_request(request_id)
        if live is not None and request_id not in self._relays:
            task = self._relays[request_id] = asyncio.create_task(self._write(request_id, live))
            task.add_done_callback(lambda _: self._relays.pop(request_id, None))

    async def _write(self, request_id: str, live: LiveAnswer) -> None:
        stream = STREAM + request_id
        try:
            await self._client.delete(stream)
            at = 0
            with suppress(Fault):  # who asked learns of a broken end from PostgreSQL
                async for message in live.follow():
                    async with self._client.pipeline(transaction=False) as pipeline:
                        pipeline.xadd(stream, _packed(message, at))
                        pipeline.expire(stream, KEPT)
                        await pipeline.execute()
                    at += len(message.get("body", b""))
        except (RedisError, OSError) as error:
            logger.warning("a running answer cannot be passed on to another replica: {!r}", error)


def _broken() -> GatewayFault:
    return GatewayFault("The answer that was begun here has no end: who made it is gone.")


def _packed(message: Message, at: int) -> dict[Any, Any]:
    """A message as it stands in the stream; `at` is how many bytes of the body went before it."""
    if message["type"] == START:
        headers = tuple((bytes(name), bytes(value)) for name, value in message["headers"])
        return {"status": message["status"], "headers": pack_headers(headers)}
    return {"at": at, "body": message["body"], "more": int(message["more_body"])}


def _fresh(fields: dict[bytes, bytes], begun: bool, passed: int) -> Message | None:
    """What of an entry has not been passed on yet. Nothing, if one before it is missing: Redis may have lost it."""
    if b"status" in fields:
        headers = list(unpack_headers(fields[b"headers"]))
        return None if begun else {"type": START, "status": int(fields[b"status"]), "headers": headers}
    at, body, more = int(fields[b"at"]), fields[b"body"], fields[b"more"] == b"1"
    known = passed - at
    if not begun or known < 0 or (more and known >= len(body)):
        return None
    return {"type": BODY, "body": body[known:], "more_body": more}


def _rest(answer: Answer, begun: bool, passed: int) -> list[Message]:
    """What of a finished answer has not been passed on yet."""
    head: Message = {"type": START, "status": answer.status, "headers": list(answer.headers)}
    body: Message = {"type": BODY, "body": answer.body[passed:], "more_body": False}
    return [body] if begun else [head, body]
