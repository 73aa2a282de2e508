#!/usr/bin/env python3
"""Why: without price rules every call is refused (402); this fills in the public prices for one organisation.

scripts/seed_price_rules.py --org-name NAME [--dry-run]

Prices: the `genai-prices` package, Qwen's price list, zero for local providers. Running it again is harmless.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def enter_environment() -> None:
    """Run again with the checkout's own Python, where there is one and this is another."""
    venv = ROOT / ".venv"
    python = venv / "bin" / "python"
    if python.exists() and not venv.samefile(sys.prefix):
        os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:]])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fill in the public prices for one organisation.")
    parser.add_argument("--org-name", required=True, help="the organisation; it is created if missing")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    return parser.parse_args()


async def seed(organisation: str, dry_run: bool) -> str:
    """What was done, in lines for people."""
    from aigate.seeding import seed_price_rules
    from aigate.settings import Settings
    from aigate.stores.database import Database

    settings = Settings.read()
    if not settings.database_url:
        raise SystemExit(
            "DATABASE_URL is not set: export it or write it to .env (postgresql://user:password@host/db)."
        )
    database = Database(settings.database_url, connections=1, timeout=max(settings.database_timeout, 30.0))
    try:
        seeded = await seed_price_rules(database, organisation, dry_run=dry_run)
    finally:
        await database.close()
    rules = seeded.rules
    lines = [
        f"{'would seed' if dry_run else 'seeded'} '{organisation}'{' (new)' if seeded.created else ''}: "
        f"{rules.added} rules added, {rules.changed} changed, {rules.unchanged} unchanged",
        ", ".join(f"{provider} {count}" for provider, count in seeded.providers.items()),
    ]
    return "\n".join(lines)


def main() -> None:
    options = arguments()
    enter_environment()
    import asyncpg

    from aigate.settings import SettingsError
    from middleware.faults import StoreUnavailable

    try:
        print(asyncio.run(seed(options.org_name, options.dry_run)))
    except StoreUnavailable as error:
        if isinstance(error.__cause__, asyncpg.UndefinedTableError):
            raise SystemExit("The database has no tables yet: migrate it first (aigate migrate).") from None
        raise SystemExit(f"The database cannot be reached: {error.__cause__ or error}") from None
    except (SettingsError, ValueError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
