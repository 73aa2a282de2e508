"""The way to PostgreSQL: one pool, opened when first needed, so that the gateway starts and recovers without it.

Whatever keeps a statement from its answer is a `StoreUnavailable`, which the caller sees as 503; anything else that
PostgreSQL says is a defect of ours and passes as it is.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
from loguru import logger

from middleware.faults import StoreUnavailable

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy
    from asyncpg.prepared_stmt import PreparedStatement

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


BY_INDEX = "set enable_seqscan = off"
"""Who says the same all the time asks for rows by their keys; a plan that was made for a small table is kept, and
would go on reading all of one that has grown."""


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
    """One connection that is kept, and opened anew when it broke, for one at a time that says the same all the time.

    Its statements are prepared once, and the time that one may take is only noted: a pool's way in and out, a look
    for the statement and a timer each cost more than the statement.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._prepared: dict[str, PreparedStatement[asyncpg.Record]] = {}
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """The rows of one statement. Raises `StoreUnavailable`."""
        again = True
        while True:
            asked = False
            try:
                prepared = self._prepared.get(statement) or await self._prepare(statement)
                self._allow()
                asked = True
                return await prepared.fetch(*arguments)
            except BaseException as error:
                lost = self._connection is not None and self._connection.is_closed()
                if not _is_refusal(error):
                    self._hang_up()  # what it was in the middle of is not known
                if again and (_did_nothing(error) or (lost and not asked and _says_away(error))):
                    again = False
                elif _says_away(error):
                    raise _away(unsure=asked) from error
                else:
                    raise
            finally:
                self._due = None

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        self._hang_up()
        if connection is not None:
            try:
                await connection.close(timeout=self._timeout)
            except (*UNAVAILABLE, asyncpg.InterfaceError):
                connection.terminate()

    async def _prepare(self, statement: str) -> "PreparedStatement[asyncpg.Record]":
        async with asyncio.timeout(self._timeout):
            if self._connection is None:
                self._connection = await asyncpg.connect(self._url)
                await self._connection.execute(BY_INDEX)
            prepared = self._prepared[statement] = await self._connection.prepare(statement)
            return prepared

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        self._prepared.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if connection is not None:
            connection.terminate()

    def _allow(self) -> None:
        """A statement may take so long from now on."""
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self._timeout
        if self._timer is None:
            self._timer = loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._due is None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._due:
            self._timer = loop.call_at(self._due, self._look)
        elif self._connection is not None:
            logger.warning("a statement has not ended within {:g} s: its connection is closed", self._timeout)
            self._connection.terminate()  # which ends the waiting, too


def _says_away(error: BaseException) -> bool:
    """Whether this says that the database is out of reach."""
    return isinstance(error, UNAVAILABLE) or _says_closed(error)


def _says_closed(error: BaseException) -> bool:
    """Whether the connection was closed before anything was asked; asyncpg says so in words only."""
    return isinstance(error, asyncpg.InterfaceError) and "clos" in str(error)


def _did_nothing(error: BaseException) -> bool:
    """Whether the statement was not begun: on a new connection it may be, without what has become of the old one.

    A migration changes what was prepared, and `discard all` of a proxy forgets it.
    """
    forgotten = (asyncpg.InvalidCachedStatementError, asyncpg.InvalidSQLStatementNameError)
    return isinstance(error, forgotten) or _says_closed(error)


def _is_refusal(error: BaseException) -> bool:
    """Whether PostgreSQL has ended the statement with this, and the connection is as good as before."""
    return isinstance(error, asyncpg.PostgresError) and not (_says_away(error) or _did_nothing(error))


def _away(*, unsure: bool) -> StoreUnavailable:
    return StoreUnavailable("The gateway's database does not answer; nothing was called.", unsure=unsure)
