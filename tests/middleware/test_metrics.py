"""What is counted, and under which labels."""

import pytest
from prometheus_client import CollectorRegistry

from middleware.asgi import ASGIApp, Receive, Scope, Send
from middleware.exchange import Exchange, Target, exchange_of
from middleware.faults import RateLimited
from middleware.metrics import MOST_KEPT, MOST_MODELS, Instruments, Metrics
from middleware.tally import Tally
from tests.middleware.driving import TARGET, Tokens, answering, drive, raising

CALL = {"provider": "openai", "model": "gpt-4o"}


def never_priced(provider: str, model: str) -> bool:
    return False


class Counted:
    """A metrics layer in front of `app`, and what it has counted."""

    def __init__(self, app: ASGIApp, priced: object = never_priced) -> None:
        self.registry = CollectorRegistry()
        tally = Tally()
        self.registry.register(tally)
        self.layer = Metrics(app, Instruments(tally, priced))

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"aigate_{name}", labels)


async def test_every_answer_is_counted() -> None:
    """By status, also where nothing was ever resolved."""
    counted = Counted(answering(b"no", status=401))
    await drive(counted.layer)
    assert counted("requests_total", provider="", model="", stream="false", status="401") == 1
    assert counted("request_duration_seconds_count", provider="", model="", stream="false") == 1


async def test_an_answered_call() -> None:
    """Provider, model and stream are the target's."""
    counted = Counted(answering(b"a"))
    await drive(counted.layer, exchange=Exchange(target=TARGET))
    assert counted("requests_total", **CALL, stream="true", status="200") == 1
    assert counted("time_to_first_byte_seconds_count", **CALL, stream="true") == 1


async def test_a_model_that_was_made_up() -> None:
    """A name that nobody priced and nobody answered to is no label."""
    counted = Counted(answering(b"no", status=404))
    await drive(counted.layer, exchange=Exchange(target=Target("openai", "made-up", stream=False)))
    assert counted("requests_total", provider="openai", model="other", stream="false", status="404") == 1


async def test_a_model_that_is_priced() -> None:
    """It has its label even where the call fails."""
    counted = Counted(answering(b"no", status=502), priced=lambda provider, model: model == "gpt-4o")
    await drive(counted.layer, exchange=Exchange(target=TARGET))
    assert counted("requests_total", **CALL, stream="true", status="502") == 1


async def test_models_have_a_bound() -> None:
    """However many names are answered to, only so many become labels."""
    counted = Counted(answering(b"a"))
    for number in range(MOST_MODELS + 5):
        await drive(counted.layer, exchange=Exchange(target=Target("openai", f"m{number}", stream=False)))
    assert counted("requests_total", provider="openai", model="other", stream="false", status="200") == 5
    assert counted("requests_total", provider="openai", model="m0", stream="false", status="200") == 1


async def test_a_fault_is_counted_by_its_code() -> None:
    """The errors have the word that the answer and the log have."""
    counted = Counted(answering(b"no", status=429))
    await drive(counted.layer, exchange=Exchange(target=TARGET, fault=RateLimited("x")))
    assert counted("errors_total", provider="openai", code="policy_rate_limited") == 1


async def test_a_replay_is_counted() -> None:
    """Answers given again are told from others."""
    counted = Counted(answering(b"a"))
    await drive(counted.layer, exchange=Exchange(replayed=True))
    assert counted("replays_total") == 1


async def test_tokens_and_cost() -> None:
    """What was spent is counted by class; a class that is empty has no series."""
    counted = Counted(answering(b"a"))
    exchange = Exchange(target=TARGET, usage=Tokens(cache_read_tokens=3), spent=True, billed=2_000_000_000)
    await drive(counted.layer, exchange=exchange)
    assert counted("tokens_total", **CALL, type="input") == 12
    assert counted("tokens_total", **CALL, type="cache_read") == 3
    assert counted("tokens_total", **CALL, type="audio") is None
    assert counted("billed_cost_total", **CALL) == 2.0


async def test_nothing_spent_counts_no_tokens() -> None:
    """A call that cost nothing consumed nothing."""
    counted = Counted(answering(b"a"))
    await drive(counted.layer, exchange=Exchange(target=TARGET, usage=Tokens(), spent=False))
    assert counted("tokens_total", **CALL, type="input") is None


async def test_many_calls() -> None:
    """However many are added up at once, each counts, under its own status."""
    many = 2 * MOST_KEPT + 3
    answered, refused = Counted(answering(b"a")), answering(b"no", status=502)
    failing = Metrics(refused, answered.layer.instruments)
    for number in range(many):
        exchange = Exchange(target=TARGET, usage=Tokens(), spent=True, billed=1_000_000_000, upstream_seconds=0.002)
        await drive(failing if number % 3 == 1 else answered.layer, exchange=exchange)
    failed = len(range(1, many, 3))
    assert answered("requests_total", **CALL, stream="true", status="502") == failed
    assert answered("requests_total", **CALL, stream="true", status="200") == many - failed
    assert answered("request_duration_seconds_count", **CALL, stream="true") == many
    assert answered("time_to_first_byte_seconds_count", **CALL, stream="true") == many
    assert answered("upstream_duration_seconds_count", **CALL) == many
    assert answered("upstream_duration_seconds_sum", **CALL) == pytest.approx(0.002 * many)
    assert answered("gateway_overhead_seconds_count", **CALL) == many
    assert answered("tokens_total", **CALL, type="input") == 12 * many
    assert answered("billed_cost_total", **CALL) == many


async def test_not_many_are_kept() -> None:
    """What waits to be added up has a bound."""
    counted = Counted(answering(b"a"))
    for _ in range(MOST_KEPT):
        await drive(counted.layer, exchange=Exchange(target=TARGET))
    assert counted.layer.instruments.requests.series == {("openai", "gpt-4o", "true", "200"): [MOST_KEPT]}


async def test_overhead_is_what_the_gateway_itself_took() -> None:
    """The first byte less the wait for the provider, never below nothing."""
    counted = Counted(answering(b"a"))
    exchange = Exchange(target=TARGET, usage=Tokens(), spent=True, upstream_seconds=1000.0)
    await drive(counted.layer, exchange=exchange)
    assert counted("gateway_overhead_seconds_sum", **CALL) == 0.0
    assert counted("upstream_duration_seconds_sum", **CALL) == 1000.0


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt()], ids=repr)
async def test_what_fails_is_counted_and_passes(error: BaseException) -> None:
    """A request that ended in an exception is over too."""
    counted = Counted(raising(error))
    with pytest.raises(type(error)):
        await drive(counted.layer)
    assert counted("requests_total", provider="", model="", stream="false", status="500") == 1
    assert counted("requests_in_flight") == 0


async def test_what_runs_is_in_flight() -> None:
    """While a request is being answered it counts as that."""
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(counted("requests_in_flight"))
        exchange_of(scope)

    counted = Counted(app)
    await drive(counted.layer)
    assert seen == [1]
    assert counted("requests_in_flight") == 0
