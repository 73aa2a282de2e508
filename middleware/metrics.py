"""Counts every answer, also those that inner layers refuse, under labels that no caller can invent.

A caller writes the model's name, so it becomes a label only if it has a price of its own or a provider has answered
under it, and only up to a bound; all others are `other`. Everything is read off the exchange when it is over: a
chunk that passes costs nothing here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from middleware.asgi import ASGIApp, Receive, Scope, Send
from middleware.exchange import Exchange, Target, Usage, exchange_of
from middleware.tally import Cells, Tally

MOST_MODELS = 500
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
OVERHEAD_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
USD_PER_NANO = 1e-9
TOKEN_TYPES = ("input", "cache_read", "cache_write", "output", "reasoning", "audio", "image")
TOKENS = attrgetter(*(f"{kind}_tokens" for kind in TOKEN_TYPES))
"""The tokens of a usage, of each type in turn."""


class Instruments:
    """The metric families; `priced(provider, model)` tells which names have a price of their own."""

    def __init__(self, tally: Tally, priced: Callable[[str, str], bool] = lambda provider, model: False) -> None:
        call = ("provider", "model")
        self.requests = tally.family("aigate_requests", "Answers given.", (*call, "stream", "status"))
        self.duration = tally.family(
            "aigate_request_duration_seconds", "From first header to last byte.", (*call, "stream"), bounds=SECONDS
        )
        self.first_byte = tally.family(
            "aigate_time_to_first_byte_seconds", "Until the answer's first byte.", (*call, "stream"), bounds=SECONDS
        )
        self.upstream = tally.family(
            "aigate_upstream_duration_seconds", "Waiting for the provider's answer to begin.", call, bounds=SECONDS
        )
        self.overhead = tally.family(
            "aigate_gateway_overhead_seconds", "First byte less the wait for upstream.", call, bounds=OVERHEAD_SECONDS
        )
        self.errors = tally.family("aigate_errors", "Faults, by whose they are.", ("provider", "code"))
        self.cost = tally.family("aigate_billed_cost", "Billed, in USD.", call)
        self.tokens = tally.family("aigate_tokens", "Tokens by class.", (*call, "type"))
        self.replays = tally.family("aigate_replays", "Answers given again, unbilled.").cells()
        self.in_flight = tally.family("aigate_requests_in_flight", "Being answered now.", gauge=True).cells()
        self._priced = priced
        self._models: set[tuple[str, str]] = set()
        self._series: dict[Target | None, _Series] = {}

    def record(self, exchange: Exchange) -> None:
        """Count one exchange that is over."""
        series = self._series.get(exchange.target) or self._found(exchange)
        series.answers(exchange.final_status)[0] += 1
        self.duration.observe(series.duration, exchange.elapsed)
        if exchange.first_byte is not None:
            self.first_byte.observe(series.first_byte, exchange.first_byte)
        if exchange.fault is not None:
            self.errors.cells(series.provider, exchange.fault.code)[0] += 1
        if exchange.replayed:
            self.replays[0] += 1
        if exchange.usage is not None and exchange.spent:
            self._record_call(series, exchange, exchange.usage)

    def _record_call(self, series: "_Series", exchange: Exchange, usage: Usage) -> None:
        upstream, overhead, cost = series.call or series.first_call()
        self.upstream.observe(upstream, exchange.upstream_seconds)
        if exchange.first_byte is not None:
            self.overhead.observe(overhead, max(0.0, exchange.first_byte - exchange.upstream_seconds))
        if exchange.billed:
            cost[0] += exchange.billed * USD_PER_NANO
        for kind, count in zip(TOKEN_TYPES, TOKENS(usage), strict=True):
            if count:
                series.tokens(kind)[0] += count

    def _found(self, exchange: Exchange) -> "_Series":
        """The series of this exchange; kept for the next one of its target, unless that still has no name."""
        provider, model, stream = self._labels(exchange)
        series = _Series(self, provider, model, stream)
        if exchange.target is None or exchange.target.model == model:
            self._series[exchange.target] = series
        return series

    def _labels(self, exchange: Exchange) -> tuple[str, str, str]:
        target = exchange.target
        if target is None:
            return "", "", "false"
        return target.provider, self._model(target, exchange), "true" if target.stream else "false"

    def _model(self, target: Target, exchange: Exchange) -> str:
        name = (target.provider, target.model)
        if name in self._models:
            return target.model
        answered = 200 <= exchange.final_status < 300
        if len(self._models) < MOST_MODELS and (answered or self._priced(*name)):
            self._models.add(name)
            return target.model
        return "other"


class _Series:
    """The numbers of one model, found once: to look each up costs more than to change it."""

    __slots__ = (
        *("_instruments", "_labels", "_statuses", "_tokens"),
        *("call", "duration", "first_byte", "provider"),
    )

    def __init__(self, instruments: Instruments, provider: str, model: str, stream: str) -> None:
        self.provider = provider
        self.duration = instruments.duration.cells(provider, model, stream)
        self.first_byte = instruments.first_byte.cells(provider, model, stream)
        self.call: tuple[Cells, Cells, Cells] | None = None
        self._instruments = instruments
        self._labels = provider, model, stream
        self._statuses: dict[int, Cells] = {}
        self._tokens: dict[str, Cells] = {}

    def first_call(self) -> tuple[Cells, Cells, Cells]:
        """What is counted of calls only: upstream, overhead, cost."""
        every = self._instruments
        families = every.upstream, every.overhead, every.cost
        upstream, overhead, cost = (family.cells(*self._labels[:2]) for family in families)
        self.call = upstream, overhead, cost
        return self.call

    def answers(self, status: int) -> Cells:
        cells = self._statuses.get(status)
        if cells is None:
            cells = self._statuses[status] = self._instruments.requests.cells(*self._labels, str(status))
        return cells

    def tokens(self, kind: str) -> Cells:
        cells = self._tokens.get(kind)
        if cells is None:
            cells = self._tokens[kind] = self._instruments.tokens.cells(*self._labels[:2], kind)
        return cells


@dataclass(frozen=True, slots=True)
class Metrics:
    app: ASGIApp
    instruments: Instruments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        self.instruments.in_flight[0] += 1
        try:
            await self.app(scope, receive, exchange.observe(send))
        finally:
            self.instruments.in_flight[0] -= 1
            self.instruments.record(exchange)
