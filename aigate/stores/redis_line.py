"""One connection to Redis for who asks all the time: a write and a read for each question, and nothing between.

redis-py opens it (whatever the URL says of TLS, sockets, users, passwords and numbers) and closes it; meanwhile its
transport talks to a protocol of our own. Its streams, coroutines and timers cost more than the question: 145,000
instructions against 20,000. The deadline of an answer is only noted; a timer looks at it now and then.
"""

import asyncio
from typing import Any

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, InvalidResponse, NoScriptError, ResponseError

NOTHING = object()


class RedisLine(asyncio.Protocol):
    """Asks one question at a time; a line on which one failed, or was not waited for, answers no more."""

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
        self._answer: asyncio.Future[Any] | None = None
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._transport.set_protocol(self)

    @classmethod
    async def open(cls, pool: ConnectionPool) -> "RedisLine":
        """Raises `RedisError`, `OSError` or `TimeoutError`."""
        connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()  # type: ignore[no-untyped-call]
        return cls(connection)

    def ask(self, due: float, *command: str | int) -> "asyncio.Future[Any]":
        """The answer, which comes before `due`, by the loop's clock. Raises `ConnectionError` at once or in it.

        In it, too, are Redis' refusals (`ResponseError`) and a `TimeoutError`.
        """
        if self._answer is not None or self._transport.is_closing():
            raise ConnectionError("This connection to Redis has ended.")
        answer = self._answer = self._loop.create_future()
        self._due = due
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)
        self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub says: of one word
        return answer

    async def close(self, *, nowait: bool = False) -> None:
        """Close the connection, and wait until it is, unless told not to."""
        self._fail(ConnectionError("This connection to Redis is closed."))
        await self._connection.disconnect(nowait=nowait)

    # --- what the transport tells

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not NOTHING:
                if not isinstance(reply, hiredis.PushNotification):  # Redis tells of its own accord
                    self._take(reply)
        except InvalidResponse as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ConnectionError("Redis closed the connection."))
        if self._timer is not None:
            self._timer.cancel()
        self._streams.connection_lost(exc)  # redis-py waits for it

    def _take(self, reply: object) -> None:
        answer = self._answer
        if answer is None or answer.done():  # nobody waits: what comes next could be taken for another's
            self._transport.close()
        elif isinstance(reply, Exception):
            self._fail(reply)
        else:
            self._answer = None
            answer.set_result(reply)

    def _fail(self, error: Exception) -> None:
        self._transport.close()
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def _look(self) -> None:
        self._timer = None
        if self._answer is None:
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._look)
        else:
            self._fail(TimeoutError("Redis does not answer in time."))


def _refusal(message: str) -> ResponseError:
    return NoScriptError(message) if message.startswith("NOSCRIPT") else ResponseError(message)
