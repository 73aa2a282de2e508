"""How long a provider is waited for, and the one timer of all who wait."""

import asyncio
import contextlib

import pytest

from providers.contract import Kind, ProviderError
from providers.deadline import Lookout, Watch
from tests.middleware.driving import CountingLoop


async def waited(watch: Watch, seconds: float) -> None:
    try:
        watch.begin()
        await asyncio.sleep(seconds)
        watch.rest()
    except BaseException:
        if (late := watch.end()) is not None:
            raise late from None
        raise


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


async def test_a_cancellation_from_outside_at_the_last_moment_stays_one() -> None:
    """It has been asked for, but has not reached the task yet, when the time is over."""
    watch = Watch(0.01, 10, lookout=Lookout(10))
    task = asyncio.ensure_future(waited(watch, 5))
    await asyncio.sleep(0.02)
    task.cancel()
    assert watch.look(asyncio.get_running_loop().time())
    with pytest.raises(asyncio.CancelledError):
        await task
    watch.stop()


async def test_a_wait_that_keeps_its_cancellation_to_itself_is_late_all_the_same() -> None:
    """The next one has a limit again, and the task counts no cancellation."""
    watch = Watch(0.2, 10, lookout=Lookout(10))

    async def swallow() -> int:
        watch.begin()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(5)
        with pytest.raises(ProviderError, match=r"nothing for 0\.2 seconds"):
            watch.rest()
        current = asyncio.current_task()
        assert current is not None
        return current.cancelling()

    task = asyncio.ensure_future(swallow())
    await asyncio.sleep(0)
    watch.look(asyncio.get_running_loop().time() + 1)
    assert await task == 0
    watch.stop()


async def test_a_cancellation_right_after_the_time_out_is_not_taken_for_one_later() -> None:
    """The wait ends as cancelled; the next one has its own limit, and ends well if it keeps to that."""
    watch = Watch(0.2, 10, lookout=Lookout(10))

    async def go_on() -> None:
        with pytest.raises(asyncio.CancelledError):
            await waited(watch, 5)
        await waited(watch, 0)

    task = asyncio.ensure_future(go_on())
    await asyncio.sleep(0)
    watch.look(asyncio.get_running_loop().time() + 1)
    task.cancel()
    await task
    watch.stop()


@pytest.mark.parametrize("total", [0.05, 10])
async def test_who_goes_on_after_a_cancellation_is_timed_out(total: float) -> None:
    """A task that was cancelled and did not end may wait as long as any other."""

    async def go_on() -> None:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            await waited(Watch(0.05, total), 5)

    task = asyncio.ensure_future(go_on())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(1):
        with pytest.raises(ProviderError):
            await task


async def test_a_time_out_leaves_the_task_uncancelled() -> None:
    """Whoever catches the error can go on and wait for other things."""
    watch = Watch(0.02, 10)
    with pytest.raises(ProviderError):
        await waited(watch, 5)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


def test_many_watches_have_one_timer() -> None:
    """A call costs none of its own."""

    async def watch(calls: int) -> None:
        lookout = Lookout(10)
        for each in [Watch(10, 20, lookout=lookout) for _ in range(calls)]:
            each.stop()

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(watch(10))
        loop = runner.get_loop()
        assert isinstance(loop, CountingLoop)
        assert loop.timers == 1


async def test_each_of_many_watches_keeps_its_own_limits() -> None:
    """What is looked at together is not timed together."""
    lookout = Lookout(0.05)
    short, long, stopped = (Watch(limit, 10, lookout=lookout) for limit in (0.05, 5, 5))
    stopped.stop()
    cut = asyncio.ensure_future(waited(short, 5))
    await waited(long, 0.2)
    long.stop()
    with pytest.raises(ProviderError, match=r"0\.05 seconds"):
        await cut


def test_who_was_left_behind_by_another_loop_keeps_nobody_from_being_timed_out() -> None:
    """A loop that was closed amid a wait takes no cancellation any more."""
    lookout = Lookout(0.02)
    first = asyncio.new_event_loop()

    async def wait() -> None:
        await waited(Watch(0.02, 10, lookout=lookout), 5)

    left = first.create_task(wait())
    first.run_until_complete(asyncio.sleep(0))
    first.close()

    async def second() -> None:
        async with asyncio.timeout(1):
            await waited(Watch(0.05, 10, lookout=lookout), 5)

    with pytest.raises(ProviderError):
        asyncio.run(second())
    assert not left.done()


def test_a_watch_that_nobody_stops_is_forgotten() -> None:
    """After its total no wait can follow: nothing is looked at, and no timer runs."""

    async def forget() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        Watch(0.02, 0.05, lookout=Lookout(0.02))
        await asyncio.sleep(0.15)
        timers = loop.timers
        await asyncio.sleep(0.05)
        return loop.timers - timers

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        assert runner.run(forget()) == 1  # of the sleep
