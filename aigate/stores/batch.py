"""Group commit: what is concurrent shares one round trip, and an idle gateway delays nothing.

A statement costs the gateway about the same whether it carries one row or sixty (measured: 39 us CPU a row alone,
4 us at 64), so the batch, not the row, is the unit of work. What is submitted during one turn of the event loop, or
while all lanes are busy, goes together; each waiter resumes at its own commit.

After TigerBeetle: https://docs.tigerbeetle.com/concepts/performance/
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar, cast

from middleware.faults import StoreUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


class Written(asyncio.Future[Result]):
    """The result of what is being written. Whoever awaits it can be cancelled only once it is there.

    What has been handed over is written in any case, so a waiter that went away early would not know what of. As
    `asyncio.shield` would do it, but without a second future and its callbacks for each of the two writes of a call.
    """

    __slots__ = ()

    def cancel(self, msg: object = None) -> bool:
        return False


class Batch(Generic[Item, Result]):
    """Hands items to `write` together, at most `size` at a time and `lanes` of such batches at once.

    `write` returns one result an item, in order. When the store is away every waiter of the batch is told; after any
    other failure each item is written alone, so that a bad one fails nobody else.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        size: int = 256,
        lanes: int = 2,
    ) -> None:
        self._write = write
        self._size = size
        self._lanes = lanes
        self._waiting: deque[tuple[Item, Written[Result]]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    def submit(self, item: Item) -> Written[Result]:
        """The future result of writing `item`, which cannot be taken back."""
        future: Written[Result] = Written()
        self._waiting.append((item, future))
        if len(self._running) < self._lanes:
            task = asyncio.create_task(self._drain())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return future

    async def flush(self) -> None:
        """Return once nothing is waiting or being written."""
        while self._running:
            await asyncio.wait(self._running)

    async def _drain(self) -> None:
        while self._waiting:
            count = min(self._size, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            try:
                await self._write_one(batch)
            except asyncio.CancelledError:  # the loop ends, and would wait for ever for who waits here
                _tell([*batch, *self._waiting], StoreUnavailable("The gateway stops.", unsure=True))
                self._waiting.clear()
                raise
        # Here and not in a callback: what a waiter submits next needs the lane.
        self._running.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _write_one(self, batch: list[tuple[Item, Written[Result]]]) -> None:
        try:
            results = await self._write([item for item, _ in batch])
            answered = list(zip(batch, results, strict=True))
        except Exception as error:
            if len(batch) == 1 or isinstance(error, StoreUnavailable):
                _tell(batch, error)
            else:
                await self._write_each(batch)
            return
        for (_, future), result in answered:
            future.set_result(result)

    async def _write_each(self, batch: list[tuple[Item, Written[Result]]]) -> None:
        """One of these cannot be written. A store that goes away meanwhile is not asked for all the others."""
        for number, (item, future) in enumerate(batch):
            try:
                (result,) = await self._write([item])
            except StoreUnavailable as error:
                _tell(batch[number:], error)
                return
            except Exception as error:
                _tell([(item, future)], error)
            else:
                future.set_result(result)


def _tell(batch: Iterable[tuple[object, Written[Result]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
            future.exception()  # marks it as seen: its waiter may have gone
