"""A caller's rate, before its body is read."""

import dataclasses

import pytest

from middleware.exchange import Exchange
from middleware.faults import RateLimited
from middleware.rate_limit import Allowance, RateLimit
from tests.contracts.fakes import FixedLimiter
from tests.middleware.driving import ACME, Peer, answering, drive

OVER = Allowance(allowed=False, remaining=0, reset_after=59.2, retry_after=1.5)


async def test_the_answer_tells_where_the_caller_stands() -> None:
    """OpenAI's headers and the IETF's, rounded up, are on an answer that passes."""
    limiter = FixedLimiter(Allowance(True, remaining=59, reset_after=0.9991))
    peer = await drive(RateLimit(answering(b"a"), limiter, 60), exchange=Exchange(caller=ACME))
    assert peer.headers == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1000ms",
        b"ratelimit-policy": b'"rpm";q=60;w=60',
        b"ratelimit": b'"rpm";r=59;t=1',
    }


async def test_over_the_limit() -> None:
    """The refusal says when to come back, carries the same headers, and no body was read."""
    peer, exchange = Peer(b"{}"), Exchange(caller=ACME)
    with pytest.raises(RateLimited) as refused:
        await drive(RateLimit(answering(b"a"), FixedLimiter(OVER), 60), peer, exchange)
    assert refused.value.retry_after == 1.5
    headers = dict(exchange.headers)
    assert headers[b"x-ratelimit-remaining-requests"] == b"0"
    assert headers[b"ratelimit"] == b'"rpm";r=0;t=60'
    assert (peer.sent, peer.asked) == ([], 0)


async def test_each_key_is_counted_under_its_public_id() -> None:
    """The limiter is asked for the key and the gateway's default."""
    limiter = FixedLimiter()
    await drive(RateLimit(answering(), limiter, 60), exchange=Exchange(caller=ACME))
    assert limiter.asked == [("abc", 60)]


async def test_a_rate_of_the_keys_own() -> None:
    """It goes before the default."""
    limiter = FixedLimiter()
    caller = dataclasses.replace(ACME, requests_per_minute=5)
    await drive(RateLimit(answering(), limiter, 60), exchange=Exchange(caller=caller))
    assert limiter.asked == [("abc", 5)]


@pytest.mark.parametrize(("default", "own"), [(0, None), (60, 0)], ids=["no default", "the key's own is none"])
async def test_no_limit(default: int, own: int | None) -> None:
    """0 is no limit: nobody is asked and nothing is added."""
    limiter = FixedLimiter(OVER)
    caller = dataclasses.replace(ACME, requests_per_minute=own)
    peer = await drive(RateLimit(answering(), limiter, default), exchange=Exchange(caller=caller))
    assert (limiter.asked, peer.headers) == ([], {})


async def test_without_a_caller() -> None:
    """Alone, without authentication in front, the layer lets everybody pass."""
    limiter = FixedLimiter(OVER)
    assert (await drive(RateLimit(answering(b"a"), limiter, 60))).body == b"a"
