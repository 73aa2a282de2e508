"""The command line, as an operator's shell runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aigate import __version__
from aigate.stores.database import Database
from aigate.stores.keys import KeyRing
from middleware.exchange import Caller

NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"


class Shell:
    """Runs `aigate` with these variables in a folder without `.env`."""

    def __init__(self, folder: Path, **variables: str) -> None:
        ours = ("DATABASE_URL", "REDIS_URL", "AIGATE_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self._environment = {**inherited, "AIGATE_DATABASE_TIMEOUT": "2", **variables}
        self._folder = folder

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "aigate", *arguments]
        return subprocess.run(
            command, cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False, timeout=60
        )

    def refused(self, *arguments: str, status: int = 1) -> str:
        """The one line that a command which cannot be done ends with."""
        done = self(*arguments)
        assert (done.returncode, done.stdout) == (status, ""), done
        assert done.stderr.startswith("aigate: ")
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr


@pytest.fixture
def shell(tmp_path: Path, database_url: str) -> Shell:
    """A shell in front of a migrated database."""
    return Shell(tmp_path, DATABASE_URL=database_url)


async def opens(database: Database, token: str) -> Caller | None:
    return await KeyRing(database, cache_seconds=0).caller(token)


async def test_a_created_key_opens(shell: Shell, database: Database) -> None:
    """The key is all that is printed, and it may do what was said."""
    done = shell(
        *("keys", "create", "--org-name", "acme", "--name", "laptop", "--models", "openai:*, echo:echo"),
        *("--requests-per-minute", "7", "--expires-in", "12h"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    caller = await opens(database, done.stdout.strip())
    assert caller is not None
    assert (caller.org_name, caller.requests_per_minute) == ("acme", 7)
    assert caller.models == ("openai:*", "echo:echo")


def test_keys_are_listed_without_their_secrets(shell: Shell) -> None:
    """A line a key; `--org-name` narrows it."""
    ours = shell("keys", "create", "--org-name", "acme", "--name", "laptop").stdout.strip()
    shell("keys", "create", "--org-name", "other")
    _, public_id, secret = ours.split("_", 2)
    whole, own = shell("keys", "list").stdout, shell("keys", "list", "--org-name", "acme").stdout
    assert len(whole.splitlines()) == 3
    assert own.splitlines()[1].split() == [public_id, "acme", "laptop", "active", "all"]
    assert secret not in whole


@pytest.mark.parametrize("whole", [True, False], ids=["by the key", "by its public id"])
async def test_a_revoked_key_opens_nothing(shell: Shell, database: Database, whole: bool) -> None:
    """It is named by itself or by its public id, and listed as revoked."""
    token = shell("keys", "create", "--org-name", "acme").stdout.strip()
    public_id = token.split("_")[1]
    done = shell("keys", "revoke", token if whole else public_id)
    assert (done.returncode, public_id in done.stdout) == (0, True)
    assert await opens(database, token) is None
    assert "revoked" in shell("keys", "list").stdout


def test_revoking_what_is_no_key(shell: Shell) -> None:
    """The operator is told."""
    assert "there is no key abc" in shell.refused("keys", "revoke", "abc")


def test_migrate(tmp_path: Path, empty_database_url: str) -> None:
    """It brings the database up, says so, and is done at once the next time."""
    shell = Shell(tmp_path, DATABASE_URL=empty_database_url)
    first, second = shell("migrate"), shell("migrate")
    assert first.returncode == second.returncode == 0
    assert int(first.stdout.split()[0]) > 0
    assert second.stdout == "0 migrations applied\n"
    assert shell("migrate", "--rollback", "1").stdout == "1 migrations taken back\n"


def test_version(shell: Shell) -> None:
    """The command knows its version."""
    assert shell("--version").stdout == f"aigate {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [("keys", "list"), ("keys", "create", "--org-name", "x"), ("migrate",), ("serve",)],
    ids=" ".join,
)
def test_no_database(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Without `DATABASE_URL` the operator learns which variable is missing."""
    assert "DATABASE_URL" in Shell(tmp_path).refused(*arguments)


def test_serve_without_redis(tmp_path: Path) -> None:
    """The same for Redis."""
    assert "REDIS_URL" in Shell(tmp_path, DATABASE_URL=NOWHERE).refused("serve")


@pytest.mark.parametrize("arguments", [("keys", "list"), ("migrate",)], ids=" ".join)
def test_a_database_that_is_away(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """One line says so, not a traceback."""
    assert "database" in Shell(tmp_path, DATABASE_URL=NOWHERE).refused(*arguments)


def test_a_database_that_is_not_migrated(tmp_path: Path, empty_database_url: str) -> None:
    """One line says so."""
    assert "migrated" in Shell(tmp_path, DATABASE_URL=empty_database_url).refused("keys", "list")


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense"])
def test_a_url_that_is_none(tmp_path: Path, url: str) -> None:
    """The variable is named, not its value, which may have a password in it."""
    told = Shell(tmp_path, DATABASE_URL=url).refused("keys", "list")
    assert "DATABASE_URL" in told
    assert url not in told


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "create", "--org-name", ""),
        ("keys", "create", "--org-name", "x" * 201),
        ("keys", "create", "--org-name", "acme", "--requests-per-minute", "-1"),
        ("keys", "create", "--org-name", "acme", "--requests-per-minute", "99999999999"),
        ("keys", "create", "--org-name", "acme", "--expires-in", "soon"),
        ("keys", "create", "--org-name", "acme", "--expires-in", "nand"),
        ("keys", "create", "--org-name", "acme", "--expires-in", "infd"),
        ("keys", "create", "--org-name", "acme", "--expires-in", "99999999999d"),
        ("keys", "create", "--org-name", "acme", "--models", ","),
        ("keys", "create"),
        ("migrate", "--rollback", "-1"),
        ("nonsense",),
        (),
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_what_cannot_be_meant(shell: Shell, arguments: tuple[str, ...]) -> None:
    """It is refused without a traceback and without an effect."""
    done = shell(*arguments)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert len(shell("keys", "list").stdout.splitlines()) == 1
