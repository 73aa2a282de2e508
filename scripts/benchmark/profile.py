"""Where the gateway's time goes: py-spy looks at the running worker, so that nothing in it is changed or slowed.

Each sample is charged twice: to the code that ran (`runs`, by library or by file of ours), and to the innermost file
of ours that had asked for it (`for`; the loop's own work, and callbacks of libraries, are nobody's). Shares become
microseconds by the CPU of a call measured without the profiler in the same run.
"""

import argparse
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import cache
from .measures import Measure, measured
from .system import BenchmarkError
from .table import aligned
from .targets import GATEWAY, KEYED, Prompt, Target

PY_SPY = "py-spy==0.4.1"
SAMPLES_A_SECOND = 400
SECONDS = 6.0
IN_FLIGHT = 32
OURS = ("aigate", "middleware", "providers")
ENTRIES = ("aigate/serve", "aigate/cli", "aigate/__main__")
LIBRARY = re.compile(r"site-packages/([^/]+)")
PYTHON = re.compile(r"/python3[^/]*/(?:lib-dynload/)?([^/]+)")
FRAME = re.compile(r"(?P<function>.*) \((?P<file>.*?)(?::\d+)?\)")
MAIN_THREAD = "MainThread"
MOST_ROWS = 45
LOOP = "uvloop, sockets, kernel"


def report(targets: Sequence[Target], pid: int, options: argparse.Namespace) -> str:
    """The tables of a JSON call, without and with an idempotency key, and of a stream's chunk."""
    by_name = {target.name: target for target in targets}
    stream = Measure("s", "stream", "a chunk, as fast as it goes", "stream-100-0", 16, SECONDS, chunks=100)
    call = Measure("j", "json", f"a JSON call, {IN_FLIGHT} in flight", "json", IN_FLIGHT, SECONDS)
    wanted = [("json", GATEWAY, call), ("json", KEYED, call), ("stream", GATEWAY, stream)]
    chosen = [turn for turn in wanted if not options.only or turn[0] in options.only]
    return "\n".join(_report(by_name[name], pid, measure, Prompt(options.prompt)) for _, name, measure in chosen)


def _report(target: Target, pid: int, measure: Measure, prompt: Prompt) -> str:
    value = "itself_us_a_chunk" if measure.chunks else "itself_us_a_call"
    microseconds = measured(measure, target, prompt)[value]
    stacks = _sampled(target, pid, measure, prompt)
    total = sum(stacks.values())
    if not total:
        raise BenchmarkError("py-spy saw nothing: may it trace processes here (ptrace_scope)?")
    runs, asked, functions = Counter[str](), Counter[str](), Counter[str]()
    for stack, count in stacks.items():
        frames = [_place(frame) for frame in stack.split(";")]
        runs[frames[-1][0]] += count
        asked[_asker(frames)] += count
        functions[" ".join(frames[-1])] += count
    lines = [f"\n{measure.title}, {target.name}: {microseconds:.1f} us, {total} samples"]
    for title, counter in (("runs", runs), ("for", asked), ("function that runs", functions)):
        rows = [[title, "us", "%"]]
        rows += [
            [name, f"{microseconds * count / total:.1f}", f"{100 * count / total:.1f}"]
            for name, count in counter.most_common(MOST_ROWS)
        ]
        lines.append(aligned(rows))
    return "\n".join(lines)


def _sampled(target: Target, pid: int, measure: Measure, prompt: Prompt) -> Counter[str]:
    """Stacks (outermost frame first) and how often each was seen under this load."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        command = [str(_py_spy()), "record", "--pid", str(pid), "--format", "raw", "--output", str(raw)]
        command += ["--duration", str(round(SECONDS) - 1), "--rate", str(SAMPLES_A_SECOND), "--threads"]
        profiler = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            time.sleep(0.3)
            measured(measure, target, prompt)
            _, errors = profiler.communicate(timeout=30)
        finally:
            if profiler.poll() is None:
                profiler.kill()
                profiler.wait()
        if not raw.exists():
            raise BenchmarkError(f"py-spy failed: {errors.decode(errors='replace')[-500:]}")
        return Counter(dict(_stacks(raw.read_text())))


def _stacks(text: str) -> Iterator[tuple[str, int]]:
    """The main thread's: py-spy takes the pool's parked threads for busy (42 % of samples, 0.0 us by schedstat)."""
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, _, frames = stack.partition(";")
        if MAIN_THREAD in thread and frames:
            yield frames, int(count)


def _place(frame: str) -> tuple[str, str]:
    """The library, or the file of ours, and the function of a frame."""
    found = FRAME.match(frame)
    if found is None:
        return frame, ""
    file, function = found["file"], found["function"]
    parts = file.split("/")
    for package in OURS:
        if package in parts and "site-packages" not in parts:
            return "/".join(parts[parts.index(package) :]), function
    library = LIBRARY.search(file)
    if library:
        return library[1], function
    if function in ("run", "run_until_complete", "_run_once"):
        return LOOP, ""
    name = PYTHON.search(file)
    if name:
        return f"python: {name[1]}", function
    return parts[0] or file, function


def _asker(frames: Sequence[tuple[str, str]]) -> str:
    for place, _ in reversed(frames):
        if place.startswith(OURS) and not place.startswith(ENTRIES):
            return place
    libraries = [place for place, _ in frames if not place.startswith(("python: ", *ENTRIES))]
    return f"(callback) {libraries[-1]}" if libraries else LOOP


def _py_spy() -> Path:
    folder = cache.place(PY_SPY.replace("==", "-"))
    return cache.installed(folder, cache.venv(PY_SPY)) / "bin" / "py-spy"
