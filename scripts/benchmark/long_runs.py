"""What shows only in time or in a crowd: memory over a million calls, thousands of open streams, two workers."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .gateway import Bench
from .load import LONGEST, run
from .measures import Measure, Readings, measured, take
from .system import BenchmarkError, Resident, raise_file_limit, resident_bytes, uninterrupted
from .targets import GATEWAY, Prompt, Target

SAMPLES = 50
MOST_SECONDS = 1800.0
"""After which the calls of `memory` are enough, however many they were."""
PAUSE = 2000
"""Milliseconds between the chunks of an open stream."""
RAMP, OPEN_CHUNKS = 20.0, 15
"""Seconds in which all streams are opened, and the chunks of each: all are open together for some time."""
SPARE_FILES = 500
ONE, TWO, SHARED = "one worker", "two workers", "two workers, one's load"
EACH = 64
"""Requests in flight at each worker."""
WORKERS_WARM_UP = 3.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LongRun:
    """The heading of a table."""

    name: str
    group: str
    title: str


def memory(gateway: Target, calls: int, readings: Readings, say: Say) -> LongRun:
    """RSS as the calls go by, and by how much it grew after the first tenth of them."""
    process = gateway.process
    assert process is not None
    step = max(1, calls // SAMPLES)
    load = Measure("memory", "memory", "", "json", 32, LONGEST, most=step).work(gateway, Prompt())
    done, elapsed = 0, 0.0
    seen: list[tuple[int, float]] = []
    while done < calls and elapsed < MOST_SECONDS:
        result = run(load)
        done += result.calls
        elapsed += result.elapsed
        seen.append((done, resident_bytes(process.pid) / 1e6))
        readings.add("memory", GATEWAY, {"calls": done, "rss_mb": seen[-1][1]})
        say(f"memory: {seen[-1][1]:.1f} MB after {done:,} calls")
    readings.add("memory", GATEWAY, {"growth_percent": growth(seen)})
    return LongRun("memory", "memory", f"RSS over {done:,} calls, 32 in flight")


def growth(seen: Sequence[tuple[int, float]]) -> float:
    """By how many per cent the last value is above the one after a tenth of the way."""
    _, last = seen[-1]
    first = next(value for at, value in seen if at * 10 >= seen[-1][0])
    return 100 * (last / first - 1)


def open_streams(bench: Bench, count: int, readings: Readings, say: Say) -> LongRun:
    """Slow streams, all open at once, on a fresh worker; asked directly, the mock shows which stalls are not ours."""
    count = min(count, (raise_file_limit() - SPARE_FILES) // 2)
    if count < 1:
        raise BenchmarkError("too few files may be open here for open-streams")
    measure = Measure(
        "open-streams",
        "open-streams",
        f"{count:,} open streams, a chunk every {PAUSE / 1000:g} s each",
        f"stream-{OPEN_CHUNKS}-{PAUSE}",
        count,
        LONGEST,
        chunks=OPEN_CHUNKS,
        most=count,
        ramp=RAMP,
    )
    with bench.gateway() as fresh:
        measured(Measure("warm", "json", "", "json", 16, 0.5), fresh)
        for target in (bench.upstream, fresh):
            say(f"{measure.title}: {target.name}")
            readings.add(measure.name, target.name, _open(measure, target))
    return LongRun(measure.name, measure.group, measure.title)


def _open(measure: Measure, target: Target) -> dict[str, float]:
    if target.process is None:
        values = measured(measure, target)
    else:
        before = resident_bytes(target.process.pid)
        with Resident(target.process.pid).watched() as resident:
            values = measured(measure, target)
        values["kb_a_stream"] = (max(resident.seen, default=before) - before) / 1e3 / measure.in_flight
    return {**values, "longest_stall_ms": max(0.0, values["longest_gap_ms"] - PAUSE)}


def workers(bench: Bench, seconds: float, repeats: int, readings: Readings, say: Say) -> LongRun:
    """Two workers against one, by calls a second where each can have a core of its own.

    Elsewhere both share the measured core, so calls a second show nothing; then it is what two would do by their CPU
    a call: whether it rises. None interrupts the other there, as none would on a core of its own: each change between
    them costs both what they had in the core's caches. Each has as much to do as the one, as where a second is
    started because one is busy; the load of one shared by two is shown beside: what they write at once is half as
    much.
    """
    with contextlib.ExitStack() as stack:
        with uninterrupted():
            one, two = (stack.enter_context(bench.gateway(workers=count)) for count in (1, 2))
        loads = [
            (replace(one, name=ONE), EACH),
            (replace(two, name=TWO), 2 * EACH),
            (replace(two, name=SHARED), EACH),
        ]
        targets = [target for target, _ in loads]
        wanted = [
            Measure(
                "workers",
                "workers",
                f"{target.name}, {in_flight} in flight",
                "json",
                in_flight,
                seconds,
                (target.name,),
            )
            for target, in_flight in loads
        ]
        for measure, target in zip(wanted, targets, strict=True):
            measured(replace(measure, seconds=WORKERS_WARM_UP), target)
        for _ in range(repeats):
            take(wanted, targets, 1, Prompt(), say, readings)
    by_calls = bench.cores.suffice_for(2)
    name = "calls_a_second" if by_calls else "itself_us_a_call"
    of_one = readings.median("workers", ONE, name) or 0.0
    for several in (TWO, SHARED):
        of_two = readings.median("workers", several, name) or 0.0
        readings.add("workers", several, {"times_one": of_two / of_one if by_calls else 2 * of_one / of_two})
    basis = "by calls a second" if by_calls else "by CPU a call: both share the core that there is for them here"
    return LongRun("workers", "workers", f"JSON, {EACH} in flight at each worker; times one {basis}")
