"""Idempotency keys in PostgreSQL: a claim is one statement, so that of any number of claimants one wins.

A key that is held by a replica whose lease has run out, or that has expired, can be claimed anew. The stored answer
of a billed call is written by the ledger, in the transaction that settles it.
"""

from aigate.stores.database import Database
from aigate.stores.ledger import pack_headers, unpack_headers
from aigate.stores.replica import Replica
from middleware.exchange import Answer
from middleware.idempotency import Claim, Held, Taken

CLAIM = """
insert into idempotency_keys as k (organisation_id, key, fingerprint, request_id, replica_id, expires_at)
values ($1, $2, $3, $4, $5, now() + $6 * interval '1 second')
on conflict (organisation_id, key) do update
set fingerprint = excluded.fingerprint, request_id = excluded.request_id, replica_id = excluded.replica_id,
    expires_at = excluded.expires_at, created_at = now(), state = 'running', status = null, headers = null,
    body = null, finished_at = null
where (k.state = 'finished' and k.expires_at <= now())
    or (k.state = 'running' and k.fingerprint = excluded.fingerprint
        and not exists (select 1 from replicas r where r.id = k.replica_id and r.lease_until > now()))
returning request_id
"""
HOLDER = """
select fingerprint, state, status, headers, body from idempotency_keys where organisation_id = $1 and key = $2
"""
FINISH = """
update idempotency_keys set state = 'finished', status = $4, headers = $5, body = $6, finished_at = now()
where organisation_id = $1 and key = $2 and request_id = $3 and state = 'running'
"""
RELEASE = """
delete from idempotency_keys where organisation_id = $1 and key = $2 and request_id = $3 and state = 'running'
"""


class PostgresIdempotency:
    """The `Store` port of the idempotency layer; answers are kept for `retention` seconds."""

    def __init__(self, database: Database, replica: Replica, *, retention: float) -> None:
        self._database = database
        self._replica = replica
        self._retention = retention

    async def claim(self, claim: Claim) -> Answer | Taken | Held:
        await self._replica.ensure_lease()
        async with self._database.connection() as connection:
            while True:
                won = await connection.fetchval(
                    CLAIM,
                    claim.org_id,
                    claim.key,
                    claim.fingerprint,
                    claim.request_id,
                    self._replica.id,
                    self._retention,
                )
                if won is not None:
                    return None
                holder = await connection.fetchrow(HOLDER, claim.org_id, claim.key)
                if holder is not None:
                    break
        if holder["fingerprint"] != claim.fingerprint:
            return Taken.OTHER_REQUEST
        if holder["state"] == "running":
            return Taken.RUNNING
        return Answer(holder["status"], unpack_headers(holder["headers"]), holder["body"])

    async def finish(self, claim: Claim, answer: Answer) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                FINISH,
                claim.org_id,
                claim.key,
                claim.request_id,
                answer.status,
                pack_headers(answer),
                answer.body,
            )

    async def release(self, claim: Claim) -> None:
        async with self._database.connection() as connection:
            await connection.execute(RELEASE, claim.org_id, claim.key, claim.request_id)
