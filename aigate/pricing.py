"""Why: a bill must be the same number whoever computes it, so what a call costs is exact integers and nothing else.

Every token is priced exactly once, whatever a provider reports: a class is never larger than what is left of its
container, and a class without a price of its own costs what its container costs. Prices are integers of 1e-9 USD per
million tokens, so that every published price is exact; a cost is rounded once, half-even, at the very end.

Pure: no clock, no store. `aigate.stores.prices` loads the rules.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from middleware.exchange import Usage

MILLION = 1_000_000
ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
REMEMBERED = 4096
"""Models that a `PriceBook` remembers: a caller can invent names, so there must be a bound."""

_WILD = re.compile(r"\[[^]]*]|[*?]")


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices of a million tokens of each class, in 1e-9 USD; `None`: what the class's container costs.

    Cache reads and writes are part of the input, reasoning is part of the output. Audio and image tokens may be part
    of either (OpenAI details both sides) and `Usage` does not say of which: they are looked for among the fresh input
    first, then in the output. An input that is both cached and audio counts as cached.
    """

    input: int = 0
    output: int = 0
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    audio: int | None = None
    image: int | None = None

    def charge(self, usage: Usage) -> int:
        """The tokens of `usage` in 1e-15 USD, which is exact. Never negative, if no price is."""
        taken_in = usage.input_tokens if usage.input_tokens > 0 else 0
        taken_out = usage.output_tokens if usage.output_tokens > 0 else 0
        charge = taken_in * self.input + taken_out * self.output
        read = write = reasoning = 0
        if usage.cache_read_tokens or usage.cache_write_tokens:
            read = _within(usage.cache_read_tokens, taken_in)
            write = _within(usage.cache_write_tokens, taken_in - read)
            charge += _beyond(read, self.cache_read, self.input) + _beyond(write, self.cache_write, self.input)
        if usage.reasoning_tokens:
            reasoning = _within(usage.reasoning_tokens, taken_out)
            charge += _beyond(reasoning, self.reasoning, self.output)
        if usage.audio_tokens > 0 or usage.image_tokens > 0:
            charge += self._modalities(usage, taken_in, taken_in - read - write, taken_out - reasoning)
        return charge

    def _modalities(self, usage: Usage, taken_in: int, fresh: int, answer: int) -> int:
        """What audio and image tokens cost more (or less) than the text that they were counted as."""
        charge = 0
        for tokens, price in ((usage.audio_tokens, self.audio), (usage.image_tokens, self.image)):
            inside = _within(tokens, taken_in)
            heard, said = min(inside, fresh), _within(tokens - inside, answer)
            charge += _beyond(heard, price, self.input) + _beyond(said, price, self.output)
            taken_in, fresh, answer = taken_in - inside, fresh - heard, answer - said
        return charge


def _within(tokens: int, container: int) -> int:
    if tokens <= 0:
        return 0
    return tokens if tokens < container else container


def _beyond(tokens: int, price: int | None, container: int) -> int:
    return 0 if price is None else tokens * (price - container)


@dataclass(frozen=True, slots=True)
class Tier:
    """Prices of the whole call once its input is longer than `above_input_tokens`."""

    above_input_tokens: int
    rates: Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRule:
    """One row of `price_rules`: what a call to `provider`'s models named like `model_pattern` costs.

    `model_pattern` is a name, or a case-sensitive glob (`*`, `?`, `[0-9]`; `[*]` is a literal `*`). `tiers` ascend.
    `request_nano` is 1e-9 USD a call, `markup_ppm` millionths on top of all of it (negative: a discount).
    `organisation_id` `None` holds for every organisation. `id` 0: not stored yet.
    """

    provider: str
    model_pattern: str
    rates: Rates = Rates()
    tiers: tuple[Tier, ...] = ()
    request_nano: int = 0
    markup_ppm: int = 0
    source: str = ""
    organisation_id: int | None = None
    id: int = 0
    valid_from: datetime = ALWAYS
    valid_until: datetime | None = None

    @property
    def exact(self) -> bool:
        return not is_glob(self.model_pattern)

    def cost(self, usage: Usage) -> int:
        """What the caller pays, in 1e-9 USD: tokens and request, marked up, rounded once, half-even."""
        rates, unit = self.rates, MILLION
        for tier in self.tiers:
            if usage.input_tokens <= tier.above_input_tokens:
                break
            rates = tier.rates
        charge = rates.charge(usage)
        if self.request_nano:
            charge += self.request_nano * MILLION
        if self.markup_ppm:
            charge, unit = charge * (MILLION + self.markup_ppm), MILLION * MILLION
        cost, rest = divmod(charge, unit)
        rest += rest
        if rest < unit:
            return cost
        return cost + (rest > unit or cost & 1)

    def raw_cost(self, usage: Usage) -> int:
        """The same without the mark-up: what the provider is expected to charge, in 1e-9 USD."""
        return replace(self, markup_ppm=0).cost(usage)


def is_glob(pattern: str) -> bool:
    """Whether a model pattern covers names other than itself."""
    return _WILD.search(pattern) is not None


class PriceBook:
    """An immutable index of rules. `find` remembers what it found for a name; moments may go forth and back."""

    def __init__(self, rules: Iterable[PriceRule] = ()) -> None:
        self._exact: dict[tuple[int | None, str, str], list[PriceRule]] = {}
        self._globs: dict[tuple[int | None, str], list[tuple[str, PriceRule]]] = {}
        for rule in sorted(rules, key=_precedence):
            owner = (rule.organisation_id, rule.provider)
            if rule.exact:
                self._exact.setdefault((*owner, rule.model_pattern), []).append(rule)
            else:
                self._globs.setdefault(owner, []).append((_WILD.split(rule.model_pattern, 1)[0], rule))
        self._priced = frozenset((provider, model) for _, provider, model in self._exact)
        self._found: dict[tuple[int, str, str], tuple[tuple[float, float, PriceRule], ...]] = {}
        """Rules with their beginning and end, as `at` in `find`: a moment of `datetime` costs more than the rest."""

    def find(self, organisation_id: int, provider: str, model: str, at: float) -> PriceRule | None:
        """The rule for a call at the moment `at`, in seconds since 1970, if there is one.

        An organisation's own rules go before the common ones, names before globs, globs with more literal characters
        before those with fewer, newer rules before older ones.
        """
        key = (organisation_id, provider, model)
        rules = self._found.get(key)
        if rules is None:
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            rules = self._found[key] = tuple((*_times(rule), rule) for rule in self._matching(*key))
        for since, until, rule in rules:
            if since <= at < until:
                return rule
        return None

    def priced(self, provider: str, model: str) -> bool:
        """Whether anybody has a rule for exactly this model, not only a glob that covers it."""
        return (provider, model) in self._priced

    def _matching(self, organisation_id: int, provider: str, model: str) -> Iterable[PriceRule]:
        for owner in (organisation_id, None):
            yield from self._exact.get((owner, provider, model), ())
            for prefix, rule in self._globs.get((owner, provider), ()):
                if model.startswith(prefix) and fnmatchcase(model, rule.model_pattern):
                    yield rule


def _times(rule: PriceRule) -> tuple[float, float]:
    until = math.inf if rule.valid_until is None else rule.valid_until.timestamp()
    return rule.valid_from.timestamp(), until


def _precedence(rule: PriceRule) -> tuple[int, int, float, int]:
    """Sorts the most specific and newest first."""
    literal = len(_WILD.sub("", rule.model_pattern))
    return -literal, -len(rule.model_pattern), -rule.valid_from.timestamp(), -rule.id
