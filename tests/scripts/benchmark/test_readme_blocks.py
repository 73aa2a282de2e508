"""The blocks of the README that a command fills."""

import pytest

from scripts.benchmark.readme import BENCHMARK, GROWTH, PROFILE, README, replaced
from scripts.benchmark.system import BenchmarkError

TEXT = "before\n<!-- profile -->\nold\nlines\n<!-- /profile -->\nafter\n"


def test_only_the_block_changes() -> None:
    """What is around it was written by somebody."""
    assert replaced(TEXT, "profile", "new\n") == "before\n<!-- profile -->\nnew\n<!-- /profile -->\nafter\n"


def test_content_is_taken_as_it_is() -> None:
    """A backslash is no command."""
    assert "\\1 \\g<0>" in replaced(TEXT, "profile", "\\1 \\g<0>\n")


def test_filling_twice_is_filling_once() -> None:
    """The second run replaces the first."""
    assert replaced(replaced(TEXT, "profile", "new\n"), "profile", "new\n") == replaced(TEXT, "profile", "new\n")


def test_without_its_block_it_says_so() -> None:
    """Nothing is appended somewhere."""
    with pytest.raises(BenchmarkError, match="<!-- benchmark -->"):
        replaced(TEXT, "benchmark", "new\n")


@pytest.mark.parametrize("block", [BENCHMARK, GROWTH, PROFILE])
def test_our_readme_has_the_block(block: str) -> None:
    """All can be filled."""
    assert "new\n" in replaced(README.read_text(encoding="utf-8"), block, "new\n")
