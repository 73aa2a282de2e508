"""Idempotency keys in PostgreSQL: a claim is one statement, so that of any number of claimants one wins.

Claims that are concurrent share it (`batch`). A key can be claimed anew once its answer has expired, and once nobody
is behind it, by the database's clock: its replica is gone, or has opened no call under it within a minute. The latter
is a claim that arrived after its request had been given up: what was sent cannot be called back, so it is not kept
from holding the key, only from holding it for long. The stored answer of a billed call is written by the ledger, in
the transaction that settles it.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import asyncpg
from loguru import logger

from aigate.stores.batch import Batch
from aigate.stores.database import Database
from aigate.stores.journal import may_be_written, to_json, unpack_headers
from aigate.stores.overdue import Overdue
from aigate.stores.replica import Replica
from middleware.claims import Claim, Held, Running, Taken
from middleware.exchange import Answer
from middleware.faults import StoreUnavailable

if TYPE_CHECKING:
    from aigate.stores.database import Connection, Line

BEHIND = """
exists (select 1 from replicas r where r.id = k.replica_id and r.lease_until > now())
    and (k.claimed_at > now() - interval '60 seconds'
        or (select true from calls c where c.request_id = k.request_id and c.attempt = 1))
"""
"""True while somebody runs under a held key. Between a claim and its call there are but a few statements, each with a
time-out of seconds; should they take longer all the same, the call that lost its key is superseded and not billed."""
CLAIM = f"""
insert into idempotency_keys as k (organisation_id, key, fingerprint, request_id, replica_id, expires_at)
select c.organisation_id, c.key, c.fingerprint, c.request_id, $2, now() + c.keep * interval '1 second'
from json_to_recordset($1) c (organisation_id bigint, key text, fingerprint bytea, request_id uuid, keep float8)
order by 1, 2
on conflict (organisation_id, key) do update
set fingerprint = excluded.fingerprint, request_id = excluded.request_id, replica_id = excluded.replica_id,
    expires_at = excluded.expires_at, claimed_at = now(), state = 'running', status = null, headers = null,
    body = null, finished_at = null
where (k.state = 'finished' and (k.expires_at <= now() or k.key in (select json_array_elements_text($3))))
    or (k.state = 'running' and k.fingerprint = excluded.fingerprint and k.request_id <> excluded.request_id
        and ({BEHIND}) is not true)
returning request_id
"""  # noqa: S608 - of constants, as all below
HOLDERS = f"""
select k.organisation_id, k.key, k.fingerprint, k.state, k.request_id, k.replica_id, k.status, k.headers, k.body,
    extract(epoch from now() - k.claimed_at)::float8 as age,
    ({BEHIND}) is true as alive
