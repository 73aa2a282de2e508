"""Why: a fresh gateway refuses what has no price, so one command gives an organisation every price that we know."""

import asyncio
from collections import Counter
from dataclasses import dataclass

from aigate.price_sheet import price_sheet
from aigate.stores.database import Database
from aigate.stores.prices import Replaced, replace_rules

CREATE_ORGANISATION = "insert into organisations (name) values ($1) on conflict (name) do nothing returning id"
FIND_ORGANISATION = "select id from organisations where name = $1"


@dataclass(frozen=True, slots=True)
class Seeded:
    """What seeding did: whether the organisation is new, the rules, and how many there are for each provider."""

    organisation_id: int
    created: bool
    rules: Replaced
    providers: dict[str, int]


async def seed_price_rules(database: Database, organisation: str, *, dry_run: bool = False) -> Seeded:
    """Put the price sheet in force for the organisation called `organisation`, which is created if missing.

    One transaction; seeding again changes only what the sheet has changed. `dry_run` does the same and takes it back.
    Raises `ValueError` for a name of no or over 200 characters, `StoreUnavailable` if the database does not answer.
    """
    if not 1 <= len(organisation) <= 200:
        raise ValueError("an organisation's name has 1 to 200 characters")
    sheet = await asyncio.to_thread(price_sheet)
    async with database.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            created = await connection.fetchval(CREATE_ORGANISATION, organisation)
            organisation_id = created or await connection.fetchval(FIND_ORGANISATION, organisation)
            replaced = await replace_rules(connection, organisation_id, sheet)
        except BaseException:
            await transaction.rollback()
            raise
        await (transaction.rollback() if dry_run else transaction.commit())
    providers = dict(Counter(rule.provider for rule in sheet).most_common())
    return Seeded(organisation_id, created is not None, replaced, providers)
