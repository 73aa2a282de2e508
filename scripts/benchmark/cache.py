"""Tools that the benchmark installs for itself, each in a folder of its own in the user's cache: they are no part of
the gateway, of its environment or of the repository, and are installed once.

A folder counts as installed once its mark stands in it, so that what was broken off is begun anew.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .system import BenchmarkError

MARK = "installed"
PATIENCE = 900.0
"""Seconds that an installation may take."""


def place(name: str) -> Path:
    """The folder of a tool."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "aigate-bench" / name


def is_installed(folder: Path) -> bool:
    return (folder / MARK).exists()


def installed(folder: Path, install: Callable[[Path], None]) -> Path:
    """The folder, after `install` has filled it if nobody had."""
    if not is_installed(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        install(folder)
        (folder / MARK).touch()
    return folder


def venv(*packages: str) -> Callable[[Path], None]:
    """Installs packages from PyPI into a virtual environment."""

    def install(folder: Path) -> None:
        command([sys.executable, "-m", "venv", str(folder)], folder)
        command([str(folder / "bin" / "python"), "-m", "pip", "install", "-qq", *packages], folder)

    return install


def command(words: Sequence[str], folder: Path) -> None:
    """Run to the end. Raises `BenchmarkError` with what the command said."""
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchmarkError(f"{words[0]}: {error}") from None
    if done.returncode:
        raise BenchmarkError(f"{' '.join(words)} failed: {(done.stderr or done.stdout)[-2000:]}")
