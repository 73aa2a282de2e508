"""Why: two things cannot stay below the data dir. A socket's path has room for about 100 bytes, so a longer
one is reached through a short link; and programs that lie where an unprivileged user may not go are copied.
Both get names in the temporary folder that follow from the user and the real data dir, so every process of
the same user finds the same ones; what somebody else put there is never used.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from aigate.embedded.process import EmbeddedError

_SOCKET_PATH_LIMIT = 103  # bytes without the final zero: macOS; Linux has 107
_SOCKET_NAME_ROOM = len("/.s.PGSQL.5432")


def reachable_socket_folder(folder: Path) -> Path:
    """`folder`, or a link to it if its path is too long for a socket or would be read as a list of hosts."""
    real = folder.resolve()
    if _fits(real) and "," not in str(real):
        return real
    link = place(real, "sockets")
    if not _fits(link):
        raise EmbeddedError(f"{link} is too long for a unix socket: set TMPDIR to a shorter folder")
    _point(link, real)
    return link


def place(folder: Path, purpose: str) -> Path:
    """The name in the temporary folder that belongs to `folder`, this user and `purpose`."""
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return Path(tempfile.gettempdir()).resolve() / f"aigate-{os.geteuid()}-{digest}.{purpose}"


def remove(path: Path) -> None:
    """Take away what this user left at `path`, if anything; raises `EmbeddedError` if it is another's."""
    if not os.path.lexists(path):
        return
    if path.lstat().st_uid != os.geteuid():
        raise EmbeddedError(f"{path} belongs to another user: remove it, or set TMPDIR to a folder of your own")
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def _point(link: Path, target: Path) -> None:
    if link.is_symlink() and link.lstat().st_uid == os.geteuid() and link.readlink() == target:
        return
    remove(link)
    link.symlink_to(target)


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder)) + _SOCKET_NAME_ROOM <= _SOCKET_PATH_LIMIT
