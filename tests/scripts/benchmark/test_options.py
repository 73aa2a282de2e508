"""What a person may ask for, and what it means when nothing is said."""

import pytest

from scripts.benchmark.options import GROWTH, LEVELS, LONG, PLOTS, USUAL, parsed


def test_levels_of_a_whole_run() -> None:
    """The levels of the targets, and those between."""
    assert parsed([]).in_flight == LEVELS == (1, 16, 32, 64, 256)


@pytest.mark.parametrize(
    ("arguments", "groups"), [([], USUAL), (["--long"], (*USUAL, *LONG)), (["--growth"], GROWTH)]
)
def test_groups(arguments: list[str], groups: tuple[str, ...]) -> None:
    """Each mode measures all of its own."""
    assert parsed(arguments).only == groups


def test_part_of_a_mode() -> None:
    """By name."""
    assert parsed(["--growth", "--only", "keys,ledger"]).only == ("keys", "ledger")


@pytest.mark.parametrize("arguments", [["--write", "--quick"], ["--write", "--only", "json"], ["--only", "x"]])
def test_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A part must not look like all, and a name must be one."""
    with pytest.raises(SystemExit):
        parsed(arguments)
    assert "usage" in capsys.readouterr().err


def test_what_is_written_has_its_plots() -> None:
    """A table in the README never stands beside the plot of another run."""
    assert parsed(["--write"]).plots == PLOTS
    assert parsed([]).plots is None
