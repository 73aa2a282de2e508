"""Why: what a call costs must be easy to see, to set and to explain, or nobody will trust the bill.

Prices are given in USD per million tokens, as every provider publishes them, and kept exactly. A changed price holds
within the seconds that a replica remembers prices; calls that have begun keep theirs.
"""

import argparse
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from aigate.human import usd
from aigate.price_explained import ORDER, TOKENS, cells, percent, prices_of, reason, steps
from aigate.settings import Settings
from aigate.stores.database import Database
from aigate.stores.prices import CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable

    from aigate.pricing import PriceRule

LINE = "{:<44} {:<20} " + "{:>9} " * 7 + "{:>9} {:>8}  {}"
HEAD = LINE.format(
    "PROVIDER:MODEL",
    "FOR",
    "INPUT",
    "OUTPUT",
    "CACHED",
    "CACHING",
    "REASONING",
    "AUDIO",
    "IMAGE",
    "REQUEST",
    "MARK-UP",
    "SOURCE",
)
ORGANISATIONS = "select id, name from organisations"


def add_commands(prices: argparse.ArgumentParser) -> None:
    """The actions of `aigate prices`."""
    actions = prices.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("show", help="the rules in force, in USD per million tokens")
    show.add_argument("--org-name", help="only those that hold for this organisation")
    show.add_argument("--provider")
    show.add_argument("--model", metavar="GLOB", help="only rules whose model pattern is like this")
    show.set_defaults(run=_show)

    set_ = actions.add_parser("set", help="set one price, from now on")
    set_.add_argument("model", metavar="PROVIDER:MODEL_PATTERN", type=_name)
    for name in CLASSES:
        option = f"--{name.replace('_', '-')}"
        set_.add_argument(option, metavar="USD_PER_MTOK", required=name in ("input", "output"))
    set_.add_argument("--request", metavar="USD", help="for each call, on top")
    set_.add_argument("--markup", metavar="PERCENT", help="on all of it; negative is a discount")
    set_.add_argument("--source", default="aigate prices set", help="where the price is from")
    set_.add_argument("--org-name", help="default: for every organisation")
    set_.set_defaults(run=_set)

    import_ = actions.add_parser("import", help="set the prices of a CSV or JSON file, from now on, all or none")
    import_.add_argument("file", type=Path, metavar="FILE.csv|FILE.json")
    import_.add_argument("--org-name", help="default: for every organisation")
    import_.set_defaults(run=_import)

    explain = actions.add_parser("explain", help="which rule prices a model, why, and what a call costs by it")
    explain.add_argument("model", metavar="PROVIDER:MODEL", type=_name)
    explain.add_argument("--org-name", help="default: an organisation without rules of its own")
    for name in TOKENS:
        explain.add_argument(f"--{name.replace('_', '-')}", type=_count, default=0, metavar="N")
    explain.set_defaults(run=_explain)


def _show(arguments: argparse.Namespace, settings: Settings) -> None:
    from aigate.cli import with_database
    from aigate.stores.prices import list_rules

    async def work(database: Database) -> tuple[list["PriceRule"], dict[int, str]]:
        organisation = await _organisation(database, arguments.org_name)
        return await list_rules(database, organisation, arguments.provider), await _names(database)

    rules, names = with_database(settings, work)
    wanted = arguments.model
    _say_rules([rule for rule in rules if wanted is None or fnmatchcase(rule.model_pattern, wanted)], names)


def _set(arguments: argparse.Namespace, settings: Settings) -> None:
    from aigate.price_files import rule_of

    given = {name: getattr(arguments, name) for name in (*CLASSES, "request")} | {"markup_percent": arguments.markup}
    given = {name: text for name, text in given.items() if text is not None}
    provider, model = arguments.model
    _replace(arguments, settings, lambda: [rule_of(provider, model, given, arguments.source)])


def _import(arguments: argparse.Namespace, settings: Settings) -> None:

    from aigate.price_files import read_prices

    _replace(arguments, settings, lambda: read_prices(arguments.file))


def _replace(arguments: argparse.Namespace, settings: Settings, read: "Callable[[], list[PriceRule]]") -> None:
    from aigate.cli import CommandError, with_database
    from aigate.price_files import PriceError
    from aigate.stores.prices import Replaced, replace_rules

    try:
        rules = read()
    except (PriceError, OSError) as error:
        raise CommandError(str(error)) from error

    async def work(database: Database) -> Replaced:
        organisation = await _organisation(database, arguments.org_name)
        async with database.connection() as connection:
            return await replace_rules(connection, organisation, rules)

    done = with_database(settings, work)
    for rule in rules:
        _say(f"{rule.provider}:{rule.model_pattern} for {arguments.org_name or 'all'}: {prices_of(rule.rates)}")
    _say(f"{done.added} added, {done.changed} changed, {done.unchanged} unchanged")


def _explain(arguments: argparse.Namespace, settings: Settings) -> None:
    from aigate.cli import CommandError, with_database
    from aigate.pricing import PriceBook
    from aigate.stores.prices import list_rules
    from aigate.stores.reports import database_time
    from providers.contract import Usage

    provider, model = arguments.model

    async def work(database: Database) -> tuple[list["PriceRule"], dict[int, str]]:
        organisation = await _organisation(database, arguments.org_name) or 0
        at = (await database_time(database)).timestamp()
        rules = await list_rules(database, organisation, provider)
        matching: list[PriceRule] = []
        while rule := PriceBook(rules).find(organisation, provider, model, at):
            matching.append(rule)
            rules.remove(rule)
        return matching, await _names(database)

    matching, names = with_database(settings, work)
    if not matching:
        raise CommandError(
            f"nothing prices {provider}:{model} for {arguments.org_name or 'all'}: it would be refused"
        )
    for place, rule in enumerate(matching):
        _say(f"{'-> ' if place == 0 else '   '}{reason(rule, names)}")
    _say(ORDER if len(matching) > 1 else "No other rule matches.")
    usage = Usage(**{name: getattr(arguments, name) for name in TOKENS})
    if any(getattr(usage, name) for name in TOKENS):
        _say("", *steps(matching[0], usage))


def _say_rules(rules: list["PriceRule"], names: dict[int, str]) -> None:
    _say(HEAD)
    for rule in rules:
        whose = "all" if rule.organisation_id is None else names.get(rule.organisation_id, "?")
        extras = (usd(rule.request_nano), percent(rule.markup_ppm), rule.source)
        _say(LINE.format(f"{rule.provider}:{rule.model_pattern}", whose, *cells(rule.rates), *extras))
        for tier in rule.tiers:
            above = f"  above {tier.above_input_tokens} input tokens"
            _say(LINE.format(above, "", *cells(tier.rates), "", "", "").rstrip())


async def _organisation(database: Database, name: str | None) -> int | None:
    from aigate.cli import CommandError
    from aigate.stores.reports import organisation_named

    found = None if name is None else await organisation_named(database, name)
    if name is not None and found is None:
        raise CommandError(f"there is no organisation '{name}'")
    return found


async def _names(database: Database) -> dict[int, str]:
    async with database.connection() as connection:
        return {row["id"]: row["name"] for row in await connection.fetch(ORGANISATIONS)}


def _name(text: str) -> tuple[str, str]:
    provider, colon, model = text.partition(":")
    if not (provider and colon and model):
        raise argparse.ArgumentTypeError(f"{text!r} is not PROVIDER:MODEL")
    return provider, model


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens")
    return int(text)


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
