"""Rows by the million, so that a run of minutes stands on tables that would have taken months to fill.

Inserted by SQL in steps, each a transaction; filling ends early where time or the disk would run short.
"""

import asyncio
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from aigate.stores.keys import PREFIX

from .gateway import ORGANISATION, authorization

STEP = 100_000
MOST_SECONDS = 600.0
LEAST_FREE = 8_000_000_000
"""Bytes of the disk that are left alone."""
SECRET = "benchmark"
KEYS = """
insert into api_keys (organisation_id, public_id, secret_hash, name)
select o.id, lpad(to_hex(n), 16, '0'), sha256($4), 'seeded'
from generate_series($1::bigint, $2::bigint) n, organisations o where o.name = $3
"""
CALLS = """
insert into calls (request_id, organisation_id, api_key_id, provider, model, stream, state, outcome, usage_source,
    input_tokens, output_tokens, billed_cost_nano, replica_id, opened_at, settled_at)
select lpad(to_hex(n), 32, '0')::uuid, k.organisation_id, k.id, 'seeded', 'seeded', false, 'settled', 'ok',
    'provider', 100, 20, 450000, $4::uuid, now() - interval '1 day' + n * interval '1 millisecond', now()
from generate_series($1::bigint, $2::bigint) n, organisations o join lateral
    (select id, organisation_id from api_keys where organisation_id = o.id order by id limit 1) k on true
where o.name = $3
"""
ANSWERS = """
insert into idempotency_keys (organisation_id, key, fingerprint, request_id, state, replica_id, expires_at, status,
    headers, body, finished_at)
select o.id, 'seeded-' || n, sha256(int8send(n)), lpad(to_hex(n), 32, '0')::uuid, 'finished', $4::uuid,
    now() + interval '1 day', 200, '[]', decode(repeat('20', 500), 'hex'), now()
from generate_series($1::bigint, $2::bigint) n, organisations o where o.name = $3
"""
FAST = "set synchronous_commit = off; set session_replication_role = replica"
"""No wait for the disk, and no look at the organisation and the key of each row: they are taken from there."""
NOBODY = "00000000-0000-0000-0000-000000000000"
"""The replica of seeded rows."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table and how it is filled."""

    name: str
    insert: str
    extra: object


API_KEYS = Table("api_keys", KEYS, SECRET.encode())
LEDGER = Table("calls", CALLS, NOBODY)
IDEMPOTENCY = Table("idempotency_keys", ANSWERS, NOBODY)


def fill(url: str, folder: Path, table: Table, present: int, wanted: int) -> int:
    """Bring the seeded rows from `present` to `wanted`; how many there are now."""
    return asyncio.run(_fill(url, folder, table, present, wanted))


async def _fill(url: str, folder: Path, table: Table, present: int, wanted: int) -> int:
    connection = await asyncpg.connect(url)
    deadline = time.monotonic() + MOST_SECONDS
    try:
        await connection.execute(FAST)
        while present < wanted and time.monotonic() < deadline and shutil.disk_usage(folder).free > LEAST_FREE:
            last = min(wanted, present + STEP)
            await connection.execute(table.insert, present + 1, last, ORGANISATION, table.extra, timeout=120)
            present = last
        await connection.execute(f"vacuum analyze {table.name}", timeout=MOST_SECONDS)
        await connection.execute("checkpoint", timeout=MOST_SECONDS)
    finally:
        await connection.close()
    return present


def authorization_of(number: int) -> bytes:
    """The header of a seeded key; they count from 1."""
    return authorization(f"{PREFIX}_{number:016x}_{SECRET}")
