"""Why: nearly every timer of a gateway is cancelled long before it is due, and uvloop makes a libuv timer for each.

A call has some six of them (head, body, first byte, answer, keep-alive, statements), 3 us each. Here a timer that is
due no sooner than `COARSE` is only put into the set of all that are due in the same hundredth of a second; a set has
one timer. So it may fire `SLOT` late, never early, and most of the time costs an insertion and a removal.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

import uvloop

COARSE = 0.05
"""Seconds from which on a timer need not be exact."""
SLOT = 0.01
"""Seconds that such a timer may fire late."""


class Loop(uvloop.Loop):
    """uvloop's event loop with cheap long timers."""

    def __init__(self) -> None:
        super().__init__()
        self._slots: dict[int, set[CoarseTimer]] = {}

    def call_later(  # type: ignore[override]  # its own says that the timer is a TimerHandle, which is a class
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> "asyncio.TimerHandle | CoarseTimer":
        """As uvloop's own, which `call_at` comes through, too."""
        if delay < COARSE:
            return super().call_later(delay, callback, *args, context=context)
        when = self.time() + delay
        number = int(when / SLOT) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
            super().call_later(number * SLOT - self.time(), self._fire, number)
        timer = CoarseTimer(when, callback, args, context or copy_context(), slot)
        slot.add(timer)
        return timer

    def _fire(self, number: int) -> None:
        for timer in self._slots.pop(number):
            self.call_soon(timer.fire, context=timer.context)


class CoarseTimer:
    """What `call_later` returns; as `asyncio.TimerHandle`."""

    __slots__ = ("_args", "_callback", "_slot", "_when", "context")

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context,
        slot: set["CoarseTimer"],
    ) -> None:
        self._when = when
        self._callback: Callable[..., object] | None = callback
        self._args = args
        self._slot = slot
        self.context = context

    def when(self) -> float:
        """The time at which it is due, by the loop's clock."""
        return self._when

    def cancelled(self) -> bool:
        return self._callback is None

    def cancel(self) -> None:
        """Never fire. May be called twice, and after it has fired."""
        self._callback = None
        self._args = ()
        self._slot.discard(self)

    def fire(self) -> None:
        if self._callback is not None:
            self._callback(*self._args)


def new_loop() -> asyncio.AbstractEventLoop:
    """The event loop of a worker; uvicorn's `loop` setting names this function."""
    return Loop()
