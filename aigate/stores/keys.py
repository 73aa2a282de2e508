"""API keys: made, listed, revoked, and recognised on every request.

A key reads `aig_<public id>_<secret>`: found by its public id, compared by the SHA-256 of its secret in constant
time. The secret has 256 random bits, so a slow password hash would protect nothing. What was found is remembered for
`cache_seconds`: that is how long a revoked key may still work. Lookups that are concurrent share one statement, so
that a flood of unknown keys is not a flood of statements.
"""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from aigate.stores.batch import Batch
from aigate.stores.database import Database
from middleware.exchange import Caller

PREFIX = "aig"
MOST_CACHED = 100_000

FIND = """
select k.public_id, k.secret_hash, k.id as key_id, k.models, k.requests_per_minute,
    coalesce(k.join_duplicates_seconds, o.join_duplicates_seconds)::float8 as join_duplicates,
    o.id as organisation_id, o.name as organisation_name,
    extract(epoch from k.expires_at - now())::float8 as seconds_left
from api_keys k join organisations o on o.id = k.organisation_id
where k.public_id = any($1::text[]) and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())
"""
ORGANISATION = """
with made as (insert into organisations (name) values ($1) on conflict (name) do nothing returning id)
select id from made union all select id from organisations where name = $1
"""
CREATE = """
insert into api_keys (organisation_id, public_id, secret_hash, name, models, requests_per_minute, expires_at)
values ($1, $2, $3, $4, $5, $6, now() + $7 * interval '1 second')
"""
LIST = """
select k.public_id, o.name as organisation, k.name, k.models, k.requests_per_minute, k.created_at, k.expires_at,
    k.revoked_at, case when k.revoked_at is not null then 'revoked' when k.expires_at <= now() then 'expired'
    else 'active' end as state
from api_keys k join organisations o on o.id = k.organisation_id
where $1::text is null or o.name = $1
order by k.id
"""
JOIN_DUPLICATES = """
with key as (update api_keys set join_duplicates_seconds = $2 where public_id = $1 returning id),
    organisation as (update organisations set join_duplicates_seconds = $2 where name = $1 returning id)
select id from key union all select id from organisation
"""
REVOKE = "update api_keys set revoked_at = coalesce(revoked_at, now()) where public_id = $1 returning public_id"


@dataclass(frozen=True, slots=True)
class _Known:
    """A key as found; it is remembered `until`, in seconds of the monotonic clock, but not beyond its own end."""

    caller: Caller
    secret_hash: bytes
    until: float

    def caller_with(self, secret: str) -> Caller | None:
        """Who calls, if this is the key's secret."""
        return self.caller if hmac.compare_digest(_hash(secret), self.secret_hash) else None


class KeyRing:
    """Recognises keys; the `Keys` port of the auth layer."""

    def __init__(self, database: Database, *, cache_seconds: float) -> None:
        self._database = database
        self._cache_seconds = cache_seconds
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lookups = Batch(self._find)

    def known(self, token: str) -> Caller | None:
        public_id, secret = _parts(token)
        known = self._known.get(public_id)
        return None if known is None or known.until <= time.monotonic() else known.caller_with(secret)

    async def caller(self, token: str) -> Caller | None:
        public_id, secret = _parts(token)
        known = self._known.get(public_id)
        if known is None or known.until <= time.monotonic():
            known = await self._look_up(public_id) if public_id.isalnum() else None
        return None if known is None else known.caller_with(secret)

    async def _look_up(self, public_id: str) -> _Known | None:
        known = await self._lookups.submit(public_id)
        if known is None:
            self._known.pop(public_id, None)
            return None
        self._known[public_id] = known
        if len(self._known) > MOST_CACHED:
            self._known.popitem(last=False)
        return known

    async def _find(self, public_ids: Sequence[str]) -> list[_Known | None]:
        asked = time.monotonic()
        async with self._database.connection() as connection:
            rows = await connection.fetch(FIND, list(set(public_ids)))
        found = {row["public_id"]: self._remember(row, asked) for row in rows}
        return [found.get(public_id) for public_id in public_ids]

    def _remember(self, row: asyncpg.Record, asked: float) -> _Known:
        left = row["seconds_left"]
        caller = Caller(
            org_id=row["organisation_id"],
            org_name=row["organisation_name"],
            key_id=row["key_id"],
            public_id=row["public_id"],
            models=None if row["models"] is None else tuple(row["models"]),
            requests_per_minute=row["requests_per_minute"],
            join_duplicates=row["join_duplicates"],
        )
        kept = self._cache_seconds if left is None else min(self._cache_seconds, left)
        return _Known(caller, row["secret_hash"], asked + kept)


async def create_organisation(database: Database, name: str) -> int:
    """The id of the organisation of this name, made if there is none."""
    async with database.connection() as connection:
        while (found := await connection.fetchval(ORGANISATION, name)) is None:
            continue  # a concurrent insert of the same name was not yet visible
    return int(found)


async def create_key(
    database: Database,
    organisation: str,
    *,
    name: str = "",
    models: Sequence[str] | None = None,
    requests_per_minute: int | None = None,
    expires_in: float | None = None,
) -> str:
    """A new key for the organisation, whole; only its hash is kept, so nobody can read it again."""
    public_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    organisation_id = await create_organisation(database, organisation)
    allowed = None if models is None else list(models)
    async with database.connection() as connection:
        await connection.execute(
            CREATE, organisation_id, public_id, _hash(secret), name, allowed, requests_per_minute, expires_in
        )
    return f"{PREFIX}_{public_id}_{secret}"


async def list_keys(database: Database, organisation: str | None = None) -> list[asyncpg.Record]:
    """Every key, or those of one organisation, oldest first; never a secret."""
    async with database.connection() as connection:
        return list(await connection.fetch(LIST, organisation))


async def revoke_key(database: Database, public_id: str) -> bool:
    """Revoke a key by its public id; whether there is such a key. Holds everywhere after the cache time."""
    async with database.connection() as connection:
        return await connection.fetchval(REVOKE, public_id) is not None


async def join_duplicates(database: Database, name: str, seconds: int | None) -> bool:
    """Whether the same request without an `Idempotency-Key` joins the first one within `seconds`; `None` is never.

    `name` is a key's public id or an organisation; whether there is one. A key's own setting goes first.
    """
    async with database.connection() as connection:
        return await connection.fetchval(JOIN_DUPLICATES, name, seconds) is not None


def public_id_of(key: str) -> str:
    """The public id in a whole key, or the text itself if it is one already."""
    return key.split("_", 2)[1] if key.startswith(f"{PREFIX}_") else key


def _parts(token: str) -> tuple[str, str]:
    """Public id and secret; both empty of what is no key of ours."""
    prefix, _, rest = token.partition("_")
    public_id, _, secret = rest.partition("_")
    return (public_id, secret) if prefix == PREFIX and secret else ("", "")


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
