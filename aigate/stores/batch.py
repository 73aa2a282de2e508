"""Group commit: what is concurrent shares one round trip, and an idle gateway delays nothing.

A statement costs the gateway about the same whether it carries one row or sixty (measured: 39 us CPU a row alone,
4 us at 64), so the batch, not the row, is the unit of work. What is submitted during one turn of the event loop, or
while a batch is being written, goes together; each waiter resumes at its own commit.

After TigerBeetle: https://docs.tigerbeetle.com/concepts/performance/
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import Context
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
    """Hands items to `write` together, at most `size` at a time, one such batch after another.

    `write` returns one result an item, in order. When the store is away every waiter of the batch is told; after any
    other failure each item is written alone, so that a bad one fails nobody else.
    """

    def __init__(self, write: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], *, size: int = 256) -> None:
        self._write = write
        self._size = size
        self._items: list[Item] = []
        """What is to be written next."""
        self._futures: list[Written[Result]] = []
        """Of what is being written now, and of `_items`."""
        self._lane: asyncio.Task[None] | None = None
        self._more: asyncio.Future[None] | None = None
        """What the lane waits for when there is nothing to be written."""
        self._ending = False

    def submit(self, item: Item) -> Written[Result]:
        """The future result of writing `item`, which cannot be taken back."""
        future: Written[Result] = Written()
        self._items.append(item)
        self._futures.append(future)
        if self._lane is None:
            self._open()
        elif self._more is not None and not self._more.done():
            self._more.set_result(None)
        return future

    async def flush(self) -> None:
        """Return once nothing is waiting or being written."""
        while self._futures:
            await asyncio.wait(self._futures)

    def _open(self) -> None:
        self._lane = asyncio.get_running_loop().create_task(self._write_all(), context=Context())
        self._lane.add_done_callback(self._close)
        _open_lanes.add(self._lane)

    def _close(self, lane: "asyncio.Task[None]") -> None:
        """The loop ends, and would wait for ever for who waits for a store that does not answer."""
        _open_lanes.discard(lane)
        self._lane, self._ending = None, True
        if len(self._futures) > len(self._items):
            _tell(self._futures, StoreUnavailable("The gateway stops.", unsure=True))
            self._items.clear()
            self._futures.clear()
        elif self._items:
            self._open()

    async def _write_all(self) -> None:
        """Write what there is, and wait for more, until the loop ends; it costs less than a task for each write."""
        loop = asyncio.get_running_loop()
        while True:
            while items := self._items[: self._size]:
                del self._items[: self._size]
                futures = self._futures[: len(items)]
                try:
                    answered = list(zip(futures, await self._write(items), strict=True))
                except Exception as error:
                    await self._write_each(items, futures, error)
                else:
                    for future, result in answered:
                        future.set_result(result)
                del self._futures[: len(items)]
            if self._ending:
                return
            self._more = loop.create_future()
            await self._more

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
