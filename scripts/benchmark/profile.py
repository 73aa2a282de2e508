"""Where the gateway's time goes: py-spy looks at the running worker, so that nothing in it is changed or slowed.

Each sample is charged to a layer (`layers`), to the code that ran (`runs`, by library or by file of ours), and to the
innermost file of ours that had asked for it (`for`; the loop's own work, and callbacks of libraries, are nobody's).
Shares become microseconds by the CPU of a call measured without the profiler in the same run.
"""

import argparse
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import cache
from .layers import in_order, layer_of
from .measures import Measure, measured
from .system import BenchmarkError
from .table import Rows, aligned
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
Place = tuple[str, str]
"""The library, or the file of ours, and the function."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What was seen of one kind of call: stacks, outermost frame first, and how often each."""

    title: str
    microseconds: float
    stacks: Mapping[tuple[Place, ...], int]

    @property
    def samples(self) -> int:
        return sum(self.stacks.values())

    def layers(self) -> Counter[str]:
        """Samples by layer."""
        found = Counter[str]()
        for stack, count in self.stacks.items():
            found[layer_of([place.removesuffix(".py") for place, _ in _inside_the_loop(stack)])] += count
        return found

    def text(self) -> str:
        """By who runs, by who asked for it, by function."""
        runs, asked, functions = Counter[str](), Counter[str](), Counter[str]()
        for stack, count in self.stacks.items():
            runs[stack[-1][0]] += count
            asked[_asker(stack)] += count
            functions[" ".join(stack[-1])] += count
        lines = [f"\n{self.title}: {self.microseconds:.1f} us, {self.samples} samples"]
        for title, counter in (("runs", runs), ("for", asked), ("function that runs", functions)):
            rows = [[title, "us", "%"]]
            rows += [[name, *self.share(count)] for name, count in counter.most_common(MOST_ROWS)]
            lines.append(aligned(rows))
        return "\n".join(lines)

    def share(self, count: int) -> tuple[str, str]:
        """Samples as microseconds of the call, and as per cent."""
        return f"{self.microseconds * count / self.samples:.1f}", f"{100 * count / self.samples:.1f}"


def profiles(targets: Sequence[Target], pid: int, options: argparse.Namespace) -> list[Profile]:
    """A JSON call, without and with an idempotency key, and a stream's chunk."""
    by_name = {target.name: target for target in targets}
    stream = Measure("s", "stream", "a chunk, as fast as it goes", "stream-100-0", 16, SECONDS, chunks=100)
    call = Measure("j", "json", f"a JSON call, {IN_FLIGHT} in flight", "json", IN_FLIGHT, SECONDS)
    wanted = [("json", GATEWAY, call), ("json", KEYED, call), ("stream", GATEWAY, stream)]
    chosen = [turn for turn in wanted if turn[0] in options.only]
    return [_profile(by_name[name], pid, measure, Prompt(options.prompt)) for _, name, measure in chosen]


def budget(found: Sequence[Profile]) -> Rows:
    """Where the time goes, by layer: microseconds and per cent of each profile."""
    counters = [profile.layers() for profile in found]
    heads = [head for profile in found for head in (f"{profile.title}, us", "%")]
    names = in_order({name for counter in counters for name in counter})
    rows = [["layer", *heads]]
    for name in names:
        pairs = zip(found, counters, strict=True)
        rows.append([name, *(cell for profile, counter in pairs for cell in profile.share(counter[name]))])
    totals = [cell for profile in found for cell in (f"{profile.microseconds:.1f}", "100.0")]
    return [*rows, ["all", *totals]]


def _profile(target: Target, pid: int, measure: Measure, prompt: Prompt) -> Profile:
    value = "itself_us_a_chunk" if measure.chunks else "itself_us_a_call"
    microseconds = measured(measure, target, prompt)[value]
    stacks = _sampled(target, pid, measure, prompt)
    if not stacks:
        raise BenchmarkError("py-spy saw nothing: may it trace processes here (ptrace_scope)?")
    title = f"{measure.title}, keyed" if target.varying else measure.title
    placed = Counter[tuple[Place, ...]]()
    for stack, count in stacks.items():
        placed[tuple(_place(frame) for frame in stack.split(";"))] += count
    return Profile(title, microseconds, placed)


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


def _inside_the_loop(stack: Sequence[Place]) -> Sequence[Place]:
    """Without what started the loop, which stands under every sample."""
    starts = [number for number, (place, _) in enumerate(stack) if place == LOOP]
    return stack[starts[-1] + 1 :] if starts else stack


def _place(frame: str) -> Place:
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


def _asker(frames: Sequence[Place]) -> str:
    for place, _ in reversed(frames):
        if place.startswith(OURS) and not place.startswith(ENTRIES):
            return place
    libraries = [place for place, _ in frames if not place.startswith(("python: ", *ENTRIES))]
    return f"(callback) {libraries[-1]}" if libraries else LOOP


def _py_spy() -> Path:
    folder = cache.place(PY_SPY.replace("==", "-"))
    return cache.installed(folder, cache.venv(PY_SPY)) / "bin" / "py-spy"
