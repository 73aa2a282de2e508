"""Processes that end with the benchmark, each on its core, and what the kernel knows of them.

CPU time is what the numbers stand on: a neighbour who takes the machine changes the clock on the wall, hardly the
nanoseconds that a process ran.
"""

import contextlib
import os
import platform
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

PATIENCE = 10.0
"""Seconds that a process has to end before it is killed."""
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
NANOSECONDS = 1e9
PEAK = re.compile(r"VmHWM:\s*(\d+) kB")


class BenchmarkError(Exception):
    """The benchmark cannot be run; the message says why."""


@dataclass(frozen=True, slots=True)
class Cores:
    """The core of what is measured, and those of everything else: load, mock and stores."""

    measured: frozenset[int]
    others: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> "Cores":
        usable = sorted(os.sched_getaffinity(0))
        return cls(frozenset(usable[:1]), frozenset(usable[1:] or usable))

    def suffice_for(self, workers: int) -> bool:
        """Whether each worker can have a core while as many are left over for everything else."""
        return len(self.measured | self.others) >= 2 * workers

    def of_workers(self, workers: int) -> frozenset[int]:
        """One each if they suffice, otherwise the measured one for all."""
        usable = sorted(self.measured | self.others)
        return frozenset(usable[:workers]) if self.suffice_for(workers) else self.measured

    @contextlib.contextmanager
    def measured_here(self, workers: int = 1) -> Iterator[None]:
        """What is started inside the block runs on the measured core: a child inherits its parent's cores."""
        os.sched_setaffinity(0, self.of_workers(workers))
        try:
            yield
        finally:
            os.sched_setaffinity(0, self.others)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """What is started inside the block goes on when another process of its core wakes up (SCHED_BATCH, sched(7))."""
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU time in seconds: exact as a whole (schedstat), and how it divides (stat, in ticks of 10 ms).

    Threads that have ended are counted in ticks only; a process that had such is exact to the tick.
    """

    total: float
    user: float = 0.0
    system: float = 0.0

    def __sub__(self, earlier: "Cpu") -> "Cpu":
        return Cpu(self.total - earlier.total, self.user - earlier.user, self.system - earlier.system)

    def __add__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.total + other.total, self.user + other.user, self.system + other.system)


@contextlib.contextmanager
def running(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], output: IO[bytes] | int
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process until the block ends, which stops it and what it has started, by force if it must."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Stop one process that we started, and then whoever is left of its session; safe to call again."""
    if process.stdin is not None:
        process.stdin.close()
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], what: str, *, within: float = 20.0, pause: float = 0.002) -> float:
    """Seconds until `condition()` was true. Raises `BenchmarkError` naming `what` after `within`."""
    started = time.perf_counter()
    while not condition():
        if time.perf_counter() - started > within:
            raise BenchmarkError(f"{what} did not come about within {within:g} s")
        time.sleep(pause)
    return time.perf_counter() - started


def cpu_of(pids: Sequence[int]) -> Cpu:
    """The CPU time of these processes so far; of one that has ended, none."""
    total = Cpu(0.0)
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            total += _cpu(Path("/proc") / str(pid))
    return total


def _cpu(folder: Path) -> Cpu:
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]) / TICKS, int(fields[12]) / TICKS
    try:
        nanoseconds = sum(int(task.read_text().split()[0]) for task in folder.glob("task/*/schedstat"))
    except OSError:
        nanoseconds = 0
    return Cpu(max(nanoseconds / NANOSECONDS, user + system), user, system)


def waited(pid: int) -> float:
    """Seconds that a process was ready to run and had no core: where they are many, somebody else had it."""
    found = 0
    with contextlib.suppress(OSError, IndexError):
        found = sum(int(task.read_text().split()[1]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return found / NANOSECONDS


def calibration() -> float:
    """CPU microseconds of a fixed piece of Python here and now: what a disturbed machine adds to all of them."""
    started = time.process_time()
    for _ in range(40):
        table = {number: str(number) for number in range(5_000)}
        sorted(table.values())
    return (time.process_time() - started) * 1e6 / 40


def family_of(pid: int) -> list[int]:
    """The process and its children: a PostgreSQL is one process for each connection, and some more."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [pid, *map(int, children.read_text().split())]
    except OSError:
        return [pid, *_children(pid)]


def _children(parent: int) -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                yield int(stat.parent.name)


def resident_bytes(pid: int) -> int:
    """RSS of a process and its children."""
    found = 0
    for each in family_of(pid):
        with contextlib.suppress(OSError, IndexError):
            found += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * PAGE
    return found


def peak_bytes(pid: int) -> int:
    """The largest RSS that a process ever had, and those of its children."""
    found = 0
    for each in family_of(pid):
        with contextlib.suppress(OSError):
            found += sum(int(size) for size in PEAK.findall(Path(f"/proc/{each}/status").read_text())) * 1024
    return found


@dataclass(slots=True)
class Resident:
    """The RSS of a process, seen every 50 ms by a thread while something else is done."""

    pid: int
    seen: list[int] = field(default_factory=list)

    @contextlib.contextmanager
    def watched(self) -> Iterator["Resident"]:
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over,))
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(0.05):
            self.seen.append(resident_bytes(self.pid))


def raise_file_limit() -> int:
    """Let this process and what it starts open as many files as the machine allows; how many that are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def program(name: str) -> str | None:
    """Where a program is, if it is installed; system folders count although a user's PATH may lack them."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def machine() -> dict[str, object]:
    """The kind of machine, for whoever compares numbers."""
    model = ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": os.uname().release,
        "load_before": os.getloadavg()[0],
    }
