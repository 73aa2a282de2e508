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


class Loop(uvloop.Loop):
    """uvloop's event loop with cheap long timers."""

    def __init__(self) -> None:
        super().__init__()
        self._slots: dict[tuple[int, int], set[CoarseTimer]] = {}

    def call_later(  # type: ignore[override]  # its own says that the timer is a TimerHandle, which is a class
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> "asyncio.TimerHandle | CoarseTimer":
        """As uvloop's own, which `call_at` comes through, too."""
        if delay < COARSE:
            return super().call_later(delay, callback, *args, context=context)
        when = self.time() + delay
        exponent = frexp(delay)[1]  # the delay is less than 2**exponent, and at least half of it
        key = exponent, int(when / _WIDTHS[exponent]) + 1
        slot = self._slots.get(key)
        if slot is None:
            slot = self._open(key)
        timer = CoarseTimer(when, callback, args, context or copy_context(), slot)
        slot.add(timer)
        return timer

    def _open(self, key: tuple[int, int]) -> set["CoarseTimer"]:
        """A slot for what is due before its end; there are at most 32 of one width at a time."""
        slot = self._slots[key] = set()
        end = key[1] * _WIDTHS[key[0]]
        super().call_later(end - self.time(), self._fire, key, context=Context())
        return slot

    def _fire(self, key: tuple[int, int]) -> None:
        for timer in self._slots.pop(key):
            self.call_soon(timer.fire, context=timer.context)


_WIDTHS = {exponent: 2.0 ** (exponent - 5) for exponent in range(-10, 64)}
"""Seconds of a slot by the exponent of the delays in it: a sixteenth of the shortest of them, at most."""


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
