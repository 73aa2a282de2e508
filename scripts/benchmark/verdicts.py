"""What we set out to reach, and whether this run reached it.

The verdict is on what was measured, on this machine, now. As the same machine runs the same instructions at quite
different speeds from day to day, CPU costs are shown a second time, scaled by what nginx cost beside them in the same
run to what it cost where the targets were set: a normalisation, that decides nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .measures import Readings
from .table import Rows, number
from .targets import GATEWAY, LITELLM, NGINX, PORTKEY

CALL, CHUNK = "itself_us_a_call", "itself_us_a_chunk"
Read = Callable[[Readings], float | None]


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU of a measure, and what nginx's was (microseconds) where the targets were set."""

    measure: str
    name: str
    nginx: float

    def scaled(self, readings: Readings) -> str:
        ours, floor = (readings.median(self.measure, target, self.name) for target in (GATEWAY, NGINX))
        return f"{number(ours * self.nginx / floor)} us at {self.nginx:g} us nginx" if ours and floor else ""


@dataclass(frozen=True, slots=True)
class Goal:
    """A number to reach: at most `bound`, or at least."""

    what: str
    unit: str
    bound: float
    read: Read
    at_least: bool = False
    cost: Cost | None = None

    def verdict(self, readings: Readings) -> "Verdict":
        measured = self.read(readings)
        met = None if measured is None else (measured >= self.bound if self.at_least else measured <= self.bound)
        return Verdict(self, measured, met, self.cost.scaled(readings) if self.cost else "")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a goal; `None` where it was not measured."""

    goal: Goal
    measured: float | None
    met: bool | None
    normalised: str

    def row(self) -> list[str]:
        goal = self.goal
        target = f"{'at least' if goal.at_least else 'at most'} {goal.bound:g} {goal.unit}".rstrip()
        measured = "" if self.measured is None else f"{number(self.measured)} {goal.unit}".rstrip()
        return [goal.what, target, measured, {True: "met", False: "MISSED", None: "not measured"}[self.met]]

    def document(self) -> dict[str, object]:
        what, target, _, verdict = self.row()
        return {
            "what": what,
            "target": target,
            "measured": self.measured,
            "verdict": verdict,
            "normalised": self.normalised,
        }


def value(measure: str, name: str, target: str = GATEWAY) -> Read:
    """The median of a value of ours."""
    return lambda readings: readings.median(measure, target, name)


def ratio(measure: str, name: str, over: str, under: str) -> Read:
    """How many times as much `over` takes of it as `under`."""

    def read(readings: Readings) -> float | None:
        above, below = (readings.median(measure, target, name) for target in (over, under))
        return above / below if above and below else None

    return read


def _beside(peer: str, level: int) -> Read:
    """How many times as much CPU a call takes of a peer."""
    return ratio(f"json-{level}", CALL, peer, GATEWAY)


JSON, PACED, FAST = "json-32", "stream-paced", "stream-fast"
GOALS = (
    Goal("CPU a JSON call, 32 in flight", "us", 150, value(JSON, CALL), cost=Cost(JSON, CALL, 18.0)),
    Goal("CPU a paced chunk", "x nginx", 3, ratio(PACED, CHUNK, GATEWAY, NGINX), cost=Cost(PACED, CHUNK, 12.0)),
    Goal(
        "CPU a chunk, as fast as it goes",
        "x nginx",
        2.5,
        ratio(FAST, CHUNK, GATEWAY, NGINX),
        cost=Cost(FAST, CHUNK, 4.0),
    ),
    Goal("added p50, 1 in flight", "ms", 1.5, value("json-1", "added_p50_ms")),
    Goal("added p99, 1 in flight", "ms", 5, value("json-1", "added_p99_ms")),
    Goal("RSS an open stream", "kB", 50, value("open-streams", "kb_a_stream")),
    Goal("longest stall of open streams", "ms", 100, value("open-streams", "longest_stall_ms")),
    Goal("growth of RSS, after a tenth of the calls", "%", 5, value("memory", "growth_percent")),
    Goal("ready after", "s", 1.5, value("process", "start_seconds")),
    Goal(
        "two workers, each as busy as one", "x one", 1.9, value("workers", "times_one", "two workers"), at_least=True
    ),
    *(
        Goal(f"calls a CPU second, {level} in flight", f"x {name}", bound, _beside(peer, level), at_least=True)
        for peer, name, bound in ((LITELLM, "LiteLLM", 90), (PORTKEY, "Portkey", 5))
        for level in (32, 256)
    ),
    Goal("money error", "", 0, value("process", "money_error")),
)


def verdicts(readings: Readings) -> list[Verdict]:
    """One on each goal."""
    return [goal.verdict(readings) for goal in GOALS]


def rows(found: Sequence[Verdict]) -> Rows:
    """The table of verdicts; the last column is the normalisation."""
    head = ["", "target", "measured", "verdict", "normalised by nginx (decides nothing)"]
    return [head, *([*verdict.row(), verdict.normalised] for verdict in found)]
