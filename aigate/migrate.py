"""Brings the database to this version's schema: raw SQL in `migrations/`, applied by yoyo under its lock.

yoyo speaks to PostgreSQL through psycopg, the service through asyncpg; both take the one `DATABASE_URL`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from yoyo import get_backend, read_migrations
from yoyo.backends import DatabaseBackend
from yoyo.migrations import MigrationList

BESIDE_THE_SOURCE = Path(__file__).resolve().parent.parent / "migrations"
ALONE = 0x616967617465
"""The advisory lock of whoever migrates: it ends with its holder's connection, where yoyo's own row would stay."""
IN_THE_WHEEL = Path(__file__).resolve().parent / "_migrations"


def migrate(url: str) -> int:
    """Apply what is missing, in one process at a time; the number of migrations applied."""
    with _opened(url) as (backend, migrations), backend.lock():
        missing = backend.to_apply(migrations)
        backend.apply_migrations(missing)
        return len(missing)


def rollback(url: str, count: int = 1) -> int:
    """Take back the last `count` migrations; the number taken back."""
    with _opened(url) as (backend, migrations), backend.lock():
        applied = backend.to_rollback(migrations)[:count]
        backend.rollback_migrations(applied)
        return len(applied)


@contextmanager
def _opened(url: str) -> Iterator[tuple[DatabaseBackend, MigrationList]]:
    folder = BESIDE_THE_SOURCE if BESIDE_THE_SOURCE.is_dir() else IN_THE_WHEEL
    backend = get_backend(url.replace("postgresql://", "postgresql+psycopg://", 1))
    try:
        backend.execute(f"select pg_advisory_lock({ALONE})")
        backend.break_lock()
        yield backend, read_migrations(str(folder))
    finally:
        backend.connection.close()
