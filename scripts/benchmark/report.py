"""What a run prints, writes as JSON, and puts into the README."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import verdicts
from .gateway import Money
from .measures import Readings
from .svg import Chart, sheet
from .table import Titled, aligned, markdown, number, summary, table
from .targets import GATEWAY

DISTURBED = 0.25
DISTURBED_MEANS = "Its calls a second and latencies say more of the neighbours; its CPU is an upper bound."


@dataclass(frozen=True, slots=True)
class Run:
    """All that is known of a run once it is over."""

    machine: Mapping[str, object]
    seconds: float
    calibration_us: Sequence[float]
    readings: Readings
    titles: Sequence[Titled]
    money: Money
    wrk: Mapping[str, float]

    def text(self) -> str:
        """For the terminal."""
        parts = [table(titled, self.readings) for titled in self.titles]
        if self.wrk:
            rows = [["", "calls/s"], *([name, number(value)] for name, value in self.wrk.items())]
            parts.append(f"\nwrk, 32 in flight\n{aligned(rows)}")
        parts.append(f"\nIn short\n{aligned(summary(self.readings))}")
        parts.append(f"\nWhat we set out to reach\n{aligned(verdicts.rows(verdicts.verdicts(self.readings)))}")
        for (measure, target), why in self.readings.failures.items():
            parts.append(f"\n{target} did not stand {measure}: {why}")
        parts.append(f"\nmoney error: {errors(self.money)}")
        if self.disturbed() > DISTURBED:
            parts.append(f"\n{self._disturbance()}")
        speed = ", ".join(f"{each:,.0f}" for each in self.calibration_us)
        parts.append(
            f"\n{kind(self.machine)}; {self.seconds:.0f} s of measuring; a fixed piece of Python took {speed} us"
        )
        return "\n".join(parts)

    def document(self) -> dict[str, object]:
        """For programs."""
        return {
            "machine": self.machine,
            "disturbed": self.disturbed(),
            "calibration_us": self.calibration_us,
            "money": self.money,
            "wrk": self.wrk,
            "values": self.readings.named(),
            "failures": {f"{target}, {measure}": why for (measure, target), why in self.readings.failures.items()},
            "verdicts": [verdict.document() for verdict in verdicts.verdicts(self.readings)],
        }

    def section(self) -> str:
        """For the README."""
        found = verdicts.rows(verdicts.verdicts(self.readings))
        words = f"{kind(self.machine)}. Money error: {errors(self.money)}."
        if self.disturbed() > DISTURBED:
            words += f" {self._disturbance()}"
        return f"{markdown(summary(self.readings))}\n\n{markdown(found)}\n\n{words}\n"

    def charts(self) -> list[Chart]:
        """RSS over the calls, if it was looked at."""
        of_memory = self.readings.values
        calls, sizes = (of_memory.get(("memory", GATEWAY, name), []) for name in ("calls", "rss_mb"))
        points = list(zip(calls, sizes, strict=True))
        return [Chart("RSS of one worker", "calls", "MB", {GATEWAY: points}, log_x=False)] if points else []

    def disturbed(self) -> float:
        """How long the gateway waited for its core for each second that it ran, over all measures."""
        ran, queued = (
            sum(
                sum(each)
                for (_, target, name), each in self.readings.values.items()
                if target == GATEWAY and name == wanted
            )
            for wanted in ("itself_us_a_call", "waited_us_a_call")
        )
        return queued / ran if ran else 0.0

    def _disturbance(self) -> str:
        return (
            f"DISTURBED: {GATEWAY} waited {self.disturbed():.1f} times as long for its core as it ran. "
            f"{DISTURBED_MEANS}"
        )


def kind(machine: Mapping[str, object]) -> str:
    """What a reader must know of the machine."""
    return f"{machine['processor']}, {machine['cores']} cores, {machine['python']}"


def errors(money: Money) -> str:
    """What is wrong, by name; 0 if nothing is."""
    return ", ".join(f"{name} {value}" for name, value in money["error"].items() if value) or "0"


def write_plots(options: argparse.Namespace, name: str, charts: Sequence[Chart]) -> None:
    if options.plots and charts:
        folder: Path = options.plots
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.svg").write_text(sheet(charts), encoding="utf-8")


def write_json(options: argparse.Namespace, document: Mapping[str, object]) -> None:
    if options.json:
        path: Path = options.json
        path.write_text(json.dumps(document, indent=1))
