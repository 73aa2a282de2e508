"""One provider's answer on its way to one client, in one piece or as a stream.

The head of a stream waits for the provider's first event, so that an early refusal has a true status; but not for
long: after `patience` seconds the stream begins, and what goes wrong from then on is its last event. The last bytes
are announced on the exchange, so that they wait for the settlement: nobody has a whole answer that is unbilled.
"""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from functools import partial
from typing import TypeAlias

import orjson
from blacksheep import Content, Response, StreamedContent

from aigate.estimate import Delivered, Estimator
from aigate.provider_faults import note_failure
from middleware.exchange import Exchange, Outcome
from middleware.faults import Fault
from providers.catalog import Provider
from providers.client import Client, Upstream
from providers.contract import Call, ProviderError, Usage
from providers.sse import DONE, event

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream"
UNBUFFERED = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
"""Ask proxies on the way to pass each event on (https://nginx.org/en/docs/http/ngx_http_proxy_module.html)."""

OK = Outcome.OK  # a member of an enumeration is looked up by a call
IN_ONE_MESSAGE = 60_000
"""Bytes that BlackSheep surely sends as one message (it cuts at 61,440)."""

UNKNOWN = Usage()
"""What a call has used while its provider has said nothing. All calls share it and nobody writes into it: an answer
brings its own, and so does a stream, whose usage may have to be estimated."""

Events: TypeAlias = Callable[[], AsyncIterator[bytes]]


async def whole(exchange: Exchange, client: Client, estimator: Estimator, provider: Provider, call: Call) -> Response:
    """The answer in one piece. Raises the `Fault` that a failure of the provider is."""
    asked = time.perf_counter()
    try:
        upstream = await client.open(provider, call)
        decoded = await upstream.read()
    except ProviderError as error:
        raise note_failure(exchange, error, provider, began=False) from error
    finally:
        exchange.upstream_seconds = time.perf_counter() - asked
    exchange.outcome = OK
    exchange.usage = usage = decoded.usage
    body = decoded.body
    if usage.source == "none":
        exchange.estimate = partial(estimator.fill, usage, call.document, Delivered(body))
    if len(body) <= IN_ONE_MESSAGE:
        return Response(200, None, Content(JSON, body))
    return Response(200, None, StreamedContent(JSON, partial(_in_one, exchange, body)))


async def _in_one(exchange: Exchange, body: bytes) -> AsyncIterator[bytes]:
    """A large answer as one message: BlackSheep would send its last bytes before the message that ends it."""
    exchange.ending = True
    yield body


class Relay:
    """One answer as a stream. What of it has been passed on is what is estimated if the provider counts nothing."""

    __slots__ = ("_asked", "_call", "_client", "_delivered", "_estimator", "_exchange", "_provider")

    def __init__(
        self, exchange: Exchange, client: Client, estimator: Estimator, provider: Provider, call: Call
    ) -> None:
        self._exchange = exchange
        self._client = client
        self._estimator = estimator
        self._provider = provider
        self._call = call
        self._asked = time.perf_counter()
        self._delivered = Delivered()

    async def begin_within(self, patience: float) -> Response:
        """The answer as a stream, begun after `patience` seconds at the latest."""
        self._exchange.usage = Usage()  # its own: an estimate is written into it
        self._exchange.estimate = self._estimate
        first = asyncio.get_running_loop().create_task(self._begin())
        self._exchange.resources.append(partial(_abandon, first))
        done, _ = await asyncio.wait({first}, timeout=patience)
        return _stream(first.result() if done else partial(self._late, first))

    async def _begin(self) -> Events:
        """The events of the answer as soon as it has begun. Raises the `Fault` that a failure of the provider is."""
        try:
            upstream = await self._client.open(self._provider, self._call)
            if not upstream.streamed:
                return partial(self._at_once, await self._read(upstream))
            self._exchange.resources.append(upstream.aclose)
            events = upstream.events()
            self._exchange.usage = upstream.usage
            return partial(self._forward, events, await anext(events))
        except ProviderError as error:
            raise self._fault(error) from error
        finally:
            self._note_wait()

    async def _at_once(self, body: bytes) -> AsyncIterator[bytes]:
        """The stream that a document is, from a provider that does not stream although it was asked to."""
        yield self._last(event(as_chunk(body, with_usage=self._call.wants_usage)) + DONE)

    async def _late(self, first: "asyncio.Future[Events]") -> AsyncIterator[bytes]:
        """A stream whose head has left before the provider said anything."""
        try:
            answer = await first
        except Fault as fault:
            yield self._broken(fault)
            return
        async for data in answer():
            yield data

    async def _forward(self, events: AsyncIterator[bytes], data: bytes) -> AsyncIterator[bytes]:
        try:
            while not data.endswith(DONE):
                self._delivered.note(data)
                yield data
                data = await anext(events)
        except ProviderError as error:
            await self._exchange.release()  # now: the settlement may take its time
            yield self._broken(self._fault(error))
        else:
            self._exchange.outcome = OK
            yield self._last(data)
            async for _ in events:  # to the end of the connection, so that it can be used again
                pass

    async def _read(self, upstream: Upstream) -> bytes:
        decoded = await upstream.read()
        self._exchange.usage = decoded.usage
        self._exchange.outcome = OK
        self._delivered.note(decoded.body)
        return decoded.body

    async def _estimate(self) -> None:
        await self._estimator.fill(self._exchange.usage or Usage(), self._call.document, self._delivered)

    def _note_wait(self) -> None:
        """Everything so far was waiting for the provider."""
        self._exchange.upstream_seconds = time.perf_counter() - self._asked

    def _fault(self, error: ProviderError) -> Fault:
        return note_failure(self._exchange, error, self._provider, began=self._delivered.size > 0)

    def _broken(self, fault: Fault) -> bytes:
        """The end of a stream that has begun and cannot be finished: an error event, and no terminator."""
        self._exchange.fault = fault
        return self._last(event(orjson.dumps(fault.body())))

    def _last(self, data: bytes) -> bytes:
        self._exchange.ending = True
        return data


def as_chunk(body: bytes, *, with_usage: bool) -> bytes:
    """A whole completion as the one chunk of a stream; `with_usage` if its caller asked for that."""
    document = orjson.loads(body)
    if not with_usage:
        document.pop("usage", None)
    for choice in document["choices"]:
        if isinstance(choice, dict) and isinstance(choice.get("message"), dict):
            document["object"] = "chat.completion.chunk"
            delta = choice["delta"] = choice.pop("message")
            for index, call in enumerate(delta.get("tool_calls") or ()):
                call.setdefault("index", index)
    return orjson.dumps(document)


class _Passing(StreamedContent):
    """Content that BlackSheep sends as it comes, without a generator of its own around ours."""

    def get_parts(self) -> AsyncIterable[bytes]:  # type: ignore[override]  # its stub says it has to be awaited
        return self.generator()


def _stream(events: Events) -> Response:
    return Response(200, list(UNBUFFERED), _Passing(EVENT_STREAM, events))


async def _abandon(task: "asyncio.Future[Events]") -> None:
    if task.cancel():
        await asyncio.gather(task, return_exceptions=True)
    elif not task.cancelled():
        task.exception()  # whoever would have told of it has gone
