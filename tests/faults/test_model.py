"""Any order of claims, openings, endings, deaths and retries leaves the real stores as a small model says."""

import asyncio
import os
import secrets
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import asyncpg
import hypothesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from aigate.stores.database import Database
from aigate.stores.idempotency import REAP, PostgresIdempotency
from aigate.stores.journal import Closing, Journal, closing
from aigate.stores.keys import create_key
from aigate.stores.ledger import PostgresLedger
from aigate.stores.overdue import Overdue
from aigate.stores.prices import Prices
from aigate.stores.replica import Replica
from middleware.claims import Claim, Running, Taken
from middleware.exchange import Answer, Caller, Exchange, Outcome, Target
from middleware.metering import Reservation
from providers.contract import Usage
from tests.faults.model import INPUT, OUTPUT, Model, Request

Result = TypeVar("Result")
TARGET = Target("openai", "m", stream=False)
PRICE = """
insert into price_rules (provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok)
values ('openai', '*', $1::bigint * 1000000, $2::bigint * 1000000)
"""
ROWS = """
select c.request_id, c.state, c.outcome, c.billed_cost_nano + coalesce(a.billed_cost_nano, 0) as billed
from calls c left join adjustments a using (request_id, attempt)
"""
RUN_OUT = "update replicas set lease_until = now() - interval '1 second' where id = $1"
CLEAN = """
with a as (delete from adjustments), k as (delete from idempotency_keys), r as (delete from replicas) select
"""
EXAMPLES = 200
STEPS = 30


class Process:
    """One replica's stores, without its background tasks: the machine decides when they do something."""

    def __init__(self, database: Database) -> None:
        self.replica = Replica(database, name="model", lease=3600)
        overdue = Overdue()
        prices = Prices(database)
        self.ledger = PostgresLedger(Journal(database, self.replica), prices, overdue, free_unpriced=False)
        self.answers = PostgresIdempotency(database, self.replica, overdue, retention=3600)

    @property
    def name(self) -> str:
        return self.replica.id.hex


@dataclass
class Run:
    """A request that runs in a process."""

    request: Request
    process: Process
    claim: Claim | None
    reservation: Reservation | None = None


class Recording:
    """What the ledger wants to know of a held key."""

    def __init__(self, key: str) -> None:
        self.key = key

    def end(self, *_: object) -> Answer | None:
        return None


