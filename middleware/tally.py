"""Counts and histograms that cost next to nothing to change, for Prometheus to collect.

prometheus-client's own metrics lock, check and walk through their buckets: 15 us a request for a dozen of them. Here
a series is a list of numbers, changed in place (0.2 us), and the library is asked when somebody scrapes. Who counts
often keeps what happened and adds it up when there is much of it, or before the numbers are read. Several worker
processes add up by what each has saved in a folder that they share.

Source: https://prometheus.github.io/client_python/collector/custom/
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import orjson
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import INF, floatToGoString

Labels: TypeAlias = tuple[str, ...]
Cells: TypeAlias = list[float]
"""One series: the value of a counter or a gauge; of a histogram what fell into each bucket, and last the sum."""


@dataclass(slots=True)
class Family:
    """The series of one metric by their labels. `bounds` are a histogram's; a `gauge` is of the living only."""

    name: str
    text: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    gauge: bool = False
    series: dict[Labels, Cells] = field(default_factory=dict)

    def cells(self, *labels: str) -> Cells:
        """The numbers of this series, to be changed in place."""
        found = self.series.get(labels)
        if found is None:
            found = self.series[labels] = [0.0] * (len(self.bounds) + 2 if self.bounds else 1)
        return found

    def observe(self, cells: Cells, values: Iterable[float]) -> None:
        """Count `values` in a series of this histogram: once they are sorted, bucket by bucket and not one by one."""
        ordered = sorted(values)
        before = 0
        for bucket, bound in enumerate(self.bounds):
            if before == len(ordered):
                break
            so_far = bisect_right(ordered, bound, before)
            cells[bucket] += so_far - before
            before = so_far
        cells[len(self.bounds)] += len(ordered) - before
        cells[-1] += sum(ordered)

    def metric(self) -> Metric:
        """What Prometheus is told."""
        if self.bounds:
            histogram = HistogramMetricFamily(self.name, self.text, labels=self.labels)
            for labels, cells in self.series.items():
                histogram.add_metric(labels, _cumulated(self.bounds, cells), cells[-1])
            return histogram
        kind = GaugeMetricFamily if self.gauge else CounterMetricFamily
        metric = kind(self.name, self.text, labels=self.labels)
        for labels, cells in self.series.items():
            metric.add_metric(labels, cells[0])
        return metric


def _cumulated(bounds: Sequence[float], cells: Cells) -> list[tuple[str, float]]:
    total, buckets = 0.0, []
    for bound, count in zip((*bounds, INF), cells, strict=False):
        total += count
        buckets.append((floatToGoString(bound), total))  # type: ignore[no-untyped-call]
    return buckets


class Tally(Collector):
    """All families of this process; `shared` is where its siblings save theirs, if there are any."""

    def __init__(self, shared: Path | None = None) -> None:
        self._families: list[Family] = []
        self._shared = shared
        self._adding: list[Callable[[], None]] = []

    def family(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...] = (),
        *,
        bounds: tuple[float, ...] = (),
        gauge: bool = False,
    ) -> Family:
        """A new family; `bounds` make it a histogram."""
        family = Family(name, text, labels, bounds, gauge)
        self._families.append(family)
        return family

    def before_reading(self, add_up: Callable[[], None]) -> None:
        """Have `add_up` called whenever the numbers are about to be read."""
        self._adding.append(add_up)

    def collect(self) -> Iterable[Metric]:
        """Everything counted here and by the siblings, dead ones too."""
        self._add_up()
        siblings = [(_lives(int(file.stem)), orjson.loads(file.read_bytes())) for file in self._siblings()]
        for family in self._families:
            saved = [document[family.name] for lives, document in siblings if lives or not family.gauge]
            yield _summed(family, saved).metric()

    def save(self) -> None:
        """Let the siblings know what was counted so far."""
        if self._shared is None:
            return
        self._add_up()
        document = {family.name: [[*item] for item in family.series.items()] for family in self._families}
        new = self._shared / f"{os.getpid()}.new"
        new.write_bytes(orjson.dumps(document))
        new.replace(self._shared / f"{os.getpid()}.json")

    def _add_up(self) -> None:
        for add_up in self._adding:
            add_up()

    def _siblings(self) -> list[Path]:
        own = f"{os.getpid()}.json"
        return [] if self._shared is None else [file for file in self._shared.glob("*.json") if file.name != own]


def _summed(family: Family, others: Iterable[Iterable[tuple[list[str], Cells]]]) -> Family:
    total = Family(family.name, family.text, family.labels, family.bounds, family.gauge)
    for labels, cells in family.series.items():
        total.series[labels] = list(cells)
    for series in others:
        for names, cells in series:
            mine = total.cells(*names)
            mine[:] = map(sum, zip(mine, cells, strict=True))
    return total


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, PermissionError):  # it has ended, or its number is somebody else's by now
        return False
    return True
