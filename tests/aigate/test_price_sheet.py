"""Why: the sheet is a translation of somebody else's prices, so it is held against their own arithmetic."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices.data import providers as their_providers
from genai_prices.types import MatchLogic, ModelInfo, Provider

from aigate.price_sheet import PROVIDERS, RESELLERS, InexactPrice, nano, price_sheet
from aigate.pricing import PriceBook, PriceRule
from providers.contract import Usage

NOON = datetime.now(UTC).replace(hour=7, minute=30)
"""Today, at an hour when everything that depends on the hour is at its dearest."""

USAGES = [
    Usage(input_tokens=1_000, output_tokens=500),
    Usage(input_tokens=100_001, output_tokens=7, cache_read_tokens=99_000),
    Usage(input_tokens=300_001, output_tokens=77, cache_read_tokens=1_234, cache_write_tokens=55),
    Usage(input_tokens=1_200_001, output_tokens=9, cache_write_tokens=1_000_000),
]
SUFFIXES = ("", "-2026-01-01", "-20260101", "-latest", "-preview", "-mini", "-image", "-tts")


@pytest.fixture(scope="module")
def sheet() -> list[PriceRule]:
    return price_sheet(NOON)


def pairs() -> Iterator[tuple[str, Provider, list[Provider]]]:
    for theirs in their_providers:
        for name in PROVIDERS.get(theirs.id, ()):
            yield name, theirs, their_providers if name in RESELLERS else [theirs]


def names_of(clause: MatchLogic) -> Iterator[str]:
    """Names that a clause accepts, or nearly: also what a longer or shorter name would be taken for."""
    for kind, value in vars(clause).items():
        if not isinstance(value, str):
            for part in value:
                yield from names_of(part)
        elif kind == "equals":
            yield value
        elif kind != "regex":
            yield from (f"{start}{value}{end}" for start in ("", "us.", "x/") for end in SUFFIXES)


def known_names(theirs: Provider, market: list[Provider]) -> set[str]:
    sellers = [theirs, *(one for one in market if one.id in (theirs.fallback_model_providers or ()))]
    models = [model for seller in sellers for model in seller.models]
    return {model.id for model in models} | {name for model in models for name in names_of(model.match)}


def agrees(rule: PriceRule, model: ModelInfo) -> bool:
    prices = model.get_prices(NOON)
    return all(
        abs(prices.calc_price(usage)["total_price"] * 10**9 - rule.cost(usage)) <= Decimal("0.5") for usage in USAGES
    )


@pytest.mark.parametrize(("name", "theirs", "market"), [pytest.param(*pair, id=pair[0]) for pair in pairs()])
def test_every_name_costs_what_genai_prices_says(
    sheet: list[PriceRule], name: str, theirs: Provider, market: list[Provider]
) -> None:
    """With cache and tiers, for every name of the data and for names like them: no glob shadows another price."""
    book = PriceBook(sheet)
    checked, differing = 0, []
    for model_name in known_names(theirs, market):
        model = theirs.find_model(model_name, all_providers=market)
        rule = book.find(1, name, model_name, NOON.timestamp())
        if model is not None and rule is not None:
            checked += 1
            if not agrees(rule, model):
                differing.append((model_name, rule.model_pattern, model.id))
    assert checked
    assert differing == []


def test_no_pattern_appears_twice(sheet: list[PriceRule]) -> None:
    """The database takes one open rule a provider and pattern."""
    assert len({(rule.provider, rule.model_pattern) for rule in sheet}) == len(sheet)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "whisper-1"),
        ("openai", "tts-1"),
        ("mistral", "mistral-ocr-latest"),
        ("gemini", "gemini-omni-flash-preview"),
        ("qwen", "qwen-long"),
        ("openai", "no-such-model"),
    ],
)
def test_what_cannot_be_priced_by_the_token_is_left_out(sheet: list[PriceRule], provider: str, model: str) -> None:
    """Hours, pages, characters and unknown names have no rule, not a wrong one."""
    assert PriceBook(sheet).find(1, provider, model, NOON.timestamp()) is None


@pytest.mark.parametrize(
    ("provider", "model"),
    [("ollama", "llama3.2:1b"), ("vllm", "Qwen/Qwen3-8B"), ("llamacpp", "x"), ("lmstudio", "y"), ("echo", "echo")],
)
def test_local_models_are_free(sheet: list[PriceRule], provider: str, model: str) -> None:
    """They have a price, and it is zero."""
    rule = PriceBook(sheet).find(1, provider, model, NOON.timestamp())
    assert rule is not None
    assert rule.cost(Usage(input_tokens=10**6, output_tokens=10**6)) == 0


def test_qwen_is_tiered_by_the_input(sheet: list[PriceRule]) -> None:
    """qwen3-max costs 1.2 USD per million input tokens up to 32k, 2.4 up to 128k, 3 beyond."""
    book = PriceBook(sheet)
    rule = book.find(1, "qwen", "qwen3-max", NOON.timestamp())
    assert rule is not None
    costs = [rule.cost(Usage(input_tokens=count)) for count in (32_000, 100_000, 200_000)]
    assert costs == [38_400_000, 240_000_000, 600_000_000]


def test_a_price_by_the_hour_of_the_day_is_the_dearest() -> None:
    """The rule does not depend on when the sheet is made, and says what it did."""
    day, night = (price_sheet(NOON.replace(hour=hour)) for hour in (7, 23))
    assert day == night
    (rule,) = (rule for rule in day if (rule.provider, rule.model_pattern) == ("deepseek", "deepseek-v4-pro"))
    assert "dearest time of day" in rule.source


def test_image_tokens_cost_the_dearer_side(sheet: list[PriceRule]) -> None:
    """A model that draws is never billed as if it had written, and the rule says so."""
    rule = PriceBook(sheet).find(1, "gemini", "gemini-2.5-flash-image", NOON.timestamp())
    assert rule is not None
    assert rule.cost(Usage(output_tokens=1_000_000, image_tokens=1_000_000)) == 30_000_000_000
    assert "dearer" in rule.source


def test_only_what_openrouter_names_is_priced_there(sheet: list[PriceRule]) -> None:
    """Its rules are names, or names with a date: never a prefix that a dearer model could share."""
    assert not [rule.model_pattern for rule in sheet if rule.provider == "openrouter" and "*" in rule.model_pattern]


def test_money_is_converted_exactly_or_not_at_all() -> None:
    """A price finer than our unit is an error, not a rounding."""
    assert nano(Decimal("0.000000001")) == 1
    assert nano(Decimal("75")) == 75_000_000_000
    for inexact in ("0.0000000005", "-1"):
        with pytest.raises(InexactPrice):
            nano(Decimal(inexact))


def test_the_server_does_not_import_genai_prices() -> None:
    """It would pull pydantic into every process."""
    code = "import sys, aigate.price_sheet, aigate.stores.prices; print('genai_prices' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
