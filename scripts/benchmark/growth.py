"""How the CPU of a call grows with what there is of something: requests in flight, bytes, keys, rows, replicas.

Each curve is measured on one gateway with everything on, point after point, medians of the rounds. A curve does not
grow, or its reason stands beside it.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from . import rows
from .gateway import Bench, keyed
from .measures import SHORT, Measure, measured
from .svg import Chart, short
from .table import Rows, aligned, number
from .targets import GATEWAY, Prompt, Target

FLAT = 1.25
"""The last point at most so many times the first."""
STEEP, WIDE = 8, 10
"""Where an axis is logarithmic: growth of more than this, more than so many of something."""
LEVELS = (1, 4, 16, 64, 256, 1024)
TEXTS = (1_000, 10_000, 100_000, 1_000_000)
"""Bytes; the last are 200,000 tokens."""
IMAGES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
LENGTHS = (10, 100, 1_000, 10_000)
KEYS = (1, 100, 10_000, 100_000)
ROWS = (0, 10_000, 100_000, 1_000_000, 10_000_000)
ANSWERS = (0, 10_000, 100_000, 1_000_000)
REPLICAS = (1, 2, 3, 4)
IN_FLIGHT = 32
WARM_UP = 0.3
APART = 10_007
"""Keys between the first keys of two loads."""
Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """CPU microseconds by process at each point."""

    name: str
    title: str
    axis: str
    unit: str
    why: str
    points: Sequence[tuple[float, Values]] = ()

    def ratios(self) -> dict[str, float]:
        """The last point over the first, by process."""
        (_, first), (_, last) = self.points[0], self.points[-1]
        return {name: last[name] / first[name] for name in first if first[name]}

    def for_each(self) -> dict[str, float]:
        """Microseconds more for each one more on the axis, between the first point and the last, by process."""
        (begin, first), (end, last) = self.points[0], self.points[-1]
        return {name: (last[name] - first[name]) / (end - begin or 1) for name in first}

    def text(self) -> str:
        """The table, and whether it grows."""
        names = list(self.points[0][1])
        table: Rows = [[self.axis, *(f"{name} {self.unit}" for name in names)]]
        table += [[f"{at:,.0f}", *(number(values[name]) for name in names)] for at, values in self.points]
        ratios, each = self.ratios(), self.for_each()
        slope = ", ".join(f"{name} x {ratio:.2f} ({each[name]:+.3g} us for each)" for name, ratio in ratios.items())
        return f"\n{self.title}\n{aligned(table)}\n  last over first: {slope}\n  {self.verdict()}"

    def verdict(self) -> str:
        grows = any(ratio > FLAT for ratio in self.ratios().values())
        return f"grows: {self.why}" if grows else "does not grow"

    def row(self) -> list[str]:
        """In short: the first point and the last."""
        (begin, first), (end, last) = self.points[0], self.points[-1]
        cost = "; ".join(f"{name} {number(first[name])} to {number(last[name])}" for name in first)
        return [self.title, f"{short(begin)} to {short(end)}", cost, self.verdict()]

    def chart(self) -> Chart:
        names = list(self.points[0][1])
        series = {name: [(at, values[name]) for at, values in self.points] for name in names}
        steep = max(self.ratios().values(), default=1) > STEEP
        return Chart(self.title, self.axis, self.unit, series, log_x=self.points[-1][0] > WIDE, log_y=steep)

    def document(self) -> dict[str, object]:
        points = [{"at": at, **values} for at, values in self.points]
        return {"title": self.title, "unit": self.unit, "ratios": self.ratios(), "why": self.why, "points": points}


@dataclass(frozen=True, slots=True)
class Growth:
    """What the points are measured on and how long."""

    bench: Bench
    gateway: Target
    options: argparse.Namespace

    def call(self, target: Target, in_flight: int = IN_FLIGHT, prompt: Prompt = SHORT) -> Values:
        """CPU of a call, by process."""
        found = self._medians(Measure("growth", "json", "", "json", in_flight, self.options.seconds), target, prompt)
        watched = {GATEWAY: "itself", "postgres": "postgres", "redis": "redis"}
        return {shown: found[f"{name}_us_a_call"] for shown, name in watched.items()}

    def chunk(self, chunks: int) -> Values:
        """CPU of a chunk."""
        measure = Measure(
            "growth", "stream", "", f"stream-{chunks}-0", 4, self.options.seconds, chunks=chunks, most=2_000
        )
        return {GATEWAY: self._medians(measure, self.gateway, SHORT)["itself_us_a_chunk"]}

    def _medians(self, measure: Measure, target: Target, prompt: Prompt) -> dict[str, float]:
        measured(replace(measure, seconds=WARM_UP), target, prompt)
        rounds = [measured(measure, target, prompt) for _ in range(self.options.repeats)]
        return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}

    def in_flight(self) -> Iterator[tuple[float, Values]]:
        return ((level, self.call(self.gateway, level)) for level in LEVELS)

    def texts(self) -> Iterator[tuple[float, Values]]:
        return ((size, self.call(self.gateway, 8, Prompt(size))) for size in TEXTS)

    def images(self) -> Iterator[tuple[float, Values]]:
        return ((size, self.call(self.gateway, 4, Prompt(size, image=True))) for size in IMAGES)

    def lengths(self) -> Iterator[tuple[float, Values]]:
        return ((length, self.chunk(length)) for length in LENGTHS)

    def keys(self) -> Iterator[tuple[float, Values]]:
        """Each call with the next key, and each load with others than the one before, as far as there are others."""
        for wanted, present in self._filled(rows.API_KEYS, KEYS):

            def turn(load: int, call: int, among: int = present) -> bytes:
                return rows.authorization_of((load * APART + call) % among + 1)

            yield wanted, self.call(replace(self.gateway, headers=b"", varying=turn))

    def ledger(self) -> Iterator[tuple[float, Values]]:
        most = [wanted for wanted in ROWS if wanted <= self.options.rows]
        return ((present, self.call(self.gateway)) for _, present in self._filled(rows.LEDGER, most))

    def answers(self) -> Iterator[tuple[float, Values]]:
        target = keyed(self.gateway)
        return ((present, self.call(target)) for _, present in self._filled(rows.IDEMPOTENCY, ANSWERS))

    def replicas(self) -> Iterator[tuple[float, Values]]:
        """Gateways on the same stores and the same core, asked in turn."""
        with ExitStack() as stack:
            started: list[Target] = []
            for count in REPLICAS:
                started.append(stack.enter_context(self.bench.gateway()))
                pids = [target.process.pid for target in started if target.process]
                ports = [port for target in started for port in target.ports]
                yield count, self.call(self.bench.target(GATEWAY, pids, ports))

    def _filled(self, table: rows.Table, steps: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Each number of rows that is wanted, and how many there are; ends where no more could be made."""
        present = 0
        for wanted in steps:
            before = present
            present = rows.fill(self.bench.stores.database_url, self.bench.folder, table, present, wanted)
            if present or not wanted:
                yield wanted, present
            if present < wanted or (present == before and wanted):
                return


