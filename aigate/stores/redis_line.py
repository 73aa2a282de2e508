"""One connection to Redis for who asks all the time: a write and a read for each question, and nothing between.

redis-py opens it (whatever the URL says of TLS, sockets, users, passwords and numbers) and closes it; meanwhile its
transport talks to a protocol of our own: its streams, coroutines and timers cost as much as all the rest of a
question. The deadline of an answer is only noted; a timer looks at it now and then.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, InvalidResponse, NoScriptError, ResponseError

NOTHING = object()


class RedisLine(asyncio.Protocol):
    """Asks one question at a time; a line on which one failed has ended."""

    def __init__(self, connection: AbstractConnection) -> None:
        """`connection` is open, and all that was asked on it is answered."""
        writer = connection._writer  # noqa: SLF001 - redis-py has no public way to its transport
        if writer is None:
            raise ConnectionError("Redis closed the connection.")
        self._connection = connection
        self._transport = writer.transport
        self._streams = self._transport.get_protocol()
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=_refusal, notEnoughData=NOTHING)
        self._loop = asyncio.get_running_loop()
        self._then: Callable[[Any], None] | None = None
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._transport.set_protocol(self)

    @classmethod
    async def open(cls, pool: ConnectionPool) -> "RedisLine":
        """Raises `RedisError`, `OSError` or `TimeoutError`."""
        connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()  # type: ignore[no-untyped-call]
        return cls(connection)

    def ask(self, due: float, then: Callable[[Any], None], *command: str | int) -> None:
        """Call `then` with the answer, or with the error that came instead, until `due` by the loop's clock.

        Raises `ConnectionError` if the line has ended.
        """
        if self._then is not None or self._transport.is_closing():
            raise ConnectionError("This connection to Redis has ended.")
        self._transport.write(b"*%d\r\n%b" % (len(command), b"".join(map(_framed, command))))
        self._then = then
        self._due = due
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)

    async def close(self, *, nowait: bool = False) -> None:
        """Close the connection, and wait until it is, unless told not to. Who waits for an answer gets none."""
        self._then = None
        self._transport.abort()  # to close, it would wait until Redis has taken all that was said
        await self._connection.disconnect(nowait=nowait)

    # --- what the transport tells

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        replies = []
        try:
            while (reply := self._reader.gets()) is not NOTHING:
                if not isinstance(reply, hiredis.PushNotification):  # Redis tells of its own accord
                    replies.append(reply)
        except InvalidResponse as error:
            self._answer(error)
        if len(replies) == 1:
            self._answer(replies[0])
        elif replies:  # what was not asked for could be taken for the answer to what comes next
            self._answer(InvalidResponse("Redis answers what was not asked."))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._streams.connection_lost(exc)  # redis-py waits for it
        self._answer(ConnectionError("Redis closed the connection."))

    def _answer(self, reply: object) -> None:
        then, self._then = self._then, None
        if then is None or isinstance(reply, Exception):
            self._transport.abort()
        if then is not None:
            then(reply)

    def _look(self) -> None:
        self._timer = None
        if self._then is None:
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._look)
        else:
            self._answer(TimeoutError("Redis does not answer in time."))


@lru_cache(maxsize=4096)  # most words are said again and again
def _framed(word: str | int) -> bytes:
    data = str(word).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


def _refusal(message: str) -> ResponseError:
    return NoScriptError(message) if message.startswith("NOSCRIPT") else ResponseError(message)
