"""Why: an invariant that never complains is worth nothing, so each must find a row that was put wrong on purpose."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aigate.pricing import PriceRule, Rates, Tier
from aigate.stores.database import Database
from aigate.stores.invariants import Invariant, invariants, verify
from aigate.stores.prices import list_rules, replace_rules
from providers.contract import Usage
from tests.running import RunningGateway, eventually
from tests.upstream import FakeProvider, answer_json, silent, sse, stream, words

NAMES = [invariant.name for invariant in invariants()]
ROW = """
insert into calls (request_id, organisation_id, api_key_id, provider, model, stream, state, outcome, usage_source,
    input_tokens, output_tokens, billed_cost_nano, price_rule_id, idempotency_key, replica_id, opened_at, settled_at)
select gen_random_uuid(), k.organisation_id, k.id, 'openai', 'gpt-4o', false, 'settled', 'ok', 'provider', 12, 5,
    80000, r.id, 'k', gen_random_uuid(), now(), now()
from api_keys k join price_rules r using (organisation_id) where r.provider = 'openai' limit 1
"""
FINISHED = """
insert into idempotency_keys (organisation_id, key, fingerprint, request_id, state, replica_id, expires_at, status,
    headers, body)
select organisation_id, 'another', sha256(''), {request}, '{state}', gen_random_uuid(), now(), {answer}
from calls limit 1
"""
WRONG = {
    "nothing_pending_after_its_lease": [
        "update calls set state = 'open', settled_at = null, billed_cost_nano = 0, replica_id = gen_random_uuid(),"
        " opened_at = now() - interval '1 hour'"
    ],
    "a_key_is_billed_at_most_once": ["update calls set idempotency_key = 'k'", ROW],
    "billed_is_rule_times_tokens": ["update calls set billed_cost_nano = billed_cost_nano + 1"],
    "unpriced_calls_are_free": ["update calls set price_rule_id = null"],
    "void_calls_are_empty": ["update calls set state = 'void', billed_cost_nano = 0"],
    "open_calls_cost_nothing": [
        "alter table calls drop constraint calls_check, drop constraint calls_check1",
        "update calls set state = 'open'",
    ],
    "closed_calls_say_how_they_ended": ["update calls set outcome = null"],
    "finished_answers_belong_to_settled_calls": [
        FINISHED.format(request="gen_random_uuid()", state="finished", answer="200, '[]', ''")
    ],
    "billed_calls_hold_no_running_key": [
        FINISHED.format(request="request_id", state="running", answer="null, null, null")
    ],
    "adjustments_belong_to_closed_calls": [
        "insert into adjustments (request_id, attempt, organisation_id, reason, usage_source, billed_cost_nano)"
        " select request_id, attempt, organisation_id, 'x', 'none', 0 from calls",
        "update calls set state = 'open', settled_at = null, billed_cost_nano = 0",
    ],
    "calls_keep_to_their_organisation": [
        "with other as (insert into organisations (name) values ('globex') returning id)"
        " update api_keys set organisation_id = other.id from other"
    ],
}


async def faults(database: Database, **options: float) -> dict[str, int]:
    """How many rows each invariant finds at fault, where it does."""
    found = [finding async for finding in verify(database, retention=86400, **{"grace": 1.0, **options})]
    assert [finding.invariant.name for finding in found] == NAMES
    return {finding.invariant.name: finding.at_fault for finding in found if finding.at_fault}


async def run(database: Database, *statements: str) -> None:
    async with database.connection() as connection:
        for statement in statements:
            await connection.execute(statement)


async def test_a_gateways_own_ledger_is_healthy(gateway: RunningGateway, provider: FakeProvider) -> None:
    """Answers, streams, replays, refusals, broken answers and clients that leave: nothing is at fault."""
    await gateway.chat(idempotency_key="one")
    await gateway.chat(idempotency_key="one")
    await gateway.chat({"model": "echo:echo"})
    provider.default = stream(*sse(*words("Hello")))
    await gateway.chat({"stream": True}, idempotency_key="two")
    provider.default = stream(*sse(*words("cut", usage=None), done=False), end=False)
    await gateway.chat({"stream": True}, idempotency_key="three")
    await gateway.chat({"stream": True})
    provider.default = answer_json({"error": {"message": "later"}}, 429)
    await gateway.chat(idempotency_key="four")
    provider.default = silent()
    leaving = asyncio.create_task(gateway.chat())
    await eventually(lambda: len(provider.calls) == 6)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)

    async def closed() -> bool:
        return all(call["state"] != "open" for call in await gateway.calls())

    await eventually(closed)
    assert len(await gateway.calls()) >= 6
    assert await faults(gateway.database) == {}


async def test_an_empty_ledger_is_healthy(database: Database) -> None:
    """Nothing is at fault where there is nothing."""
    assert await faults(database) == {}


@pytest.mark.parametrize("name", WRONG)
async def test_each_finds_what_is_wrong(gateway: RunningGateway, name: str) -> None:
    """A row put wrong by hand is found by the invariant that it offends."""
    await gateway.chat()
    assert await faults(gateway.database) == {}
    await run(gateway.database, *WRONG[name])
    assert (await faults(gateway.database))[name] == 1


async def test_sums_that_do_not_agree(gateway: RunningGateway) -> None:
    """A usage query that counts calls twice is found."""
    await gateway.chat()
    (sums,) = [invariant for invariant in invariants() if invariant.name.startswith("sums")]
    twice = replace(sums, statement=sums.statement.replace("1 as calls", "2 as calls"))
    rows = await gateway.rows(twice.statement)
    assert [(row["calls"], row["usage_calls"]) for row in rows] == [(1, 2)]


def test_every_invariant_is_tested() -> None:
    """A new one is put wrong here too."""
    assert set(NAMES) == {*WRONG, "sums_of_rows_are_sums_of_organisations"}


async def test_a_late_settlement_of_a_billed_key_is_found(gateway: RunningGateway) -> None:
    """A dead attempt that comes back and is billed beside its retry is a second bill."""
    await gateway.chat(idempotency_key="k")
    await run(
        gateway.database,
        ROW,
        "update calls set outcome = 'interrupted', billed_cost_nano = 0, input_tokens = 0, output_tokens = 0"
        " where request_id = (select request_id from calls order by opened_at desc limit 1)",
    )
    assert await faults(gateway.database) == {}
    await run(
        gateway.database,
        "insert into adjustments (request_id, attempt, organisation_id, reason, usage_source, input_tokens,"
        " output_tokens, billed_cost_nano) select request_id, attempt, organisation_id, 'settled after the sweep',"
        " 'provider', 12, 5, 80000 from calls where outcome = 'interrupted'",
    )
    assert await faults(gateway.database) == {"a_key_is_billed_at_most_once": 1}
    await run(
        gateway.database,
        "insert into adjustments (request_id, attempt, organisation_id, reason, usage_source, billed_cost_nano)"
        " select request_id, attempt, organisation_id, 'taken back', 'none', -80000 from adjustments",
    )
    assert await faults(gateway.database) == {}


@pytest.mark.parametrize(
    "change",
    [
        "outcome = 'superseded', billed_cost_nano = 0",
        "outcome = 'interrupted', billed_cost_nano = 0",
        "idempotency_key = 'auto:k'",
    ],
)
async def test_what_may_share_a_key(gateway: RunningGateway, change: str) -> None:
    """Attempts that are not billed beside the one that is, and requests that only look alike."""
    await gateway.chat()
    await run(gateway.database, "update calls set idempotency_key = 'k'", ROW)
    everything = "" if "auto" in change else "where request_id = (select request_id from calls limit 1)"
    await run(gateway.database, f"update calls set {change} {everything}")
    assert await faults(gateway.database) == {}


async def test_an_expired_key_may_be_billed_anew(gateway: RunningGateway) -> None:
    """A key that has been forgotten is a new key."""
    await gateway.chat(idempotency_key="k")
    await run(gateway.database, "update calls set opened_at = now() - interval '25 hours'", ROW)
    assert await faults(gateway.database) == {}


async def test_what_is_in_its_grace_is_no_fault(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A call that runs on a living replica is pending by right, and so is one that the sweep will soon reach."""
    provider.default = silent()
    running = asyncio.create_task(gateway.chat())
    await eventually(lambda: provider.calls)
    await run(gateway.database, "update calls set opened_at = now() - interval '1 day'")
    assert await faults(gateway.database) == {}
    await run(gateway.database, "update replicas set lease_until = now() - interval '10 seconds'")
    assert await faults(gateway.database, grace=60) == {}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_rows_are_bounded(gateway: RunningGateway) -> None:
    """All rows at fault are counted, the first of them shown."""
    for _ in range(3):
        await gateway.chat()
    await run(gateway.database, "update calls set outcome = null")
    found = [finding async for finding in verify(gateway.database, retention=86400, most_rows=2) if finding.at_fault]
    assert [(finding.at_fault, len(finding.rows)) for finding in found] == [(3, 2)]


