"""Why: a ledger is worth what can be checked of it, by anybody, at any time, over all of it.

`invariants.sql` says what must hold; this reads it and runs it in one snapshot, so that calls which end meanwhile
disturb nothing.
"""

import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import asyncpg

from aigate.stores.database import Database
from aigate.stores.reports import usage_statement

SETTINGS = "select set_config('aigate.retention_seconds', $1, true), set_config('aigate.grace_seconds', $2, true)"
LONGEST = 3600.0
"""Seconds that one invariant may take: it reads whole tables."""

_NAMED = re.compile(r"^-- name: *(\w+)\n((?:--.*\n)+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Invariant:
    """Something that is always true: `statement` returns the rows of which it is not."""

    name: str
    meaning: str
    statement: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What one invariant found: how many rows are at fault, and the first of them."""

    invariant: Invariant
    at_fault: int
    rows: Sequence[asyncpg.Record]


@cache
def invariants() -> tuple[Invariant, ...]:
    """Every invariant, in the order of `invariants.sql`."""
    text = files("aigate.stores").joinpath("invariants.sql").read_text("utf-8")
    _, *parts = _NAMED.split(text)
    usage = usage_statement(["organisation"], "true")
    named = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return tuple(
        Invariant(name, _sentence(comment), body.strip().rstrip(";").replace(":usage_by_organisation", usage))
        for name, comment, body in named
    )


async def verify(
    database: Database, *, retention: float, grace: float = 60.0, most_rows: int = 20
) -> AsyncGenerator[Finding, None]:
    """Check every invariant over the whole database, all at the same moment of it.

    `retention` is how long an idempotency key holds and `grace` how long a sweep may take, both in seconds; each
    finding has at most `most_rows` rows. Raises `StoreUnavailable`.
    """
    async with (
        database.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.execute(SETTINGS, str(retention), str(grace))
        for invariant in invariants():
            rows = await connection.fetch(_bounded(invariant.statement), most_rows, timeout=LONGEST)
            yield Finding(invariant, rows[0]["rows_at_fault"] if rows else 0, rows)


def _bounded(statement: str) -> str:
    return (
        f"with at_fault as materialized (\n{statement}\n)\n"  # noqa: S608 - our own file
        "select (select count(*) from at_fault) as rows_at_fault, at_fault.* from at_fault limit $1"
    )


def _sentence(comment: str) -> str:
    return " ".join(line.removeprefix("--").strip() for line in comment.splitlines())
