"""Which provider and feature is proved by how many tests: `python -m tests.wire.matrix [--write | pytest's options]`.

A test counts where its case, a recording or a golden file, holds the feature and the test looks at that side of it:
images are proved by a test of the request, cached usage by one of the answer. Tests over all cases at once count
nowhere. Printed as a table; `--write` puts it into the README, and takes no options, lest a part looks like all.
"""

import json
import re
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import pytest

from providers.catalog import ROWS
from tests.wire.recordings import Case, Document, available, folder, golden

README = Path(__file__).parents[2] / "README.md"
SECTION = re.compile(r"(?<=<!-- matrix -->\n).*?(?=<!-- /matrix -->)", re.DOTALL)
OWN = next(case.row for case in golden() if case.row not in {row.name for row in ROWS})
SPOKEN_BY = {"cohere-embed": "bedrock"}
"""Recordings of a language that another provider of ours speaks."""
LABELS = {OWN: "one of your own"}
"""How a golden file's provider is called that stands for any."""

Side = Literal["asked", "told", "cut", "failed"]
SIDES: tuple[tuple[str, Side], ...] = (
    ("request", "asked"),
    ("refus|fail|error", "failed"),
    ("cut|dropped|ended|chunking|flipped|mutated", "cut"),
)
"""What a test looks at, by its name: the request, a failure, a stream in pieces; and otherwise the answer."""

SHOWN = {
    "image-in": r'"image_url"|, "type": "image"|"type": "image", |"image": \{|[":]image/',
    "file-in": r'"type": "(file"|document", )|, "type": "document"|"document": \{|[":](application/pdf|text/plain)',
    "audio-in": r'"input_audio"|[":]audio/',
    "structured-output": r'"type": "json_(schema|object)"|"response_?(json_?)?schema"|"(output_format|textFormat)"',
    "logprobs": r'"(top_)?logprobs": (true|[1-9])|"responseLogprobs": true',
    "n>1": r'"(n|candidateCount)": ([2-9]|\d\d)',
}
"""What of a request shows that it wants this: what the recorder says of requests is sometimes a guess."""

FEATURES: Mapping[str, Mapping[Side, str]] = {
    "chat": {"asked": "chat", "told": "chat"},
    "stream": {"told": "stream", "cut": "stream"},
    "tools": {"asked": "tools-offered tool-results-in", "told": "tool-calls"},
    "parallel tools": {"told": "parallel-tool-calls"},
    "images": {"asked": "image-in"},
    "PDF/files": {"asked": "file-in"},
    "audio": {"asked": "audio-in"},
    "reasoning": {"told": "reasoning reasoning-usage"},
    "structured output": {"asked": "structured-output"},
    "cached usage": {"told": "cached-usage"},
    "logprobs": {"asked": "logprobs"},
    "n": {"asked": "n>1", "told": "n>1"},
    "errors": {"failed": "error"},
    "embeddings": {"asked": "embeddings", "told": "embeddings"},
}
"""A column each: which side of a case of which kinds proves it."""

LEGEND = """
A number counts the tests that passed over recordings of this provider's real traffic, or over golden files of our own
(many of them in the last row: any provider may answer so). Images, files, audio, structured output and logprobs
are proved by tests of the request, for calls that the provider then answered; streams, parallel tools, reasoning,
cached usage and errors by tests of the answer; chat, tools, n and embeddings by both. Bedrock's embeddings are
recordings of Cohere itself, whose language its models speak there. **2 of 3**: one failed. A blank says that nothing
here proves it, not that it fails. A provider that is not in the catalog is set up by `AIGATE_PROVIDERS`.
"""
WIDTH = 118
COMMAND = "Made by `python -m tests.wire.matrix --write`."


@dataclass
class Proof:
    """A pytest plugin that keeps what became of the tests that have a case."""

    cases: dict[str, Case] = field(default_factory=dict)
    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            cases = [value for value in item.callspec.params.values() if isinstance(value, Case)]
            self.cases.update((item.nodeid, case) for case in cases)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or hasattr(report, "wasxfail"):
            self.failed.add(report.nodeid)
        elif report.passed and report.when == "call":
            self.passed.add(report.nodeid)

    def ran(self) -> Iterator[tuple[str, Case, bool]]:
        """Each test that ran, its case, and whether it passed."""
        for name, case in self.cases.items():
            if name in self.passed | self.failed:
                yield name, case, name not in self.failed


@dataclass
class Cell:
    passed: int = 0
    total: int = 0

    def __str__(self) -> str:
        if self.passed < self.total:
            return f"**{self.passed} of {self.total}**"
        return str(self.passed or "")


