"""Group commit: what is concurrent shares one round trip, and an idle gateway delays nothing.

A statement costs the gateway about the same whether it carries one row or sixty (measured: 39 us CPU a row alone,
4 us at 64), so the batch, not the row, is the unit of work. What is submitted during one turn of the event loop, or
while all lanes are busy, goes together; each waiter resumes at its own commit.

After TigerBeetle: https://docs.tigerbeetle.com/concepts/performance/
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import Context
from itertools import chain
from typing import Generic, TypeVar

from middleware.faults import StoreUnavailable

_open_lanes: set["asyncio.Task[None]"] = set()
"""A loop holds its tasks weakly."""

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
        """How many may still be opened."""
        self._items: list[Item] = []
        self._futures: list[Written[Result]] = []
        self._writing: list[list[Written[Result]]] = []
        """What each lane writes now."""
        self._idle: list[asyncio.Future[None]] = []
        """The lanes that wait for more."""
        self._ending = False

    def submit(self, item: Item) -> Written[Result]:
        """The future result of writing `item`, which cannot be taken back."""
        future: Written[Result] = Written()
        self._items.append(item)
        self._futures.append(future)
        if self._idle:
            more = self._idle.pop()
            if not more.done():  # else its lane is cancelled, and opens another
                more.set_result(None)
        elif self._lanes:
            self._open()
        return future

    async def flush(self) -> None:
        """Return once nothing is waiting or being written."""
        while waiting := [*chain(*self._writing), *self._futures]:
            await asyncio.wait(waiting)

    def _open(self) -> None:
        self._lanes -= 1
        lane = asyncio.get_running_loop().create_task(self._lane(), context=Context())
        _open_lanes.add(lane)
        lane.add_done_callback(_open_lanes.discard)

    async def _lane(self) -> None:
        """Write what there is, and wait for more, until the loop ends; it costs less than a task for each write."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                while self._items:
                    await self._write_next()
                if self._ending:
                    return
                more = loop.create_future()
                self._idle.append(more)
                await more
        except asyncio.CancelledError:  # the loop would wait for ever for who waits here
            self._ending = True
            self._idle.clear()
            if self._writing:
                _tell([*chain(*self._writing), *self._futures], StoreUnavailable("The gateway stops.", unsure=True))
                for kept in (self._writing, self._items, self._futures):
                    kept.clear()
            raise
        finally:
            self._lanes += 1
            if self._items:
                self._open()

    async def _write_next(self) -> None:
        items, futures = self._items[: self._size], self._futures[: self._size]
        del self._items[: self._size], self._futures[: self._size]
        self._writing.append(futures)
        try:
            answered = list(zip(futures, await self._write(items), strict=True))
        except Exception as error:
            await self._write_each(items, futures, error)
        else:
            for future, result in answered:
                future.set_result(result)
        self._writing.remove(futures)

    async def _write_each(self, items: Sequence[Item], futures: Sequence[Written[Result]], error: Exception) -> None:
        """One of these cannot be written. A store that goes away meanwhile is not asked for all the others."""
        if len(items) == 1 or isinstance(error, StoreUnavailable):
            _tell(futures, error)
            return
        for number, (item, future) in enumerate(zip(items, futures, strict=True)):
            try:
                (result,) = await self._write([item])
            except StoreUnavailable as away:
                _tell(futures[number:], away)
                return
            except Exception as its_own:
                _tell([future], its_own)
            else:
                future.set_result(result)


def _tell(futures: Iterable[Written[Result]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
            future.exception()  # marks it as seen: its waiter may have gone
