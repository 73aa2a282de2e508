"""Why: a gateway that refuses unpriced models must know the public prices on its first day.

The prices of the `genai-prices` package (bundled data, nothing is fetched), those of Qwen, which it lacks, and zero
for what runs on the operator's own machines. A price that no rule of ours can say (by the hour, the page or the
character) is left out rather than guessed: such a model stays unpriced. Where a public price depends on what a call
does not tell (the time of day, whether image tokens came in or went out), the dearer one is taken; `source` says so.

`genai_prices` is imported in here only when called: it pulls pydantic, and the server has no need of either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from aigate.pricing import PriceRule, Rates, Tier, is_glob

if TYPE_CHECKING:
    from genai_prices.types import MatchLogic, ModelInfo, ModelPrice, Provider, TieredPrices

PROVIDERS: Final = {
    "anthropic": ("anthropic",),
    "aws": ("bedrock",),
    "azure": ("azure",),
    "cerebras": ("cerebras",),
    "cohere": ("cohere",),
    "deepseek": ("deepseek",),
    "doubleword": ("doubleword",),
    "fireworks": ("fireworks",),
    "google": ("gemini", "vertex"),
    "groq": ("groq",),
    "mistral": ("mistral",),
    "moonshotai": ("moonshot",),
    "openai": ("openai",),
    "openrouter": ("openrouter",),
    "perplexity": ("perplexity",),
    "together": ("together",),
    "voyageai": ("voyage",),
    "x-ai": ("xai",),
    "zai": ("zai",),
}
"""genai-prices' name of a provider, and AIGate's names."""

RESELLERS: Final = frozenset({"azure", "vertex"})
"""Providers that also sell, at the maker's prices, models of the makers that genai-prices names as their fallback."""

FREE: Final = (("ollama", "*"), ("vllm", "*"), ("llamacpp", "*"), ("lmstudio", "*"), ("echo", "echo"))

QWEN_SOURCE: Final = "models.dev, provider alibaba (international), read 2026-11-23"
EMBEDDING_SOURCE: Final = "alibabacloud.com/help/en/model-studio/text-embedding-synchronous-api, 2026-03-24"
QWEN: Final = """
qwen-max           0     1.6   6.4   0.32  -       -
qwen-plus          0     0.4   1.2   0.08  0.5     4
qwen-plus          256k  1.2   3.6   0.24  1.5     12
qwen-turbo         0     0.05  0.2   0.01  -       0.5
qwen-flash         0     0.05  0.4   0.01  0.063   -
qwen-flash         256k  0.25  2     0.05  0.313   -
qwen3-max          0     1.2   6     0.24  1.5     -
qwen3-max          32k   2.4   12    0.48  3       -
qwen3-max          128k  3     15    0.6   3.75    -
qwen3-coder-plus   0     1     5     0.2   1.25    -
qwen3-coder-plus   32k   1.8   9     0.36  2.25    -
qwen3-coder-plus   128k  3     15    0.6   3.75    -
qwen3-coder-plus   256k  6     60    1.2   7.5     -
qwen3-coder-flash  0     0.3   1.5   0.06  0.375   -
qwen3-coder-flash  32k   0.5   2.5   0.1   0.625   -
qwen3-coder-flash  128k  0.8   4     0.16  1       -
qwen3-coder-flash  256k  1.6   9.6   0.32  2       -
qwen-vl-max        0     0.8   3.2   0.16  -       -
qwen-vl-plus       0     0.21  0.63  0.042 -       -
qwen3-vl-plus      0     0.2   1.6   0.04  0.25    -
qwen3-vl-plus      32k   0.3   2.4   0.06  0.375   -
qwen3-vl-plus      128k  0.6   4.8   0.12  0.75    -
qwen3-vl-flash     0     0.05  0.4   0.01  0.0625  -
qwen3-vl-flash     32k   0.075 0.6   0.015 0.09375 -
qwen3-vl-flash     128k  0.12  0.96  0.024 0.15    -
qwen3.5-plus       0     0.4   2.4   0.04  0.5     -
qwen3.5-plus       256k  0.5   3     0.05  0.625   -
qwen3.5-flash      0     0.1   0.4   0.01  0.125   -
qwen3.6-plus       0     0.5   3     0.05  0.625   -
qwen3.6-plus       256k  2     6     0.2   2.5     -
qwen3.7-plus       0     0.4   1.6   0.08  0.5     -
qwen3.7-plus       256k  1.2   4.8   0.24  1.5     -
qwq-plus           0     0.8   2.4   -     -       -
qvq-max            0     1.2   4.8   -     -       -
text-embedding-v3  0     0.07  0     -     -       -
text-embedding-v4  0     0.07  0     -     -       -
"""
"""USD per million tokens: model, above how many input tokens, input, output, cache read, cache write, reasoning.

Models without a published international price (qwen-long) and dated snapshots are left out. Cache reads are the
source's: a fifth of the input (implicit cache), a tenth for qwen3.5 and qwen3.6 (explicit cache). While they think,
qwen-plus and qwen-turbo charge the answer like the reasoning; a rule cannot say that, only the reasoning is dearer.
"""