class Stores(RuleBasedStateMachine):
    """Two processes at a time on one database; those that died are replaced."""

    database: ClassVar[Database]
    caller: ClassVar[Caller]
    loop: ClassVar[asyncio.AbstractEventLoop]
    watcher: ClassVar["asyncpg.Connection[asyncpg.Record]"]

    granted = Bundle("granted")
    opened = Bundle("opened")
    closed = Bundle("closed")

    @initialize()
    def begin(self) -> None:
        """Nothing is known yet, and two replicas live."""
        self.model = Model()
        self.all: list[Process] = []
        self.processes = [self._process(), self._process()]
        self._do(self._execute(CLEAN))
        self._do(self._execute("delete from calls"))
        for process in self.processes:
            self._lease(process)

    @rule(target=granted, at=st.integers(0, 1), key=st.sampled_from("kl"), body=st.integers(0, 1))
    def claim(self, at: int, key: str, body: int) -> Any:
        """A request with a key comes: it runs, is answered, is told who runs, or is refused."""
        return self._claim(at, key, body)

    @rule(target=granted, run=opened, at=st.integers(0, 1))
    def retry_after_the_lease(self, run: Run, at: int) -> Any:
        """A request runs for longer than its replica's lease, and its retry comes meanwhile."""
        self._run_out(run.process)
        return multiple() if run.request.key is None else self._claim(at, run.request.key, run.request.body)

    @rule(target=granted, at=st.integers(0, 1))
    def come_without_a_key(self, at: int) -> Run:
        """A request without a key just runs."""
        return self._run(at, None, 0)

    @rule(target=opened, run=consumes(granted))
    def open(self, run: Run) -> Run:
        """The call is durable before the provider is asked."""
        exchange = Exchange(id=run.request.id, caller=self.caller)
        exchange.recording = None if run.request.key is None else Recording(run.request.key)
        run.reservation = self._do(run.process.ledger.reserve(exchange, TARGET))
        self._do(run.reservation.open())
        self.model.open(run.request)
        return run

    @rule(target=closed, run=consumes(opened), tokens=st.integers(1, 9))
    def settle(self, run: Run, tokens: int) -> tuple[Run, int]:
        """The call ends with an answer."""
        self.model.settle(run.request, tokens)
        self._close(run, tokens)
        return run, tokens

    @rule(ended=closed)
    def settle_again(self, ended: tuple[Run, int]) -> None:
        """Writing an end a second time changes nothing."""
        self._close(*ended)

    @rule(runs=st.lists(consumes(opened), min_size=2, max_size=4), tokens=st.integers(1, 9))
    def settle_together(self, runs: list[Run], tokens: int) -> None:
        """Ends that come together are written together, and mean the same."""
        for run in runs:
            self.model.settle(run.request, tokens)

        async def together() -> None:
            await asyncio.gather(*(run.process.ledger.close_call(*self._closing(run, tokens)) for run in runs))

        self._do(together())

    @rule(run=consumes(opened))
    def void(self, run: Run) -> None:
        """The call ends without having cost anything: it is void, and its key is given back."""
        assert run.reservation is not None
        self._do(run.reservation.void(Outcome.UPSTREAM_ERROR))
        if run.claim is not None:
            self._do(run.process.answers.release(run.claim))
        self.model.void(run.request)

    @rule(run=consumes(granted))
    def release(self, run: Run) -> None:
        """The request fails before it is admitted: its key is given back."""
        if run.claim is not None:
            self._do(run.process.answers.release(run.claim))
            self.model.void(run.request)

    @rule(at=st.integers(0, 1))
    def crash(self, at: int) -> None:
        """A replica dies and another takes its place; the lease of the dead goes on for a while.

        What it was about to write may still arrive: its requests stay in the bundles.
        """
        self.processes[at] = self._process()
        self._lease(self.processes[at])

    @rule(data=st.data())
    def lease_runs_out(self, data: st.DataObject) -> None:
        """Time passes for a replica, dead or only slow."""
        self._run_out(data.draw(st.sampled_from(self.all)))

    @rule()
    def a_minute_passes(self) -> None:
        """A request that was granted its key and has not begun a call since then never will."""
        self._do(self._execute("update idempotency_keys set claimed_at = claimed_at - interval '61 seconds'"))
        for key in self.model.keys.values():
            key.old = True

    @rule(at=st.integers(0, 1))
    def renew(self, at: int) -> None:
        """A replica says that it lives."""
        self._lease(self.processes[at])

    @rule(at=st.integers(0, 1))
    def sweep(self, at: int) -> None:
        """A replica closes what the dead have left open."""
        self._do(self.processes[at].replica._sweep())
        self.model.sweep()

    @rule(key=st.sampled_from("kl"))
    def answer_expires(self, key: str) -> None:
        """A finished answer is kept for its time only, and then reaped or replaced."""
        found = self.model.keys.get(key)
        if found is not None and found.finished:
            self._do(self._execute("update idempotency_keys set expires_at = now() where key = $1", key))
            found.expired = True

    @rule()
    def reap(self) -> None:
        """What has expired is deleted; nothing that is held is."""
        self._do(self._execute(REAP))
        for name in [name for name, key in self.model.keys.items() if key.expired]:
            del self.model.keys[name]

    @invariant()
    def the_ledger_is_as_the_model_says(self) -> None:
        """Each call has its row, with its outcome and its bill."""
        if hasattr(self, "model"):
            rows = self._do(self._fetch(ROWS))
            found = {row["request_id"].hex: (row["state"], row["outcome"], row["billed"]) for row in rows}
            assert found == self.model.rows()

    @invariant()
    def the_keys_are_as_the_model_says(self) -> None:
        """Each key has its holder, and its answer if there is one."""
        if hasattr(self, "model"):
            rows = self._do(self._fetch("select key, request_id, state from idempotency_keys"))
            found = {row["key"]: (row["request_id"].hex, row["state"] == "finished") for row in rows}
            assert found == self.model.held()

    def teardown(self) -> None:
        """In the end nothing is open once the leases have run out."""
        if not hasattr(self, "model"):
            return
        for process in self.all:
            self._run_out(process)
        self._do(self.processes[0].replica._sweep())
        assert self._do(self._fetch("select from calls where state = 'open'")) == []
        while self.database._lines:  # of processes that are over
            self._do(self.database._lines.pop().close())

    def _process(self) -> Process:
        process = Process(self.database)
        self.all.append(process)
        return process

    def _claim(self, at: int, key: str, body: int) -> Any:
        run = self._run(at, key, body)
        assert run.claim is not None
        expected = self.model.claim(run.request)
        assert _said(self._do(run.process.answers.claim(run.claim))) == expected
        return run if expected == "held" else multiple()

    def _run_out(self, process: Process) -> None:
        self._do(self._execute(RUN_OUT, process.replica.id))
        self.model.leased.discard(process.name)

    def _run(self, at: int, key: str | None, body: int) -> Run:
        process = self.processes[at]
        request = Request(uuid.uuid4().hex, process.name, key, body)
        self.model.requests[request.id] = request
        fingerprint = bytes([body]) * 32
        claim = None if key is None else Claim(self.caller.org_id, key, fingerprint, request.id)
        return Run(request, process, claim)

    def _closing(self, run: Run, tokens: int) -> Closing:
        usage = Usage()
        usage.input_tokens = usage.output_tokens = tokens
        usage.source = "provider"
        opening = {
            "request_id": run.request.id,
            "organisation_id": self.caller.org_id,
            "idempotency_key": run.request.key,
        }
        answer = None if run.request.key is None else Answer(200, (), run.request.id.encode())
        return closing(opening, Outcome.OK, usage, tokens * (INPUT + OUTPUT)), answer

    def _close(self, run: Run, tokens: int) -> None:
        self._do(run.process.ledger.close_call(*self._closing(run, tokens)))

    def _lease(self, process: Process) -> None:
        self._do(process.replica._renew())
        self.model.leased.add(process.name)

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.loop.run_until_complete(asyncio.wait_for(work, 10))

    async def _execute(self, statement: str, *arguments: object) -> None:
        await self.watcher.execute(statement, *arguments)

    async def _fetch(self, statement: str) -> list[asyncpg.Record]:
        return list(await self.watcher.fetch(statement))


