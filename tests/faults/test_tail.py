"""Who reads a running answer through Redis passes on each byte once and in order, whatever Redis loses."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis.asyncio as redis

from aigate.stores.tail import STREAM, RedisTail
from middleware.claims import Claim, Running
from middleware.exchange import Answer
from middleware.live_answer import LiveAnswer, LiveAnswers
from tests.running import eventually

CLAIM = Claim(1, "k", b"f" * 32, "1" * 32)
RUNNING = Running("1" * 32, "maker", 0.0)
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


class Stored:
    """What PostgreSQL would say: the answer once it is finished."""

    def __init__(self) -> None:
        self.found: Answer | Running = RUNNING

    async def look(self, _: Claim) -> tuple[str, Answer | Running]:
        return RUNNING.request_id, self.found


class Relay:
    """An answer that is made on one replica and read on another."""

    def __init__(self, url: str) -> None:
        self.stored = Stored()
        live = LiveAnswers(1_000_000)
        self.live: LiveAnswer = live.begin(1, "k", RUNNING.request_id, CLAIM.fingerprint)
        self.maker = RedisTail(url, "maker", live, self.stored, timeout=1.0, longest=20.0)
        self.reader = RedisTail(url, "reader", LiveAnswers(1), self.stored, timeout=1.0, longest=20.0)
        self.client = redis.Redis.from_url(url)
        self.send = self.live.tee(_nowhere)

    async def say(self, text: bytes, *, last: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": text, "more_body": not last})

    async def entries(self, count: int) -> None:
        """Return once so many messages stand in Redis."""
        stream = STREAM + RUNNING.request_id

        async def there() -> bool:
            return await self.client.xlen(stream) >= count

        await eventually(there)


@pytest.fixture
async def relay(redis_url: str) -> AsyncIterator[Relay]:
    """A running answer, its maker and its reader."""
    relay = Relay(redis_url)
    await relay.client.flushall()
    relay.maker.start()
    yield relay
    await relay.maker.stop()
    await relay.reader.stop()
    await relay.client.aclose()


async def test_what_redis_forgot_comes_from_postgres(relay: Relay) -> None:
    """A reader that was slow while Redis was emptied gets the missing middle, not an answer without it."""

    async def forget() -> None:
        await relay.say(b"two ")
        await relay.entries(3)
        await relay.client.flushall()
        await relay.say(b"three ")
        await relay.say(b"four", last=True)
        await relay.entries(2)
        relay.stored.found = Answer(200, tuple(HEAD["headers"]), b"one two three four")  # type: ignore[arg-type]

    assert await _read(relay, forget) == (1, b"one two three four")


async def test_relay_that_begins_again_repeats_nothing(relay: Relay) -> None:
    """When the maker has to write the answer into Redis anew, the reader passes on only what is new to it."""

    async def begin_again() -> None:
        await relay.client.publish("{aigate}:asked:maker", b'{"request_id": "%s"}' % RUNNING.request_id.encode())
        for task in list(relay.maker._relays.values()):
            task.cancel()
            await asyncio.wait([task])
        await relay.say(b"two ")
        relay.maker._relay(RUNNING.request_id)
        await relay.entries(2)
        await relay.say(b"three", last=True)

    assert await _read(relay, begin_again) == (1, b"one two three")


async def test_reader_that_comes_after_redis_forgot(relay: Relay) -> None:
    """A reader who finds a stream without its head waits for the whole answer."""
    relay.maker._relay(RUNNING.request_id)
    await relay.send(dict(HEAD))
    await relay.say(b"one ")
    await relay.entries(2)
    await relay.client.flushall()
    await relay.say(b"two")
    await relay.entries(1)
    reading = asyncio.create_task(_read(relay, None))
    await relay.say(b"", last=True)
    relay.stored.found = Answer(200, tuple(HEAD["headers"]), b"one two")  # type: ignore[arg-type]
    assert await reading == (1, b"one two")


async def _read(relay: Relay, trouble: Callable[[], Any] | None) -> tuple[int, bytes]:
    """How many heads and which bytes the reader passes on; `trouble` happens after the first byte."""
    heads, body = 0, b""
    if trouble is not None:
        await relay.send(dict(HEAD))
        await relay.say(b"one ")
    async with asyncio.timeout(15):
        async for message in relay.reader.follow(CLAIM, RUNNING):
            heads += message["type"] == "http.response.start"
            body += message.get("body", b"")
            if trouble is not None and body:
                await trouble()
                trouble = None
    return heads, body


async def _nowhere(_: object) -> None:
    """The client of the first request does not matter here."""
