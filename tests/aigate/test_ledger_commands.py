"""Why: an operator trusts the ledger by what these commands print and by the status that they end with."""

import asyncio
import csv
import io
import json
import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from aigate.invoices import OPENAI_COSTS, OPENAI_USAGE, OPENROUTER, Invoice, InvoiceError
from tests.running import RunningGateway

GENERATIONS = (
    "generation_id,created_at,cost_total,cost_web_search,cost_cache,cost_file_processing,byok_usage_inference,"
    "tokens_prompt,tokens_completion,tokens_reasoning,tokens_cached,model_permaslug,provider_name,variant,cancelled,"
    "streamed,user,finish_reason_raw,finish_reason_normalized,generation_time_ms,time_to_first_token_ms,app_name,"
    "api_key_name,api_key_disabled\n"
    "gen-1-a,2026-11-01 22:00:18.189,{cost},,,,0,12,5,0,0,{model},Azure,standard,false,true,,completed,stop,1,1,a,b,"
    "false\n"
)
USAGE = (
    "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,user_id,api_key_id,model,batch,"
    "service_tier,input_tokens,output_tokens,input_cached_tokens\n"
    "1793491200,1793577600,2026-11-01T00:00:00+00:00,2026-11-02T00:00:00+00:00,p,1.0,u,k,gpt-4o-2024-08-06,FALSE,default,"
    "12.0,5.0,0.0\n"
    "1793577600,1793664000,2026-11-02T00:00:00+00:00,2026-11-03T00:00:00+00:00,,,,,,,,,,\n"
)
COSTS = (
    "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item,project_id\n"
    '1,2,2026-11-01T00:00:00+00:00,2026-11-02T00:00:00+00:00,0.0000300000000000,usd,"gpt-4o-2024-08-06, input",\n'
    '1,2,2026-11-01T00:00:00+00:00,2026-11-02T00:00:00+00:00,0.00005,usd,"priority | gpt-4o-2024-08-06, output",\n'
    "1,2,2026-11-02T00:00:00+00:00,2026-11-03T00:00:00+00:00,,,,\n"
)


async def aigate(gateway: RunningGateway, *arguments: str) -> tuple[int, str, str]:
    """Run the command; its status and what it printed."""
    environment = {**os.environ, "DATABASE_URL": gateway.app._settings.database_url}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aigate", *arguments),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def lay(gateway: RunningGateway, file: Path, text: str, *options: str) -> tuple[int, dict[str, str]]:
    """Reconcile this text; the status and what it says, by its first words."""
    await asyncio.to_thread(file.write_text, text)
    status, out, err = await aigate(gateway, "ledger", "reconcile", str(file), *options)
    assert not err, err
    lines = [line for line in out.splitlines()[2:] if not line.startswith(" ")]
    return status, {line[:15].strip(): line[15:] for line in lines}


@pytest.fixture
async def called(gateway: RunningGateway) -> RunningGateway:
    """A gateway with one call, of 12 + 5 tokens and 0.00008 USD, on the first of November."""
    await gateway.chat()
    await gateway.rows("update calls set opened_at = '2026-11-01T22:00:17Z'")
    return gateway


async def test_rows(called: RunningGateway) -> None:
    """The same row as a table, as JSON lines and as CSV."""
    (call,) = await called.calls()
    status, table, _ = await aigate(called, "ledger")
    assert status == 0
    assert call["request_id"].hex in table
    assert "openai:gpt-4o" in table
    assert "0.00008" in table
    _, lines, _ = await aigate(called, "ledger", "--format", "jsonl", "--since", "2026-11-01")
    document = json.loads(lines, parse_float=Decimal)
    assert (document["request_id"], document["billed_cost_nano"]) == (call["request_id"].hex, 80_000)
    assert document["billed_cost_usd"] == Decimal("0.00008")
    _, text, _ = await aigate(called, "ledger", "--format", "csv", "--org-name", "acme", "--limit", "1")
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["request_id"], row["billed_cost_usd"], row["outcome"]) == (call["request_id"].hex, "0.00008", "ok")


async def test_rows_of_a_time(called: RunningGateway) -> None:
    """Only what is newer."""
    _, lines, _ = await aigate(called, "ledger", "--format", "jsonl", "--since", "2026-11-02")
    assert lines == ""


async def test_no_such_organisation(called: RunningGateway) -> None:
    """A name that nobody has is an error, not an empty ledger."""
    assert await aigate(called, "ledger", "--org-name", "nobody") == (
        1,
        "",
        "aigate: there is no organisation 'nobody'\n",
    )


