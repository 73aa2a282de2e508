"""Why: what matters here happens between processes, so owners are real ones that are really killed."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from aigate.embedded import locks

_OWNER = """
import sys
from pathlib import Path
from aigate.embedded import start_postgres, start_redis
start = {"postgres": lambda path: start_postgres(path, durable=False), "redis": start_redis}[sys.argv[1]]
server = start(Path(sys.argv[2]))
print(server.url, flush=True)
sys.stdin.read()
server.stop()
"""


class Stoppable(Protocol):
    """What both starters return."""

    url: str

    def stop(self) -> None: ...


class Owner:
    """Another process that starts or adopts a server and keeps it until told to leave."""

    def __init__(self, kind: str, data_dir: Path, environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _OWNER, kind, str(data_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def url(self) -> str:
        """Wait until its server is up."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        """`kill -9`, nothing cleaned up."""
        self._process.kill()
        self._process.communicate()

    def leave(self) -> None:
        """An orderly stop."""
        self._process.communicate("")
        assert self._process.returncode == 0


@pytest.fixture
def owner() -> Iterator[Callable[..., Owner]]:
    """Start an `Owner`; whoever is left at the end is killed."""
    owners: list[Owner] = []

    def start(kind: str, data_dir: Path, environment: dict[str, str] | None = None) -> Owner:
        owners.append(Owner(kind, data_dir, environment))
        return owners[-1]

    yield start
    for each in owners:
        each.kill()


@pytest.fixture
def ending() -> Iterator[Callable[[Stoppable], Stoppable]]:
    """Promise that a server is left when the test ends."""
    servers: list[Stoppable] = []

    def keep(server: Stoppable) -> Stoppable:
        servers.append(server)
        return server

    yield keep
    for server in servers:
        server.stop()


def lives(folder: Path) -> bool:
    """Whether any process of the server in `folder` lives."""
    return locks.is_held(folder / "server.lock")


def wait_until_dead(folder: Path) -> None:
    """Wait until every process of the server in `folder` is gone."""
    deadline = time.monotonic() + 10
    while lives(folder):
        assert time.monotonic() < deadline
        time.sleep(0.01)
