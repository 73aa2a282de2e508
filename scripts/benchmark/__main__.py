"""Runs the benchmark: `scripts/bench`."""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from . import profile, targets, wrk
from .measures import Readings, Spread, measured, measures, take
from .system import BenchmarkError, Cores, calibration, machine
from .table import aligned, number, tables
from .targets import GATEWAY, INPUT_PRICE, OUTPUT_PRICE, Gateway, Target

GROUPS = ("json", "latency", "stream", "first-byte")
QUICK_LEVELS, LEVELS = (1, 32), (1, 16, 32, 64)
WARM_UP = 0.4
"""Seconds of load on each target before anything counts: connections, prepared statements, caches."""
DISTURBED = 0.25
DISTURBED_MEANS = "Its calls a second and latencies say more of the neighbours; its CPU is an upper bound."


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything that runs."""

    upstream: Target
    targets: list[Target]
    gateway: Gateway


def main() -> None:
    """Measure, print, and exit with 1 if the money is not right or something could not be run."""
    options = _options()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(_run(options))
    except BenchmarkError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/bench", description="Measure AIGate with everything on.")
    parser.add_argument("--quick", action="store_true", help="fewer levels and shorter: about 20 s")
    parser.add_argument("--only", type=_groups, default=(), help=f"comma-separated, of {', '.join(GROUPS)}")
    parser.add_argument("--seconds", type=float, help="of each load; default: 1, quick: 0.2")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; default: %(default)s")
    parser.add_argument("--in-flight", type=_counts, help="comma-separated; default: 1,16,32,64")
    parser.add_argument("--prompt", type=int, default=200, help="bytes of the prompt; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values there")
    parser.add_argument("--wrk", action="store_true", help="ask wrk, where it is installed, for calls a second too")
    parser.add_argument("--profile", action="store_true", help="instead, say where the gateway's time goes")
    options = parser.parse_args()
    if options.seconds is None:
        options.seconds = 0.2 if options.quick else 1.0
    if options.in_flight is None:
        options.in_flight = QUICK_LEVELS if options.quick else LEVELS
    return options


def _groups(text: str) -> tuple[str, ...]:
    groups = tuple(text.split(","))
    if not set(groups) <= set(GROUPS):
        raise argparse.ArgumentTypeError(f"of {', '.join(GROUPS)}")
    return groups


def _counts(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _run(options: argparse.Namespace) -> int:
    cores = Cores.of_this_machine()
    about = machine()
    os.sched_setaffinity(0, cores.others)
    with (
        tempfile.TemporaryDirectory(prefix="aigate-bench-") as name,
        _everything(Path(name), cores, options) as setup,
    ):
        _warm_up(setup, options.prompt)
        if options.profile:
            print(profile.report(setup.targets, setup.gateway.pid, options))
            money = _money(setup)
        else:
            money = _measure(setup, options, about)
    return 1 if any(money["error"].values()) else 0


@contextlib.contextmanager
def _everything(folder: Path, cores: Cores, options: argparse.Namespace) -> Iterator[Setup]:
    folder.chmod(0o755)  # PostgreSQL and nginx do not run as root
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(targets.mock(folder))
        beside = stack.enter_context(targets.nginx(folder, upstream, cores))
        stores = stack.enter_context(targets.stores(folder))
        starts = 1 if options.quick or options.profile else options.repeats
        gateway = stack.enter_context(targets.gateway(folder, upstream, stores, cores, starts))
        yield Setup(upstream, [upstream, *([beside] if beside else []), *gateway.targets], gateway)


def _warm_up(setup: Setup, prompt: int) -> None:
    for measure in measures(WARM_UP, (16,), ("json",)):
        for target in setup.targets:
            measured(measure, target, prompt)


def _measure(setup: Setup, options: argparse.Namespace, about: dict[str, object]) -> dict[str, dict[str, int]]:
    wanted = measures(options.seconds, options.in_flight, options.only)
    started = time.monotonic()
    calibrated = [calibration()]
    readings = take(wanted, setup.targets, options.repeats, options.prompt, _say)
    calibrated.append(calibration())
    _say("")
    money = _money(setup)
    after = setup.gateway.resident() / 1e6
    process = {
        "start_seconds": Spread.of(setup.gateway.start_seconds),
        "idle_mb": setup.gateway.idle_bytes / 1e6,
        "after_mb": after,
        "calls": money["ledger"]["calls"],
    }
    for text in tables(wanted, readings):
        print(text)
    print(f"\nThe process\n{_process_table(setup.gateway, after, money)}")
    disturbed = _disturbance(readings)
    if disturbed > DISTURBED:
        print(
            f"\nDISTURBED: {GATEWAY} waited {disturbed:.1f} times as long for its core as it ran. {DISTURBED_MEANS}"
        )
    by_wrk = wrk.calls_a_second(setup.targets, options) if options.wrk else {}
    if by_wrk:
        print("\nwrk, 32 in flight\n" + aligned([["", "calls/s"], *([n, number(v)] for n, v in by_wrk.items())]))
    print(f"\n{about['processor']}, {about['cores']} cores; {time.monotonic() - started:.0f} s of measuring")
    if options.json:
        document = {
            "machine": about,
            "disturbed": disturbed,
            "calibration_us": calibrated,
            "process": process,
            "money": money,
            "wrk": by_wrk,
            "values": _named(readings),
        }
        options.json.write_text(json.dumps(document, indent=1, default=asdict))
    return money


def _money(setup: Setup) -> dict[str, dict[str, int]]:
    """The provider's bill against the ledger: rows, tokens and money; every difference is an error."""
    ledger, provider = setup.gateway.ledger(), targets.bill(setup.upstream)
    cost = provider["prompt_tokens"] * INPUT_PRICE + provider["completion_tokens"] * OUTPUT_PRICE
    expected = {**provider, "billed": cost // 1_000_000, "unsettled": 0}
    error = {name: ledger[name] - value for name, value in expected.items()}
    return {"provider": provider, "ledger": ledger, "error": error}


def _process_table(gateway: Gateway, after: float, money: dict[str, dict[str, int]]) -> str:
    start = Spread.of(gateway.start_seconds)
    rows = [
        ["", "value"],
        ["ready after, s", f"{start.median:.2f} ({start.lowest:.2f}..{start.highest:.2f})"],
        ["RSS idle, MB", f"{gateway.idle_bytes / 1e6:.1f}"],
        [f"RSS after {money['ledger']['calls']:,} calls, MB", f"{after:.1f}"],
        ["money error", ", ".join(f"{name} {value}" for name, value in money["error"].items() if value) or "0"],
    ]
    return aligned(rows)


def _disturbance(readings: Readings) -> float:
    """How long the gateway waited for its core for each second that it ran, over all measures."""
    ran, queued = (
        sum(sum(each) for (_, target, name), each in readings.values.items() if target == GATEWAY and name == wanted)
        for wanted in ("itself_us_a_call", "waited_us_a_call")
    )
    return queued / ran if ran else 0.0


def _named(readings: Readings) -> dict[str, dict[str, dict[str, Sequence[float]]]]:
    named: dict[str, dict[str, dict[str, Sequence[float]]]] = {}
    for (measure, target, name), values in readings.values.items():
        named.setdefault(measure, {}).setdefault(target, {})[name] = values
    return named


def _say(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


if __name__ == "__main__":
    main()
