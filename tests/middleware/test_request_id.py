"""The outermost layer, alone."""

import asyncio
import itertools
import subprocess
import sys
import time
import uuid
from contextvars import ContextVar, Token

import pytest

from middleware.asgi import Receive, Scope, Send
from middleware.exchange import Exchange, exchange_of
from middleware.request_id import RequestId, uuid7
from tests.middleware.driving import answering, drive, raising

FORKING = """
import os
from middleware.request_id import uuid7
uuid7()
child = os.fork()
if child:
    os.waitpid(child, 0)
print(*(uuid7() for _ in range(300)))
"""


class Log:
    """What the layer binds and reports, in order."""

    def __init__(self) -> None:
        self.bound: ContextVar[str] = ContextVar("bound", default="nothing")
        self.events: list[str] = []
        self.reported: list[Exchange] = []

    def bind(self, name: str) -> Token[str]:
        self.events.append(f"bound {name}")
        return self.bound.set(name)

    def report(self, exchange: Exchange, scope: Scope) -> None:
        self.events.append(f"reported under {self.bound.get()}")
        self.reported.append(exchange)


def layer(app: object, log: Log) -> RequestId:
    numbers = itertools.count(1)
    return RequestId(app, log.bind, log.report, lambda: f"id-{next(numbers)}")


def test_uuid7_says_its_version_and_variant() -> None:
    """RFC 9562: version 7, variant 0b10."""
    for _ in range(100):
        value = uuid.UUID(uuid7())
        assert value.version == 7
        assert value.variant == uuid.RFC_4122


def test_uuid7_begins_with_the_time() -> None:
    """The first 48 bits are the milliseconds since 1970."""
    before = time.time_ns() // 1_000_000
    value = int(uuid7(), 16) >> 80
    assert before <= value <= time.time_ns() // 1_000_000


def test_uuid7_is_ordered_by_time() -> None:
    """Ids of later milliseconds sort later, as text too."""
    early = uuid7()
    time.sleep(0.002)
    assert early < uuid7()


def test_uuid7_is_unique() -> None:
    """A hundred thousand of them are different."""
    assert len({uuid7() for _ in range(100_000)}) == 100_000


def test_uuid7_of_a_forked_process() -> None:
    """It takes no noise that its parent has."""
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, check=True)
    noises = [name[12:] for name in done.stdout.split()]
    assert len(noises) == 600
    assert len(set(noises)) == 600


async def test_the_answer_carries_the_id() -> None:
    """`x-request-id` is ours, whatever the caller sent under that name."""
    log = Log()
    peer = await drive(layer(answering(b"a"), log), headers=[(b"x-request-id", b"theirs")])
    assert peer.headers[b"x-request-id"] == b"id-1"


async def test_each_request_has_its_own_id() -> None:
    """Two requests through one layer are two exchanges."""
    log = Log()
    made = layer(answering(b"a"), log)
    await drive(made)
    await drive(made)
    assert [exchange.id for exchange in log.reported] == ["id-1", "id-2"]


async def test_the_report_comes_inside_the_binding() -> None:
    """The report is the last that happens under the id."""
    log = Log()
    await drive(layer(answering(b"a"), log))
    assert log.events == ["bound id-1", "reported under id-1"]
    assert log.bound.get() == "nothing"


async def test_a_report_that_fails_leaves_nothing_bound() -> None:
    """What is logged after it is no part of this exchange."""
    log = Log()

    def fail(exchange: Exchange, scope: Scope) -> None:
        raise OSError

    with pytest.raises(OSError):
        await drive(RequestId(answering(b"a"), log.bind, fail))
    assert log.bound.get() == "nothing"


async def test_a_failure_is_reported_too() -> None:
    """An exception passes, and its exchange is reported once."""
    log = Log()
    with pytest.raises(KeyError):
        await drive(layer(raising(KeyError("x")), log))
    assert len(log.reported) == 1


async def test_a_cancelled_request_is_reported_too() -> None:
    """A shutdown's cancellation passes, and its exchange is reported once."""
    log = Log()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    running = asyncio.create_task(drive(layer(app, log)))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(log.reported) == 1


@pytest.mark.parametrize("error", [None, KeyError("x"), asyncio.CancelledError()], ids=repr)
async def test_what_the_handler_opened_is_closed_before_the_report(error: BaseException | None) -> None:
    """The exchange's resources are closed at every end."""

    async def close() -> None:
        log.events.append("closed")

    log = Log()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange_of(scope).resources.append(close)
        if error is not None:
            raise error

    if error is None:
        await drive(layer(app, log))
    else:
        with pytest.raises(type(error)):
            await drive(layer(app, log))
    assert log.events[1:3] == ["closed", "reported under id-1"]
    assert log.bound.get() == "nothing"


async def test_what_was_sent_is_on_the_report() -> None:
    """The report can tell the status and the time of the first byte."""
    log = Log()
    await drive(layer(answering(b"a", status=418), log))
    (exchange,) = log.reported
    assert exchange.status == 418
    assert exchange.first_byte is not None
