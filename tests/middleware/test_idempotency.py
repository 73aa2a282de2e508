"""The key in the header, and the simplest replay."""

from collections.abc import AsyncIterator

import pytest

from middleware.asgi import Message
from middleware.claims import LONGEST_KEY, Claim, Running, parse_key
from middleware.errors import openai_answer
from middleware.exchange import Answer, Exchange
from middleware.faults import CallerFault
from middleware.idempotency import Idempotency
from middleware.live_answer import LiveAnswers
from tests.middleware.driving import ACME, drive, raising


@pytest.mark.parametrize(
    ("field", "key"),
    [
        (b"order-1", "order-1"),
        (b'"order-1"', "order-1"),
        (b"  order-1 ", "order-1"),
        (rb'"a \"quoted\" \\ key"', r'a "quoted" \ key'),
        (b'"', '"'),
        (b"x" * LONGEST_KEY, "x" * LONGEST_KEY),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_key(field: bytes, key: str) -> None:
    """Quoted, as the IETF draft has it, or bare: the same key."""
    assert parse_key(field) == key


@pytest.mark.parametrize(
    "field",
    [b"", b"  ", b'""', b"x" * (LONGEST_KEY + 1), "schlüssel".encode(), b"\xff", b"a\x00b", b"a\nb"],
    ids=repr,
)
def test_no_key(field: bytes) -> None:
    """What is empty, too long or not printable ASCII is the caller's mistake."""
    with pytest.raises(CallerFault):
        parse_key(field)


class Kept:
    """A store that has this answer for every key."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.claims: list[Claim] = []

    async def claim(self, claim: Claim) -> Answer:
        self.claims.append(claim)
        return self.answer

    async def release(self, claim: Claim) -> None:
        raise AssertionError


class NoTail:
    """No other replica answers anything."""

    def follow(self, claim: Claim, running: Running) -> AsyncIterator[Message]:
        raise AssertionError


async def test_a_finished_answer_is_given_again() -> None:
    """Status, headers and bytes are the stored ones, marked and unbilled, and nothing further in is reached."""
    store = Kept(Answer(201, ((b"content-type", b"application/json"),), b'{"kept": 1}'))
    layer = Idempotency(raising(AssertionError()), store, NoTail(), LiveAnswers(1000), openai_answer, 8)
    exchange = Exchange(id="call", caller=ACME, body=b"{}")
    peer = await drive(layer, exchange=exchange, headers=[(b"idempotency-key", b'"order-1"')])
    assert (peer.status, peer.body) == (201, b'{"kept": 1}')
    assert peer.headers == {
        b"content-type": b"application/json",
        b"content-length": b"11",
        b"idempotent-replayed": b"true",
    }
    assert (exchange.replayed, exchange.billed) == (True, 0)
    assert [(claim.org_id, claim.key) for claim in store.claims] == [(ACME.org_id, "order-1")]
