"""What must be written although the database is away: tried again, in the background, until it is.

Work that is handed over here is idempotent, so that what a lost connection left unsure may be written twice.
"""

import asyncio
from collections.abc import Awaitable, Callable

from loguru import logger

from middleware.faults import StoreUnavailable

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two attempts while the database is away."""
PAUSE_AFTER_A_DEFECT = 60.0


class Overdue:
    """Writes that wait for the database."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many writes are not done yet."""
        return len(self._running)

    def keep_trying(self, what: str, write: Callable[[], Awaitable[object]]) -> None:
        """Call `write` until it raises no more; `what` stands in the log."""
        task = asyncio.create_task(self._until_done(what, write), name=what)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def stop(self, patience: float) -> None:
        """Give what is unwritten `patience` seconds more; what then remains is left to another replica's sweep."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=patience)
            for task in late:
                logger.error("{}: not written before the end of this process", task.get_name())
                task.cancel()

    async def _until_done(self, what: str, write: Callable[[], Awaitable[object]]) -> None:
        pause = FIRST_PAUSE
        while True:
            await asyncio.sleep(pause)
            try:
                await write()
            except StoreUnavailable:
                pause = min(pause * 2, LONGEST_PAUSE)
            except Exception:  # it is nobody's fault but ours, and what waits here is not given up for it
                logger.exception("{}: cannot be written", what)
                pause = PAUSE_AFTER_A_DEFECT
            else:
                logger.info("{}: written after all", what)
                return
