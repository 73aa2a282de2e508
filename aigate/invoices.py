"""Why: what a provider says that it charged comes in files of its own making, and must be read without guessing.

A column is found by its name. Three forms are known, a fourth is any table with common names:

- OpenRouter's activity export, one line a generation (`generation_id, created_at, cost_total, tokens_prompt,
  tokens_completion, model_permaslug ...`); times are UTC without saying so, costs are rounded to 1e-6 USD;
- OpenAI's usage export by model (`start_time_iso, model, num_model_requests, input_tokens, output_tokens ...`), one
  line a day, model, key and project, without costs;
- OpenAI's cost export (`start_time_iso, amount_value, amount_currency, line_item ...`), one line a day, or a day and
  line item such as `gpt-4o-mini-2024-07-18, cached input`, without tokens.

Whatever cannot be read is an `InvoiceError` that names its line and column.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NoReturn
from uuid import UUID

NAMES: Mapping[str, tuple[str, ...]] = {
    "request_id": ("request_id", "x_request_id", "requestid", "generation_id", "id"),
    "at": ("start_time_iso", "created_at", "timestamp", "time", "datetime", "created", "date", "day", "start_time"),
    "model": ("model", "model_permaslug", "model_name", "model_id"),
    "requests": ("num_model_requests", "requests", "request_count", "n_requests"),
    "input_tokens": ("input_tokens", "prompt_tokens", "tokens_prompt", "tokens_in"),
    "output_tokens": ("output_tokens", "completion_tokens", "tokens_completion", "tokens_out"),
    "cost": ("cost", "cost_usd", "cost_total", "total_cost", "amount_value", "amount_usd", "amount", "price_usd"),
    "currency": ("currency", "amount_currency"),
    "line_item": ("line_item",),
}
"""What a column means, by its name in lower case with underscores; the first that is there is taken."""

TIERS = ("priority", "flex")
"""Service tiers that OpenAI writes before a line item's model; any other such word is a product of its own."""

_CSV_FIELD = 1 << 20
_WORDS = re.compile(r"[^a-z0-9]+")
_SEPARATORS = ",;\t"


class InvoiceError(ValueError):
    """The file cannot be read; the message names its line and column."""


@dataclass(frozen=True, slots=True)
class Form:
    """What kind of export a file is: `provider` if that is certain, `rounding` of each cost in USD."""

    name: str
    provider: str | None
    rounding: Decimal = Decimal(0)


OPENROUTER = Form("OpenRouter's activity export", "openrouter", Decimal("0.0000005"))
OPENAI_USAGE = Form("OpenAI's usage export", "openai")
OPENAI_COSTS = Form("OpenAI's cost export", "openai")
TABLE = Form("a table with common column names", None)


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One line of the file; what it does not say is `None`. `cost` in USD. `request_id` only if it can be ours."""

    number: int
    request_id: UUID | None
    at: datetime | None
    model: str | None
    requests: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost: Decimal | None

    @property
    def empty(self) -> bool:
        """Whether it only says that there was nothing, as OpenAI's exports do of quiet days."""
        return not (self.requests or self.input_tokens or self.output_tokens or self.cost)


