"""What the benchmark knows of processes and cores."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.benchmark.system import (
    TICKS,
    BenchmarkError,
    Cores,
    Resident,
    cpu_of,
    peak_bytes,
    resident_bytes,
    running,
    uninterrupted,
    wait_until,
)

TWO, EIGHT = Cores(frozenset({0}), frozenset({1})), Cores(frozenset({0}), frozenset(range(1, 8)))


def test_the_measured_core_is_nobody_elses() -> None:
    """Unless there is only one."""
    cores = Cores.of_this_machine()
    assert not cores.measured & cores.others or cores.measured == cores.others


@pytest.mark.parametrize(("cores", "expected"), [(TWO, {0}), (EIGHT, {0, 1})])
def test_cores_of_two_workers(cores: Cores, expected: set[int]) -> None:
    """One each, where as many are left for the load, the mock and the stores."""
    assert cores.of_workers(2) == expected


def test_cpu_of_a_process_that_has_ended() -> None:
    """It takes none any more."""
    assert cpu_of([2**22 + 1]).total == 0


def test_cpu_is_that_of_the_process() -> None:
    """What it burns is counted, to the kernel's tick."""
    before = cpu_of([os.getpid()])
    deadline = time.process_time() + 0.05
    while time.process_time() < deadline:
        pass
    assert (cpu_of([os.getpid()]) - before).total > 0.05 - 2 / TICKS


def test_the_peak_is_never_below_what_there_is() -> None:
    """RSS now, and at most."""
    assert peak_bytes(os.getpid()) >= 0.9 * resident_bytes(os.getpid()) > 0


def test_resident_is_seen_while_something_is_done() -> None:
    """By a thread of its own, which ends."""
    with Resident(os.getpid()).watched() as resident:
        wait_until(lambda: len(resident.seen) >= 2, "two looks")
    assert min(resident.seen) > 0


def test_what_a_process_has_started_ends_with_it(tmp_path: Path) -> None:
    """Also a child that nobody waits for."""
    command = ["sh", "-c", "sleep 60 & echo $! > child; exec sleep 60"]
    child = tmp_path / "child"
    with running(command, folder=tmp_path, environment=os.environ, output=subprocess.DEVNULL):
        wait_until(lambda: child.exists() and child.read_text().endswith("\n"), "the child")
    wait_until(lambda: not is_alive(int(child.read_text())), "its end")


def is_alive(pid: int) -> bool:
    """Whether it runs: one that has ended may still be in the table of processes."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_does_not_come_about_is_named() -> None:
    """After the time that it had."""
    with pytest.raises(BenchmarkError, match="the start of nobody"):
        wait_until(lambda: False, "the start of nobody", within=0.01)


def test_what_is_not_interrupted() -> None:
    """A child has it from its parent, who is as before when it has started."""
    ask = [sys.executable, "-c", "import os; print(os.sched_getscheduler(0) == os.SCHED_BATCH)"]
    with uninterrupted():
        assert subprocess.check_output(ask, text=True).strip() == "True"
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
