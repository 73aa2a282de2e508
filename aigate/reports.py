"""Why: whoever pays for calls may look at each of them, and at their sums, with the key that made them.

`GET /v1/calls/{request id}`, `GET /v1/calls` and `GET /v1/usage`: always the key's own organisation and nothing else;
of another's calls not even that they exist. Costs are exact decimal numbers of USD (and integers of 1e-9 USD beside
them). Unknown parameters are refused: a misspelt `from` would otherwise be a sum over the wrong time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from blacksheep import Content, Response

from aigate.human import moment, usd, written
from aigate.stores.database import Database
from aigate.stores.prices import CLASSES
from aigate.stores.reports import TOKENS, find_call, find_rule, list_calls, sum_usage
from middleware.exchange import Exchange
from middleware.faults import CallerFault, NotFound

GROUPS = ("day", "hour", "provider", "model", "key", "outcome")
USUAL_CALLS, MOST_CALLS = 20, 100
MOST_GROUPS = 10_000
USUAL_PERIOD = timedelta(days=30)

Query = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Reports:
    """The answers; every one raises `StoreUnavailable` if the database is away."""

    database: Database

    async def call(self, exchange: Exchange, asked: str) -> Response:
        """One call, with its attempts and adjustments. Raises `NotFound`."""
        nowhere = NotFound(f"Your organisation has no call '{asked[:64]}'.", param="request_id")
        request_id = _request_id(asked)
        if request_id is None:
            raise nowhere
        attempts, adjustments = await find_call(self.database, _organisation(exchange), request_id)
        if not attempts:
            raise nowhere
        last = attempts[-1]
        rule = await find_rule(self.database, last["price_rule_id"])
        return _json(
            _entry(last)
            | _totals(attempts)
            | {
                "price_rule": None if rule is None else _rule(rule),
                "attempts": [_entry(row) for row in attempts],
                "adjustments": [_adjustment(row) for row in adjustments],
            }
        )

    async def calls(self, exchange: Exchange, query: Query) -> Response:
        """A page of calls, newest first. Raises `CallerFault`."""
        given = _given(query, "limit", "before")
        limit, before = _limit(given.get("limit")), _before(given.get("before"))
        rows = await list_calls(self.database, _organisation(exchange), limit + 1, before)
        if rows is None:
            raise CallerFault(f"There is no call '{given['before'][:64]}' to list before.", param="before")
        page, more = rows[:limit], len(rows) > limit
        following = f"{page[-1]['request_id'].hex}.{page[-1]['attempt']}" if more else None
        return _json(
            {"object": "list", "data": [_entry(row) for row in page], "has_more": more, "next_before": following}
        )

    async def usage(self, exchange: Exchange, query: Query) -> Response:
        """Sums over a time. Raises `CallerFault`."""
        given = _given(query, "from", "to", "group_by")
        groups = _groups(given.get("group_by"))
        until = _moment(given, "to") or datetime.now(UTC)
        since = _moment(given, "from") or until - USUAL_PERIOD
        if since >= until:
            raise CallerFault("'from' is not before 'to'.", param="from")
        rows = await sum_usage(self.database, _organisation(exchange), since, until, groups, MOST_GROUPS + 1)
        if len(rows) > MOST_GROUPS:
            raise CallerFault(
                f"That is more than {MOST_GROUPS} groups: ask for less time or groups.", param="group_by"
            )
        sums = [{name: _plain(row[name]) for name in groups} | _sums(row) for row in rows]
        period = {"from": written(since), "to": written(until), "group_by": groups}
        return _json({"object": "usage", **period, "data": sums})


def _organisation(exchange: Exchange) -> int:
    if exchange.caller is None:
        raise AssertionError("reports are for callers: the auth layer stands outside")
    return exchange.caller.org_id


def _request_id(text: str) -> UUID | None:
    """A request id as `x-request-id` says it, or with dashes."""
    try:
        return UUID(text) if len(text) in (32, 36) else None
    except ValueError:
        return None


def _given(query: Query, *names: str) -> dict[str, str]:
    for name, values in query.items():
        if name not in names:
            raise CallerFault(f"There is no parameter '{name[:64]}' here, only {', '.join(names)}.", param=name[:64])
        if len(values) > 1:
            raise CallerFault(f"'{name}' is given more than once.", param=name)
    return {name: values[0] for name, values in query.items()}


def _limit(text: str | None) -> int:
    if text is None:
        return USUAL_CALLS
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_CALLS):
        raise CallerFault(f"'limit' is a number from 1 to {MOST_CALLS}.", param="limit")
    return int(text)


def _before(text: str | None) -> tuple[UUID, int] | None:
    if text is None:
        return None
    name, _, attempt = text.partition(".")
    request_id = _request_id(name)
    if request_id is None or not (attempt or "1").isdecimal() or len(attempt) > 4:
        raise CallerFault("'before' is a request id, or the 'next_before' of another page.", param="before")
    return request_id, int(attempt or "1")


def _groups(text: str | None) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else []
    for name in names:
        if name not in GROUPS:
            raise CallerFault(
                f"'{name[:64]}' is not among what can be grouped by: {', '.join(GROUPS)}.", param="group_by"
            )
    return list(dict.fromkeys(names))


def _moment(given: Mapping[str, str], name: str) -> datetime | None:
    try:
        return moment(given[name]) if name in given else None
    except (ValueError, OverflowError) as error:
        raise CallerFault(f"'{name}': {error}", param=name) from error


def _entry(row: asyncpg.Record) -> dict[str, Any]:
    """A row of the ledger, its adjustments included."""
    return {
        "id": row["request_id"].hex,
        "object": "call",
        "attempt": row["attempt"],
        "api_key": row["api_key"],
        "idempotency_key": row["idempotency_key"],
        "provider": row["provider"],
        "model": row["model"],
        "stream": row["stream"],
        "on_disconnect": row["on_disconnect"],
        "state": row["state"],
        "outcome": row["outcome"],
        "usage_source": row["usage_source"],
        "usage": {name: row[name] for name in TOKENS},
        **_costs(row["provider_cost_nano"], row["billed_cost_nano"]),
        "estimated_cost": _usd(row["estimated_cost_nano"]),
        "price_rule_id": row["price_rule_id"],
        "opened_at": written(row["opened_at"]),
        "settled_at": _plain(row["settled_at"]),
    }


def _totals(attempts: Sequence[asyncpg.Record]) -> dict[str, Any]:
    """What all attempts at one call came to."""
    reported = [row["provider_cost_nano"] for row in attempts if row["provider_cost_nano"] is not None]
    return {
        "usage": {name: sum(row[name] for row in attempts) for name in TOKENS},
        **_costs(sum(reported) if reported else None, sum(row["billed_cost_nano"] for row in attempts)),
        "opened_at": written(attempts[0]["opened_at"]),
    }


def _adjustment(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "attempt": row["attempt"],
        "reason": row["reason"],
        "outcome": row["outcome"],
        "usage_source": row["usage_source"],
        "usage": {name: row[name] for name in TOKENS},
        **_costs(row["provider_cost_nano"], row["billed_cost_nano"]),
        "created_at": written(row["created_at"]),
    }


def _rule(row: asyncpg.Record) -> dict[str, Any]:
    """A price rule; prices in USD per million tokens, `null` for a class that costs what contains it."""
    return {
        "id": row["id"],
        "provider": row["provider"],
        "model_pattern": row["model_pattern"],
        "usd_per_million_tokens": {name: _usd(row[f"{name}_nano_per_mtok"]) for name in CLASSES},
        "usd_per_request": _usd(row["request_nano"]),
        "markup_percent": _usd(row["markup_ppm"] * 100_000),
        "tiers": [_tier(tier) for tier in orjson.loads(row["tiers"])],
        "valid_from": written(row["valid_from"]),
        "valid_until": _plain(row["valid_until"]),
    }


def _tier(tier: dict[str, Any]) -> dict[str, Any]:
    above = tier.pop("above_input_tokens")
    prices = {name: _usd(price) for name, price in tier.items()}
    return {"above_input_tokens": above, "usd_per_million_tokens": prices}


def _sums(row: asyncpg.Record) -> dict[str, Any]:
    counts = {name: int(row[name] or 0) for name in ("calls", *TOKENS)}
    reported = row["provider_cost_nano"]
    return counts | _costs(None if reported is None else int(reported), int(row["billed_cost_nano"] or 0))


def _costs(provider: int | None, billed: int) -> dict[str, Any]:
    return {
        "provider_cost": _usd(provider),
        "provider_cost_nano": provider,
        "billed_cost": _usd(billed),
        "billed_cost_nano": billed,
    }


def _usd(nano: int | None) -> orjson.Fragment | None:
    """USD as a JSON number with all its digits."""
    return None if nano is None else orjson.Fragment(usd(nano))


def _plain(value: Any) -> Any:
    return written(value) if isinstance(value, datetime) else value


def _json(document: object) -> Response:
    return Response(200, content=Content(b"application/json", orjson.dumps(document)))