from unnest($1::bigint[], $2::text[]) c (organisation_id, key) cross join lateral (
    select * from idempotency_keys k where k.organisation_id = c.organisation_id and k.key = c.key limit 1
) k
"""  # noqa: S608
DISOWN = """
insert into idempotency_keys as k (organisation_id, key, fingerprint, request_id, replica_id, expires_at)
values ($1, $2, $3, $4, '00000000-0000-0000-0000-000000000000', now() + $5 * interval '1 second')
on conflict (organisation_id, key) do update set replica_id = excluded.replica_id
where k.request_id = excluded.request_id and k.state = 'running'
"""
"""Leaves the key to whoever comes next with the same request. The row stays: a claim that was given up and arrives
after all finds itself in it, and is not granted."""
RELEASE = """
delete from idempotency_keys where organisation_id = $1 and key = $2 and request_id = $3 and state = 'running'
"""
REAP = f"""
with expired as (
    select k.organisation_id, k.key from idempotency_keys k
    where k.expires_at <= now() and (k.state = 'finished' or ({BEHIND}) is not true)
    limit 1000 for update skip locked
)
delete from idempotency_keys k using expired e where k.organisation_id = e.organisation_id and k.key = e.key
"""  # noqa: S608
"""What somebody else has locked is being claimed anew or written: it would be deleted as what it was before."""
REAPED_ALL_IT_MAY = "DELETE 1000"
REAP_EVERY = 60.0
"""Seconds between two looks for answers that have expired."""


class PostgresIdempotency:
    """The `Store` port of the idempotency layer; answers are kept for `retention` seconds."""

    def __init__(self, database: Database, replica: Replica, overdue: Overdue, *, retention: float) -> None:
        self._database = database
        self._replica = replica
        self._overdue = overdue
        self._retention = retention
        self._line = database.line()
        self._claims: Batch[Claim, Answer | Running | Taken | Held] = Batch(self._claim)

    async def claim(self, claim: Claim) -> Answer | Running | Taken | Held:
        future = self._claims.submit(claim)
        try:
            return await future
        except BaseException:  # whoever is not told of a grant does not run: the key must not wait for them
            future.add_done_callback(lambda done: self._keep_disowning(claim) if may_be_written(done) else None)
            raise

    async def look(self, claim: Claim) -> tuple[str, Answer | Running | None]:
        """Whose the key is, by request id, and what has become of it: `None` if its holder is gone."""
        async with self._database.connection() as connection:
            holder = (await _holders(connection, [claim])).get((claim.org_id, claim.key))
        if holder is None:
            return "", None
        state = None if holder["state"] == "running" and not holder["alive"] else _state(claim, holder)
        return holder["request_id"].hex, None if isinstance(state, Taken) else state

    async def release(self, claim: Claim) -> None:
        try:
            await asyncio.shield(self._release(claim))
        except Exception:  # whatever it is, the key must not stay held
            self._overdue.keep_trying(f"release of {claim.request_id}'s key", lambda: self._release(claim))

    async def reap_for_ever(self) -> None:
        """Delete answers that have expired, now and then; never a key that is held."""
        while True:
            try:
                async with self._database.connection() as connection:
                    reaped = await connection.execute(REAP)
                await asyncio.sleep(0 if reaped == REAPED_ALL_IT_MAY else REAP_EVERY)
            except Exception as error:
                logger.warning("expired answers cannot be deleted now: {!r}", error.__cause__ or error)
                await asyncio.sleep(REAP_EVERY)

    def _keep_disowning(self, claim: Claim) -> None:
        self._overdue.keep_trying(f"the end of {claim.request_id}'s claim", lambda: self._disown(claim))

    async def _disown(self, claim: Claim) -> None:
        keep = self._retention if claim.keep is None else claim.keep
        async with self._database.connection() as connection:
            await connection.execute(DISOWN, claim.org_id, claim.key, claim.fingerprint, claim.request_id, keep)

    async def _release(self, claim: Claim) -> None:
        async with self._database.connection() as connection:
            await connection.execute(RELEASE, claim.org_id, claim.key, claim.request_id)

    async def _claim(self, claims: Sequence[Claim]) -> list[Answer | Running | Taken | Held]:
        await self._replica.ensure_lease()
        states: dict[str, Answer | Running | Taken | Held] = {}
        try:
            await self._decide(claims, states)
        except StoreUnavailable as away:
            away.unsure |= bool(states)  # what has been granted must be given back
            raise
        return [states[claim.request_id] for claim in claims]

    async def _decide(self, claims: Sequence[Claim], states: dict[str, Answer | Running | Taken | Held]) -> None:
        """Put into `states` what has become of each claim, by request id.

        A statement writes a row once, and would fail for all: of several claims for one key the first is tried, and
        the others either find it the holder or are tried after it.
        """
        while claims:
            firsts = {(claim.org_id, claim.key): claim for claim in reversed(claims)}
            won = await self._try(firsts.values())
            states |= dict.fromkeys(won)
            lost = [claim for claim in claims if claim.request_id not in won]
            holders = await _holders(self._line, lost) if lost else {}
            for claim in lost:
                name = claim.org_id, claim.key
                holder = holders.get(name)
                if holder is not None and (claim is firsts[name] or holder["request_id"].hex in won):
                    states[claim.request_id] = _state(claim, holder)
            claims = [claim for claim in lost if claim.request_id not in states]

    async def _try(self, claims: Collection[Claim]) -> set[str]:
        asked = [
            {
                "organisation_id": claim.org_id,
                "key": claim.key,
                "fingerprint": f"\\x{claim.fingerprint.hex()}",
                "request_id": claim.request_id,
                "keep": self._retention if claim.keep is None else claim.keep,
            }
            for claim in claims
        ]
        fresh = [claim.key for claim in claims if claim.fresh]
        rows = await self._line.fetch(CLAIM, to_json(asked), self._replica.id, to_json(fresh))
        return {row["request_id"].hex for row in rows}


async def _holders(way: "Line | Connection", claims: Sequence[Claim]) -> dict[tuple[int, str], asyncpg.Record]:
    rows = await way.fetch(HOLDERS, [claim.org_id for claim in claims], [claim.key for claim in claims])
    return {(row["organisation_id"], row["key"]): row for row in rows}


def _state(claim: Claim, holder: asyncpg.Record) -> Answer | Running | Taken:
    if holder["fingerprint"] != claim.fingerprint:
        return Taken.OTHER_REQUEST
    if holder["state"] == "running":
        return Running(holder["request_id"].hex, holder["replica_id"].hex, holder["age"])
    return Answer(holder["status"], unpack_headers(holder["headers"]), holder["body"])
