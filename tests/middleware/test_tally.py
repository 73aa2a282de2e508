"""What Prometheus is told of the numbers of one worker, and of several."""

import os
import subprocess
import sys
from bisect import bisect_left
from pathlib import Path
from random import Random

import orjson
import pytest
from prometheus_client import generate_latest

from middleware.tally import Family, Tally


def told(tally: Tally) -> list[str]:
    """The samples as Prometheus reads them."""
    return [line for line in generate_latest(tally).decode().splitlines() if not line.startswith("#")]


def saved(folder: Path, process: int, **families: object) -> None:
    """What a sibling with this process id has saved."""
    (folder / f"{process}.json").write_bytes(orjson.dumps(families))


@pytest.fixture
def ended() -> int:
    """The id of a process that is over."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_counter() -> None:
    """Its series have the labels in their order."""
    tally = Tally()
    tally.family("made", "Things.", ("of", "by")).cells("wood", "me")[0] += 3
    assert told(tally) == ['made_total{by="me",of="wood"} 3.0']


def test_a_gauge() -> None:
    """It goes up and down, and stands there from the beginning."""
    tally = Tally()
    cells = tally.family("running", "Now.", gauge=True).cells()
    cells[0] += 2
    cells[0] -= 1
    assert told(tally) == ["running 1.0"]


def test_a_histogram() -> None:
    """A value counts in its own bucket, bound included, and in all larger ones."""
    tally = Tally()
    family = tally.family("took", "Seconds.", bounds=(0.1, 1.0))
    family.observe(family.cells(), [0.5, 0.05, 7.0, 0.1])
    assert told(tally) == [
        *('took_bucket{le="0.1"} 2.0', 'took_bucket{le="1.0"} 3.0', 'took_bucket{le="+Inf"} 4.0'),
        *("took_count 4.0", "took_sum 7.65"),
    ]


def test_nothing_was_observed() -> None:
    """The series stands there, empty."""
    tally = Tally()
    family = tally.family("took", "Seconds.", bounds=(1.0,))
    family.observe(family.cells(), [])
    assert all(line.endswith(" 0.0") for line in told(tally))
    assert len(told(tally)) == 4


@pytest.mark.parametrize("seed", range(20))
def test_many_values_fall_where_each_alone_would(seed: int) -> None:
    """Also those that are a bound, and those beyond the last."""
    bounds = (0.0, 0.25, 0.5, 2.0)
    some = Random(seed)
    values = [some.choice([*bounds, some.uniform(-1, 3)]) for _ in range(some.randrange(100))]
    family = Family("took", "Seconds.", bounds=bounds)
    family.observe(family.cells(), values)
    expected = [0.0] * (len(bounds) + 1)
    for value in values:
        expected[bisect_left(bounds, value)] += 1
    assert family.cells()[:-1] == expected
    assert family.cells()[-1] == pytest.approx(sum(values))


def test_what_is_kept_is_added_up_before_anybody_reads(tmp_path: Path) -> None:
    """Prometheus and the siblings are told everything that has happened until then."""
    tally = Tally(tmp_path)
    cells = tally.family("made", "Things.").cells()
    kept = [2.0, 3.0]

    def add_up() -> None:
        while kept:
            cells[0] += kept.pop()

    tally.before_reading(add_up)
    assert told(tally) == ["made_total 5.0"]
    kept.append(1.0)
    tally.save()
    assert orjson.loads((tmp_path / f"{os.getpid()}.json").read_bytes()) == {"made": [[[], [6.0]]]}


def test_the_same_labels_are_the_same_series() -> None:
    """Whoever asks for them changes the same numbers."""
    family = Family("made", "Things.", ("of",))
    assert family.cells("wood") is family.cells("wood")
    assert family.cells("wood") is not family.cells("stone")


def test_siblings_are_added_up(tmp_path: Path) -> None:
    """Also series that only they have."""
    tally = Tally(tmp_path)
    tally.family("made", "Things.", ("of",)).cells("wood")[0] += 1
    saved(tmp_path, os.getppid(), made=[[["wood"], [2.0]], [["stone"], [5.0]]])
    assert told(tally) == ['made_total{of="wood"} 3.0', 'made_total{of="stone"} 5.0']


def test_one_that_has_ended_still_counts(tmp_path: Path, ended: int) -> None:
    """A counter never falls; what was running there does not run any more."""
    tally = Tally(tmp_path)
    tally.family("made", "Things.").cells()
    tally.family("running", "Now.", gauge=True).cells()
    saved(tmp_path, ended, made=[[[], [2.0]]], running=[[[], [9.0]]])
    assert told(tally) == ["made_total 2.0", "running 0.0"]


def test_what_was_saved_is_what_a_sibling_reads(tmp_path: Path) -> None:
    """Whole, and under this process' name; its own file is not counted twice."""
    tally = Tally(tmp_path)
    family = tally.family("took", "Seconds.", ("of",), bounds=(1.0,))
    family.observe(family.cells("wood"), [0.5])
    tally.save()
    assert [file.name for file in tmp_path.iterdir()] == [f"{os.getpid()}.json"]
    assert orjson.loads((tmp_path / f"{os.getpid()}.json").read_bytes()) == {"took": [[["wood"], [1.0, 0.0, 0.5]]]}
    assert 'took_count{of="wood"} 1.0' in told(tally)


def test_alone_nothing_is_saved() -> None:
    """A server of one worker needs no folder."""
    Tally().save()