_CLASSES: Final = {
    "input": ("input_mtok",),
    "output": ("output_mtok",),
    "cache_read": ("cache_read_mtok",),
    "cache_write": ("cache_write_mtok",),
    "reasoning": ("output_reasoning_mtok",),
    "audio": ("input_audio_mtok", "output_audio_mtok"),
    "image": ("input_image_mtok", "output_image_mtok"),
}
_KNOWN: Final = frozenset(key for keys in _CLASSES.values() for key in keys) | {"requests_kcount"}
_NOT_OF_TOKENS: Final = frozenset({"web_searches_kcount", "storage_searches_kcount"})
"""Tools that a call may use; the model is priced without them."""
_PART_OF_A_CLASS: Final = frozenset({"cache_write_1h_mtok", "cache_audio_read_mtok", "cache_image_read_mtok"})
"""Finer than our classes: one-hour cache writes cost what five-minute ones do, cached audio what cached text does."""


class InexactPrice(ValueError):
    """A price is finer than 1e-9 USD per million tokens, or negative."""


def nano(usd: Decimal) -> int:
    """USD as an integer of 1e-9 USD. Raises `InexactPrice` where that would round."""
    value = usd * 1_000_000_000
    if value != value.to_integral_value() or value < 0:
        raise InexactPrice(f"{usd} USD is no whole number of 1e-9 USD")
    return int(value)


def price_sheet(at: datetime | None = None) -> list[PriceRule]:
    """Every public price that we know, valid at the moment `at` (default: now), one rule a provider and pattern."""
    from genai_prices.data import providers

    at = at or datetime.now(UTC)
    rules = [*free_rules(), *qwen_rules()]
    for known in providers:
        for name in PROVIDERS.get(known.id, ()):
            rules.extend(_rules_of(name, known, providers if name in RESELLERS else [known], at))
    return rules


def free_rules() -> list[PriceRule]:
    """Zero-price rules of the providers that run on the operator's own machines."""
    return [PriceRule(provider=name, model_pattern=pattern, source="self-hosted") for name, pattern in FREE]


def qwen_rules() -> list[PriceRule]:
    """The rules of the table above."""
    tables: dict[str, list[Tier]] = {}
    for line in QWEN.split("\n")[1:-1]:
        model, above, *prices = line.split()
        rates = Rates(*(None if price == "-" else nano(Decimal(price)) for price in prices))  # type: ignore[arg-type]
        tables.setdefault(model, []).append(Tier(int(above.replace("k", "000")), rates))
    return [
        PriceRule(
            provider="qwen",
            model_pattern=model,
            rates=tiers[0].rates,
            tiers=tuple(tiers[1:]),
            source=EMBEDDING_SOURCE if "embedding" in model else QWEN_SOURCE,
        )
        for model, tiers in tables.items()
    ]


def _rules_of(name: str, known: Provider, market: list[Provider], at: datetime) -> Iterator[PriceRule]:
    """One provider's rules: a name costs what genai-prices finds for it, a glob what the first model with it does."""
    makers = {provider.id: provider for provider in market}
    sellers = [known, *(makers[maker] for maker in known.fallback_model_providers or () if maker in makers)]
    seen = set()
    for seller in sellers:
        for model in seller.models:
            for pattern in dict.fromkeys([model.id, *_patterns(model.match)]):
                if pattern not in seen:
                    seen.add(pattern)
                    found = model if is_glob(pattern) else known.find_model(pattern, all_providers=market) or model
                    rule = _rule(name, seller, found, at)
                    if rule is not None:
                        yield replace(rule, model_pattern=pattern)


