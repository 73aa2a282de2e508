"""The README's matrix is made by a command that works, and leaves no provider out that tests know."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wire.matrix import FEATURES, LABELS, SECTION, Cell, is_proved, kinds_of, side_of
from tests.wire.recordings import Case, available, golden, recorded

ROOT = Path(__file__).parents[2]
WIRES = ("openai-chat", "anthropic-messages", "bedrock-converse", "gemini-generate")


def providers() -> list[str]:
    """Every one that has a case, as the matrix calls it."""
    cases = [*golden(), *(case for wire in WIRES if available() for case in recorded(wire))]
    return sorted({LABELS.get(case.row, case.row) for case in cases})


def first_cells(table: str) -> list[str]:
    return re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)


@pytest.mark.parametrize("name", providers())
def test_every_tested_provider_is_a_row(name: str) -> None:
    """Once, in the README."""
    found = SECTION.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found is not None
    assert first_cells(found[0]).count(name) == 1


@pytest.mark.parametrize("beside", [True, False], ids=["as_it_is", "without_recordings"])
def test_command_prints_a_table_of_some_tests(beside: bool, tmp_path: Path) -> None:
    """A part of the golden files' tests is enough, and needs no store."""
    command = [
        sys.executable,
        "-m",
        "tests.wire.matrix",
        "-k",
        "test_golden and any_chunking",
        "-p",
        "no:cacheprovider",
    ]
    environment = dict(os.environ) if beside else {**os.environ, "AIGATE_WIRE": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    head, line, *body = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert head == f"| provider | {' | '.join(FEATURES)} |"
    assert {row.count("|") for row in (line, *body)} == {head.count("|")}
    (own,) = [row for row in body if row.startswith("| one of your own |")]
    assert re.match(r"\| one of your own \| \| [1-9]\d* \|", own), own
    assert beside or "there were no recordings" in done.stdout


def test_partial_matrix_is_not_written() -> None:
    """Whoever picks tests gets no README of them."""
    command = [sys.executable, "-m", "tests.wire.matrix", "--write", "-x"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "--write takes no other options" in done.stderr


def test_failed_one_is_marked() -> None:
    """And nothing is said where nothing ran."""
    assert [str(cell) for cell in (Cell(), Cell(3, 3), Cell(2, 3), Cell(0, 1))] == [
        "",
        "3",
        "**2 of 3**",
        "**0 of 1**",
    ]


def proved(test: str, case: Case) -> set[str]:
    kinds = kinds_of(case)
    return {each for each in FEATURES if is_proved(each, side_of(f"tests/x.py::{test}[1-{case.id}]"), kinds)}


def test_a_test_proves_what_it_looks_at() -> None:
    """The request's features by the request, the answer's by the answer; a refusal nothing but errors."""
    cases = {case.id.removeprefix("golden/"): case for case in golden()}
    calls = cases["parallel_tool_calls"]
    assert proved("test_request", calls) == {"chat", "tools"}
    assert proved("test_answer", calls) == {"chat", "stream", "tools", "parallel tools"}
    assert proved("test_dropped_stream", calls) == {"stream"}
    assert proved("test_answer", cases["two_choices"]) == {"chat", "stream", "n"}
    assert proved("test_failure", cases["error_in_the_middle"]) == {"errors"}
    assert proved("test_any_chunking", cases["error_in_the_middle"]) == set()
