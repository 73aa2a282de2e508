"""The tables that people read: medians, with the range of the rounds where there were several."""

from collections.abc import Iterator, Sequence

from .measures import Measure, Readings, Spread
from .targets import NGINX

COLUMNS = {
    "json": {
        "calls/s": "calls_a_second",
        "CPU us/call": "itself_us_a_call",
        "no core us": "waited_us_a_call",
        "postgres us": "postgres_us_a_call",
        "redis us": "redis_us_a_call",
        "p50 ms": "p50_ms",
        "p99 ms": "p99_ms",
        "added p50": "added_p50_ms",
        "added p95": "added_p95_ms",
        "added p99": "added_p99_ms",
    },
    "stream": {
        "chunks/s": "chunks_a_second",
        "CPU us/chunk": "itself_us_a_chunk",
        "CPU us/call": "itself_us_a_call",
        "no core us/call": "waited_us_a_call",
        "first byte p50 ms": "first_byte_p50_ms",
        "p99 ms": "first_byte_p99_ms",
        "longest gap ms": "longest_gap_ms",
    },
    "first-byte": {
        "first byte p50 ms": "first_byte_p50_ms",
        "p99 ms": "first_byte_p99_ms",
        "added p50": "added_first_byte_p50_ms",
        "added p95": "added_first_byte_p95_ms",
        "added p99": "added_first_byte_p99_ms",
    },
}
COLUMNS["latency"] = COLUMNS["json"]
RATIO = {"json": "itself_us_a_call", "stream": "itself_us_a_chunk"}


def tables(measures: Sequence[Measure], readings: Readings) -> Iterator[str]:
    """One table a measure."""
    for measure in measures:
        columns = COLUMNS[measure.group]
        rows = [["", *columns, "x nginx"]]
        for target in measure.targets:
            if readings.spread(measure.name, target, "calls_a_second"):
                cells = [_text(readings.spread(measure.name, target, name)) for name in columns.values()]
                rows.append([target, *cells, _ratio(measure, target, readings)])
        yield f"\n{measure.title}\n{aligned(rows)}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text: the first column to the left, numbers to the right; empty columns left out."""
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in zip(*columns, strict=True):
        first, *others = (
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(["  " + first, *others]).rstrip())
    return "\n".join(lines)


def _text(spread: Spread | None) -> str:
    if spread is None:
        return ""
    if spread.lowest == spread.highest:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.lowest)}..{number(spread.highest)})"


def number(value: float) -> str:
    """Three digits that mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratio(measure: Measure, target: str, readings: Readings) -> str:
    name = RATIO.get(measure.group, "")
    mine, floor = readings.spread(measure.name, target, name), readings.spread(measure.name, NGINX, name)
    return f"{mine.median / floor.median:.1f}" if mine and floor and floor.median else ""