class Invoice:
    """An export on disk. Reads the header at once; `lines` reads the rest, line by line.

    Raises `InvoiceError` for a file that is no table, or has no column to compare by or with.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: dict[str, int] = {}
        self._header: list[str] = []
        header = next(self._rows(), None)
        if header is None:
            raise InvoiceError(f"{path.name} is empty")
        self._header = header[1]
        self._columns = _columns(self._header)
        self.form = _form(self._header)
        self._require()

    def says(self, what: str) -> bool:
        """Whether the file has a column for this (`cost`, `input_tokens` ...)."""
        return what in self._columns

    @property
    def of_calls(self) -> bool:
        """Whether each line is one call, by the ids that it has."""
        return "request_id" in self._columns

    def lines(self) -> Iterator[InvoiceLine]:
        """Every line but the header. Raises `InvoiceError` at the first that cannot be read."""
        rows = self._rows()
        next(rows)
        for number, cells in rows:
            if any(cell.strip() for cell in cells):
                yield self._line(number, cells)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(_CSV_FIELD)
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                first = file.readline()
                file.seek(0)
                reader = csv.reader(file, delimiter=max(_SEPARATORS, key=first.count), strict=True)
                for cells in reader:
                    yield reader.line_num, cells
        except UnicodeDecodeError as error:
            raise InvoiceError(f"{self.path.name} is not UTF-8 text: {error}") from error
        except csv.Error as error:
            raise InvoiceError(f"{self.path.name}, line {reader.line_num}: {error}") from error

    def _require(self) -> None:
        if "request_id" not in self._columns and "at" not in self._columns:
            self._lacks("the request id or the time", "request_id", "at")
        if not {"cost", "input_tokens", "output_tokens", "requests"} & self._columns.keys():
            self._lacks("a cost or a number of tokens", "cost", "input_tokens", "output_tokens")

    def _lacks(self, what: str, *names: str) -> NoReturn:
        known = ", ".join(name for column in names for name in NAMES[column])
        raise InvoiceError(
            f"{self.path.name}, line 1: no column says {what}; it may be called {known}. "
            f"There are: {', '.join(self._header)}"
        )

    def _line(self, number: int, cells: list[str]) -> InvoiceLine:
        if len(cells) != len(self._header):
            raise InvoiceError(
                f"{self.path.name}, line {number}: {len(cells)} cells, but the header has {len(self._header)}"
            )
        self._check_currency(number, cells)
        model = self._cell(cells, "model") or _model_of(self._cell(cells, "line_item"))
        return InvoiceLine(
            number=number,
            request_id=_uuid(self._cell(cells, "request_id")),
            at=self._time(number, cells),
            model=model or None,
            requests=self._count(number, cells, "requests"),
            input_tokens=self._count(number, cells, "input_tokens"),
            output_tokens=self._count(number, cells, "output_tokens"),
            cost=self._number(number, cells, "cost"),
        )

    def _cell(self, cells: list[str], what: str) -> str:
        return cells[self._columns[what]].strip() if what in self._columns else ""

    def _number(self, number: int, cells: list[str], what: str) -> Decimal | None:
        text = self._cell(cells, what).removeprefix("$")
        if not text:
            return None
        try:
            read = Decimal(text)
        except InvalidOperation:
            self._wrong(number, what, text, "is no number")
        if not read.is_finite():
            self._wrong(number, what, text, "is no number")
        return read

    def _count(self, number: int, cells: list[str], what: str) -> int | None:
        read = self._number(number, cells, what)
        if read is None:
            return None
        if read != read.to_integral_value() or read < 0:
            self._wrong(number, what, str(read), "is no count")
        return int(read)

    def _time(self, number: int, cells: list[str]) -> datetime | None:
        text = self._cell(cells, "at")
        if not text:
            return None
        try:
            read = datetime.fromtimestamp(int(text), UTC) if text.isdecimal() else datetime.fromisoformat(text)
        except (ValueError, OverflowError, OSError):
            self._wrong(number, "at", text, "is no time such as 2026-11-01 08:30:00")
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)

    def _check_currency(self, number: int, cells: list[str]) -> None:
        currency = self._cell(cells, "currency")
        if currency and currency.lower() != "usd":
            self._wrong(number, "currency", currency, "is not USD")

    def _wrong(self, number: int, what: str, text: str, why: str) -> NoReturn:
        column = self._header[self._columns[what]]
        raise InvoiceError(f"{self.path.name}, line {number}, column '{column}': {text!r} {why}") from None


def _columns(header: list[str]) -> dict[str, int]:
    named: dict[str, int] = {}
    for place, name in enumerate(header):
        named.setdefault(_WORDS.sub("_", name.strip().lower()).strip("_"), place)
    found = {what: next((name for name in names if name in named), None) for what, names in NAMES.items()}
    return {what: named[name] for what, name in found.items() if name is not None}


def _form(header: list[str]) -> Form:
    names = {name.strip().lower() for name in header}
    if {"generation_id", "cost_total", "model_permaslug"} <= names:
        return OPENROUTER
    if {"start_time_iso", "num_model_requests"} <= names:
        return OPENAI_USAGE
    return OPENAI_COSTS if {"start_time_iso", "amount_value"} <= names else TABLE


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _model_of(line_item: str) -> str:
    """The model of `gpt-4o-2024-08-06, input` or `priority | gpt-image-2 text, input`; else the item as it is."""
    product, separator, rest = line_item.rpartition(" | ")
    name, comma, _ = rest.partition(",")
    if not comma:
        return line_item
    model = name.strip().split(" ")[0]
    return f"{product} | {model}" if separator and product not in TIERS else model
