"""What must be true of the ledger beside the provider's own bill, and of the ledger alone."""

from collections.abc import Sequence
from typing import Any

from aigate.stores.database import Database
from aigate.stores.invariants import verify
from tests.faults.provider import Entry

RETENTION = 24 * 3600.0
BILL = """
select c.model, c.state, c.outcome, c.usage_source, c.input_tokens + coalesce(a.input_tokens, 0) as input_tokens,
    c.output_tokens + coalesce(a.output_tokens, 0) as output_tokens,
    c.billed_cost_nano + coalesce(a.billed_cost_nano, 0) as billed, a.request_id is not null as adjusted
from calls c left join adjustments a using (request_id, attempt)
where c.model = any($1)
"""
OPEN = """
select 'call' as what, model as name from calls where model = any($1) and state = 'open'
union all select 'key', key from idempotency_keys where key = any($2) and state = 'running'
"""


def differences(name: str, keyed: bool, rows: Sequence[Any], bill: Sequence[Entry]) -> list[str]:
    """How the ledger's rows of one call differ from what the provider has on its bill for it."""
    unsent = [row for row in rows if row["state"] == "void" or _is_interrupted(row)]
    measured = [row for row in rows if row["usage_source"] == "provider" and row["billed"]]
    wrong = []
    if not len(rows) - len(unsent) <= len(bill) <= len(rows):
        wrong.append(f"{len(bill)} upstream calls, {len(rows)} rows, {len(unsent)} of them void or interrupted")
    if keyed and len(measured) > 1:
        wrong.append(f"billed {len(measured)} times under one key")
    if any(row["billed"] for row in unsent):
        wrong.append("billed although void or interrupted")
    charged = [(entry.usage(entry.said)["prompt_tokens"], entry.said) for entry in bill]
    for row in measured:
        tokens = (row["input_tokens"], row["output_tokens"])
        if tokens not in charged:
            wrong.append(f"billed for {tokens}, the provider charges {charged}")
        else:
            charged.remove(tokens)
    return [f"{name}: {each}" for each in wrong]


async def violations(url: str) -> list[str]:
    """What `aigate ledger verify` finds, with a grace of seconds."""
    database = Database(url, connections=1, timeout=30)
    try:
        found = [finding async for finding in verify(database, retention=RETENTION, grace=10.0) if finding.at_fault]
    finally:
        await database.close()
    return [f"{finding.invariant.name}: {dict(finding.rows[0])}" for finding in found]


def _is_interrupted(row: Any) -> bool:
    return row["outcome"] == "interrupted" and not row["adjusted"]
