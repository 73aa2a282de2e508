"""The way to PostgreSQL: one pool, opened when first needed, so that the gateway starts and recovers without it.

Whatever keeps a statement from its answer is a `StoreUnavailable`, which the caller sees as 503; anything else that
PostgreSQL says is a defect of ours and passes as it is.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from middleware.faults import StoreUnavailable

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]

UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.InternalClientError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedTableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresSystemError,
    asyncpg.InternalServerError,
)
"""What says that the database is away, full, starting, stopping, or not yet migrated: try again later."""


class _Pooled(asyncpg.Connection):
    """A connection that is not reset between two uses: nothing here leaves a lock, a cursor or a setting behind."""

    def get_reset_query(self) -> str:
        return ""


class Database:
    """`connections` at most are open; a statement has `timeout` seconds."""

    def __init__(self, url: str, *, connections: int = 10, timeout: float = 5.0) -> None:
        self._url = url
        self._connections = connections
        self._timeout = timeout
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._lines: list[Line] = []
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Connection"]:
        """A connection for the time of the block. Raises `StoreUnavailable` if the database is out of reach."""
        reached = False
        try:
            pool = self._pool or await self._open()
            async with pool.acquire(timeout=self._timeout) as connection:
                reached = True
                yield connection
        except Exception as error:
            if not _says_away(error):
                raise
            raise _away(unsure=reached) from error

    def line(self) -> "Line":
        """A connection of its own, for who writes all the time; closed with the database."""
        line = Line(self._url, self._timeout)
        self._lines.append(line)
        return line

    async def _open(self) -> "asyncpg.Pool[asyncpg.Record]":
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    connection_class=_Pooled,
                    min_size=0,
                    max_size=self._connections,
                    timeout=self._timeout,
                    command_timeout=self._timeout,
                )
            return self._pool

    async def check(self) -> None:
        """Return if the database answers and is migrated. Raises `StoreUnavailable`."""
        async with self.connection() as connection:
            await connection.execute("select 1 from calls limit 0")

    async def close(self) -> None:
        for line in self._lines:
            await line.close()
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), self._timeout)
            except TimeoutError:
                pool.terminate()


class Line:
    """One connection that is kept, and opened anew when it broke. Used by one at a time: `async with line as ...`.

    A pool's way in and out costs more than the statement between them: 80 frames against 30.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def __aenter__(self) -> "asyncpg.Connection[asyncpg.Record]":
        """Raises `StoreUnavailable`, as the block does if the connection breaks in it."""
        if self._connection is None or self._connection.is_closed():
            try:
                self._connection = await asyncpg.connect(
                    self._url, timeout=self._timeout, command_timeout=self._timeout
                )
            except Exception as error:
                if not _says_away(error):
                    raise
                raise _away(unsure=False) from error
        return self._connection

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if self._connection is not None:
            self._connection.terminate()  # what it was in the middle of is not known
            self._connection = None
        if isinstance(error, Exception) and _says_away(error):
            raise _away(unsure=True) from error

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=self._timeout)
            except (*UNAVAILABLE, asyncpg.InterfaceError):
                connection.terminate()


def _says_away(error: Exception) -> bool:
    """Whether this says that the database is out of reach; asyncpg says so of a closed connection in words only."""
    return isinstance(error, UNAVAILABLE) or (isinstance(error, asyncpg.InterfaceError) and "clos" in str(error))


def _away(*, unsure: bool) -> StoreUnavailable:
    return StoreUnavailable("The gateway's database does not answer; nothing was called.", unsure=unsure)
