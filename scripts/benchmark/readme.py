"""The blocks of README.md that a command fills: numbers there are never typed, and say how they were made.

A block stands between `<!-- name -->` and `<!-- /name -->`; what is around it is left alone.
"""

import re
from pathlib import Path

from .system import BenchmarkError

README = Path(__file__).parents[2] / "README.md"
BENCHMARK, GROWTH, PROFILE = "benchmark", "growth", "profile"


def replaced(text: str, block: str, content: str) -> str:
    """The text with this content in the block. Raises `BenchmarkError` if there is no such block."""
    pattern = re.compile(rf"(?<=<!-- {block} -->\n).*?(?=<!-- /{block} -->)", re.DOTALL)
    if pattern.search(text) is None:
        raise BenchmarkError(f"README.md has no <!-- {block} --> and <!-- /{block} -->")
    return pattern.sub(lambda _: content, text, count=1)


def write(block: str, content: str, command: str) -> None:
    """Fill the block, and say by which command."""
    text = README.read_text(encoding="utf-8")
    README.write_text(replaced(text, block, f"{content}\nMade by `{command}`.\n"), encoding="utf-8")
