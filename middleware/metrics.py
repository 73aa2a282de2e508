"""Counts every answer, also those that inner layers refuse, under labels that no caller can invent.

A caller writes the model's name, so it becomes a label only if it has a price of its own or a provider has answered
under it, and only up to a bound; all others are `other`. Everything is read off the exchange when it is over: a
chunk that passes costs nothing here. With several workers prometheus-client adds up through
`PROMETHEUS_MULTIPROC_DIR` (https://prometheus.github.io/client_python/multiprocess/).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from middleware.asgi import ASGIApp, Receive, Scope, Send
from middleware.exchange import Exchange, Target, Usage, exchange_of

MOST_MODELS = 500
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
OVERHEAD_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
USD_PER_NANO = 1e-9
TOKEN_TYPES = tuple(
    (kind, f"{kind}_tokens")
    for kind in ("input", "cache_read", "cache_write", "output", "reasoning", "audio", "image")
)
"""The label of each class and its name in a usage."""


@dataclass(slots=True)
class Instruments:
    """The metric families; `priced(provider, model)` tells which names have a price of their own."""

    registry: CollectorRegistry
    priced: Callable[[str, str], bool] = lambda provider, model: False
    requests: Counter = field(init=False)
    duration: Histogram = field(init=False)
    first_byte: Histogram = field(init=False)
    upstream: Histogram = field(init=False)
    overhead: Histogram = field(init=False)
    in_flight: Gauge = field(init=False)
    errors: Counter = field(init=False)
    replays: Counter = field(init=False)
    cost: Counter = field(init=False)
    tokens: Counter = field(init=False)
    _models: set[tuple[str, str]] = field(init=False, default_factory=set)
    _series: dict[tuple[str, str, str], "_Series"] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        registry, call = self.registry, ("provider", "model")

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        self.requests = Counter(
            "aigate_requests_total", "Answers given.", (*call, "stream", "status"), registry=registry
        )
        self.duration = histogram(
            "aigate_request_duration_seconds", "From first header to last byte.", (*call, "stream"), SECONDS
        )
        self.first_byte = histogram(
            "aigate_time_to_first_byte_seconds", "Until the answer's first byte.", (*call, "stream"), SECONDS
        )
        self.upstream = histogram(
            "aigate_upstream_duration_seconds", "Waiting for the provider's answer to begin.", call, SECONDS
        )
        self.overhead = histogram(
            "aigate_gateway_overhead_seconds",
            "First byte less the wait for upstream.",
            call,
            OVERHEAD_SECONDS,
        )
        self.in_flight = Gauge(
            "aigate_requests_in_flight", "Being answered now.", registry=registry, multiprocess_mode="livesum"
        )
        self.errors = Counter(
            "aigate_errors_total", "Faults, by whose they are.", ("provider", "code"), registry=registry
        )
        self.replays = Counter("aigate_replays_total", "Answers given again, unbilled.", registry=registry)
        self.cost = Counter("aigate_billed_cost_total", "Billed, in USD.", call, registry=registry)
        self.tokens = Counter("aigate_tokens_total", "Tokens by class.", (*call, "type"), registry=registry)

    def record(self, exchange: Exchange) -> None:
        """Count one exchange that is over."""
        labels = self._labels(exchange)
        series = self._series.get(labels) or self._keep(labels)
        series.answers[exchange.final_status].inc()
        series.duration.observe(exchange.elapsed)
        if exchange.first_byte is not None:
            series.first_byte.observe(exchange.first_byte)
        if exchange.fault is not None:
            self.errors.labels(labels[0], exchange.fault.code).inc()
        if exchange.replayed:
            self.replays.inc()
        if exchange.usage is not None and exchange.spent:
            series.record_call(exchange, exchange.usage)

    def _keep(self, labels: tuple[str, str, str]) -> "_Series":
        series = self._series[labels] = _Series(self, *labels)
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
        if len(self._models) < MOST_MODELS and (answered or self.priced(*name)):
            self._models.add(name)
            return target.model
        return "other"


class _Series:
    """The metrics with the labels of one model: to look each up costs three times as much as to change it."""

    __slots__ = ("_cost", "_tokens", "answers", "duration", "first_byte", "overhead", "upstream")

    def __init__(self, instruments: Instruments, provider: str, model: str, stream: str) -> None:
        call = (provider, model)
        self.duration = instruments.duration.labels(*call, stream)
        self.first_byte = instruments.first_byte.labels(*call, stream)
        self.upstream = instruments.upstream.labels(*call)
        self.overhead = instruments.overhead.labels(*call)
        self._cost = instruments.cost.labels(*call)
        self._tokens = _Counters(lambda kind: instruments.tokens.labels(*call, kind))
        self.answers = _Counters(lambda status: instruments.requests.labels(*call, stream, str(status)))

    def record_call(self, exchange: Exchange, usage: Usage) -> None:
        self.upstream.observe(exchange.upstream_seconds)
        if exchange.first_byte is not None:
            self.overhead.observe(max(0.0, exchange.first_byte - exchange.upstream_seconds))
        if exchange.billed:
            self._cost.inc(exchange.billed * USD_PER_NANO)
        for kind, attribute in TOKEN_TYPES:
            count = getattr(usage, attribute)
            if count:
                self._tokens[kind].inc(count)


class _Counters(dict[object, Counter]):
    """Counters by their last label, each made when it first counts something."""

    def __init__(self, make: Callable[[object], Counter]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, label: object) -> Counter:
        counter = self[label] = self._make(label)
        return counter


@dataclass(frozen=True, slots=True)
class Metrics:
    app: ASGIApp
    instruments: Instruments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        self.instruments.in_flight.inc()
        try:
            await self.app(scope, receive, exchange.observe(send))
        finally:
            self.instruments.in_flight.dec()
            self.instruments.record(exchange)