def _said(found: Any) -> str:
    """The answer of the store in the model's words."""
    if found is None:
        return "held"
    if isinstance(found, Taken):
        return "taken"
    if isinstance(found, Running):
        return f"running at {found.request_id}"
    return f"answer of {found.body.decode()}"


def test_stores_keep_to_the_model(database_url: str) -> None:
    """Whatever happens in whatever order, row by row and key by key."""
    seed = int(os.environ.get("AIGATE_FAULTS_SEED") or secrets.randbelow(1_000_000))
    print(f"seed {seed}")
    with asyncio.Runner() as runner:
        database = Database(database_url)
        known = runner.run(_prepare(database, database_url))
        machine = type("Seeded", (Stores,), {"loop": runner.get_loop(), "database": database, **known})
        bounds = settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        try:
            run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=bounds)
        finally:
            runner.run(known["watcher"].close())
            runner.run(database.close())


async def _prepare(database: Database, url: str) -> dict[str, Any]:
    """The caller of all calls, and a connection of the machine's own."""
    await create_key(database, "acme")
    watcher = await asyncpg.connect(url)
    await watcher.execute(PRICE, INPUT, OUTPUT)
    row = await watcher.fetchrow("select id, organisation_id, public_id from api_keys")
    return {"caller": Caller(row["organisation_id"], "acme", row["id"], row["public_id"]), "watcher": watcher}