PRICE = st.one_of(st.integers(0, 3), st.integers(0, 10**11))
MAYBE = st.one_of(st.none(), PRICE)
RATES = st.builds(Rates, PRICE, PRICE, cache_read=MAYBE, cache_write=MAYBE, reasoning=MAYBE, audio=MAYBE, image=MAYBE)
TOKENS = st.one_of(st.integers(0, 5), st.integers(0, 2_000_000))
USAGE = st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS)
RULE = st.builds(
    PriceRule,
    provider=st.just("p"),
    model_pattern=st.just("m"),
    rates=RATES,
    tiers=st.lists(
        st.builds(Tier, st.integers(0, 3_000_000), RATES), max_size=3, unique_by=lambda t: t.above_input_tokens
    ),
    request_nano=PRICE,
    markup_ppm=st.integers(-1_000_000, 3_000_000),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rule=RULE, usages=st.lists(USAGE, min_size=1, max_size=20))
async def test_sql_and_the_gateway_compute_the_same_cost(
    gateway: RunningGateway, rule: PriceRule, usages: Sequence[Usage]
) -> None:
    """Two computations, written apart, agree to the last unit; one unit off is found."""
    tiers = tuple(sorted(rule.tiers, key=lambda tier: tier.above_input_tokens))
    async with gateway.database.connection() as connection:
        await connection.execute("truncate calls cascade")
        await replace_rules(connection, None, [replace(rule, tiers=tiers)])
    (stored,) = await list_rules(gateway.database, None, "p")
    for usage in usages:
        await put(gateway.database, stored, usage)
    assert await faults(gateway.database) == {}
    await run(gateway.database, "update calls set billed_cost_nano = billed_cost_nano + 1")
    assert await faults(gateway.database) == {"billed_is_rule_times_tokens": len(usages)}


async def put(database: Database, rule: PriceRule, usage: Usage) -> None:
    async with database.connection() as connection:
        await connection.execute(
            """insert into calls (request_id, organisation_id, api_key_id, provider, model, stream, state, outcome,
                usage_source, input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
                audio_tokens, image_tokens, price_rule_id, billed_cost_nano, replica_id, settled_at)
            select $1, organisation_id, id, 'p', 'm', false, 'settled', 'ok', 'provider', $2, $3, $4, $5, $6, $7, $8,
                $9, $10, $1, now() from api_keys limit 1""",
            uuid4(),
            usage.input_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            usage.output_tokens,
            usage.reasoning_tokens,
            usage.audio_tokens,
            usage.image_tokens,
            rule.id,
            rule.cost(usage),
        )


def test_the_file_reads_well() -> None:
    """Every query has a name of its own and says what it means."""
    assert len(set(NAMES)) == len(NAMES)
    path = Path(__file__).resolve().parents[2] / "aigate" / "stores" / "invariants.sql"
    assert path.read_text().count("-- name: ") == len(NAMES)
    assert all(isinstance(item, Invariant) and item.meaning.endswith(".") for item in invariants())
