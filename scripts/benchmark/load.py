"""The load generator: as many requests in flight as asked for, each answer read to its end, everything counted.

A closed loop over kept-alive connections on uvloop's protocols, about 25 us a call. It asks for nothing new once the
time is over and waits for what is under way: no call is cut, so the provider's bill and the ledger must agree to the
last token. `wrk` cuts its last calls and cannot say that; it is there for who wants to see the same calls a second
from a tool that is not ours.
"""

import asyncio
import gc
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import uvloop

from .system import BenchmarkError

LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
LONGEST = 120.0
"""Seconds after which a load is given up, whatever was asked for."""
STREAM_END = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Work:
    """What to ask for, of whom, how much at once, and how long new requests are begun (seconds)."""

    ports: Sequence[int]
    """Connections are dealt out to these in turn."""
    request: tuple[bytes, bytes]
    """The request in two parts; `header` is put between them."""
    in_flight: int
    seconds: float
    stream: bool = False
    header: Callable[[int], bytes] | None = None
    """What the request of this number, counted from 1, carries beside: whole lines."""
    most: int = 0
    """End after so many calls; 0 is no limit."""
    ramp: float = 0.0
    """Seconds over which the first requests are spread."""


@dataclass(slots=True)
class Result:
    """What came of it; times in seconds."""

    calls: int = 0
    elapsed: float = 0.0
    latencies: list[float] = field(default_factory=list)
    first_bytes: list[float] = field(default_factory=list)
    longest_gap: float = 0.0

    def percentile(self, share: float, of: list[float] | None = None) -> float:
        values = sorted(self.latencies if of is None else of)
        return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def run(work: Work) -> Result:
    """Put the load on. Raises `BenchmarkError` for any answer that is not what was asked for."""
    gc.collect()
    gc.disable()
    try:
        return uvloop.run(_run(work))
    except OSError as error:
        raise BenchmarkError(f"no connection: {error}") from None
    finally:
        gc.enable()


async def _run(work: Work) -> Result:
    loop = asyncio.get_running_loop()
    result = Result()
    shared = _Shared(work, result, loop.create_future())
    try:
        await (_spread(shared) if work.ramp else _at_once(shared))
        await asyncio.wait_for(shared.done, LONGEST)
        result.elapsed = time.perf_counter() - shared.started
    except TimeoutError:
        raise BenchmarkError(f"the load was not over after {LONGEST:g} s") from None
    finally:
        for client in shared.clients:
            client.abandon()
        await asyncio.sleep(0)
    return result


async def _at_once(shared: "_Shared") -> None:
    """All connections, and then the first requests of all."""
    for number in range(shared.work.in_flight):
        await shared.connect(number)
    shared.start()
    for client in shared.clients:
        client.ask()


async def _spread(shared: "_Shared") -> None:
    """Connection after connection, each with its first request: a silent one would be closed by who is careful."""
    work = shared.work
    shared.start()
    shared.unasked = work.in_flight
    for number in range(work.in_flight):
        due = shared.started + work.ramp * number / work.in_flight
        await asyncio.sleep(due - time.perf_counter())
        if shared.done.done():
            return
        await shared.connect(number)
        shared.unasked -= 1
        shared.clients[-1].ask()
    shared.end_if_over()


class _Shared:
    """What the connections of one load have in common."""

    def __init__(self, work: Work, result: Result, done: "asyncio.Future[None]") -> None:
        self.work = work
        self.result = result
        self.done = done
        self.clients: list[_Client] = []
        self.begun = 0
        self.running = 0
        self.unasked = 0
        self.started = 0.0
        self.deadline = 0.0

    async def connect(self, number: int) -> None:
        """One more connection; it is the last of `clients` then."""
        port = self.work.ports[number % len(self.work.ports)]
        kind = _StreamClient if self.work.stream else _Client
        await asyncio.get_running_loop().create_connection(lambda: kind(self), "127.0.0.1", port)

    def start(self) -> None:
        self.started = time.perf_counter()
        self.deadline = self.started + self.work.seconds

    def next_request(self, now: float) -> bytes | None:
        """The bytes of one more request, or `None` if there shall be no more."""
        if now >= self.deadline or (self.work.most and self.begun >= self.work.most):
            return None
        self.begun += 1
        before, after = self.work.request
        return before + (self.work.header(self.begun) if self.work.header else b"") + after

    def end_if_over(self) -> None:
        if self.running == self.unasked == 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, message: str) -> None:
        if not self.done.done():
            self.done.set_exception(BenchmarkError(message))


class _Client(asyncio.Protocol):
    """One connection; whole answers with a content-length."""

    transport: asyncio.Transport

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._asked = 0.0
        self._missing = 0
        self._head = b""
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._shared.clients.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._shared.fail(f"a connection was lost while its answer was awaited: {exc!r}")

    def abandon(self) -> None:
        """Close; an answer that is still awaited is nobody's any more."""
        self._busy = False
        self.transport.close()

    def ask(self) -> None:
        """Send one more request, if there shall be one."""
        self._asked = now = time.perf_counter()
        request = self._shared.next_request(now)
        if request is None:
            return
        self._shared.running += 1
        self._busy = True
        self._begin()
        self.transport.write(request)

    def _begin(self) -> None:
        self._missing = -1
        self._head = b""

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._head = data = self._head + data if self._head else data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                return
            length = LENGTH.search(data, 0, end + 2)
            if not data.startswith(b"HTTP/1.1 200") or length is None:
                self._shared.fail(f"not the answer that was asked for: {data[:600]!r}")
                return
            self._missing = int(length[1]) - (len(data) - end - 4)
        else:
            self._missing -= len(data)
        if self._missing == 0:
            self._finish()

    def _finish(self) -> None:
        shared = self._shared
        result = shared.result
        result.calls += 1
        result.latencies.append(time.perf_counter() - self._asked)
        self._busy = False
        shared.running -= 1
        self.ask()
        shared.end_if_over()


class _StreamClient(_Client):
    """One connection; event streams in chunked encoding."""

    def _begin(self) -> None:
        self._head = b""
        self._tail = b""
        self._last = 0.0

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        result = self._shared.result
        if self._last:
            result.longest_gap = max(result.longest_gap, now - self._last)
            self._last = now
        elif b"data: " in (begun := self._head + data):
            if not begun.startswith(b"HTTP/1.1 200"):
                self._shared.fail(f"not the stream that was asked for: {begun[:600]!r}")
                return
            self._last = now
            result.first_bytes.append(now - self._asked)
        else:
            self._head = begun
            if len(begun) > 65536 or (begun and not begun.startswith(b"HTTP/1.1 200"[: len(begun)])):
                self._shared.fail(f"not the stream that was asked for: {begun[:600]!r}")
            return
        self._tail = tail = (self._tail + data)[-64:]
        if tail.endswith(STREAM_END):
            if b"[DONE]" not in tail:
                self._shared.fail("a stream ended without its terminator")
                return
            self._finish()