A_CALL, A_CHUNK = "us a call", "us a chunk"
BYTES = "every byte is received, parsed, checked, written and sent once"
CURVES: tuple[tuple[Curve, Callable[[Growth], Iterator[tuple[float, Values]]]], ...] = (
    (
        Curve(
            "in-flight",
            "CPU a call, by requests in flight",
            "in flight",
            A_CALL,
            "more is alive at once, and less of it in the caches of the processor",
        ),
        Growth.in_flight,
    ),
    (Curve("text", "CPU a call, by bytes of a text prompt", "bytes", A_CALL, BYTES), Growth.texts),
    (Curve("image", "CPU a call, by bytes of an image in base64", "bytes", A_CALL, BYTES), Growth.images),
    (
        Curve("stream-length", "CPU a chunk, by length of the stream", "chunks", A_CHUNK, "more is remembered"),
        Growth.lengths,
    ),
    (
        Curve("replicas", "CPU a call, by replicas on one core", "replicas", A_CALL, "smaller batches, less cached"),
        Growth.replicas,
    ),
    (
        Curve(
            "keys",
            "CPU a call, by keys that call in turn",
            "keys",
            A_CALL,
            "a key that was not seen for 5 s is looked up again, and its row is read",
        ),
        Growth.keys,
    ),
    (
        Curve("ledger", "CPU a call, by rows of the ledger", "rows", A_CALL, "the indexes are deeper"),
        Growth.ledger,
    ),
    (
        Curve(
            "idempotency",
            "CPU a keyed call, by answers that are kept",
            "answers",
            A_CALL,
            "the index by key is in no order, so its pages are",
        ),
        Growth.answers,
    ),
)


def in_short(curves: Sequence[Curve]) -> Rows:
    """A row for each curve."""
    return [["", "from, to", "us", "which means"], *(curve.row() for curve in curves)]


def measure(growth: Growth, only: Sequence[str], say: Callable[[str], None]) -> list[Curve]:
    """The wanted curves; those that fill the stores come last."""
    curves = []
    for curve, points in CURVES:
        if curve.name in only:
            say(curve.title)
            curves.append(replace(curve, points=tuple(points(growth))))
    return curves
