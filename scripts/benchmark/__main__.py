"""Runs the benchmark: `scripts/bench`."""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from . import gateway, growth, long_runs, options, peers, profile, readme, targets, wrk
from .gateway import Bench, Money
from .load import LONGEST
from .measures import Measure, Readings, measured, measures, take
from .report import Run, errors, kind, write_json, write_plots
from .system import BenchmarkError, Cores, calibration, machine, peak_bytes, raise_file_limit, resident_bytes
from .table import Titled, aligned, markdown
from .targets import GATEWAY, Prompt, Target

WARM_UP, WARM_UP_CALLS, QUICK_WARM_UP = 10.0, 3_000, 0.4
"""Seconds and calls, at most, on each target before anything counts: connections, caches, compilers at run time."""
MANY_CALLS, MANY_SECONDS = 100_000, 300.0
"""After which the RSS is looked at again: those calls, or that time."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything that runs."""

    bench: Bench
    gateway: Target
    targets: list[Target]

    @property
    def pid(self) -> int:
        assert self.gateway.process is not None
        return self.gateway.process.pid

    def money(self) -> Money:
        return gateway.money(self.bench.upstream, self.bench.stores)


def main() -> None:
    """Measure, print, and exit with 1 if the money is not right or something could not be run."""
    chosen = options.parsed()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(_run(chosen))
    except BenchmarkError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(chosen: argparse.Namespace) -> int:
    cores = Cores.of_this_machine()
    about = machine()
    raise_file_limit()
    os.sched_setaffinity(0, cores.others)
    with (
        tempfile.TemporaryDirectory(prefix="aigate-bench-") as name,
        _everything(Path(name), cores, chosen) as setup,
    ):
        seconds = QUICK_WARM_UP if chosen.quick else WARM_UP
        for target in setup.targets:
            _say(f"warming up: {target.name}")
            warm_up = Measure("warm", "json", "", "json", 16, seconds, most=WARM_UP_CALLS)
            measured(warm_up, target, Prompt(chosen.prompt))
        if chosen.profile:
            money = _profile(setup, chosen, about)
        elif chosen.growth:
            money = _grow(setup, chosen, about)
        else:
            money = _measure(setup, chosen, about)
    return 1 if any(money["error"].values()) else 0


@contextlib.contextmanager
def _everything(folder: Path, cores: Cores, chosen: argparse.Namespace) -> Iterator[Setup]:
    folder.chmod(0o755)  # PostgreSQL and nginx do not run as root
    alone = chosen.profile or chosen.growth
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(targets.mock(folder))
        beside = None if alone else stack.enter_context(targets.nginx(folder, upstream, cores))
        stores = stack.enter_context(gateway.stores(folder))
        bench = Bench(folder, upstream, stores, cores)
        others: list[Target] = []
        beside_us = not alone and not set(options.USUAL).isdisjoint(chosen.only)
        if beside_us and (chosen.peers or not chosen.quick):
            for name, lacks in peers.left_out().items():
                print(f"{name} is left out: there is no {lacks} here", file=sys.stderr)
            _say("peers: starting")
            others = stack.enter_context(peers.started(folder, upstream, cores, install=chosen.peers))
        starts = 1 if chosen.quick or alone else chosen.repeats
        ours = stack.enter_context(bench.gateway(starts=starts))
        yield Setup(bench, ours, [upstream, *([beside] if beside else []), ours, gateway.keyed(ours), *others])


