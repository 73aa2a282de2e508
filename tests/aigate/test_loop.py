"""Timers of the gateway's event loop: cheap, never early, and gone once they are cancelled."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextvars import Context, ContextVar
from typing import Any

import pytest

from aigate.loop import COARSE, CoarseTimer, Loop, new_loop

LONG = 4 * COARSE
here: ContextVar[str] = ContextVar("here", default="")


def in_loop(main: Callable[[], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await main()

    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(run())


def test_uvicorn_can_make_one() -> None:
    """A server names the function."""
    loop = new_loop()
    loop.close()
    assert isinstance(loop, Loop)


@pytest.mark.parametrize("delay", [0, COARSE / 2, COARSE, LONG])
def test_a_timer_is_never_early(delay: float) -> None:
    """Whatever its delay; uvloop's clock ticks in milliseconds."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        fired, begun = loop.create_future(), loop.time()
        loop.call_later(delay, lambda: fired.set_result(loop.time() - begun))
        return float(await fired)

    assert in_loop(main) > delay - 0.002


@pytest.mark.parametrize("delay", [COARSE, 0.0625, 0.1, 0.25, 1, 5.0, 60, 119.9, 86400])
def test_a_timer_is_a_sixteenth_late_at_most(delay: float) -> None:
    """It fires with its slot, whose end is after it is due, and not long after."""

    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(delay, print)
        ((end, _),) = loop._slots  # type: ignore[attr-defined]
        return timer.when(), end

    due, end = in_loop(main)
    assert due < end <= due + delay / 16


def test_a_short_timer_waits_for_no_long_one() -> None:
    """Where a moment ends a slot of both, each has its own."""

    async def main() -> list[float]:
        loop: Any = asyncio.get_running_loop()
        long = loop._slot_of(loop.time() + 900, 32.0)
        short = loop._slot_of(long.end - 0.01, 0.25)
        assert short.end == long.end
        return [slot.end - slot.begin for slot in (long, short)]

    assert in_loop(main) == [32.0, 0.25]


def test_a_long_timer_is_put_to_others() -> None:
    """Ten of about the same time are one of uvloop's."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(60 + n / 100, print) for n in range(10)]
        assert all(isinstance(timer, CoarseTimer) for timer in timers)
        return len(loop._slots)  # type: ignore[attr-defined]

    assert in_loop(main) <= 2


def test_call_at() -> None:
    """A time instead of a delay is the same; not even a part of a tick too early, wherever in its slot it is."""

    async def main() -> list[float]:
        loop, late = asyncio.get_running_loop(), list[float]()
        dues = [loop.time() + LONG + n / 5000 for n in range(1000)]
        for due in dues:
            timer = loop.call_at(due, lambda due: late.append(loop.time() - due), due)
            assert timer.when() == pytest.approx(due)
        await asyncio.sleep(LONG + 0.5)
        return late

    late = in_loop(main)
    assert len(late) == 1000
    assert min(late) >= 0


def test_a_cancelled_timer_does_not_fire() -> None:
    """Also when it is cancelled twice, or together with others that fire."""

    async def main() -> list[str]:
        loop, fired = asyncio.get_running_loop(), list[str]()
        loop.call_later(LONG, fired.append, "kept")
        gone = loop.call_later(LONG, fired.append, "gone")
        gone.cancel()
        gone.cancel()
        assert gone.cancelled()
        await asyncio.sleep(2 * LONG)
        return fired

    assert in_loop(main) == ["kept"]


def test_one_cancels_another_of_the_same_moment() -> None:
    """What a callback cancels does not happen, although both are due."""

    async def main() -> list[str]:
        loop, fired = asyncio.get_running_loop(), list[str]()
        timers: list[Any] = []

        def first(name: str) -> None:
            fired.append(name)
            for timer in timers:
                timer.cancel()

        timers += [loop.call_later(LONG, first, "a"), loop.call_later(LONG, first, "b")]
        await asyncio.sleep(2 * LONG)
        return fired

    assert len(in_loop(main)) == 1


def test_nothing_is_kept_of_a_cancelled_timer() -> None:
    """A call's objects do not wait for a time-out that will not come."""

    def kept() -> int:
        gc.collect()
        return sum(isinstance(each, CoarseTimer) for each in gc.get_objects())

    async def main() -> int:
        loop, before = asyncio.get_running_loop(), kept()
        for _ in range(1000):
            loop.call_later(300, print).cancel()
        return kept() - before

    assert in_loop(main) == 0


def test_the_context_is_the_callers() -> None:
    """As with every event loop."""

    async def main() -> str:
        loop = asyncio.get_running_loop()
        fired = loop.create_future()
        here.set("caller")
        loop.call_later(LONG, lambda: fired.set_result(here.get()))
        here.set("changed")
        return str(await fired)

    assert in_loop(main) == "caller"


@pytest.mark.parametrize("delay", [COARSE / 2, LONG])
def test_an_empty_context_is_one(delay: float) -> None:
    """What many share is not done in the name of whoever came first."""

    async def main() -> str:
        loop = asyncio.get_running_loop()
        fired = loop.create_future()
        here.set("caller")
        loop.call_later(delay, lambda: fired.set_result(here.get()), context=Context())
        return str(await fired)

    assert in_loop(main) == ""


def test_time_outs_work() -> None:
    """asyncio's own stand on these timers."""

    async def main() -> None:
        async with asyncio.timeout(LONG):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        in_loop(main)


def test_delays_of_a_magnitude_take_turns() -> None:
    """Each timer is put where it belongs, wherever the one before it went."""

    async def main() -> list[float]:
        loop, late = asyncio.get_running_loop(), list[float]()

        def fire(due: float) -> None:
            late.append(loop.time() - due)

        for delay in (0.13, 0.24, 0.13, 0.2, 0.24, 0.15):
            loop.call_later(delay, fire, loop.time() + delay)
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.4)
        assert not loop._slots  # type: ignore[attr-defined]
        assert not any(loop._latest.values())  # type: ignore[attr-defined]
        return late

    late = in_loop(main)
    assert len(late) == 6
    assert min(late) > -0.002
