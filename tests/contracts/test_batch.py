"""What every store relies on when it writes through a `Batch`."""

import asyncio
import gc
from collections.abc import Sequence

import pytest

from aigate.stores.batch import Batch
from middleware.faults import StoreUnavailable


class Writes:
    """A store that keeps what it is given at once; it waits for `free` and fails on `bad` items."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.running = 0
        self.most_running = 0
        self.free = asyncio.Event()
        self.free.set()

    async def __call__(self, items: Sequence[int]) -> list[str]:
        self.batches.append(list(items))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await self.free.wait()
        await asyncio.sleep(0)
        self.running -= 1
        if any(item < 0 for item in items):
            raise ValueError("bad")
        return [f"wrote {item}" for item in items]


@pytest.fixture
def writes() -> Writes:
    return Writes()


async def test_each_waiter_gets_its_own_result(writes: Writes) -> None:
    """Results come back in the order of the items."""
    batch = Batch(writes)
    assert await asyncio.gather(*map(batch.submit, range(5))) == [f"wrote {number}" for number in range(5)]


async def test_what_is_concurrent_shares_one_write(writes: Writes) -> None:
    """What is submitted in one turn of the loop goes together, in its order."""
    batch = Batch(writes)
    await asyncio.gather(*map(batch.submit, range(100)))
    assert writes.batches == [list(range(100))]


async def test_an_idle_batch_delays_nothing(writes: Writes) -> None:
    """A single item is being written two turns of the loop later."""
    writes.free.clear()
    future = Batch(writes).submit(1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert writes.batches == [[1]]
    writes.free.set()
    assert await future == "wrote 1"


async def test_a_batch_has_a_size(writes: Writes) -> None:
    """More than `size` items are several writes, in order."""
    batch = Batch(writes, size=2)
    await asyncio.gather(*map(batch.submit, range(5)))
    assert writes.batches == [[0, 1], [2, 3], [4]]


async def test_one_write_runs_at_once(writes: Writes) -> None:
    """The next one begins when it has ended."""
    batch = Batch(writes, size=1)
    await asyncio.gather(*map(batch.submit, range(10)))
    assert writes.most_running == 1


async def test_what_comes_during_a_write_goes_together(writes: Writes) -> None:
    """It waits for the end of the write, and is then one."""
    writes.free.clear()
    batch = Batch(writes)
    first = batch.submit(0)
    await asyncio.sleep(0.01)
    later = [batch.submit(number) for number in (1, 2, 3)]
    writes.free.set()
    await asyncio.gather(first, *later)
    assert writes.batches == [[0], [1, 2, 3]]


async def test_a_waiter_may_submit_again_at_once(writes: Writes) -> None:
    """What is submitted in the very turn in which a write ends is not forgotten."""
    batch = Batch(writes)

    async def several() -> None:
        for number in range(20):
            await batch.submit(number)

    async with asyncio.timeout(5):
        await asyncio.gather(several(), several(), several())


async def test_a_bad_item_fails_nobody_else(writes: Writes) -> None:
    """Its own waiter learns of it; those whose items went with it get their results."""
    batch = Batch(writes)
    futures = [batch.submit(number) for number in (1, -1, 2)]
    first, bad, last = await asyncio.gather(*futures, return_exceptions=True)
    assert (first, last) == ("wrote 1", "wrote 2")
    assert isinstance(bad, ValueError)


async def test_a_store_that_is_away_fails_each_waiter() -> None:
    """All learn of it at once: nothing is tried again one by one."""
    asked = 0

    async def write(items: Sequence[int]) -> list[int]:
        nonlocal asked
        asked += 1
        raise StoreUnavailable("away")

    batch = Batch(write)
    results = await asyncio.gather(*map(batch.submit, range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 3
    assert asked == 1


async def test_a_store_that_goes_away_is_not_asked_for_each() -> None:
    """After a bad item the others are written alone; the first time-out of many is enough."""
    asked = []

    async def write(items: Sequence[int]) -> list[int]:
        asked.append(list(items))
        raise ValueError("bad") if len(items) > 1 else StoreUnavailable("away")

    batch = Batch(write)
    results = await asyncio.gather(*map(batch.submit, range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 5
    assert asked == [[0, 1, 2, 3, 4], [0]]


async def test_after_a_failure_it_goes_on(writes: Writes) -> None:
    """The next write is not the failed one's business."""
    batch = Batch(writes)
    with pytest.raises(ValueError, match="bad"):
        await batch.submit(-1)
    assert await batch.submit(1) == "wrote 1"


