"""Why: an operator must be able to look at every row of the ledger, to check all of it, and to lay bills beside it.

`aigate ledger` prints rows as they come from a cursor, so that millions of them need no memory; `verify` and
`reconcile` end with status 1 if something does not hold, so that a timer can run them.
"""

import argparse
import re
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from aigate.human import moment, usd, written
from aigate.ledger_printers import PRINTERS, plain
from aigate.settings import Settings
from aigate.stores.database import Database

if TYPE_CHECKING:
    from aigate.reconcile import Comparison, Key, Totals
    from aigate.stores.invariants import Finding

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def add_commands(ledger: argparse.ArgumentParser) -> None:
    """The options and actions of `aigate ledger`."""
    ledger.add_argument("--format", choices=tuple(PRINTERS), default="table")
    ledger.add_argument("--since", type=since, help="such as 24h, 30d, 2026-11-01 or 2026-11-01T08:30:00Z")
    ledger.add_argument("--org-name", help="default: every organisation")
    ledger.add_argument("--limit", type=_positive, help="only the newest N rows")
    ledger.set_defaults(run=_print)
    actions = ledger.add_subparsers(metavar="[ACTION]")

    verify = actions.add_parser("verify", help="check every invariant over the whole database")
    verify.add_argument(
        "--rows", type=_positive, default=20, help="rows at fault to show of each; default: %(default)s"
    )
    verify.set_defaults(run=_verify)

    reconcile = actions.add_parser("reconcile", help="lay a provider's invoice or usage export beside the ledger")
    reconcile.add_argument("file", type=Path, metavar="FILE.csv")
    reconcile.add_argument(
        "--provider", help="only this provider's calls; default: the one whose export it is, else all"
    )
    reconcile.add_argument("--since", type=since, help="default: the begin of what the file covers")
    reconcile.add_argument("--until", type=since, help="default: the end of what the file covers")
    reconcile.add_argument(
        "--same-model", action="append", default=[], type=_renaming, metavar="THEIRS=OURS", help="may be repeated"
    )
    reconcile.add_argument(
        "--rows", type=_positive, default=20, help="lines to show of each kind; default: %(default)s"
    )
    reconcile.set_defaults(run=_reconcile)


def since(text: str) -> datetime:
    """A moment as people give it on the command line: a date, a time, or how long ago."""
    if match := re.fullmatch(r"(\d{1,6})([smhd])", text):
        return datetime.now(UTC) - timedelta(**{UNITS[match[2]]: int(match[1])})
    try:
        return moment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error} Or how long ago, such as 24h.") from None


def _print(arguments: argparse.Namespace, settings: Settings) -> None:
    from aigate.cli import CommandError
    from aigate.stores.reports import organisation_named, stream_ledger

    async def work(database: Database) -> None:
        name = arguments.org_name
        if name is not None and await organisation_named(database, name) is None:
            raise CommandError(f"there is no organisation '{name}'")
        printer = PRINTERS[arguments.format]()
        rows = stream_ledger(database, since=arguments.since, organisation=name, limit=arguments.limit)
        async with aclosing(rows):
            async for row in rows:
                printer(row)

    _run(settings, work)


def _verify(arguments: argparse.Namespace, settings: Settings) -> None:
    from aigate.cli import CommandError
    from aigate.stores.invariants import verify

    broken: list[str] = []

    async def work(database: Database) -> None:
        retention, grace = settings.idempotency_seconds, 2 * settings.lease_seconds
        async with aclosing(verify(database, retention=retention, grace=grace, most_rows=arguments.rows)) as findings:
            async for finding in findings:
                _say_finding(finding)
                broken.extend([finding.invariant.name] if finding.at_fault else [])

    _run(settings, work)
    if broken:
        raise CommandError(f"the ledger is at fault: {', '.join(broken)}")


def _say_finding(finding: "Finding") -> None:
    state = f"{finding.at_fault} rows at fault" if finding.at_fault else "ok"
    _say(f"{finding.invariant.name:<42} {state}")
    if finding.at_fault:
        _say(f"    {finding.invariant.meaning}")
    for row in finding.rows:
        _say("    " + orjson.dumps(plain(row, but="rows_at_fault")).decode())
    if finding.at_fault > len(finding.rows):
        _say(f"    ... and {finding.at_fault - len(finding.rows)} more")


def _reconcile(arguments: argparse.Namespace, settings: Settings) -> None:
    from aigate.cli import CommandError
    from aigate.invoices import Invoice, InvoiceError
    from aigate.reconcile import reconcile

    async def work(database: Database) -> "Comparison":
        return await reconcile(
            database,
            invoice,
            provider=arguments.provider,
            since=arguments.since,
            until=arguments.until,
            names=dict(arguments.same_model),
        )

    try:
        invoice = Invoice(arguments.file)
        comparison = _run(settings, work)
    except (InvoiceError, OSError) as error:
        raise CommandError(str(error)) from error
    _say(f"{arguments.file.name}: {invoice.form.name}, compared by {comparison.by}")
    _say_comparison(comparison, arguments.rows)
    if not comparison.agrees:
        sys.exit(1)


def _say_comparison(found: "Comparison", rows: int) -> None:
    from_, to = (None if at is None else written(at) for at in (found.since, found.until))
    _say(f"from {from_} until {to}" if from_ and to else "without times: what is missing there cannot be told")
    _say(f"matched        {found.matched}")
    _say_lines("missing here", [f"{_name(key)}: {_totals(their)}" for key, their in found.missing_here], rows)
    _say_lines("missing there", [f"{_name(key)}: {_totals(our)}" for key, our in found.missing_there], rows)
    different = [f"{_name(key)}: theirs {_totals(their)}; ours {_totals(our)}" for key, their, our in found.different]
    _say_lines("different", different, rows)
    if "cost" in found.compared:
        theirs, ours = found.theirs.cost, found.ours.cost
        _say(f"cost           theirs {_cost(theirs)} USD, ours {_cost(ours)} USD")
        _say(f"difference     {_cost(ours - theirs)} USD ({_percent(ours - theirs, theirs)})")
        _say(f"error bar      {_cost(found.errors)} USD ({_percent(found.errors, theirs)}): each difference counted")
    estimated, requests = found.ours.estimated, found.ours.requests
    _say(f"estimated      {estimated} of our {requests} calls ({_percent(estimated, requests)})")


def _say_lines(what: str, lines: list[str], most: int) -> None:
    _say(f"{what:<14} {len(lines)}")
    for line in lines[:most]:
        _say(f"    {line}")
    if len(lines) > most:
        _say(f"    ... and {len(lines) - most} more")


def _name(key: "Key") -> str:
    if key is None:
        return "lines without an id or a time"
    if not isinstance(key, tuple):
        return key.hex
    day, model = key
    return f"{day}" if model is None else f"{day} {model}"


def _totals(totals: "Totals") -> str:
    tokens = f"{totals.input_tokens} + {totals.output_tokens} tokens"
    return f"{totals.requests} calls, {tokens}, {_cost(totals.cost)} USD"


def _cost(nano: Any) -> str:
    return usd(round(nano))


def _percent(part: Any, whole: Any) -> str:
    return f"{100 * part / whole:.3g} %" if whole else "of nothing" if part else "0 %"


def _run(settings: Settings, work: Callable[[Database], Awaitable[Any]]) -> Any:
    from aigate.cli import with_database

    return with_database(settings, work)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _renaming(text: str) -> tuple[str, str]:
    theirs, equals, ours = text.partition("=")
    if not (theirs and equals and ours):
        raise argparse.ArgumentTypeError(f"{text!r} is not THEIRS=OURS")
    return theirs, ours
