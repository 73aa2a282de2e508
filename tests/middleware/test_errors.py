"""Every refusal and failure, rendered once."""

import asyncio
import json
import sys
from collections.abc import Iterator

import pytest
from loguru import logger

from middleware.errors import Errors, openai_answer
from middleware.exchange import Answer, Exchange
from middleware.faults import (
    CallerFault,
    ClientDisconnected,
    Fault,
    GatewayFault,
    IdempotencyConflict,
    RateLimited,
    Unauthenticated,
)
from tests.middleware.driving import answering, drive, messages, raising


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What is logged during the test."""
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}", diagnose=False)
    yield lines
    logger.remove(sink)


async def test_a_fault_becomes_the_answer() -> None:
    """Status and body are the fault's, and its exchange knows it."""
    exchange, fault = Exchange(), CallerFault("wrong", param="model")
    peer = await drive(Errors(raising(fault)), exchange=exchange)
    assert (peer.status, json.loads(peer.body)) == (400, fault.body())
    assert peer.headers[b"content-length"] == str(len(peer.body)).encode()
    assert peer.headers[b"content-type"] == b"application/json"
    assert exchange.fault is fault
    assert exchange.status == 400


async def test_a_defect_tells_the_caller_nothing(logged: list[str]) -> None:
    """What is none of our faults is a 500 without its reason; the log has the traceback."""
    peer = await drive(Errors(raising(ValueError("private detail"))))
    assert peer.status == 500
    assert json.loads(peer.body)["error"]["code"] == "gateway_internal_error"
    assert b"private" not in peer.body
    assert "private detail" in "".join(logged)


async def test_a_defect_is_told_from_a_refusal(logged: list[str]) -> None:
    """A refusal is nothing for the operator to look at."""
    await drive(Errors(raising(CallerFault("wrong"))))
    assert logged == []


@pytest.mark.parametrize("error", [CallerFault("late"), ValueError("late")], ids=repr)
async def test_after_the_head_the_answer_is_left_unfinished(error: Exception) -> None:
    """Nothing can be rendered any more; a broken answer must not look whole."""
    head = messages(b"a", b"b")[:2]
    exchange = Exchange()
    peer = await drive(Errors(raising(error, *head)), exchange=exchange)
    assert peer.sent == head
    assert exchange.fault is not None


async def test_nobody_is_answered_who_has_left() -> None:
    """A client that is gone gets no answer, but its end has a code."""
    exchange = Exchange()
    peer = await drive(Errors(raising(ClientDisconnected("gone"))), exchange=exchange)
    assert peer.sent == []
    assert exchange.final_status == 499


async def test_a_cancellation_passes() -> None:
    """It is no failure of the request."""
    with pytest.raises(asyncio.CancelledError):
        await drive(Errors(raising(asyncio.CancelledError())))


async def test_an_answer_is_left_alone() -> None:
    """What succeeds passes as it is."""
    exchange = Exchange()
    peer = await drive(Errors(answering(b"a", status=404)), exchange=exchange)
    assert peer.sent == messages(b"a", status=404)
    assert exchange.fault is None


async def test_another_callers_format() -> None:
    """How a fault looks is an argument."""
    layer = Errors(raising(CallerFault("wrong")), lambda fault: Answer(418, ((b"x", b"y"),), b"short"))
    peer = await drive(layer)
    assert (peer.status, peer.headers, peer.body) == (418, {b"x": b"y"}, b"short")


@pytest.mark.parametrize(
    ("fault", "name", "value"),
    [
        (CallerFault("no"), b"x-should-retry", b"false"),
        (IdempotencyConflict("no"), b"x-should-retry", b"true"),
        (GatewayFault("no"), b"x-should-retry", None),
        (RateLimited("no", retry_after=1.2), b"retry-after", b"2"),
        (CallerFault("no"), b"retry-after", None),
        (Unauthenticated("no"), b"www-authenticate", b'Bearer realm="aigate"'),
    ],
    ids=repr,
)
def test_headers_that_sdks_obey(fault: Fault, name: bytes, value: bytes | None) -> None:
    """Whether and when to retry is said in the headers that the SDKs look at, and only where we know."""
    assert dict(openai_answer(fault).headers).get(name) == value


def test_a_header_that_no_header_can_carry() -> None:
    """What is outside latin-1 is replaced, never a second failure while rendering the first."""
    assert (b"x", b"?") in openai_answer(CallerFault("no", headers={"x": "\N{SNOWMAN}"})).headers


def test_the_message_of_a_defect_is_no_traceback() -> None:
    """An answer is small: one object."""
    body = openai_answer(Fault("The gateway failed.")).body
    assert sys.getsizeof(body) < 400
