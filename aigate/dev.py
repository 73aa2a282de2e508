"""`aigate dev`: everything that a newcomer needs for a first call, from nothing, in one command.

Starts PostgreSQL and Redis below the data directory, unless DATABASE_URL and REDIS_URL name others; migrates; makes
the organisation `dev-org` with price rules and a key; serves, and prints the key with a curl line that works. A
second process on the same data directory is a second replica on the same stores; the last to end stops them.
"""

import asyncio
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from aigate import logs
from aigate.embedded import start_postgres, start_redis
from aigate.migrate import migrate
from aigate.seeding import seed_price_rules
from aigate.serve import serve
from aigate.settings import Settings
from aigate.stores.database import Database
from aigate.stores.keys import KeyRing, create_key

ORGANISATION = "dev-org"

WELCOME = """\

AIGate is ready at {url}

AIGATE_API_KEY={key}

curl {url}/v1/chat/completions \\
  -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
  -d '{{"model": "echo:echo", "messages": [{{"role": "user", "content": "Hello, gateway!"}}]}}'

Other commands (aigate keys, prices, ledger) find the same database with:
DATABASE_URL='{database_url}'
"""


def run(settings: Settings, data_dir: Path) -> None:
    """Serve for development until SIGINT or SIGTERM, then end everything that was started here."""
    logs.configure(settings.log_level)
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as started:
        settings = _with_stores(settings, data_dir, started)
        with _alone(data_dir):
            migrate(settings.database_url)
            key = _seed(settings, data_dir / "dev-key")
        serve(settings, started=lambda port: _welcome(settings, port, key))


def _with_stores(settings: Settings, data_dir: Path, started: ExitStack) -> Settings:
    """The settings with embedded stores for those that are not set, also in the environment of the workers."""
    if not settings.database_url:
        postgres = start_postgres(data_dir)
        started.callback(postgres.stop)
        settings = replace(settings, database_url=postgres.url)
    if not settings.redis_url:
        redis = start_redis(data_dir)
        started.callback(redis.stop)
        settings = replace(settings, redis_url=redis.url)
    os.environ.update(
        DATABASE_URL=settings.database_url,
        REDIS_URL=settings.redis_url,
        AIGATE_HOST=settings.host,
        AIGATE_PORT=str(settings.port),
    )
    return settings


def _seed(settings: Settings, file: Path) -> str:
    """The key that is kept in `file`, if it still opens the gateway, else a new one kept there."""
    kept = file.read_text().strip() if file.is_file() else ""
    key = asyncio.run(_seed_database(settings, kept))
    if key != kept:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as keeping:
            keeping.write(f"{key}\n")
    return key


async def _seed_database(settings: Settings, kept: str) -> str:
    database = Database(settings.database_url, timeout=settings.database_timeout)
    try:
        await seed_price_rules(database, ORGANISATION)
        if kept and await KeyRing(database, cache_seconds=0).caller(kept) is not None:
            return kept
        return await create_key(database, ORGANISATION, name="scripts/dev")
    finally:
        await database.close()


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Two that start at once seed one after the other."""
    with open(data_dir / "seed.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _welcome(settings: Settings, port: int, key: str) -> None:
    url = f"http://{settings.host}:{port}"
    sys.stdout.write(WELCOME.format(url=url, key=key, database_url=settings.database_url))
    sys.stdout.flush()
