"""The command `aigate`: what an operator does, each in one word.

Modules are imported by the command that needs them: a server does not load the migrations' libraries.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from aigate import __version__
from aigate.settings import Settings, SettingsError
from aigate.stores.database import Database
from middleware.faults import StoreUnavailable

Result = TypeVar("Result")
DURATIONS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_DURATION = 100 * 366 * 86400
LARGEST_COUNT = 2**31 - 1


class CommandError(Exception):
    """What the operator is told in one line before the command ends with status 1."""


def main() -> None:
    """Run the command line. Exits with 1 and one line on stderr if it cannot be done."""
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments, Settings.read())
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `aigate prices show | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (CommandError, SettingsError) as error:
        sys.exit(f"aigate: {error}")
    except StoreUnavailable as error:
        sys.exit(f"aigate: the database does not answer or is not migrated: {error.__cause__}")


def _parser() -> argparse.ArgumentParser:
    from aigate import ledger_commands, price_commands  # they need what is above and below

    parser = argparse.ArgumentParser("aigate", description="A self-hosted AI gateway.")
    parser.add_argument("--version", action="version", version=f"aigate {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    dev = commands.add_parser("dev", help="serve with embedded stores and a development key")
    dev.add_argument("--port", type=int)
    dev.add_argument("--host")
    dev.add_argument("--data-dir", type=Path, default=Path(".aigate"), help="default: %(default)s")
    dev.set_defaults(run=_dev)

    serve = commands.add_parser("serve", help="serve on DATABASE_URL and REDIS_URL")
    serve.add_argument("--port", type=int)
    serve.add_argument("--host")
    serve.add_argument("--workers", type=int)
    serve.set_defaults(run=_serve)

    migrate = commands.add_parser("migrate", help="bring the database to this version's schema")
    migrate.add_argument("--rollback", type=_count, metavar="N", help="take the last N migrations back instead")
    migrate.set_defaults(run=_migrate)

    _add_keys(commands.add_parser("keys", help="create, list and revoke API keys"))
    ledger_commands.add_commands(commands.add_parser("ledger", help="print, verify and reconcile the ledger's rows"))
    price_commands.add_commands(commands.add_parser("prices", help="show, set, import and explain prices"))
    return parser


def _add_keys(keys: argparse.ArgumentParser) -> None:
    actions = keys.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser("create", help="print a new key, the only time that it can be read")
    create.add_argument("--org-name", type=_org_name, required=True, help="the organisation, made if there is none")
    create.add_argument("--name", default="", help="what people call the key")
    create.add_argument("--models", type=_globs, help="comma-separated globs over provider:model; default: all")
    create.add_argument("--requests-per-minute", type=_count, help="0 is no limit; default: the gateway's")
    create.add_argument("--expires-in", type=_duration, help="such as 12h or 30d; default: never")
    create.set_defaults(run=_create_key)
    listing = actions.add_parser("list", help="all keys, without their secrets")
    listing.add_argument("--org-name")
    listing.set_defaults(run=_list_keys)
    join = actions.add_parser("join-duplicates", help="treat equal requests without an Idempotency-Key as one")
    join.add_argument("name", help="a key, its public id, or an organisation")
    join.add_argument("seconds", type=_seconds_or_off, help="how long the first one may have run, or 'off'")
    join.set_defaults(run=_join_duplicates)
    revoke = actions.add_parser("revoke", help="end a key everywhere, within the cache time")
    revoke.add_argument("key", help="the key or its public id")
    revoke.set_defaults(run=_revoke_key)


def _dev(arguments: argparse.Namespace, settings: Settings) -> None:
    from aigate import dev

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # else it would leave the stores running

    dev.run(_overridden(arguments, settings), arguments.data_dir)


def _serve(arguments: argparse.Namespace, settings: Settings) -> None:

    from aigate import logs
    from aigate.serve import serve

    settings = _overridden(arguments, settings)
    _require_stores(settings)
    os.environ.update(AIGATE_HOST=settings.host, AIGATE_PORT=str(settings.port))
    logs.configure(settings.log_level)
    serve(settings)


def _migrate(arguments: argparse.Namespace, settings: Settings) -> None:
    from psycopg import OperationalError

    from aigate.migrate import migrate, rollback

    url = _database_url(settings)
    try:
        if arguments.rollback is None:
            print(f"{migrate(url)} migrations applied")
        else:
            print(f"{rollback(url, arguments.rollback)} migrations taken back")
    except OperationalError as error:
        raise CommandError(f"the database does not answer: {' '.join(str(error).split())}") from None


def _create_key(arguments: argparse.Namespace, settings: Settings) -> None:
    from aigate.stores.keys import create_key

    print(
        with_database(
            settings,
            lambda database: create_key(
                database,
                arguments.org_name,
                name=arguments.name,
                models=arguments.models,
                requests_per_minute=arguments.requests_per_minute,
                expires_in=arguments.expires_in,
            ),
        )
    )


def _list_keys(arguments: argparse.Namespace, settings: Settings) -> None:
    from aigate.stores.keys import list_keys

    rows = with_database(settings, lambda database: list_keys(database, arguments.org_name))
    line = "{:<18} {:<20} {:<20} {:<9} {}"
    print(line.format("PUBLIC ID", "ORGANISATION", "NAME", "STATE", "MODELS"))
    for row in rows:
        models = ", ".join(row["models"]) if row["models"] else "all"
        print(line.format(row["public_id"], row["organisation"], row["name"], row["state"], models))


def _revoke_key(arguments: argparse.Namespace, settings: Settings) -> None:
    from aigate.stores.keys import public_id_of, revoke_key

    public_id = public_id_of(arguments.key)
    if not with_database(settings, lambda database: revoke_key(database, public_id)):
        raise CommandError(f"there is no key {public_id}")
    print(f"{public_id} is revoked; replicas forget it within {settings.key_cache_seconds:g} s")


def _join_duplicates(arguments: argparse.Namespace, settings: Settings) -> None:
    from aigate.stores.keys import join_duplicates, public_id_of

    name = public_id_of(arguments.name)
    if not with_database(settings, lambda database: join_duplicates(database, name, arguments.seconds)):
        raise CommandError(f"there is no key and no organisation {name}")
    print(f"{name}: {'off' if arguments.seconds is None else f'within {arguments.seconds} s'}")


def with_database(settings: Settings, work: Callable[[Database], Awaitable[Result]]) -> Result:
    """What `work` returns, on a database that is closed afterwards."""

    async def run() -> Result:
        database = Database(_database_url(settings), timeout=settings.database_timeout)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


def _overridden(arguments: argparse.Namespace, settings: Settings) -> Settings:
    given: dict[str, Any] = {
        name: value for name in ("host", "port", "workers") if (value := getattr(arguments, name, None)) is not None
    }
    return replace(settings, **given)


def _database_url(settings: Settings) -> str:
    if not settings.database_url:
        raise CommandError("DATABASE_URL is not set, in the environment or in .env")
    return settings.database_url


def _require_stores(settings: Settings) -> None:
    _database_url(settings)
    if not settings.redis_url:
        raise CommandError("REDIS_URL is not set, in the environment or in .env")


def _seconds_or_off(text: str) -> int | None:
    if text == "off":
        return None
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of seconds nor 'off'")
    return int(text)


def _duration(text: str) -> float:
    try:
        seconds = float(text[:-1]) * DURATIONS[text[-1]]
    except (KeyError, ValueError, IndexError):
        seconds = 0.0
    if not 0 < seconds <= LONGEST_DURATION:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90s, 30m, 12h or 30d")
    return seconds


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > LARGEST_COUNT:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to {LARGEST_COUNT}")
    return int(text)


def _org_name(text: str) -> str:
    if not 1 <= len(text) <= 200:
        raise argparse.ArgumentTypeError("an organisation's name has 1 to 200 characters")
    return text


def _globs(text: str) -> list[str]:
    globs = [glob.strip() for glob in text.split(",")]
    if not all(globs):
        raise argparse.ArgumentTypeError(f"{text!r} is no comma-separated list of globs such as openai:*")
    return globs
