"""Why: who uses a server, and whether it lives, must be known without trusting a pid: pids are recycled,
and a process that was killed cleans nothing up. The kernel drops a file lock with its last holder.

These are `flock` locks: they belong to the open file, so a child that inherits the descriptor holds the
lock too, and two opens of one file exclude each other even inside one process.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(path: Path) -> Iterator[int]:
    """Wait for the lock and hold it until the block ends, or longer in whoever inherits the descriptor."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def shared(path: Path) -> int:
    """Hold the lock beside other shared holders; closing the returned descriptor lets go of it."""
    descriptor = _open(path)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def is_last_holder(descriptor: int) -> bool:
    """Whether nobody beside `descriptor` holds its lock. Asking may lose the lock: close it afterwards."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether anybody holds the lock."""
    descriptor = _open(path)
    try:
        return not is_last_holder(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
