"""The one timer of a call."""

import asyncio

import pytest

from providers.contract import Kind, ProviderError
from providers.deadline import Watch


async def waited(watch: Watch, seconds: float) -> None:
    with watch:
        await asyncio.sleep(seconds)


async def test_a_wait_over_the_limit_is_a_timeout() -> None:
    """The provider's, and its words say how long it was silent."""
    watch = Watch(0.05, 10)
    with pytest.raises(ProviderError, match=r"0\.05 seconds") as caught:
        await waited(watch, 5)
    assert caught.value.kind is Kind.TIMEOUT


async def test_each_wait_has_the_whole_limit() -> None:
    """Several waits may take longer than one."""
    watch = Watch(0.1, 10)
    for _ in range(4):
        await waited(watch, 0.05)
    watch.stop()


async def test_what_happens_between_waits_is_not_timed() -> None:
    """The time of whoever reads is not the provider's."""
    watch = Watch(0.05, 10)
    await waited(watch, 0)
    await asyncio.sleep(0.2)
    await waited(watch, 0.01)
    with pytest.raises(ProviderError):
        await waited(watch, 5)


async def test_the_total_ends_a_wait_that_is_within_its_limit() -> None:
    """All waits together are bounded, too."""
    watch = Watch(10, 0.1)
    with pytest.raises(ProviderError, match="longer"):
        await waited(watch, 5)
    with pytest.raises(ProviderError, match="longer"):
        await waited(watch, 0)


async def test_the_limit_can_be_changed_between_waits() -> None:
    """The first bytes have more time than the next."""
    watch = Watch(10, 20, then=0.05)
    await waited(watch, 0)
    watch.go_on()
    async with asyncio.timeout(1):
        with pytest.raises(ProviderError):
            await waited(watch, 5)


async def test_a_long_first_wait_lends_nothing_to_the_next_ones() -> None:
    """A provider that stops after it has thought for long is noticed as soon as any other."""
    watch = Watch(5, 20, then=0.05)
    await waited(watch, 0.2)
    watch.go_on()
    async with asyncio.timeout(1):
        with pytest.raises(ProviderError):
            await waited(watch, 5)


async def test_the_first_wait_may_be_longer_than_the_next_ones() -> None:
    """The timer that looks early enough for the next ones does not cut the first."""
    watch = Watch(5, 10, then=0.05)
    await waited(watch, 0.2)
    watch.stop()


async def test_a_cancellation_from_outside_stays_one() -> None:
    """A time-out is never taken for a hang-up, nor the other way round."""
    watch = Watch(5, 10)
    task = asyncio.ensure_future(waited(watch, 5))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    watch.stop()


async def test_a_time_out_leaves_the_task_uncancelled() -> None:
    """Whoever catches the error can go on and wait for other things."""
    watch = Watch(0.02, 10)
    with pytest.raises(ProviderError):
        await waited(watch, 5)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
