"""`scripts/seed_dev_api_key.py`: a key that works, alone on stdout."""

import os
from pathlib import Path

import pytest

from tests.running import RunningGateway
from tests.scripts.running import SCRIPTS, run

SCRIPT = "seed_dev_api_key.py"


def test_can_be_executed() -> None:
    """It is called by its name."""
    assert os.access(SCRIPTS / SCRIPT, os.X_OK)


async def test_the_key_is_alone_on_stdout_and_works(
    gateway: RunningGateway, database_url: str, tmp_path: Path
) -> None:
    """`KEY=$(scripts/seed_dev_api_key.py ...)` needs no cutting."""
    ended = await run(SCRIPT, "--org-name", "acme", folder=tmp_path, DATABASE_URL=database_url)
    assert (ended.status, ended.err, ended.out.count("\n")) == (0, "", 1)
    response = await gateway.client.get("/v1/models", headers={"authorization": f"Bearer {ended.out.strip()}"})
    assert response.status_code == 200


async def test_the_organisation_is_made_if_there_is_none(
    gateway: RunningGateway, database_url: str, tmp_path: Path
) -> None:
    """A fresh database has no organisation."""
    await run(SCRIPT, "--org-name", "Zürich & Co", folder=tmp_path, DATABASE_URL=database_url)
    assert await gateway.rows("select 1 from organisations where name = 'Zürich & Co'")


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "DATABASE_URL is not set"),
        ({"DATABASE_URL": "mysql://x"}, "DATABASE_URL"),
        ({"DATABASE_URL": "postgresql://user:hidden@127.0.0.1:1/x"}, "does not answer"),
    ],
)
async def test_without_a_database_it_says_so(variables: dict[str, str], told: str, tmp_path: Path) -> None:
    """One line on stderr, status 1, nothing on stdout that could be taken for a key."""
    ended = await run(SCRIPT, "--org-name", "acme", folder=tmp_path, **variables)
    assert (ended.status, ended.out) == (1, "")
    assert told in ended.err
    assert "Traceback" not in ended.err
    assert "hidden" not in ended.err


async def test_database_without_tables(empty_database_url: str, tmp_path: Path) -> None:
    """What is missing is the migration."""
    ended = await run(SCRIPT, "--org-name", "acme", folder=tmp_path, DATABASE_URL=empty_database_url)
    assert (ended.status, ended.out) == (1, "")
    assert "not migrated" in ended.err


async def test_bad_name(tmp_path: Path) -> None:
    """An organisation has a name."""
    ended = await run(SCRIPT, "--org-name", "", folder=tmp_path)
    assert (ended.status, ended.out) == (1, "")
    assert "1 to 200 characters" in ended.err
