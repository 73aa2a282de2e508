"""The journal: openings and closings of calls, whatever waits for PostgreSQL, in one statement and so in one commit.

The batch is the unit of work (`batch`): what comes while a commit is under way goes with the next one, openings and
closings alike. A closing and the answer of its idempotency key are durable together or not at all; who does not hold
the key any more is `superseded` and not billed. Closing a call again changes nothing. A call that the sweep was first
to close gets an adjustment: a closed row is never rewritten.

Each call, and each held key, is found by its own key (`lateral ... for update`) and written by an upsert that always
conflicts. A join would be planned while the table is empty, and go on reading all of it: measured at 24 calls a
batch, 13 ms against 1.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias
from uuid import UUID

import orjson
from loguru import logger

from aigate.stores.batch import Batch
from aigate.stores.database import Database
from aigate.stores.replica import Replica
from middleware.exchange import Answer, Outcome, Usage
from middleware.faults import StoreUnavailable


def _opening(rows: str) -> str:
    return f"""
insert into calls (request_id, organisation_id, api_key_id, idempotency_key, provider, model, stream, on_disconnect,
    price_rule_id, estimated_cost_nano, replica_id)
select o.*, $2 from json_to_recordset({rows}) o (request_id uuid, organisation_id bigint, api_key_id bigint,
    idempotency_key text, provider text, model text, stream boolean, on_disconnect text, price_rule_id bigint,
    estimated_cost_nano bigint)
"""  # noqa: S608 - of constants, as all below


def _closing(before: str = "", superseded: str = "false") -> str:
    return f"""
with asked as (
    select * from json_to_recordset($1) s (request_id uuid, organisation_id bigint, idempotency_key text,
        answer bigint, state text, outcome text, usage_source text, input_tokens bigint, cache_read_tokens bigint,
        cache_write_tokens bigint, output_tokens bigint, reasoning_tokens bigint, audio_tokens bigint,
        image_tokens bigint, provider_cost_nano bigint, billed_cost_nano bigint)
), {before} closings as (
    select s.*, c.state as was, c.outcome as had, {superseded} as superseded
    from (select * from asked order by request_id) s cross join lateral (
        select c.state, c.outcome from calls c where c.request_id = s.request_id and c.attempt = 1 for update
    ) c
), billed as (
    select request_id, organisation_id, state, was, had, case when superseded then 'superseded' else outcome end
        as outcome, usage_source, input_tokens, cache_read_tokens, cache_write_tokens, output_tokens,
        reasoning_tokens, audio_tokens, image_tokens, provider_cost_nano,
        case when superseded then 0 else billed_cost_nano end as billed_cost_nano
    from closings
), closed as (
    insert into calls (request_id, organisation_id, state, outcome, usage_source, input_tokens, cache_read_tokens,
        cache_write_tokens, output_tokens, reasoning_tokens, audio_tokens, image_tokens, provider_cost_nano,
        billed_cost_nano, settled_at, replica_id, api_key_id, provider, model, stream)
    select request_id, organisation_id, state, outcome, usage_source, input_tokens, cache_read_tokens,
        cache_write_tokens, output_tokens, reasoning_tokens, audio_tokens, image_tokens, provider_cost_nano,
        billed_cost_nano, now(), $2, 0, '', '', false
    from billed where was = 'open'
    on conflict (request_id, attempt) do update set state = excluded.state, outcome = excluded.outcome,
        usage_source = excluded.usage_source, input_tokens = excluded.input_tokens,
        cache_read_tokens = excluded.cache_read_tokens, cache_write_tokens = excluded.cache_write_tokens,
        output_tokens = excluded.output_tokens, reasoning_tokens = excluded.reasoning_tokens,
        audio_tokens = excluded.audio_tokens, image_tokens = excluded.image_tokens,
        provider_cost_nano = excluded.provider_cost_nano, billed_cost_nano = excluded.billed_cost_nano,
        settled_at = excluded.settled_at
)
insert into adjustments (request_id, attempt, organisation_id, reason, outcome, usage_source, input_tokens,
    cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, audio_tokens, image_tokens,
    provider_cost_nano, billed_cost_nano)
select request_id, 1, organisation_id, 'settled after the sweep', outcome, usage_source, input_tokens,
    cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, audio_tokens, image_tokens,
    provider_cost_nano, billed_cost_nano
