"""`scripts/bench` as a whole, very briefly: no number of it is judged here but the money."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmark.targets import DIRECT, GATEWAY, KEYED
from tests.scripts.running import SCRIPTS

BRIEFLY = ("--quick", "--repeats", "1", "--seconds", "0.1")


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a run."""

    status: int
    out: str
    document: dict[str, Any]
    plots: list[str]


def bench(folder: Path, *arguments: str) -> Ended:
    """Run it with nothing but what the tests have."""
    written, plots = folder / "out.json", folder / "plots"
    options = [*BRIEFLY, *arguments, "--json", str(written), "--plots", str(plots)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", *options],
        cwd=SCRIPTS.parent,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert written.exists(), done.stderr
    drawn = [path.name for path in plots.iterdir()] if plots.exists() else []
    return Ended(done.returncode, done.stdout, json.loads(written.read_text()), drawn)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """JSON calls, streams, and a few calls of `memory`."""
    options = ("--only", "json,stream,first-byte,memory", "--in-flight", "1,4", "--calls", "100")
    return bench(tmp_path_factory.mktemp("usual"), *options)


def test_no_money_is_lost_or_invented(usual: Ended) -> None:
    """The provider's bill and the ledger agree, and something was billed."""
    assert set(usual.document["money"]["error"].values()) == {0}
    assert usual.document["money"]["ledger"]["billed"] > 0
    assert usual.status == 0


def test_all_targets_are_measured(usual: Ended) -> None:
    """The mock, the gateway, and the gateway with keys."""
    for level in (1, 4):
        assert {DIRECT, GATEWAY, KEYED} <= usual.document["values"][f"json-{level}"].keys()


def test_cpu_is_counted(usual: Ended) -> None:
    """Of a call and of a chunk."""
    values = usual.document["values"]
    assert values["json-4"][GATEWAY]["itself_us_a_call"][0] > 0
    assert values["stream-paced"][GATEWAY]["itself_us_a_chunk"][0] > 0


def test_each_target_of_the_project_has_its_line(usual: Ended) -> None:
    """Met, missed, or not measured."""
    assert all(verdict["what"] in usual.out for verdict in usual.document["verdicts"])


def test_memory_is_plotted(usual: Ended) -> None:
    """Where --plots says."""
    assert usual.plots == ["memory.svg"]


def test_growth(tmp_path: Path) -> None:
    """Points from first to last, a plot, and no money error."""
    ended = bench(tmp_path, "--growth", "--only", "ledger", "--rows", "10000")
    assert [point["at"] for point in ended.document["growth"]["ledger"]["points"]] == [0, 10_000]
    assert (ended.status, ended.plots) == (0, ["growth.svg"])