async def test_a_reader_that_leaves(called: RunningGateway) -> None:
    """`aigate ledger | head` ends without a trace."""
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m aigate ledger --format jsonl | true",
        env={**os.environ, "DATABASE_URL": called.app._settings.database_url},
        stderr=asyncio.subprocess.PIPE,
    )
    assert (await process.communicate())[1] == b""


async def test_verify(called: RunningGateway) -> None:
    """A healthy ledger is ok; one at fault is status 1, with the rows."""
    status, out, err = await aigate(called, "ledger", "verify")
    assert (status, err) == (0, "")
    assert "billed_is_rule_times_tokens                ok\n" in out
    await called.rows("update calls set billed_cost_nano = 79999")
    status, out, err = await aigate(called, "ledger", "verify")
    assert status == 1
    assert "billed_is_rule_times_tokens                1 rows at fault\n" in out
    assert '"billed_cost_nano":79999,"expected_cost_nano":80000' in out
    assert err == "aigate: the ledger is at fault: billed_is_rule_times_tokens\n"


async def test_a_table_by_request_id(called: RunningGateway, tmp_path: Path) -> None:
    """Where the file has our ids, each call is compared."""
    (call,) = await called.calls()
    head = "Request ID;Timestamp;Model;Prompt Tokens;Completion Tokens;Cost\n"
    line = f"{call['request_id']};2026-11-01 22:00:18;gpt-4o;12;5;$0.00008\n"
    status, said = await lay(called, tmp_path / "a.csv", head + line)
    assert status == 0
    assert (said["matched"], said["different"], said["error bar"].split(":")[0]) == ("1", "0", "0 USD (0 %)")
    other = f"{'0' * 32};2026-11-02 00:00:00;gpt-4o;1;1;1\n"
    status, said = await lay(called, tmp_path / "b.csv", head + line.replace(";12;", ";13;") + other)
    assert status == 1
    assert (said["matched"], said["missing here"], said["different"]) == ("0", "1", "1")
    assert said["cost"] == "theirs 1.00008 USD, ours 0.00008 USD"
    assert said["difference"].startswith("-1 USD")


async def test_what_they_did_not_bill(called: RunningGateway, tmp_path: Path) -> None:
    """A call of ours in the file's time that the file lacks is missing there."""
    await called.chat()
    (call, _) = await called.calls()
    await called.rows("update calls set opened_at = '2026-11-01T22:00:19Z' where opened_at > '2026-11-02'")
    text = f"id,time,cost\n{call['request_id'].hex},2026-11-01T22:00:18Z,0.00008\n{'0' * 32},2026-11-01T22:00:20Z,0\n"
    status, said = await lay(called, tmp_path / "a.csv", text)
    assert (status, said["matched"], said["missing here"], said["missing there"]) == (1, "1", "1", "1")
    text = f"id,cost\n{call['request_id'].hex},0.00008\n"
    assert (await lay(called, tmp_path / "a.csv", text))[0] == 0


async def test_a_line_that_is_billed_twice(called: RunningGateway, tmp_path: Path) -> None:
    """The provider's double bill of one call is a difference."""
    (call,) = await called.calls()
    line = f"{call['request_id'].hex},2026-11-01 22:00:18,0.00008\n"
    status, said = await lay(called, tmp_path / "a.csv", f"id,time,cost\n{line}{line}")
    assert (status, said["different"]) == (1, "1")


async def test_openrouter(called: RunningGateway, tmp_path: Path) -> None:
    """Generations are compared by day and model; their costs are rounded to 1e-6 USD and snapshots have dates."""
    await called.rows("update calls set provider = 'openrouter', model = 'openai/gpt-4o', billed_cost_nano = 80000")
    await called.rows("update calls set provider_cost_nano = 80400")
    text = GENERATIONS.format(cost="0.00008", model="openai/gpt-4o-20240806")
    status, said = await lay(called, tmp_path / "a.csv", text)
    assert (status, said["matched"]) == (0, "1")
    text = GENERATIONS.format(cost="0.000081", model="openai/gpt-4o-20240806")
    assert (await lay(called, tmp_path / "a.csv", text))[0] == 1
    text = GENERATIONS.format(cost="0.00008", model="openai/4o-gpt-20240806")
    assert (await lay(called, tmp_path / "a.csv", text))[1]["missing here"] == "1"
    assert (await lay(called, tmp_path / "a.csv", text, "--same-model", "openai/4o-gpt=openai/gpt-4o"))[0] == 0
    assert Invoice(tmp_path / "a.csv").form is OPENROUTER


