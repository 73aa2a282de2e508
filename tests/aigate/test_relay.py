"""One answer on its way: what it used is its own."""

import asyncio
from typing import Any, cast

from aigate.estimate import Estimator
from aigate.relay import UNKNOWN, Relay
from middleware.exchange import Exchange
from providers.catalog import Provider
from providers.client import Client
from providers.contract import Call, Usage

OPENAI = Provider("openai", "https://api.openai.example/v1", api_key="sk")


class Silent:
    """A client whose provider says nothing."""

    async def open(self, provider: Provider, call: Call) -> Any:
        await asyncio.Event().wait()


class Guess:
    """An estimator that always has something to say."""

    async def fill(self, usage: Usage, *_: object) -> None:
        usage.source, usage.input_tokens = "estimated", 7


async def test_an_estimate_is_of_one_call() -> None:
    """Whatever is written of a stream that never began, another caller does not pay it."""
    exchange = Exchange(usage=UNKNOWN)
    relay = Relay(exchange, cast(Client, Silent()), cast(Estimator, Guess()), OPENAI, Call("gpt-4o", {}, stream=True))
    await relay.begin_within(0)
    assert exchange.estimate is not None
    await exchange.estimate()
    await exchange.release()
    assert exchange.usage == Usage(input_tokens=7, source="estimated")
    assert Usage() == UNKNOWN
