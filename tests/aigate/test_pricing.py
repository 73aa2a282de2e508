"""Why: a wrong cost is money invented or lost, so the arithmetic is held against exact fractions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.pricing import REMEMBERED, PriceBook, PriceRule, Rates, Tier
from providers.contract import Usage

USD = 1_000_000_000
NOW = datetime(2026, 11, 23, tzinfo=UTC)

prices = st.integers(0, 200 * USD)
tokens = st.integers(0, 3_000_000)
rates = st.builds(Rates, prices, prices, *[st.none() | prices] * 5)
anything = st.builds(Usage, *[st.integers(-10, 3_000_000)] * 7)


@st.composite
def rules(draw: st.DrawFn) -> PriceRule:
    starts = draw(st.lists(st.integers(0, 1_000_000), max_size=3, unique=True).map(sorted))
    return PriceRule(
        provider="p",
        model_pattern="m",
        rates=draw(rates),
        tiers=tuple(Tier(start, draw(rates)) for start in starts),
        request_nano=draw(st.integers(0, USD)),
        markup_ppm=draw(st.integers(-1_000_000, 5_000_000)),
    )


@st.composite
def sound_usages(draw: st.DrawFn) -> Usage:
    """What no provider should contradict: classes fit into their containers and do not overlap."""
    fresh, read, write, audio, image, answer, reasoning, said = (draw(tokens) for _ in range(8))
    return Usage(
        input_tokens=fresh + read + write + audio + image,
        cache_read_tokens=read,
        cache_write_tokens=write,
        output_tokens=answer + reasoning + said,
        reasoning_tokens=reasoning,
        audio_tokens=audio,
        image_tokens=image,
    )


def oracle(rule: PriceRule, usage: Usage) -> Fraction:
    """The cost in 1e-9 USD before rounding, for a sound usage: one price a token, added up."""
    passed = [tier for tier in rule.tiers if usage.input_tokens > tier.above_input_tokens]
    of = max(passed, key=lambda tier: tier.above_input_tokens).rates if passed else rule.rates

    def own(price: int | None, container: int) -> int:
        return container if price is None else price

    parts = [
        (usage.cache_read_tokens, own(of.cache_read, of.input)),
        (usage.cache_write_tokens, own(of.cache_write, of.input)),
        (usage.audio_tokens, own(of.audio, of.input)),
        (usage.image_tokens, own(of.image, of.input)),
    ]
    fresh = usage.input_tokens - sum(count for count, _ in parts)
    parts += [(fresh, of.input), (usage.reasoning_tokens, own(of.reasoning, of.output))]
    parts.append((usage.output_tokens - usage.reasoning_tokens, of.output))
    nano = sum((Fraction(count * price, 1_000_000) for count, price in parts), Fraction(rule.request_nano))
    return nano * Fraction(1_000_000 + rule.markup_ppm, 1_000_000)


@given(rules(), sound_usages())
def test_a_cost_is_the_exact_sum_rounded_once_half_even(rule: PriceRule, usage: Usage) -> None:
    """Fractions and integers agree to the last digit."""
    assert rule.cost(usage) == round(oracle(rule, usage))
    assert rule.raw_cost(usage) == round(oracle(replace(rule, markup_ppm=0), usage))


@given(rules(), anything)
def test_no_report_makes_a_negative_cost(rule: PriceRule, usage: Usage) -> None:
    """Not even more cached tokens than tokens, or less than none."""
    assert rule.cost(usage) >= 0
    assert rule.raw_cost(usage) >= rule.request_nano


@given(rates, anything)
def test_every_token_is_priced_once(of: Rates, usage: Usage) -> None:
    """Whatever is reported, the total lies between all tokens at the lowest and all tokens at the highest price."""
    total = max(usage.input_tokens, 0) + max(usage.output_tokens, 0)
    prices_of = (of.input, of.output, of.cache_read, of.cache_write, of.reasoning, of.audio, of.image)
    known = [price for price in prices_of if price is not None]
    assert total * min(known) <= of.charge(usage) <= total * max(known)


@given(rates, sound_usages(), st.integers(0, 100_000), st.integers(0, 100_000))
def test_more_tokens_never_cost_less(of: Rates, usage: Usage, more_in: int, more_out: int) -> None:
    """Without tiers, a longer prompt or answer costs at least as much."""
    rule = PriceRule(provider="p", model_pattern="m", rates=of)
    longer = replace(usage, input_tokens=usage.input_tokens + more_in, output_tokens=usage.output_tokens + more_out)
    assert rule.cost(longer) >= rule.cost(usage)


@pytest.mark.parametrize(
    ("request_nano", "markup_ppm", "cost"), [(1, 500_000, 2), (3, -500_000, 2), (5, -500_000, 2)]
)
def test_halves_go_to_the_even_number(request_nano: int, markup_ppm: int, cost: int) -> None:
    """1.5 and 2.5 are both 2."""
    rule = PriceRule(provider="p", model_pattern="m", request_nano=request_nano, markup_ppm=markup_ppm)
    assert rule.cost(Usage()) == cost


def test_a_tier_prices_the_whole_call_once_it_is_passed() -> None:
    """At the limit the lower price still holds; one token more and every token costs the higher one."""
    rule = PriceRule(
        provider="p", model_pattern="m", rates=Rates(USD, USD), tiers=(Tier(200_000, Rates(2 * USD, 3 * USD)),)
    )
    assert rule.cost(Usage(input_tokens=200_000, output_tokens=1_000_000)) == 1_200_000_000
    assert rule.cost(Usage(input_tokens=200_001, output_tokens=1_000_000)) == 3_400_002_000


def test_cached_tokens_are_not_charged_twice() -> None:
    """They are part of the input, and a nonsensical count is cut to it."""
    rule = PriceRule(provider="p", model_pattern="m", rates=Rates(10 * USD, 0, cache_read=USD))
    assert rule.cost(Usage(input_tokens=1_000_000, cache_read_tokens=900_000)) == 1_900_000_000
    assert rule.cost(Usage(input_tokens=1_000_000, cache_read_tokens=9_000_000)) == 1_000_000_000


def test_audio_beyond_the_input_is_looked_for_in_the_output() -> None:
    """A spoken answer is priced as audio although the usage does not say on which side it was."""
    rule = PriceRule(provider="p", model_pattern="m", rates=Rates(USD, 2 * USD, audio=50 * USD))
    assert rule.cost(Usage(output_tokens=1_000_000, audio_tokens=600_000)) == 30_800_000_000


def rule_for(pattern: str, *, org: int | None = None, id: int = 0, **more: object) -> PriceRule:
    rule = PriceRule(provider="p", model_pattern=pattern, organisation_id=org, id=id)
    return replace(rule, **more) if more else rule  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("patterns", "best"),
    [
        (["gpt-*", "gpt-4o"], "gpt-4o"),
        (["*", "gpt-*", "gpt-4*"], "gpt-4*"),
        (["*4o*", "gpt-?o"], "gpt-?o"),
        (["gpt-[0-9]o", "*"], "gpt-[0-9]o"),
        (["GPT-4o", "*o"], "*o"),
        (["claude-*"], None),
    ],
)
def test_the_most_specific_pattern_wins(patterns: list[str], best: str | None) -> None:
    """A name before a glob, more literal characters before fewer, in whatever order they were loaded."""
    for order in (patterns, patterns[::-1]):
        found = PriceBook(map(rule_for, order)).find(1, "p", "gpt-4o", NOW.timestamp())
        assert (found and found.model_pattern) == best


def test_an_own_rule_goes_before_the_common_one() -> None:
    """Even a glob of one's own before everybody's exact name; others see only the common one."""
    book = PriceBook([rule_for("m", id=1), rule_for("*", org=7, id=2)])
    assert [found.id for org in (7, 8) if (found := book.find(org, "p", "m", NOW.timestamp()))] == [2, 1]


def test_only_a_valid_rule_is_found() -> None:
    """The end of a rule is the beginning of its successor, without a gap, also for a remembered name."""
    closed = rule_for("m", id=1, valid_from=NOW - timedelta(days=1), valid_until=NOW)
    book = PriceBook([closed, rule_for("m", id=2, valid_from=NOW)])
    moments = [NOW - timedelta(days=2), NOW - timedelta(microseconds=1), NOW, NOW - timedelta(microseconds=1)]
    found = [book.find(1, "p", "m", at.timestamp()) for at in moments]
    assert [rule and rule.id for rule in found] == [None, 1, 2, 1]


def test_invented_names_do_not_fill_the_memory() -> None:
    """What the book remembers has a bound."""
    book = PriceBook([rule_for("*")])
    for number in range(REMEMBERED + 10):
        assert book.find(1, "p", f"m{number}", NOW.timestamp())
    assert len(book._found) <= REMEMBERED


def test_priced_means_a_rule_of_its_own() -> None:
    """A glob covers a model, but does not say that it exists."""
    book = PriceBook([rule_for("m", org=3), rule_for("x*")])
    assert book.priced("p", "m")
    assert not book.priced("p", "xy")
    assert not book.priced("q", "m")
