#!/usr/bin/env python3
"""Why: a script or a CI job needs a key in a variable: the key alone on stdout, all else on stderr.

scripts/seed_dev_api_key.py --org-name NAME

Each run makes one more key; `aigate keys` makes keys with limits, lists and revokes them.
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
    if Path(sys.prefix) != venv and python.exists():
        os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:]])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Print a new API key for development.")
    parser.add_argument("--org-name", required=True, help="the organisation; it is created if missing")
    return parser.parse_args()


async def new_key(organisation: str) -> str:
    """A new key, whole. Raises `SettingsError`, `StoreUnavailable`, and `ValueError` for a bad name."""
    from aigate.settings import Settings
    from aigate.stores.database import Database
    from aigate.stores.keys import create_key

    if not 1 <= len(organisation) <= 200 or "\0" in organisation:
        raise ValueError("an organisation's name has 1 to 200 characters")
    settings = Settings.read()
    if not settings.database_url:
        raise ValueError(
            "DATABASE_URL is not set: export it or write it to .env (postgresql://user:password@host/db)."
        )
    database = Database(settings.database_url, connections=1, timeout=settings.database_timeout)
    try:
        return await create_key(database, organisation, name=Path(__file__).name)
    finally:
        await database.close()


def main() -> None:
    options = arguments()
    enter_environment()
    from middleware.faults import StoreUnavailable

    try:
        print(asyncio.run(new_key(options.org_name)))
    except StoreUnavailable as error:
        raise SystemExit(f"The database does not answer or is not migrated: {error.__cause__ or error}") from None
    except ValueError as error:  # SettingsError is one
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