from billed
where was = 'settled' and had = 'interrupted' and state = 'settled' and outcome <> 'interrupted'
on conflict (request_id, attempt, reason) do nothing
returning request_id
"""  # noqa: S608


_OPENED = f"opened as ({_opening('$3')}),"

OPEN = _opening("$1")
OPEN_IF_MISSING = f"{OPEN} on conflict (request_id, attempt) do nothing"
CLOSE = _closing()
"""What a single call needs in the end: half the work of `WRITE`."""
OPEN_AND_CLOSE = _closing(_OPENED)
"""As `WRITE`, where there are no answers to be stored."""
WRITE = _closing(
    f"""{_OPENED} answers as (
    select s.organisation_id, s.idempotency_key as key, s.request_id, a.status, a.headers, a.body
    from unnest($4::smallint[], $5::bytea[], $6::bytea[]) with ordinality a (status, headers, body, answer)
    join asked s using (answer)
), held as (
    select k.*, s.status as answered, s.headers as told, s.body as said
    from (select * from answers order by organisation_id, key) s cross join lateral (
        select organisation_id, key, fingerprint, request_id, replica_id, expires_at from idempotency_keys k
        where k.organisation_id = s.organisation_id and k.key = s.key and k.request_id = s.request_id
            and k.state = 'running' for update
    ) k
), stored as (
    insert into idempotency_keys (organisation_id, key, fingerprint, request_id, replica_id, expires_at, state,
        status, headers, body, finished_at)
    select organisation_id, key, fingerprint, request_id, replica_id, expires_at, 'finished',
        answered, told, said, now()
    from held
    on conflict (organisation_id, key) do update set state = excluded.state, status = excluded.status,
        headers = excluded.headers, body = excluded.body, finished_at = excluded.finished_at
    returning request_id
),""",  # noqa: S608
    superseded="s.answer is not null and s.request_id not in (select request_id from stored)",
)
LARGEST = 2**62
"""What is written of a number that a provider made up: the largest that fits the column."""

Row: TypeAlias = dict[str, Any]
Opening: TypeAlias = Row
"""The beginning of one call, by the names of its columns."""
Closing: TypeAlias = tuple[Row, Answer | None]
"""The end of one call, as `closing` makes it, and the answer to be stored for its idempotency key."""


def closing(opening: Opening, outcome: Outcome, usage: Usage | None, billed: int) -> Row:
    """The end of a call by the names of its columns; `usage` is `None` for one on which nothing was spent.

    `billed` in 1e-9 USD.
    """
    row = _NOTHING.copy() if usage is None else _used(usage, billed)
    row["request_id"] = opening["request_id"]
    row["organisation_id"] = opening["organisation_id"]
    row["idempotency_key"] = opening["idempotency_key"]
    row["outcome"] = outcome
    return row


def _used(usage: Usage, billed: int) -> Row:
    row: Row = {
        "input_tokens": usage.input_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "audio_tokens": usage.audio_tokens,
        "image_tokens": usage.image_tokens,
        "billed_cost_nano": billed,
    }
    if usage.provider_cost is not None:
        row["provider_cost_nano"] = usage.provider_cost
    if max(row.values()) > LARGEST:
        row = {name: min(number, LARGEST) for name, number in row.items()}
    row["state"] = "settled"
    row["usage_source"] = usage.source
    return row


_NOTHING: Row = {
    "state": "void",
    "usage_source": "none",
    "input_tokens": 0,
    "cache_read_tokens": 0,
    "cache_write_tokens": 0,
    "output_tokens": 0,
    "reasoning_tokens": 0,
    "audio_tokens": 0,
    "image_tokens": 0,
    "billed_cost_nano": 0,
}


class Journal:
    """Writes openings and closings, each durable once its future is done."""

    def __init__(self, database: Database, replica: Replica) -> None:
        self._database = database
        self._replica = replica
        self._line = database.line()
        batch: Batch[Opening | Closing, None] = Batch(self._write)
        self.submit: Callable[[Opening | Closing], asyncio.Future[None]] = batch.submit
        """Fails with `StoreUnavailable`, and then may or may not be written (`may_be_written`)."""
        self.flush: Callable[[], Awaitable[None]] = batch.flush
        """Returns once everything that was submitted has been written, or has failed."""

    async def open_if_missing(self, opening: Opening) -> None:
        """Write one opening that may have been written before. Raises `StoreUnavailable`."""
        async with self._database.connection() as connection:
            await connection.execute(OPEN_IF_MISSING, to_json([opening]), self._replica.id)

    async def _write(self, items: Sequence[Opening | Closing]) -> list[None]:
        openings: list[Opening] = []
        closings: list[Row] = []
        answers: list[Answer] = []
        for item in items:
            if not isinstance(item, tuple):
                openings.append(item)
                continue
            row, answer = item
            if answer is not None:
                answers.append(answer)
                row["answer"] = len(answers)
            closings.append(row)
        if openings:
            await self._replica.ensure_lease()
        late = await self._line.fetch(*_statement(openings, closings, answers, self._replica.id))
        for adjusted in late:
            logger.warning("call {} was settled after the sweep: it is adjusted", adjusted["request_id"].hex)
        return [None] * len(items)


def _statement(
    openings: list[Opening], closings: list[Row], answers: list[Answer], replica_id: UUID
) -> tuple[Any, ...]:
    """The least that writes all of these, with its parameters; an answer, which is no JSON, stands beside them."""
    if not closings:
        return OPEN, to_json(openings), replica_id
    if answers:
        statuses = [answer.status for answer in answers]
        headers = [pack_headers(answer.headers) for answer in answers]
        bodies = [answer.body for answer in answers]
        return WRITE, to_json(closings), replica_id, to_json(openings), statuses, headers, bodies
    if openings:
        return OPEN_AND_CLOSE, to_json(closings), replica_id, to_json(openings)
    return CLOSE, to_json(closings), replica_id


def to_json(rows: object) -> str:
    """Rows as a parameter: measured cheaper than an array for each of their columns."""
    return orjson.dumps(rows).decode()


def pack_headers(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The headers of an answer as they are stored: a JSON list of pairs."""
    return orjson.dumps([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])


def unpack_headers(packed: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The reverse of `pack_headers`."""
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in orjson.loads(packed))


def may_be_written(future: "asyncio.Future[Any]") -> bool:
    """Whether what was submitted may stand in the database, for all that its future says."""
    error = None if future.cancelled() else future.exception()
    return not (isinstance(error, StoreUnavailable) and not error.unsure)
