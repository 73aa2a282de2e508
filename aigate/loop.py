"""Why: nearly every timer of a gateway is cancelled long before it is due, and uvloop makes a libuv timer for each.

A call has some six of them (head, body, first byte, answer, keep-alive, statements), 3 us each. Here timers that are
due at about the same time share one: they are put into a set, which costs an insertion and a removal. A timer never
fires early, and at most a sixteenth of its delay late; one of less than `COARSE` is uvloop's own, and exact.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from math import frexp
from typing import Any

import uvloop

COARSE = 0.05
"""Seconds."""

HALF_A_TICK = 0.0005
"""Seconds; uvloop rounds a delay to whole milliseconds, and half of them down."""


class Loop(uvloop.Loop):
    """uvloop's event loop with cheap long timers."""

    def __init__(self) -> None:
        super().__init__()
        self._slots: dict[tuple[float, float], _Slot] = {}
        """By their ends and widths: ends of slots of several widths fall together."""
        self._latest: dict[int, _Slot] = {}
        """By the magnitude of the delay: most timers go where the last one of about their delay went."""

    def call_later(  # type: ignore[override]  # its own says that the timer is a TimerHandle, which is a class
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> "asyncio.TimerHandle | CoarseTimer":
        """As uvloop's own, which `call_at` comes through, too."""
        if delay < COARSE:
            return super().call_later(delay, callback, *args, context=context)
        timer = CoarseTimer()
        timer.due = due = self.time() + delay
        timer.callback = callback
        timer.args = args
        timer.context = copy_context() if context is None else context  # one that is empty is false
        exponent = frexp(delay)[1]  # the delay is less than 2**exponent, and at least half of it
        slot = self._latest.get(exponent)
        if slot is None or not slot.begin <= due < slot.end:
            slot = self._latest[exponent] = self._slot_of(due, 2.0 ** (exponent - 5))
        timer.slot = slot
        slot.add(timer)
        return timer

    def _slot_of(self, due: float, width: float) -> "_Slot":
        """The slot for what is due then; there are at most 32 of one width at a time."""
        end = due // width * width + width
        slot = self._slots.get((end, width))
        if slot is None:
            slot = self._slots[end, width] = _Slot()
            slot.begin, slot.end = end - width, end
            super().call_later(end - self.time() + HALF_A_TICK, self._fire, slot, context=Context())
        return slot

    def _fire(self, slot: "_Slot") -> None:
        del self._slots[slot.end, slot.end - slot.begin]
        while slot:
            timer = slot.pop()
            self.call_soon(timer.fire, context=timer.context)


class _Slot(set["CoarseTimer"]):
    """Timers that are due from `begin` on and before `end`, at which they fire."""

    __slots__ = ("begin", "end")

    begin: float
    end: float


class CoarseTimer:
    """What `call_later` returns; as `asyncio.TimerHandle`."""

    __slots__ = ("args", "callback", "context", "due", "slot")

    due: float
    callback: Callable[..., object] | None
    args: tuple[Any, ...]
    context: Context
    slot: _Slot

    def when(self) -> float:
        """The time at which it is due, by the loop's clock."""
        return self.due

    def cancelled(self) -> bool:
        return self.callback is None

    def cancel(self) -> None:
        """Never fire. May be called twice, and after it has fired."""
        self.callback = None
        self.args = ()
        self.slot.discard(self)

    def fire(self) -> None:
        if self.callback is not None:
            self.callback(*self.args)


def new_loop() -> asyncio.AbstractEventLoop:
    """The event loop of a worker; uvicorn's `loop` setting names this function."""
    return Loop()
