"""What `wrk` says, told by a stand-in for it."""

import argparse
from pathlib import Path

import pytest

from scripts.benchmark import wrk
from scripts.benchmark.system import BenchmarkError
from scripts.benchmark.targets import GATEWAY, KEYED, LITELLM, Target

OPTIONS = argparse.Namespace(prompt=200, seconds=1.0)


def asked(folder: Path, monkeypatch: pytest.MonkeyPatch, says: str, *targets: Target) -> dict[str, float]:
    """The calls a second of `targets`, by a `wrk` that says this of each."""
    stand_in = folder / "wrk"
    stand_in.write_text(f"#!/bin/sh\necho '{says}'\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return wrk.calls_a_second(targets, OPTIONS)


def test_calls_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all but who needs another key for each call."""
    targets = Target(GATEWAY, [1]), Target(KEYED, [1], varying=lambda load, number: b"")
    assert asked(tmp_path, monkeypatch, "Requests/sec:  10634.5", *targets) == {GATEWAY: 10634.5}


@pytest.mark.parametrize("says", ["unable to connect", "Non-2xx or 3xx responses: 9\nRequests/sec: 99999"])
def test_refusals_are_no_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    """A peer is left out, and ours fails the run."""
    assert asked(tmp_path, monkeypatch, says, Target(LITELLM, [1])) == {}
    with pytest.raises(BenchmarkError, match="wrk failed"):
        asked(tmp_path, monkeypatch, says, Target(GATEWAY, [1]))
