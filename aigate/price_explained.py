"""Why: a price is trusted when it can be followed by hand: which rule it is, and what each class of tokens adds.

The steps are differences of the gateway's own arithmetic, so that they cannot say anything else than the bill.
"""

from decimal import Decimal

from aigate.human import usd, written
from aigate.pricing import PriceRule, Rates
from aigate.stores.prices import CLASSES
from providers.contract import Usage

TOKENS = {
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "cache_read_tokens": "of the input read from the cache",
    "cache_write_tokens": "of the input written to the cache",
    "reasoning_tokens": "of the output reasoning",
    "audio_tokens": "of them audio",
    "image_tokens": "of them image",
}
ORDER = "An organisation's own rules go first, names before patterns, more literal characters first, newer first."


def reason(rule: PriceRule, names: dict[int, str]) -> str:
    """Which rule it is, and by what it matches; `names` are those of organisations."""
    whose = "for all" if rule.organisation_id is None else f"{names.get(rule.organisation_id)}'s own"
    how = "by this very name" if rule.exact else "by its pattern"
    return f"rule {rule.id}, {rule.provider}:{rule.model_pattern}, {whose}, {how}, since {written(rule.valid_from)}"


def steps(rule: PriceRule, usage: Usage) -> list[str]:
    """What each class of tokens adds, one after the other: their sum is the cost, by the gateway's own arithmetic."""
    tier = next((tier for tier in reversed(rule.tiers) if usage.input_tokens > tier.above_input_tokens), None)
    rates = rule.rates if tier is None else tier.rates
    said = [f"prices for more than {tier.above_input_tokens} input tokens"] if tier else []
    said.append(f"USD per million tokens: {prices_of(rates)}")
    counted, charge = Usage(), 0
    for name, meaning in TOKENS.items():
        tokens = getattr(usage, name)
        if tokens:
            setattr(counted, name, tokens)
            added, charge = rates.charge(counted) - charge, rates.charge(counted)
            said.append(_step(f"{tokens} {meaning}", added))
    if rule.request_nano:
        said.append(_step("the call itself", rule.request_nano * 10**6))
    said.append(_step("raw cost", charge + rule.request_nano * 10**6))
    if rule.markup_ppm:
        marked = Decimal(charge + rule.request_nano * 10**6) * rule.markup_ppm / 10**6
        said.append(_step(f"mark-up of {percent(rule.markup_ppm)}", marked))
    return [*said, f"{'billed, rounded half-even to 1e-9 USD':<44} {usd(rule.cost(usage)):>24} USD"]


def _step(what: str, femto: int | Decimal) -> str:
    """`femto` in 1e-15 USD."""
    exact = Decimal(femto).scaleb(-15)
    return f"{what:<44} {f'{exact.normalize():f}':>24} USD"


def cells(rates: Rates) -> list[str]:
    """The price of each class in USD per million tokens."""
    prices = (getattr(rates, name) for name in CLASSES)
    return ["-" if price is None else usd(price) for price in prices]


def prices_of(rates: Rates) -> str:
    """The same as a sentence."""
    named = zip(CLASSES, cells(rates), strict=True)
    return ", ".join(f"{name.replace('_', ' ')} {price}" for name, price in named if price != "-")


def percent(ppm: int) -> str:
    """Millionths as per cent."""
    return f"{usd(ppm * 100_000)} %"
