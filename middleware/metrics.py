"""Counts every answer, also those that inner layers refuse, under labels that no caller can invent.

A caller writes the model's name, so it becomes a label only if it has a price of its own or a provider has answered
under it, and only up to a bound; all others are `other`. Everything is read off the exchange when it is over: a
chunk that passes costs nothing here. What was read is kept until there is much of it or somebody asks: to add up a
column of numbers costs little more than to add one.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from middleware.asgi import ASGIApp, Receive, Scope, Send
from middleware.exchange import Exchange, Target, exchange_of
from middleware.tally import Tally

MOST_MODELS = 500
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
OVERHEAD_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
USD_PER_NANO = 1e-9
TOKEN_TYPES = ("input", "cache_read", "cache_write", "output", "reasoning", "audio", "image")
MOST_KEPT = 128
"""Answers of one series that wait to be added up."""


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
        self._by_labels: dict[tuple[str, str, str], _Series] = {}
        tally.before_reading(self._add_up)

    def record(self, exchange: Exchange) -> None:
        """Count one exchange that is over."""
        series = self._series.get(exchange.target) or self._found(exchange)
        series.note(exchange)
        if exchange.fault is not None:
            self.errors.cells(series.provider, exchange.fault.code)[0] += 1
        if exchange.replayed:
            self.replays[0] += 1
        if len(series.durations) >= MOST_KEPT:
            self._add(series)

    def _add_up(self) -> None:
        for series in self._by_labels.values():
            if series.durations:
                self._add(series)

    def _add(self, series: "_Series") -> None:
        """Move what a series has noted into the families."""
        call = series.provider, series.model
        labels = *call, series.stream
        for status, count in Counter(series.statuses).items():
            self.requests.cells(*labels, str(status))[0] += count
        self.duration.observe(self.duration.cells(*labels), series.durations)
        self.first_byte.observe(self.first_byte.cells(*labels), series.first_bytes)
        if series.waits:
            self.upstream.observe(self.upstream.cells(*call), series.waits)
            self.overhead.observe(self.overhead.cells(*call), series.overheads)
            self.cost.cells(*call)[0] += series.billed * USD_PER_NANO
        for kind, count in zip(TOKEN_TYPES, series.tokens, strict=True):
            if count:
                self.tokens.cells(*call, kind)[0] += count
        series.clear()

    def _found(self, exchange: Exchange) -> "_Series":
        """The series of this exchange; kept for the next one of its target, unless that still has no name."""
        labels = self._labels(exchange)
        series = self._by_labels.get(labels)
        if series is None:
            series = self._by_labels[labels] = _Series(*labels)
        if exchange.target is None or exchange.target.model == series.model:
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
    """What exchanges of the same labels were, as long as it waits to be added up."""

    __slots__ = (
        *("provider", "model", "stream"),
        *("statuses", "durations", "first_bytes"),
        *("waits", "overheads", "billed", "tokens"),
    )

    def __init__(self, provider: str, model: str, stream: str) -> None:
        self.provider = provider
        self.model = model
        self.stream = stream
        self.clear()

    def clear(self) -> None:
        self.statuses: list[int] = []
        self.durations: list[float] = []
        self.first_bytes: list[float] = []
        self.waits: list[float] = []
        self.overheads: list[float] = []
        self.billed = 0
        self.tokens = [0] * len(TOKEN_TYPES)

    def note(self, exchange: Exchange) -> None:
        first_byte, usage = exchange.first_byte, exchange.usage
        self.statuses.append(exchange.status or exchange.final_status)
        self.durations.append(perf_counter() - exchange.started)
        if first_byte is not None:
            self.first_bytes.append(first_byte)
        if usage is None or not exchange.spent:
            return
        wait = exchange.upstream_seconds
        self.waits.append(wait)
        if first_byte is not None:
            self.overheads.append(first_byte - wait if first_byte > wait else 0.0)
        self.billed += exchange.billed or 0
        tokens = self.tokens
        tokens[0] += usage.input_tokens
        tokens[1] += usage.cache_read_tokens
        tokens[2] += usage.cache_write_tokens
        tokens[3] += usage.output_tokens
        tokens[4] += usage.reasoning_tokens
        tokens[5] += usage.audio_tokens
        tokens[6] += usage.image_tokens


@dataclass(frozen=True, slots=True)
class Metrics:
    app: ASGIApp
    instruments: Instruments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        self.instruments.in_flight[0] += 1.0
        try:
            await self.app(scope, receive, exchange.observe(send))
        finally:
            self.instruments.in_flight[0] -= 1.0
            self.instruments.record(exchange)
