"""The measurements. Each goes over all targets in turn, and the turns are repeated: a bad second of the machine
then hits all of them, and the median forgets it.

A measure is a load and what to read off it. Values are plain numbers by name: microseconds (`us`), milliseconds
(`ms`), calls or chunks a second.
"""

import functools
import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .load import Result, Work, run
from .system import BenchmarkError, waited
from .targets import DIRECT, GATEWAY, KEYED, NGINX, PEERS, Prompt, Target

PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
STREAMS, PACE = 100, 50
"""Paced streams at once, and chunks a second of each."""
FAST_CHUNKS, FAST_STREAMS = 100, 16
THINKING = 50
"""Milliseconds that the provider takes where latency is measured under load that does not saturate."""
FRAMING_CHUNKS = 3
"""Events of a stream beside its words: the finish reason, the usage, the terminator."""
SHORT = Prompt()
numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Measure:
    """A load on each of `targets`. `chunks` of a stream; 0 is a whole answer."""

    name: str
    group: str
    title: str
    model: str
    in_flight: int
    seconds: float
    targets: tuple[str, ...] = (DIRECT, NGINX, GATEWAY, *PEERS)
    chunks: int = 0
    most: int = 0
    """End after so many calls instead: streams that all begin and end together. 0 is no limit."""
    ramp: float = 0.0

    def work(self, target: Target, prompt: Prompt) -> Work:
        stream = self.chunks > 0
        varying = target.varying
        return Work(
            ports=target.ports,
            request=target.request(self.model, stream=stream, prompt=prompt),
            in_flight=self.in_flight,
            seconds=self.seconds,
            stream=stream,
            header=functools.partial(varying, next(numbers)) if varying else None,
            most=self.most,
            ramp=self.ramp,
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """What the rounds gave for one value."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))


@dataclass(slots=True)
class Readings:
    """All values of all rounds, by measure, target and name of the value."""

    values: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    """What a peer did not stand, and why: it has no values then."""

    def add(self, measure: str, target: str, read: Mapping[str, float]) -> None:
        for name, value in read.items():
            self.values.setdefault((measure, target, name), []).append(value)

    def fail(self, measure: str, target: str, why: str) -> None:
        """Forget what was read of it: half of the rounds are no median."""
        self.failures[measure, target] = why
        for key in [key for key in self.values if key[:2] == (measure, target)]:
            del self.values[key]

    def spread(self, measure: str, target: str, name: str) -> Spread | None:
        values = self.values.get((measure, target, name))
        return Spread.of(values) if values else None

    def median(self, measure: str, target: str, name: str) -> float | None:
        spread = self.spread(measure, target, name)
        return spread.median if spread else None

    def named(self) -> dict[str, dict[str, dict[str, list[float]]]]:
        """All values, nested: measure, target, name."""
        nested: dict[str, dict[str, dict[str, list[float]]]] = {}
        for (measure, target, name), values in self.values.items():
            nested.setdefault(measure, {}).setdefault(target, {})[name] = values
        return nested

    def targets(self, measure: str) -> list[str]:
        """Those that have values of this measure, in the order in which they came."""
        return list(dict.fromkeys(target for name, target, _ in self.values if name == measure))

    def has(self, target: str) -> bool:
        return any(target == name for _, name, _ in self.values)

    def add_differences(self, measures: Sequence[str]) -> None:
        """What each target adds to the direct way, round by round."""
        for (measure, target, name), values in list(self.values.items()):
            direct = self.values.get((measure, DIRECT, name))
            if measure in measures and target != DIRECT and direct is not None and name.endswith("_ms"):
                pairs = zip(values, direct, strict=True)
                self.values[measure, target, f"added_{name}"] = [mine - theirs for mine, theirs in pairs]


def measures(seconds: float, levels: Sequence[int], only: Sequence[str]) -> list[Measure]:
    """The measures of the wanted groups."""
    everyone = (DIRECT, NGINX, GATEWAY, KEYED, *PEERS)
    paced_seconds = max(0.5, 2 * seconds)
    chunks = round(paced_seconds * PACE)
    found = [
        *(
            Measure(f"json-{level}", "json", f"JSON, {level} in flight", "json", level, seconds, everyone)
            for level in levels
        ),
        *(
            Measure(
                f"latency-{level}",
                "latency",
                f"JSON, {level} in flight, provider takes {THINKING} ms",
                f"json-{THINKING}",
                level,
                seconds,
                everyone,
            )
            for level in levels
            if level > 1
        ),
        Measure(
            "stream-paced",
            "stream",
            f"{STREAMS} streams x {PACE} chunks/s",
            f"stream-{chunks}-{1000 // PACE}",
            STREAMS,
            paced_seconds,
            chunks=chunks,
            most=STREAMS,
        ),
        Measure(
            "stream-fast",
            "stream",
            f"{FAST_STREAMS} streams of {FAST_CHUNKS} chunks, as fast as it goes",
            f"stream-{FAST_CHUNKS}-0",
            FAST_STREAMS,
            seconds,
            chunks=FAST_CHUNKS,
        ),
        Measure(
            "first-byte", "first-byte", "short streams, 1 in flight", "stream-5-1", 1, seconds, everyone, chunks=5
        ),
    ]
    return [measure for measure in found if not only or measure.group in only]


def take(
    wanted: Sequence[Measure],
    targets: Sequence[Target],
    repeats: int,
    prompt: Prompt,
    say: Callable[[str], None],
    readings: Readings,
) -> None:
    """Measure everything, `repeats` times, target after target within each round."""
    for measure, round_number, target in _turns(wanted, targets, repeats):
        say(f"{measure.title}: {target.name} ({round_number}/{repeats})")
        if (measure.name, target.name) in readings.failures:
            continue
        try:
            readings.add(measure.name, target.name, measured(measure, target, prompt))
        except BenchmarkError as error:
            if target.name not in PEERS:
                raise
            readings.fail(measure.name, target.name, str(error))
    readings.add_differences([measure.name for measure in wanted])


def _turns(
    wanted: Sequence[Measure], targets: Sequence[Target], repeats: int
) -> Iterator[tuple[Measure, int, Target]]:
    for measure in wanted:
        for number in range(1, repeats + 1):
            for target in targets:
                if target.name in measure.targets:
                    yield measure, number, target


def measured(measure: Measure, target: Target, prompt: Prompt = SHORT) -> dict[str, float]:
    """The values of one load on one target."""
    own = list(target.watched["itself"]()) if target.watched else []
    before, queued = target.cpu(), sum(map(waited, own))
    result = run(measure.work(target, prompt))
    after = target.cpu()
    values = _latency(measure, result)
    calls = max(1, result.calls)
    chunks = measure.chunks + FRAMING_CHUNKS
    if own:
        values["waited_us_a_call"] = max(0.0, sum(map(waited, own)) - queued) * 1e6 / calls
    for name, spent in after.items():
        seconds = sum(cpu - before[name].get(pid, 0.0) for pid, cpu in spent.items())
        values[f"{name}_us_a_call"] = seconds * 1e6 / calls
        if measure.chunks:
            values[f"{name}_us_a_chunk"] = seconds * 1e6 / calls / chunks
    return values


def _latency(measure: Measure, result: Result) -> dict[str, float]:
    values = {"calls_a_second": result.calls / result.elapsed}
    if measure.chunks:
        values["chunks_a_second"] = values["calls_a_second"] * (measure.chunks + FRAMING_CHUNKS)
        values["longest_gap_ms"] = result.longest_gap * 1e3
        for name, share in PERCENTILES.items():
            values[f"first_byte_{name}_ms"] = result.percentile(share, result.first_bytes) * 1e3
    else:
        for name, share in PERCENTILES.items():
            values[f"{name}_ms"] = result.percentile(share) * 1e3
    return values
