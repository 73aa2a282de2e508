"""Why: prices are set in bulk from a table that people keep, and a wrong cell must never become a wrong bill.

CSV or JSON (a list of objects), with the same names: `provider`, `model` (a name or a glob), prices in USD per
million tokens for `input`, `output`, `cache_read`, `cache_write`, `reasoning`, `audio`, `image`, `request` in USD a
call, `markup_percent`, `source`. A price that is left out is that of what contains it. Long inputs: another line (or
object) of the same model with `above_input_tokens`. Numbers are read as decimals and must be whole in 1e-9 USD.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from aigate.price_sheet import InexactPrice, nano
from aigate.pricing import PriceRule, Rates, Tier
from aigate.stores.prices import CLASSES

NAMES = frozenset(
    {"provider", "model", "request", "markup_percent", "source", "above_input_tokens", *CLASSES},
)


class PriceError(ValueError):
    """A price, or a file of prices, that cannot be taken; the message says where and why."""


def read_prices(path: Path) -> list[PriceRule]:
    """The rules of a file. Raises `PriceError`, and `OSError` if it cannot be opened."""
    entries = _json_entries(path) if path.suffix.lower() == ".json" else _csv_entries(path)
    rules: dict[tuple[str, str], PriceRule] = {}
    for place, entry in entries:
        try:
            _put(rules, entry)
        except PriceError as error:
            raise PriceError(f"{path.name}, {place}, {error}") from error
    if not rules:
        raise PriceError(f"{path.name} has no prices")
    return list(rules.values())


def rule_of(provider: str, model: str, given: Mapping[str, str], source: str = "") -> PriceRule:
    """A rule of the prices `given` as text. Raises `PriceError`."""
    if not provider or not model:
        raise PriceError("column 'provider' or 'model': is empty")
    for name in ("input", "output"):
        if not given.get(name):
            raise PriceError(f"column '{name}': is empty")
    markup = _decimal("markup_percent", given.get("markup_percent") or "0") * 10_000
    if markup != markup.to_integral_value() or not -1_000_000 <= markup <= 2_000_000_000:
        raise PriceError(f"column 'markup_percent': {given['markup_percent']!r} is finer than 0.0001 %, or too much")
    return PriceRule(
        provider=provider,
        model_pattern=model,
        rates=_rates(given, Rates()),
        request_nano=_nano("request", given.get("request") or "0"),
        markup_ppm=int(markup),
        source=source or given.get("source") or "",
    )


def _put(rules: dict[tuple[str, str], PriceRule], entry: Mapping[str, str]) -> None:
    provider, model = entry.get("provider", ""), entry.get("model", "")
    above, known = entry.get("above_input_tokens"), rules.get((provider, model))
    if above and above != "0":
        if known is None:
            raise PriceError("column 'above_input_tokens': the model's usual price must stand before this")
        if not above.isdecimal() or any(tier.above_input_tokens == int(above) for tier in known.tiers):
            raise PriceError(f"column 'above_input_tokens': {above!r} is no number of tokens, or stands here twice")
        tiers = (*known.tiers, Tier(int(above), _rates(entry, known.rates)))
        ascending = tuple(sorted(tiers, key=lambda tier: tier.above_input_tokens))
        rules[provider, model] = replace(known, tiers=ascending)
        return
    if known is not None:
        raise PriceError(f"column 'model': {provider}:{model} stands here twice")
    rules[provider, model] = rule_of(provider, model, entry)


def _rates(given: Mapping[str, str], base: Rates) -> Rates:
    return replace(base, **{name: _nano(name, given[name]) for name in CLASSES if given.get(name)})


def _nano(name: str, text: str) -> int:
    try:
        return nano(_decimal(name, text))
    except InexactPrice as error:
        raise PriceError(f"column '{name}': {error}") from error


def _decimal(name: str, text: str) -> Decimal:
    try:
        read = Decimal(text)
    except InvalidOperation:
        read = Decimal("NaN")
    if not read.is_finite() or abs(read) > 1_000_000_000:
        raise PriceError(f"column '{name}': {text!r} is no price")
    return read


def _csv_entries(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            _check_names(path, "line 1", reader.fieldnames or ())
            for row in reader:
                place = f"line {reader.line_num}"
                if None in row or None in row.values():
                    raise PriceError(f"{path.name}, {place}: not as many cells as the header has")
                yield place, {name: cell.strip() for name, cell in row.items()}
        except (csv.Error, UnicodeDecodeError) as error:
            raise PriceError(f"{path.name}, line {reader.line_num}: {error}") from error


def _json_entries(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        listed = json.loads(path.read_bytes(), parse_float=str, parse_int=str, parse_constant=str)
    except ValueError as error:
        raise PriceError(f"{path.name} is no JSON: {error}") from error
    if not isinstance(listed, list):
        raise PriceError(f"{path.name} is no list of objects")
    for number, entry in enumerate(listed, 1):
        place = f"entry {number}"
        if not isinstance(entry, dict) or not all(isinstance(value, str | None) for value in entry.values()):
            raise PriceError(f"{path.name}, {place}: is no object of texts and numbers")
        _check_names(path, place, entry)
        yield place, {name: value for name, value in entry.items() if value is not None}


def _check_names(path: Path, place: str, names: Any) -> None:
    unknown = [str(name) for name in names if name not in NAMES]
    if unknown:
        raise PriceError(f"{path.name}, {place}: unknown column '{unknown[0]}'; known are {', '.join(sorted(NAMES))}")
