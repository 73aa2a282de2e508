"""Why: PostgreSQL refuses to run as root, and no permission outside the data dir may be changed for its sake.

As root it therefore runs as the owner of its data. That user need not be able to walk the path to them
(`/root` is 0700): the server is started inside its folder and told that its data are in `/proc/self/cwd`.
Its programs cannot be had that way, because it looks up its own real path; where that user cannot reach
them, a copy in the temporary folder serves while the server runs.
"""

import os
import pwd
import shutil
import stat
from pathlib import Path

from aigate.embedded import temporary
from aigate.embedded.process import Account, EmbeddedError, Program, can_run

_CANDIDATES = ("postgres", "nobody")
_UNUSED = shutil.ignore_patterns("include", "*.a", "pkgconfig", "__pycache__")


def account_for(data: Path) -> Account | None:
    """Who runs the server over `data`: `None` is ourselves; for root the owner of `data` or a system user."""
    if os.geteuid() != 0:
        return None
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(f"PostgreSQL does not run as root, and none of the users {_CANDIDATES} exists: add one")


def reachable(programs: Path, account: Account | None, copy: Path) -> Path:
    """`programs` (a folder `.../<package>/<install>/bin`), or its copy in `copy` if `account` cannot run it."""
    if account is None or _reaches(account, programs):
        return programs
    temporary.remove(copy)
    copy.mkdir(mode=0o755)
    copied = _copy(programs, copy)
    if not _reaches(account, copied):
        temporary.remove(copy)
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and uid {account.uid} can run neither {programs} nor a copy of it in"
            f" {copy.parent}: set TMPDIR to a folder open to all, or start AIGate as an ordinary user."
        )
    return copied


def _reaches(account: Account, programs: Path) -> bool:
    return can_run(Program((str(programs / "postgres"), "--version"), Path("/"), account))


def _copy(programs: Path, copy: Path) -> Path:
    install = programs.parent
    package = install.parent
    libraries = package.with_name(f"{package.name}.libs")  # the binaries look for it beside their package
    shutil.copytree(install, copy / package.name / install.name, ignore=_UNUSED)
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name)
    _open_to_all(copy)
    return copy / package.name / install.name / programs.name


def _open_to_all(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        mode = path.stat().st_mode
        executable = stat.S_ISDIR(mode) or bool(mode & stat.S_IXUSR)
        path.chmod(0o755 if executable else 0o644)