def _measure(setup: Setup, chosen: argparse.Namespace, about: dict[str, object]) -> Money:
    readings = Readings()
    titles: list[Titled] = list(measures(chosen.seconds, chosen.in_flight, chosen.only))
    started = time.monotonic()
    calibrated = [calibration()]
    take(
        measures(chosen.seconds, chosen.in_flight, chosen.only),
        setup.targets,
        chosen.repeats,
        Prompt(chosen.prompt),
        _say,
        readings,
    )
    calibrated.append(calibration())
    titles.append(_processes(setup, chosen, readings))
    titles.extend(_long_runs(setup, chosen, readings))
    _say("")
    money = setup.money()
    readings.add("process", GATEWAY, {"money_error": sum(map(abs, money["error"].values()))})
    seconds = time.monotonic() - started
    by_wrk = wrk.calls_a_second(setup.targets, chosen) if "json" in chosen.only and not chosen.quick else {}
    run = Run(about, seconds, calibrated, readings, titles, money, by_wrk)
    print(run.text())
    write_plots(chosen, "memory", run.charts())
    if chosen.write:
        flags = "".join(f" --{name}" for name in ("peers", "long") if getattr(chosen, name))
        readme.write(readme.BENCHMARK, run.section(), f"scripts/bench{flags} --write")
    write_json(chosen, run.document())
    return money


def _profile(setup: Setup, chosen: argparse.Namespace, about: dict[str, object]) -> Money:
    found = profile.profiles(setup.targets, setup.pid, chosen)
    money = setup.money()
    budget = profile.budget(found)
    for each in found:
        print(each.text())
    print(f"\n{aligned(budget)}\n\nmoney error: {errors(money)}")
    if chosen.write:
        readme.write(readme.PROFILE, f"{markdown(budget)}\n\n{kind(about)}.", "scripts/bench --profile --write")
    write_json(chosen, {"machine": about, "money": money, "profile": budget})
    return money


def _grow(setup: Setup, chosen: argparse.Namespace, about: dict[str, object]) -> Money:
    curves = growth.measure(growth.Growth(setup.bench, setup.gateway, chosen), chosen.only, _say)
    _say("")
    money = setup.money()
    for curve in curves:
        print(curve.text())
    print(f"\nmoney error: {errors(money)}\n\n{kind(about)}")
    if chosen.write:
        section = f"{markdown(growth.in_short(curves))}\n\n{kind(about)}."
        readme.write(readme.GROWTH, section, "scripts/bench --growth --write")
    write_plots(chosen, "growth", [curve.chart() for curve in curves])
    found = {curve.name: curve.document() for curve in curves}
    write_json(chosen, {"machine": about, "money": money, "growth": found})
    return money


def _processes(setup: Setup, chosen: argparse.Namespace, readings: Readings) -> Titled:
    """How they started, and what they hold: idle, at most under the load, and after all of it."""
    peaks = {target.name: peak_bytes(target.process.pid) for target in setup.targets if target.process}
    calls = setup.bench.stores.ledger()["calls"]
    deadline = time.monotonic() + MANY_SECONDS
    whole = not chosen.quick and "json" in chosen.only
    while whole and calls < MANY_CALLS and time.monotonic() < deadline:
        _say(f"many calls: {calls:,}")
        measured(Measure("more", "json", "", "json", 32, LONGEST / 4, most=MANY_CALLS - calls), setup.gateway)
        calls = setup.bench.stores.ledger()["calls"]
    for target in setup.targets:
        if (process := target.process) is not None:
            for seconds in process.start_seconds:
                readings.add("process", target.name, {"start_seconds": seconds})
            found = {"idle": process.idle_bytes, "loaded": peaks[target.name], "after": resident_bytes(process.pid)}
            readings.add("process", target.name, {f"{name}_mb": size / 1e6 for name, size in found.items()})
    readings.add("process", GATEWAY, {"calls": calls})
    return long_runs.LongRun("process", "process", "The processes")


def _long_runs(setup: Setup, chosen: argparse.Namespace, readings: Readings) -> Iterator[Titled]:
    if "workers" in chosen.only:
        yield long_runs.workers(setup.bench, chosen.seconds, chosen.repeats, readings, _say)
    if "open-streams" in chosen.only:
        yield long_runs.open_streams(setup.bench, chosen.streams, readings, _say)
    if "memory" in chosen.only:
        yield long_runs.memory(setup.gateway, chosen.calls, readings, _say)


def _say(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


if __name__ == "__main__":
    main()
