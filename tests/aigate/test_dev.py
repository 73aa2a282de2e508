"""`aigate dev` as a newcomer starts it: a real process on a data directory of the test's own."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.aigate.embedded.conftest import lives, wait_until_dead

PATIENCE = 60.0
"""Seconds for a start; more than enough on a busy machine."""
Start = Callable[[Path], "Dev"]


class Dev:
    """One running `aigate dev`."""

    def __init__(self, data_dir: Path) -> None:
        self.port = free_port()
        number = sum(1 for _ in data_dir.parent.glob("stdout-*"))
        self._stdout = data_dir.parent / f"stdout-{number}"
        self._stderr = data_dir.parent / f"stderr-{number}"
        command = [sys.executable, "-m", "aigate", "dev", "--port", str(self.port), "--data-dir", str(data_dir)]
        ours = ("DATABASE_URL", "REDIS_URL", "AIGATE_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self.process = subprocess.Popen(command, cwd=data_dir.parent, env=environment, stdout=out, stderr=err)

    @property
    def printed(self) -> str:
        return self._stdout.read_text()

    @property
    def complaints(self) -> str:
        return self._stderr.read_text()

    def until_ready(self) -> "Dev":
        """Wait until it has printed everything."""
        deadline = time.monotonic() + PATIENCE
        while "Hello, gateway!" not in self.printed:
            assert self.process.poll() is None, self.complaints + self.printed
            assert time.monotonic() < deadline, self.printed
            time.sleep(0.02)
        return self

    @property
    def key(self) -> str:
        found = re.search(r"^AIGATE_API_KEY=(\S+)$", self.printed, re.M)
        assert found is not None
        return found[1]

    @property
    def curl(self) -> str:
        """The command that it tells a newcomer to run."""
        found = re.search(r"^curl .*?'$", self.printed.partition("AIGATE_API_KEY")[2], re.M | re.S)
        assert found is not None
        return found[0].partition("\n\n")[0]

    def call(self) -> str:
        """What the printed command answers."""
        return subprocess.run(
            ["sh", "-c", self.curl.replace("curl ", "curl --silent --fail --noproxy '*' ", 1)],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout

    def requests(self) -> list[dict[str, object]]:
        """The lines of its log from the first request on."""
        lines = [json.loads(line) for line in self.printed.splitlines() if line.startswith("{")]
        return [line for line in lines if "request_id" in line]

    def end(self, how: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(how)
        return self.process.wait(PATIENCE)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def anything_lives(data_dir: Path) -> bool:
    """Whether a server of this data directory is left."""
    return any(lives(data_dir / name) for name in ("postgres", "redis"))


def starting() -> Iterator[Start]:
    """Starts gateways; whichever still runs at the end is ended, and so are its servers."""
    running: list[Dev] = []
    folders: set[Path] = set()

    def start(data_dir: Path) -> Dev:
        folders.add(data_dir)
        running.append(Dev(data_dir))
        return running[-1].until_ready()

    yield start
    for dev in running:
        if dev.process.poll() is None:
            dev.end()
    for folder in folders:
        if anything_lives(folder):  # what a killed one left behind is adopted, and ended in order
            Dev(folder).until_ready().end()


@pytest.fixture
def start() -> Iterator[Start]:
    yield from starting()


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A gateway that was started on nothing, for the tests that only look at it."""
    for starter in starting():
        yield starter(tmp_path_factory.mktemp("dev") / "data")


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory on which gateways have run before: later starts are faster."""
    data_dir = tmp_path_factory.mktemp("used") / "data"
    for starter in starting():
        starter(data_dir)
    return data_dir


def test_the_printed_command_works(dev: Dev) -> None:
    """Copied into a shell it answers."""
    assert json.loads(dev.call())["choices"][0]["message"]["content"] == "Hello, gateway!"


def test_the_printed_key_is_the_one_in_the_command(dev: Dev) -> None:
    """And it has the form of our keys."""
    assert re.fullmatch(r"aig_[0-9a-f]+_\S+", dev.key)
    assert dev.key in dev.curl


def test_only_its_owner_reads_the_key(dev: Dev) -> None:
    """The file has the key, and mode 0600, in a folder of mode 0700."""
    file = dev._stdout.parent / "data" / "dev-key"
    assert file.read_text().strip() == dev.key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_request_is_one_line_of_the_log(dev: Dev) -> None:
    """Neither uvicorn nor anybody else adds one."""
    before = len(dev.requests())
    dev.call()
    time.sleep(0.1)
    (line,) = dev.requests()[before:]
    assert (line["event"], line["status"], line["model"]) == ("request", 200, "echo")


def test_the_key_is_not_logged(dev: Dev) -> None:
    """It is printed for the newcomer, and in no line of the log."""
    dev.call()
    lines = [line for line in dev.printed.splitlines() if line.startswith("{")]
    assert lines
    assert dev.key.split("_", 2)[2] not in "".join(lines)


def test_nothing_is_said_on_stderr(dev: Dev) -> None:
    """Everything is well."""
    assert dev.complaints == ""


def test_sigint_ends_everything(used: Path, start: Start) -> None:
    """No server of this data directory is left, and the operator sees no traceback."""
    dev = start(used)
    dev.end(signal.SIGINT)
    for name in ("postgres", "redis"):
        wait_until_dead(used / name)
    assert "Traceback" not in dev.complaints


def test_sigterm_ends_everything(used: Path, start: Start) -> None:
    """The same for what a supervisor sends."""
    dev = start(used)
    dev.end(signal.SIGTERM)
    assert not anything_lives(used)


def test_the_key_stays(used: Path, start: Start) -> None:
    """A later start prints the same key, and it still opens."""
    first = start(used)
    first.end()
    second = start(used)
    assert second.key == first.key
    assert second.call()


def test_a_key_that_was_lost_is_replaced(used: Path, start: Start) -> None:
    """What stands in the file and opens nothing is not printed."""
    (used / "dev-key").write_text("aig_un_known\n")
    dev = start(used)
    assert dev.key != "aig_un_known"
    assert dev.call()


def test_after_kill_9_the_next_start_works(used: Path, start: Start) -> None:
    """It finds what was left behind, and ends it in order."""
    killed = start(used)
    killed.end(signal.SIGKILL)
    dev = start(used)
    assert dev.call()
    dev.end()
    assert not anything_lives(used)


def test_two_replicas(used: Path, start: Start) -> None:
    """A second process shares the stores; when the first ends, the second goes on."""
    first = start(used)
    second = start(used)
    assert second.key == first.key
    first.end()
    assert second.call()
    second.end()
    assert not anything_lives(used)


def test_a_port_that_is_taken(used: Path, start: Start) -> None:
    """The operator learns it, and nothing is left running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "aigate", "dev", "--port", port, "--data-dir", str(used)]
        done = subprocess.run(command, cwd=used.parent, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode != 0
    assert "address already in use" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not anything_lives(used)
