"""The tables that people read: medians, with the range of the rounds where there were several."""

from collections.abc import Sequence
from typing import Protocol

from .measures import Readings, Spread
from .targets import DIRECT, GATEWAY, KEYED, NGINX, PEERS

EVERYONE = (DIRECT, NGINX, GATEWAY, KEYED, *PEERS)
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
    "process": {
        "ready after, s": "start_seconds",
        "RSS idle, MB": "idle_mb",
        "loaded, at most": "loaded_mb",
        "after all calls": "after_mb",
        "calls": "calls",
    },
    "memory": {"calls": "calls", "RSS MB": "rss_mb", "growth %": "growth_percent"},
    "open-streams": {
        "RSS kB/stream": "kb_a_stream",
        "longest stall ms": "longest_stall_ms",
        "first byte p50 ms": "first_byte_p50_ms",
        "p99 ms": "first_byte_p99_ms",
        "CPU us/chunk": "itself_us_a_chunk",
    },
}
COLUMNS["latency"] = COLUMNS["json"]
COLUMNS["workers"] = {**COLUMNS["json"], "times one worker": "times_one"}
RATIO = {"json": "itself_us_a_call", "stream": "itself_us_a_chunk"}
SUMMARY = {
    "CPU us a JSON call, 32 in flight": ("json-32", "itself_us_a_call"),
    "of PostgreSQL beside": ("json-32", "postgres_us_a_call"),
    "of Redis beside": ("json-32", "redis_us_a_call"),
    "JSON calls/s on one core, 32 in flight": ("json-32", "calls_a_second"),
    "CPU us a chunk, paced": ("stream-paced", "itself_us_a_chunk"),
    "CPU us a chunk, as fast as it goes": ("stream-fast", "itself_us_a_chunk"),
    "added p50 ms, 1 in flight": ("json-1", "added_p50_ms"),
    "added p99 ms, 1 in flight": ("json-1", "added_p99_ms"),
    "added to the first byte, p50 ms": ("first-byte", "added_first_byte_p50_ms"),
    "ready after, s": ("process", "start_seconds"),
    "RSS idle, MB": ("process", "idle_mb"),
    "RSS loaded, MB": ("process", "loaded_mb"),
    "RSS after all calls, MB": ("process", "after_mb"),
}
"""What is worth one look, by measure and value."""
Rows = list[list[str]]


class Titled(Protocol):
    """What a table is of: a measure, or something else that has readings under its name."""

    @property
    def name(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def title(self) -> str: ...


def table(titled: Titled, readings: Readings) -> str:
    """All targets that have readings, a row each."""
    columns = COLUMNS[titled.group]
    rows = [["", *columns, "x nginx"]]
    for target in readings.targets(titled.name):
        cells = [_text(readings.spread(titled.name, target, name)) for name in columns.values()]
        rows.append([target, *cells, _ratio(titled, target, readings)])
    return f"\n{titled.title}\n{aligned(rows)}"


def summary(readings: Readings) -> Rows:
    """One row a value, one column a target."""
    targets = [name for name in EVERYONE if readings.has(name)]
    rows = [["", *targets]]
    for what, (measure, name) in SUMMARY.items():
        values = [readings.median(measure, target, name) for target in targets]
        if any(value is not None for value in values):
            rows.append([what, *("" if value is None else number(value) for value in values)])
    return rows


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


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a table for the README."""
    head, *body = rows
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _text(spread: Spread | None) -> str:
    if spread is None:
        return ""
    if spread.lowest == spread.highest:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.lowest)}..{number(spread.highest)})"


def number(value: float) -> str:
    """Three digits that mean something."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratio(titled: Titled, target: str, readings: Readings) -> str:
    name = RATIO.get(titled.group, "")
    mine, floor = readings.median(titled.name, target, name), readings.median(titled.name, NGINX, name)
    return f"{mine / floor:.1f}" if mine and floor else ""