Matrix = defaultdict[tuple[str, str], Cell]


def matrix(proof: Proof) -> Matrix:
    """A cell for each provider and feature."""
    cells: Matrix = defaultdict(Cell)
    for name, case, passed in proof.ran():
        for each in FEATURES:
            if is_proved(each, side_of(name), kinds_of(case)):
                cell = cells[row_of(case), each]
                cell.total += 1
                cell.passed += passed
    return cells


def row_of(case: Case) -> str:
    wire = case.id.rpartition("/")[2].partition("__")[0]
    return SPOKEN_BY.get(wire, case.row)


def is_proved(feature: str, side: Side, kinds: Set[str]) -> bool:
    return not kinds.isdisjoint(FEATURES[feature].get(side, "").split())


def side_of(name: str) -> Side:
    test = name.rpartition("::")[2].partition("[")[0]
    return next((side for pattern, side in SIDES if re.search(pattern, test)), "told")


@cache
def _recorded_kinds(name: str) -> frozenset[str]:
    return frozenset(json.loads((folder() / f"{name}.json").read_text(encoding="utf-8"))["kinds"])


def kinds_of(case: Case) -> Set[str]:
    """What occurs in a case; in one that failed, nothing but that."""
    kinds = _golden_kinds(case) if case.golden else _recorded_kinds(case.id)
    if any(kind.startswith("error-") for kind in kinds):
        return {"error"}
    if "embeddings" in kinds:
        return {"embeddings"}
    return kinds - SHOWN.keys() | _shown(case.request or {}) | {"chat"}


def _shown(request: Document) -> set[str]:
    text = json.dumps(request)
    return {kind for kind, pattern in SHOWN.items() if re.search(pattern, text, re.IGNORECASE)}


def _golden_kinds(case: Case) -> frozenset[str]:
    """In the recordings' words, from what stands beside the answer."""
    request, expected = case.request or {}, case.expected
    usage = expected.get("usage") or {}
    calls = len(expected.get("tool_calls", ()))
    found = {
        "error-told": not case.ok,
        "stream": request.get("stream") is True,
        "tools-offered": "tools" in request,
        "tool-calls": calls > 0,
        "parallel-tool-calls": calls > 1,
        "reasoning": bool(expected.get("reasoning")),
        "reasoning-usage": (usage.get("completion_tokens_details") or {}).get("reasoning_tokens", 0) > 0,
        "cached-usage": (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0) > 0,
    }
    return frozenset(kind for kind, there in found.items() if there)


def rows(cells: Matrix) -> list[str]:
    """The catalog's, proved or not, then others that were recorded, then the one that stands for any."""
    known = [row.name for row in ROWS]
    others = sorted({provider for provider, _ in cells}.difference(known), key=lambda name: (name == OWN, name))
    return known + others


def table(cells: Matrix) -> str:
    head = ["provider", *FEATURES]
    body = [[LABELS.get(row, row), *(str(cells.get((row, each), "")) for each in FEATURES)] for row in rows(cells)]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(re.sub(r" +", " ", f"| {' | '.join(line)} |") for line in lines)


def section(proof: Proof) -> str:
    """The table, and what it means."""
    used = {case.id: case.golden for _, case, _ in proof.ran()}
    own = sum(used.values())
    source = f"Here: {len(used) - own} recordings, which are no part of this repository, and {own} golden files."
    if not available():
        source = f"Here: {own} golden files alone; there were no recordings."
    words = textwrap.fill(f"{LEGEND.strip()} {source}", WIDTH, break_long_words=False, break_on_hyphens=False)
    return f"{table(matrix(proof))}\n\n{words}\n{COMMAND}\n"


def write(text: str) -> None:
    """Replace what stands between the markers in the README."""
    readme = README.read_text(encoding="utf-8")
    if SECTION.search(readme) is None:
        raise SystemExit("README.md has no <!-- matrix --> and <!-- /matrix -->")
    README.write_text(SECTION.sub(lambda _: text, readme, count=1), encoding="utf-8")


def main(arguments: list[str]) -> int:
    writes = "--write" in arguments
    if writes and len(arguments) > 1:
        raise SystemExit("--write takes no other options: the matrix is of all tests")
    proof = Proof()
    options = [] if writes else arguments
    status = pytest.main(["tests/wire", "-q", "--tb=short", "--show-capture=no", *options], plugins=[proof])
    print(section(proof))
    if writes and status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        write(section(proof))
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
