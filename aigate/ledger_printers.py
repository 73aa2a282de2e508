"""Why: rows of the ledger are read by people, by scripts and by spreadsheets, and all must read the same digits.

A printer prints one row and remembers none.
"""

import csv
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import orjson

from aigate.human import usd, written

if TYPE_CHECKING:
    import asyncpg

Printer: TypeAlias = Callable[["asyncpg.Record"], None]

COLUMNS = {
    "OPENED (UTC)": 20,
    "REQUEST ID": 33,
    "ORGANISATION": 20,
    "MODEL": 36,
    "OUTCOME": 18,
    "USAGE": 10,
    "INPUT": 9,
    "OUTPUT": 9,
    "USD": 14,
}


def table() -> Printer:
    """Columns for people; the head is printed at once."""
    line = " ".join(f"{{:{'>' if name in ('INPUT', 'OUTPUT', 'USD') else '<'}{n}}}" for name, n in COLUMNS.items())
    _say(line.format(*COLUMNS))

    def say(row: "asyncpg.Record") -> None:
        opened = row["opened_at"].astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        ended = row["outcome"] if row["state"] == "settled" else f"{row['state']} {row['outcome'] or ''}".strip()
        cells = (opened, row["request_id"].hex, row["organisation"], f"{row['provider']}:{row['model']}", ended)
        counts = (row["usage_source"], row["input_tokens"], row["output_tokens"], usd(row["billed_cost_nano"]))
        _say(line.format(*cells, *counts))

    return say


def jsonl() -> Printer:
    """One JSON object a line."""
    return _say_json


def _say_json(row: "asyncpg.Record") -> None:
    document = plain(row) | {"billed_cost_usd": orjson.Fragment(usd(row["billed_cost_nano"]))}
    _say(orjson.dumps(document).decode())


def comma_separated() -> Printer:
    """CSV with a head, under which everything that `jsonl` says stands."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    started = False

    def say(row: "asyncpg.Record") -> None:
        nonlocal started
        document = plain(row) | {"billed_cost_usd": usd(row["billed_cost_nano"])}
        if not started:
            started = True
            writer.writerow(document)
        writer.writerow(document.values())

    return say


def plain(row: "asyncpg.Record", but: str = "") -> dict[str, Any]:
    """A row with ids in hex, times as RFC 3339 and numbers with all their digits."""
    return {name: _value(value) for name, value in row.items() if name != but}


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return written(value)
    if isinstance(value, Decimal):
        return orjson.Fragment(f"{value:f}")
    return value.hex if isinstance(value, UUID) else value


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


PRINTERS = {"table": table, "jsonl": jsonl, "csv": comma_separated}