async def test_openai_usage(called: RunningGateway, tmp_path: Path) -> None:
    """Days and models with their tokens; other providers' calls are not looked at, quiet days count as such."""
    await called.chat({"model": "echo:echo"})
    await called.rows("update calls set opened_at = '2026-11-02T00:00:00Z' where provider = 'echo'")
    status, said = await lay(called, tmp_path / "a.csv", USAGE)
    assert (status, said["matched"], said["estimated"]) == (0, "1", "0 of our 1 calls (0 %)")
    assert "cost" not in said
    assert Invoice(tmp_path / "a.csv").form is OPENAI_USAGE
    await called.rows("update calls set opened_at = '2026-11-02T00:00:00Z', usage_source = 'estimated'")
    status, said = await lay(called, tmp_path / "a.csv", USAGE)
    assert (status, said["missing here"], said["missing there"]) == (1, "1", "1")
    assert said["estimated"] == "1 of our 1 calls (100 %)"


async def test_openai_costs(called: RunningGateway, tmp_path: Path) -> None:
    """Line items are put together by model; without line items, days are compared."""
    status, said = await lay(called, tmp_path / "a.csv", COSTS)
    assert (status, said["matched"]) == (0, "1")
    assert Invoice(tmp_path / "a.csv").form is OPENAI_COSTS
    text = COSTS.splitlines()[0] + "\n1,2,2026-11-01T00:00:00+00:00,x,0.000081,usd,,\n"
    status, said = await lay(called, tmp_path / "a.csv", text)
    assert (status, said["different"], said["difference"]) == (1, "1", "-0.000001 USD (-1.23 %)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.csv is empty"),
        ("model,cost\n", "a.csv, line 1: no column says the request id or the time"),
        ("time,model\n", "a.csv, line 1: no column says a cost or a number of tokens"),
        ("time,cost\n2026-11-01,1\n2026-11-01,free\n", "a.csv, line 3, column 'cost': 'free' is no number"),
        ("time,cost\n2026-11-01,NaN\n", "a.csv, line 2, column 'cost': 'NaN' is no number"),
        ("time,Tokens In\n2026-11-01,1.5\n", "a.csv, line 2, column 'Tokens In': '1.5' is no count"),
        ("time,cost\nmorning,1\n", "a.csv, line 2, column 'time': 'morning' is no time"),
        ("time,cost\n2026-11-01,1,2\n", "a.csv, line 2: 3 cells, but the header has 2"),
        ("time,cost,currency\n2026-11-01,1,EUR\n", "a.csv, line 2, column 'currency': 'EUR' is not USD"),
        ('time,cost\n"2026-11-01,1\n', "a.csv, line 2: unexpected end of data"),
        (b"time,cost\n\xff,1\n", "a.csv is not UTF-8 text"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, text: str | bytes, message: str) -> None:
    """The error says which line and column."""
    file = tmp_path / "a.csv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InvoiceError) as caught:
        list(Invoice(file).lines())
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("item", "model"),
    [
        ("gpt-4o-mini-2024-07-18, cached input", "gpt-4o-mini-2024-07-18"),
        ("priority | gpt-5.6-sol, output, long context", "gpt-5.6-sol"),
        ("evals | gpt-4o-mini-2024-07-18, input", "evals | gpt-4o-mini-2024-07-18"),
        ("gpt-image-2-2026-04-21 text, input", "gpt-image-2-2026-04-21"),
        ("web search tool calls", "web search tool calls"),
        ("assistants api | file search", "assistants api | file search"),
    ],
)
def test_line_items(tmp_path: Path, item: str, model: str) -> None:
    """What OpenAI bills is a model's tokens or a product of its own."""
    file = tmp_path / "a.csv"
    file.write_text(f'start_time_iso,amount_value,line_item\n2026-11-01T00:00:00+00:00,1,"{item}"\n')
    (line,) = Invoice(file).lines()
    assert line.model == model


async def prices(gateway: RunningGateway, *arguments: str) -> str:
    status, out, err = await aigate(gateway, "prices", *arguments)
    assert (status, err) == (0, "")
    return out