async def test_too_few_results_are_a_failure() -> None:
    """A defect of the store fails its waiters; it does not leave them waiting."""

    async def write(items: Sequence[int]) -> list[int]:
        return []

    async with asyncio.timeout(5):
        with pytest.raises(ValueError, match="zip"):
            await Batch(write).submit(1)


async def test_what_was_handed_over_cannot_be_taken_back(writes: Writes) -> None:
    """It is written, whatever its waiter wants by then."""
    batch = Batch(writes)
    leaving, staying = batch.submit(1), batch.submit(2)
    assert not leaving.cancel()
    assert await asyncio.gather(leaving, staying) == ["wrote 1", "wrote 2"]
    assert writes.batches == [[1, 2]]


async def test_a_waiter_is_cancelled_once_it_is_written(writes: Writes) -> None:
    """Whoever catches the cancellation knows what has become of its item."""
    writes.free.clear()
    future = Batch(writes).submit(1)
    known: list[bool] = []

    async def wait() -> None:
        try:
            await future
        except asyncio.CancelledError:
            known.append(future.done())
            raise

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.sleep(0.01)
    assert not waiting.done()
    writes.free.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (known, await future) == ([True], "wrote 1")


def test_a_loop_that_ends_waits_for_no_store() -> None:
    """A gateway that is told to stop at once does, although nobody who waits here can be cancelled."""
    results: list[object] = []

    async def write(items: Sequence[int]) -> list[int]:
        await asyncio.sleep(60)
        return list(items)

    async def wait(future: "asyncio.Future[int]") -> None:
        try:
            await future
        finally:
            results.append(future.exception())

    async def main() -> None:
        batch = Batch(write, size=1)
        waiting.extend(asyncio.create_task(wait(batch.submit(number))) for number in range(2))
        await asyncio.sleep(0.01)

    waiting: list[asyncio.Task[None]] = []
    asyncio.run(main())  # cancels what is left, and waits for it
    assert [type(result) for result in results] == [StoreUnavailable] * 2


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_a_loop_may_end_at_any_turn(writes: Writes, turns: int) -> None:
    """Also before the write of what was submitted has begun: nobody waits for ever."""
    futures: list[asyncio.Future[str]] = []

    async def wait(batch: Batch[int, str]) -> None:
        futures.append(batch.submit(1))
        await futures[0]

    async def main() -> None:
        waiting.append(asyncio.create_task(wait(Batch(writes))))
        for _ in range(turns):
            await asyncio.sleep(0)

    waiting: list[asyncio.Task[None]] = []
    asyncio.run(main())
    assert [future.done() for future in futures] == [True]


def test_a_loop_that_ends_leaves_nothing_behind(writes: Writes, caplog: pytest.LogCaptureFixture) -> None:
    """What is submitted only then is written, and nobody waits for more who would never be woken."""
    results: list[str] = []

    async def write_at_last(batch: Batch[int, str], number: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            results.append(await batch.submit(number))

    async def main() -> None:
        batch = Batch(writes)
        results.append(await batch.submit(1))
        last.extend(asyncio.create_task(write_at_last(batch, number)) for number in range(2, 30))
        await asyncio.sleep(0)

    last: list[asyncio.Task[None]] = []
    asyncio.run(main())
    last.clear()
    gc.collect()
    assert sorted(results) == sorted(f"wrote {number}" for number in range(1, 30))
    assert not caplog.records


async def test_it_may_be_idle_in_between(writes: Writes) -> None:
    """However often; what is concurrent then still goes together."""
    batch = Batch(writes)
    for number in range(3):
        await asyncio.gather(batch.submit(number), batch.submit(number))
        await asyncio.sleep(0)
    assert writes.batches == [[number, number] for number in range(3)]


async def test_flush_waits_for_everything(writes: Writes) -> None:
    """When it returns, nothing is waiting or being written."""
    batch = Batch(writes, size=2)
    futures = [batch.submit(number) for number in range(9)]
    await batch.flush()
    assert all(future.done() for future in futures)


async def test_flush_of_nothing() -> None:
    """It returns at once."""
    await Batch(Writes()).flush()