def _patterns(clause: MatchLogic) -> Iterator[str]:
    """The names and globs that a clause of genai-prices accepts; its negative look-aheads are dropped."""
    for name, value in vars(clause).items():
        match name:
            case "equals":
                yield value
            case "starts_with":
                yield f"{value}*"
            case "ends_with":
                yield f"*{value}"
            case "contains":
                yield f"*{value}*"
            case "regex":
                yield from _globs_of(value)
            case _:
                for part in value:
                    yield from _patterns(part)


def _globs_of(regex: str) -> Iterator[str]:
    """A regular expression of literals and digits as a glob; nothing for one that is more than that."""
    if not regex.startswith("^") or "(" in regex:
        return
    glob = re.sub(r"\\d\{(\d+)}", lambda found: "[0-9]" * int(found[1]), regex[1:].removesuffix("$"))
    glob = glob.replace(r"\d", "[0-9]").replace("\\.", ".")
    yield glob if regex.endswith("$") else f"{glob}*"


def _rule(name: str, seller: Provider, model: ModelInfo, at: datetime) -> PriceRule | None:
    """The price of a model under its own id; `None` if we cannot say it."""
    prices, remarks = _prices_at(model, at)
    values = {key: value for key, value in prices.__dict__.items() if value is not None}
    free = not values and model.id.endswith(":free")
    sayable = "input_mtok" in values and values.keys() <= _KNOWN | _NOT_OF_TOKENS | _PART_OF_A_CLASS
    if not (sayable or free):
        return None
    if values.keys() & {"output_audio_mtok", "output_image_mtok"}:
        remarks.append("audio and image tokens at the dearer of input and output")
    if any(_is_float_noise(value) for value in values.values()):
        remarks.append("to the nearest 1e-9 USD per million tokens")
    starts = sorted({tier.start for value in values.values() for tier in getattr(value, "tiers", ())})
    requests = values.get("requests_kcount", Decimal(0))
    return PriceRule(
        provider=name,
        model_pattern=model.id,
        rates=_rates(values, -1),
        tiers=tuple(Tier(start, _rates(values, start)) for start in starts),
        request_nano=nano(requests / 1000),
        source="; ".join([f"genai-prices {seller.id}/{model.id}", *remarks]),
    )


def _rates(values: dict[str, Any], start: int) -> Rates:
    """The prices of a call whose input is just longer than `start`."""
    found = {}
    for name, keys in _CLASSES.items():
        prices = [_price_above(values[key], start) for key in keys if key in values]
        if prices:
            found[name] = nano(_denoised(max(prices)))
    return Rates(**found)


def _price_above(price: Decimal | TieredPrices, start: int) -> Decimal:
    if isinstance(price, Decimal):
        return price
    return next((tier.price for tier in reversed(price.tiers) if tier.start <= start), price.base)


def _is_float_noise(price: object) -> bool:
    """Whether a price has the 15 and more decimals of a printed float (OpenRouter's twelfths of a dollar)."""
    return isinstance(price, Decimal) and int(price.as_tuple().exponent) <= -15


def _denoised(price: Decimal) -> Decimal:
    return round(price, 9) if _is_float_noise(price) else price


def _prices_at(model: ModelInfo, at: datetime) -> tuple[ModelPrice, list[str]]:
    """The prices valid at the date, the dearest of those that depend on the time of day, and what to remark."""
    from genai_prices.types import ModelPrice, TimeOfDateConstraint

    if isinstance(model.prices, ModelPrice):
        return model.prices, []
    candidates = []
    for conditional in reversed(model.prices):
        if isinstance(conditional.constraint, TimeOfDateConstraint):
            candidates.append(conditional.prices)
        elif conditional.constraint is None or conditional.constraint.active(at):
            candidates.append(conditional.prices)
            break
    candidates = candidates or [model.prices[0].prices]
    remarks = ["the dearest time of day"] if len(candidates) > 1 else []
    return max(candidates, key=_height), remarks


def _height(prices: ModelPrice) -> Decimal:
    return sum((_price_above(value, -1) for value in prices.__dict__.values() if value is not None), Decimal(0))
