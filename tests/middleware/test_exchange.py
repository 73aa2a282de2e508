"""The one object that the layers of a request share."""

import asyncio
import time

import pytest

from middleware.asgi import START, Message
from middleware.exchange import KEY, Exchange, Target, exchange_of
from middleware.faults import RateLimited, Unpriced
from tests.middleware.driving import TARGET, Peer, messages, scope_of


def test_whoever_asks_first_opens_it() -> None:
    """The first to ask puts it into the scope; all others get the same."""
    scope = scope_of()
    exchange = exchange_of(scope)
    assert scope[KEY] is exchange
    assert exchange_of(scope) is exchange


def test_it_survives_a_copy_of_the_scope() -> None:
    """A layer that copies the scope, as ASGI asks, still shares the exchange."""
    scope = scope_of()
    exchange = exchange_of(scope)
    assert exchange_of(dict(scope)) is exchange


async def test_gates_are_passed_in_their_order() -> None:
    """Each gate sees the target, outermost layer's first."""
    passed: list[tuple[str, Target]] = []
    exchange = Exchange()

    async def outer(target: Target) -> None:
        await asyncio.sleep(0)
        passed.append(("outer", target))

    async def inner(target: Target) -> None:
        passed.append(("inner", target))

    exchange.gates += [outer, inner]
    await exchange.admit(TARGET)
    assert passed == [("outer", TARGET), ("inner", TARGET)]
    assert exchange.target is TARGET


async def test_a_gate_that_refuses_ends_the_admission() -> None:
    """The first refusal is the handler's, and no later gate is asked."""
    exchange = Exchange()

    async def refusing(target: Target) -> None:
        raise Unpriced("no price")

    async def never(target: Target) -> None:
        raise AssertionError

    exchange.gates += [refusing, never]
    with pytest.raises(Unpriced):
        await exchange.admit(TARGET)


async def test_the_last_that_was_opened_is_closed_first() -> None:
    """All of it, also where one cannot be closed, and once."""
    exchange, closed = Exchange(), list[str]()

    async def good() -> None:
        closed.append("good")

    async def bad() -> None:
        closed.append("bad")
        raise OSError

    exchange.resources += [good, bad]
    with pytest.raises(OSError):
        await exchange.release()
    await exchange.release()
    assert closed == ["bad", "good"]


async def test_status_and_first_byte_are_observed() -> None:
    """They are noted as they pass, after they have been forwarded."""
    exchange, peer = Exchange(), Peer()
    send = exchange.observe(peer.send)
    head, *bodies = messages(b"a", b"b", status=201)
    await send(head)
    assert (exchange.status, exchange.first_byte) == (201, None)
    await send(bodies[0])
    first = exchange.first_byte
    assert first is not None
    assert 0 <= first <= time.perf_counter() - exchange.started
    await send(bodies[1])
    assert exchange.first_byte == first


async def test_headers_are_added_to_the_head_only() -> None:
    """The head gains the layers' headers after its own, also those that come late; bodies pass as they are."""
    exchange, peer = Exchange(), Peer()
    send = exchange.observe(peer.send)
    exchange.headers.append((b"x-added", b"1"))
    for message in messages(b"a", headers=[(b"own", b"0")]):
        await send(message)
    assert peer.sent == messages(b"a", headers=[(b"own", b"0"), (b"x-added", b"1")])


async def test_a_head_without_headers() -> None:
    """ASGI lets a head have none."""
    exchange, peer = Exchange(headers=[(b"a", b"1")]), Peer()
    await exchange.observe(peer.send)({"type": START, "status": 204})
    assert peer.headers == {b"a": b"1"}


async def test_the_last_message_is_announced() -> None:
    """From then on a client that leaves disturbs nothing."""
    exchange = Exchange()
    seen: list[bool] = []

    async def send(message: Message) -> None:
        seen.append(exchange.ending)

    observed = exchange.observe(send)
    for message in messages(b"a", b"b"):
        await observed(message)
    assert seen == [False, False, True]


async def test_observing_wraps_once() -> None:
    """The second layer that asks gets back what it gave."""
    exchange, peer = Exchange(), Peer()
    exchange.observe(peer.send)
    send = peer.send
    assert exchange.observe(send) is send


async def test_over_is_over() -> None:
    """An exchange that is forgotten holds nobody's `send`, and what is sent late goes nowhere."""
    exchange, peer = Exchange(), Peer()
    send = exchange.observe(peer.send)
    exchange.forget()
    await send(messages()[0])
    assert peer.sent == []


async def test_what_could_not_be_sent_is_not_observed() -> None:
    """A head that the server refused has not been sent."""
    exchange = Exchange()

    async def broken(message: object) -> None:
        raise OSError

    with pytest.raises(OSError):
        await exchange.observe(broken)(messages()[0])
    assert exchange.status == 0


def test_final_status() -> None:
    """What was sent, else what the fault would have said, else that the gateway failed."""
    assert Exchange(status=200, fault=RateLimited("x")).final_status == 200
    assert Exchange(fault=RateLimited("x")).final_status == 429
    assert Exchange().final_status == 500


def test_name_of_a_target() -> None:
    """A target is called as callers write it."""
    assert TARGET.name == "openai:gpt-4o"
