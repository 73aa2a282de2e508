"""This process among the replicas: a lease that says it lives, and a sweep after those that do not.

Calls and held idempotency keys belong to the replica that runs them. Each replica renews its lease; when one has run
out, by the database's clock, nobody will settle that replica's open calls any more, and whichever replica sweeps next
closes them as `interrupted`. So no call stays open and no key stays held for longer than a lease.
"""

import asyncio
import time
import uuid
from contextlib import suppress

from loguru import logger

from aigate.stores.database import Database
from middleware.faults import StoreUnavailable

RENEW = """
insert into replicas (id, name, lease_until) values ($1, $2, now() + $3 * interval '1 second')
on conflict (id) do update set lease_until = excluded.lease_until
"""
SWEEP = """
update calls c set state = 'settled', outcome = 'interrupted', settled_at = now()
where c.state = 'open'
    and not exists (select 1 from replicas r where r.id = c.replica_id and r.lease_until > now())
returning c.request_id
"""
LEAVE = "delete from replicas where id = $1"


class Replica:
    """`lease` in seconds."""

    def __init__(self, database: Database, *, name: str, lease: float) -> None:
        self.id = uuid.uuid4()
        self._database = database
        self._name = name
        self._lease = lease
        self._living: asyncio.Task[None] | None = None
        self._leased_until = 0.0
        self._line = database.line()
        self._renewing = asyncio.Lock()

    def start(self) -> None:
        self._living = asyncio.create_task(self._live())

    async def ensure_lease(self) -> None:
        """Return while this replica surely has a lease. Raises `StoreUnavailable`."""
        if time.monotonic() >= self._leased_until:
            await self._renew()

    async def stop(self) -> None:
        """Give the lease back; what is still open then is swept by the others at once."""
        if self._living is not None:
            self._living.cancel()
            with suppress(asyncio.CancelledError):
                await self._living
        with suppress(StoreUnavailable):
            async with self._database.connection() as connection:
                await connection.execute(LEAVE, self.id)

    async def _live(self) -> None:
        while True:
            try:
                await self._renew()
                await self._sweep()
            except Exception as error:  # whatever it is, a replica that lives must go on saying so
                logger.warning("the lease of this replica cannot be renewed: {!r}", error.__cause__ or error)
            await asyncio.sleep(self._lease / 3)

    async def _renew(self) -> None:
        """On a line of its own: a pool that is full of others' statements must not make it look dead."""
        async with self._renewing:
            asked = time.monotonic()
            await self._line.fetch(RENEW, self.id, self._name, self._lease)
            self._leased_until = asked + self._lease

    async def _sweep(self) -> None:
        async with self._database.connection() as connection:
            swept = await connection.fetch(SWEEP)
        for row in swept:
            logger.warning("call {} was interrupted: its replica is gone", row["request_id"].hex)