async def test_a_price_is_set_shown_and_explained(gateway: RunningGateway) -> None:
    """Exactly as it was given, for one organisation, and it goes before what it replaces."""
    await prices(gateway, "set", "openai:gpt-*", "--input", "3", "--output", "12", "--markup", "10")
    given = ("--input", "0.1", "--output", "0.3", "--cache-read", "0.025", "--request", "0.001", "--org-name", "acme")
    assert "1 added, 0 changed, 0 unchanged" in await prices(gateway, "set", "openai:gpt-4o", *given)
    assert "0 added, 0 changed, 1 unchanged" in await prices(gateway, "set", "openai:gpt-4o", *given)
    (line,) = [line for line in (await prices(gateway, "show")).splitlines() if line.startswith("openai:gpt-4o ")]
    assert line.split()[1:6] == ["acme", "0.1", "0.3", "0.025", "-"]
    shown = await prices(gateway, "show", "--provider", "openai", "--model", "gpt-?")
    assert "openai:gpt-*" in shown
    assert "gpt-4o" not in shown
    tokens = ("--input-tokens", "1000", "--cache-read-tokens", "400", "--output-tokens", "7")
    explained = await prices(gateway, "explain", "openai:gpt-4o", "--org-name", "acme", *tokens)
    arrow, second, *_ = explained.splitlines()
    assert arrow.startswith("-> rule ")
    assert "openai:gpt-4o, acme's own, by this very name" in arrow
    assert "openai:*, acme's own, by its pattern" in second
    assert _step(explained, "1000 input tokens") == "0.0001"
    assert _step(explained, "400 of the input read from the cache") == "-0.00003"
    assert _step(explained, "billed") == "0.0010721"
    marked = await prices(gateway, "explain", "openai:gpt-4o", "--input-tokens", "1")
    assert _step(marked, "mark-up of 10 %") == "0.0000003"
    assert _step(marked, "billed") == "0.0000033"


def _step(explained: str, start: str) -> str:
    (line,) = [line for line in explained.splitlines() if line.startswith(start)]
    return line.split()[-2]


async def test_prices_from_files(gateway: RunningGateway, tmp_path: Path) -> None:
    """CSV and JSON say the same, tiers included; all or nothing."""
    table = tmp_path / "prices.csv"
    table.write_text(
        "provider,model,input,output,cache_read,markup_percent,above_input_tokens\n"
        "p,m,1.25,10,0.125,5,\np,m,2.5,15,,,200000\n"
    )
    assert "1 added" in await prices(gateway, "import", str(table))
    listed = tmp_path / "prices.json"
    entries: list[dict[str, Any]] = [
        {"provider": "p", "model": "m", "input": 1.25, "output": 10, "cache_read": 0.125, "markup_percent": 5},
        {"provider": "p", "model": "m", "input": "2.5", "output": 15, "above_input_tokens": 200000},
    ]
    listed.write_text(json.dumps(entries))
    assert "0 added, 0 changed, 1 unchanged" in await prices(gateway, "import", str(listed))
    explained = await prices(gateway, "explain", "p:m", "--input-tokens", "200001")
    assert "prices for more than 200000 input tokens" in explained
    assert _step(explained, "200001 input tokens") == "0.5000025"
    assert _step(explained, "billed") == "0.525002625"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "provider,model,input,output\np,m,1,cheap\n",
            "a.csv, line 2, column 'output': 'cheap' is no price",
        ),
        ("a.csv", "provider,model,input,output\np,m,1,\n", "a.csv, line 2, column 'output': is empty"),
        ("a.csv", "provider,model,input,output\np,m,1,-1\n", "a.csv, line 2, column 'output': -1 USD is no whole"),
        (
            "a.csv",
            "provider,model,input,output\np,m,1,1e-10\n",
            "a.csv, line 2, column 'output': 1E-10 USD is no whole",
        ),
        ("a.csv", "provider,model,input,outptu\n", "a.csv, line 1: unknown column 'outptu'"),
        ("a.csv", "provider,model,input,output\np,m,1,2,3\n", "a.csv, line 2: not as many cells"),
        ("a.csv", "provider,model,input,output\np,m,1,2\np,m,1,2\n", "a.csv, line 3, column 'model': p:m stands"),
        ("a.json", "{}", "a.json is no list of objects"),
        ("a.json", "[", "a.json is no JSON"),
        ("a.json", '[{"provider": "p", "model": "m", "input": NaN, "output": 1}]', "a.json, entry 1, column 'input'"),
        ("a.json", '[{"provider": "p", "model": ["m"]}]', "a.json, entry 1: is no object of texts"),
        ("a.csv", "", "a.csv has no prices"),
        ("b.csv", None, "[Errno 2]"),
    ],
)
async def test_prices_that_cannot_be_taken(
    gateway: RunningGateway, tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    """The error says where; nothing is changed."""
    if text is not None:
        (tmp_path / name).write_text(text)
    before = await gateway.rows("select * from price_rules")
    status, out, err = await aigate(gateway, "prices", "import", str(tmp_path / name))
    assert (status, out) == (1, "")
    assert err.startswith(f"aigate: {message}")
    assert await gateway.rows("select * from price_rules") == before


async def test_a_model_without_a_price(gateway: RunningGateway) -> None:
    """Nothing to explain is an error."""
    status, _, err = await aigate(gateway, "prices", "explain", "openai:gpt-4o")
    assert (status, err) == (1, "aigate: nothing prices openai:gpt-4o for all: it would be refused\n")
