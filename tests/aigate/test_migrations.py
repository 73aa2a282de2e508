"""The schema: up, down and up again, and the plans of the statements that run for every request."""

import json
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import aigate
from aigate.migrate import migrate, rollback
from aigate.stores import idempotency, journal, keys, replica

FOLDER = Path(aigate.__file__).resolve().parent.parent / "migrations"
MIGRATIONS = sorted(path for path in FOLDER.glob("*.sql") if not path.name.endswith(".rollback.sql"))
OURS = """
select 'table or view ' || relname as name from pg_class c join pg_namespace n on n.oid = relnamespace
where nspname = 'public' and relkind in ('r', 'v', 'm', 'S', 'f', 'p') and relname !~ '^_?yoyo'
union all select 'function ' || proname from pg_proc join pg_namespace n on n.oid = pronamespace
where nspname = 'public'
union all select 'type ' || typname from pg_type t join pg_namespace n on n.oid = typnamespace
where nspname = 'public' and typtype in ('e', 'd')
"""


async def fetch(url: str, statement: str, *arguments: object) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(statement, *arguments)
    finally:
        await connection.close()


async def things(url: str) -> set[str]:
    """What stands in the database beside yoyo's own."""
    return {row["name"] for row in await fetch(url, OURS)}


async def test_up_down_up(empty_database_url: str) -> None:
    """Every migration can be applied, taken back, and applied again; taken back it leaves nothing."""
    assert migrate(empty_database_url) == len(MIGRATIONS)
    whole = await things(empty_database_url)
    assert "table or view calls" in whole
    assert rollback(empty_database_url, len(MIGRATIONS)) == len(MIGRATIONS)
    assert await things(empty_database_url) == set()
    assert migrate(empty_database_url) == len(MIGRATIONS)
    assert await things(empty_database_url) == whole


async def test_each_rollback_takes_back_its_own_migration(empty_database_url: str) -> None:
    """From any of them on, taking back and applying again leads to the same schema."""
    migrate(empty_database_url)
    whole = await things(empty_database_url)
    for count in range(1, len(MIGRATIONS) + 1):
        assert rollback(empty_database_url, count) == count
        assert await things(empty_database_url) < whole
        assert migrate(empty_database_url) == count
        assert await things(empty_database_url) == whole


def test_a_database_that_is_up_to_date(empty_database_url: str) -> None:
    """Nothing is applied twice, and nothing is taken back that was never applied."""
    assert rollback(empty_database_url, 5) == 0
    migrate(empty_database_url)
    assert migrate(empty_database_url) == 0


@pytest.mark.parametrize("migration", MIGRATIONS, ids=lambda path: path.name)
def test_a_migration_says_why(migration: Path) -> None:
    """It begins with a comment in words, and has a rollback beside it."""
    first = migration.read_text().splitlines()[0]
    assert re.match(r"-- (?!depends)\w+ \w+", first)
    assert migration.with_suffix(".rollback.sql").read_text().strip()


def test_migrations_are_numbered_and_depend_on_the_one_before() -> None:
    """Their order is one line, without gaps."""
    names = [path.stem for path in MIGRATIONS]
    assert [name[:4] for name in names] == [f"{number:04}" for number in range(1, len(names) + 1)]
    for before, path in zip(["", *names], MIGRATIONS, strict=False):
        assert f"-- depends: {before}".rstrip() in path.read_text().splitlines()


def test_two_processes_at_once(empty_database_url: str) -> None:
    """Each waits for the other, and every migration is applied once."""
    script = f"from aigate.migrate import migrate; print(migrate({empty_database_url!r}))"
    both = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert sorted(int(out) for out, _ in ended) == [0, len(MIGRATIONS)]


async def test_a_migration_that_was_killed(empty_database_url: str) -> None:
    """The next one does not wait for a process that is dead."""
    migrate(empty_database_url)
    await fetch(empty_database_url, "insert into yoyo_lock (locked, ctime, pid) values (1, now(), 999999)")
    assert migrate(empty_database_url) == 0


ROWS = """
insert into organisations (name) select 'org ' || n from generate_series(1, 10000) n;
insert into api_keys (organisation_id, public_id, secret_hash)
select id, 'key' || id, sha256('x') from organisations;
insert into replicas (id, name, lease_until) select gen_random_uuid(), 'r', now() + interval '1 hour'
from generate_series(1, 3);
insert into calls (request_id, organisation_id, api_key_id, provider, model, stream, state, outcome, replica_id,
    settled_at)
select gen_random_uuid(), o.id, k.id, 'openai', 'gpt-4o', false, 'settled', 'ok', r.id, now()
from organisations o join api_keys k on k.organisation_id = o.id, lateral (select id from replicas limit 1) r;
update calls set state = 'open', outcome = null, settled_at = null
where request_id in (select request_id from calls limit 20);
insert into idempotency_keys (organisation_id, key, fingerprint, request_id, state, replica_id, expires_at, status,
    headers, body, finished_at)
select o.id, 'key', sha256('x'), gen_random_uuid(), 'finished', r.id, now() + interval '1 day', 200, '', '', now()
from organisations o, lateral (select id from replicas limit 1) r;
analyze
"""
HOT = {
    "keys.FIND": keys.FIND,
    "journal.OPEN": journal.OPEN,
    "journal.CLOSE": journal.CLOSE,
    "journal.OPEN_AND_CLOSE": journal.OPEN_AND_CLOSE,
    "journal.WRITE": journal.WRITE,
    "idempotency.CLAIM": idempotency.CLAIM,
    "idempotency.HOLDERS": idempotency.HOLDERS,
    "idempotency.RELEASE": idempotency.RELEASE,
    "idempotency.REAP": idempotency.REAP,
    "replica.SWEEP": replica.SWEEP,
}
EXAMPLES = {
    "text": "key17",
    "uuid": uuid.UUID(int=7),
    "bytea": b"x" * 32,
    "bool": False,
    "float8": 60.0,
    "json": "[]",
}
"""A value of each type that a statement takes; all others are numbers."""


def example(kind: asyncpg.Type) -> object:
    name = kind.name.removesuffix("[]")
    value = EXAMPLES.get(name, 1)
    return [value] if kind.kind == "array" else value


def scanned(plan: dict[str, Any]) -> set[str]:
    """The tables that a plan reads from end to end."""
    found = {plan["Relation Name"]} if plan["Node Type"] == "Seq Scan" else set()
    return found.union(*map(scanned, plan.get("Plans", ())))


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_hot_statements_use_indexes(database_url: str, mode: str) -> None:
    """With ten thousand rows none reads a big table from end to end, whichever way PostgreSQL plans it."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(ROWS)
    await connection.execute(f"set plan_cache_mode = {mode}")
    found = {}
    for name, statement in HOT.items():
        explain = f"explain (format json) {statement}"
        arguments = map(example, (await connection.prepare(explain)).get_parameters())
        (plan,) = json.loads(await connection.fetchval(explain, *arguments))
        found[name] = scanned(plan["Plan"]) - {"replicas"}
    await connection.close()
    assert found == {name: set() for name in HOT}
