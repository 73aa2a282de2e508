"""What operators see: health, metrics, and the log of a real `aigate serve`."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import pytest

from aigate.settings import Settings
from aigate.stores.database import Database
from aigate.stores.keys import create_key
from tests.running import CHAT, PRICES, RunningGateway, eventually
from tests.upstream import ANSWER, FakeProvider, answer_json, sse, stream, words

Start = Callable[..., Any]

PROMPT = "the most secret prompt of all"
STRANGER = "aig_00112233445566ff_a-stranger-s-secret"
SECRET = "sk-provider-secret"

NAMES = {
    "aigate_requests_total": {"provider", "model", "stream", "status"},
    "aigate_request_duration_seconds_count": {"provider", "model", "stream"},
    "aigate_time_to_first_byte_seconds_count": {"provider", "model", "stream"},
    "aigate_upstream_duration_seconds_count": {"provider", "model"},
    "aigate_gateway_overhead_seconds_count": {"provider", "model"},
    "aigate_requests_in_flight": set(),
    "aigate_errors_total": {"provider", "code"},
    "aigate_billed_cost_total": {"provider", "model"},
    "aigate_tokens_total": {"provider", "model", "type"},
}
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Samples = list[tuple[str, dict[str, str], float]]


async def samples(gateway: RunningGateway) -> Samples:
    """Everything that `/metrics` says."""
    text = (await gateway.client.get("/metrics")).text
    return [(name, dict(LABEL.findall(labels or "")), float(value)) for name, labels, value in SAMPLE.findall(text)]


async def test_health(gateway: RunningGateway) -> None:
    """Health and readiness are asked without a key."""
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as stranger:
        assert (await stranger.get("/health")).json()["status"] == "ok"
        assert (await stranger.get("/ready")).json() == {"status": "ready", "postgres": "ok", "redis": "ok"}


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("", 401),
        ("Bearer wrong", 401),
        ("Basic token", 401),
        ("token-1", 401),
        ("Bearer tökén", 401),
        ("Bearer token-1", 200),
    ],
)
async def test_metrics_token(start_gateway: Start, authorization: str, status: int) -> None:
    """Where a token is set, metrics are for who has it; an API key is none."""
    gateway = await start_gateway(metrics_token="token-1")
    response = await gateway.client.get("/metrics", headers=[(b"authorization", authorization.encode())])
    assert response.status_code == status
    assert (await gateway.client.get("/metrics")).status_code == 401
    if status == 401:
        assert response.json()["error"]["code"] == "caller_invalid_api_key"


async def test_metric_names(gateway: RunningGateway, provider: FakeProvider) -> None:
    """The names and labels on which dashboards are built."""
    await gateway.chat()
    provider.default = stream(*sse(*words("a")))
    await gateway.chat({"stream": True})
    await gateway.chat({"messages": None})
    found = await samples(gateway)
    for name, labels in NAMES.items():
        assert labels in [set(sample[1]) for sample in found if sample[0] == name], name
    counted = {
        (sample[1]["stream"], sample[1]["status"]): sample[2]
        for sample in found
        if sample[0] == "aigate_requests_total"
    }
    assert counted["false", "200"] == counted["true", "200"] == 1.0
    assert any(sample[1].get("code") == "caller_invalid_request" for sample in found)


async def test_labels_are_bounded(gateway: RunningGateway, provider: FakeProvider) -> None:
    """Whatever 2,000 names a caller invents, the metrics do not grow with them."""
    refusing = answer_json({"error": {"message": "no such model"}}, 404)
    for batch in range(20):
        provider.default = answer_json(ANSWER) if batch < 6 else refusing
        asked = 90 if batch < 8 else 0
        names = [f"openai:made-up-{batch}-{number}" for number in range(asked)]
        names += [f"invented-{batch}-{number}:x" for number in range(100 - asked)]
        await asyncio.gather(*(gateway.chat({"model": name}) for name in names))
    text = (await gateway.client.get("/metrics")).text
    models = set(re.findall(r'model="([^"]*)"', text))
    assert len(models) <= 502
    assert len(set(re.findall(r'provider="([^"]*)"', text))) <= 3
    assert not any(name.startswith("made-up-7-") for name in models)  # nobody has answered under it
    assert "invented-" not in text


async def test_billed_cost(gateway: RunningGateway, provider: FakeProvider) -> None:
    """The metric of what was billed is the ledger's sum."""
    await asyncio.gather(*(gateway.chat({"model": f"openai:m{number}"}) for number in range(20)))
    provider.default = stream(*sse(*words("a")))
    await gateway.chat({"stream": True})
    provider.default = answer_json({"error": "x"}, 500)
    await gateway.chat()
    (row,) = await gateway.rows("select sum(billed_cost_nano)::bigint as nano from calls")
    metered = sum(sample[2] for sample in await samples(gateway) if sample[0] == "aigate_billed_cost_total")
    assert row["nano"] == 21 * 80_000
    assert metered == pytest.approx(float(Decimal(row["nano"]) / 10**9), rel=1e-9)


async def test_in_flight(gateway: RunningGateway) -> None:
    """Once all is answered nothing is in flight."""
    await asyncio.gather(*(gateway.chat() for _ in range(10)))
    (value,) = [sample[2] for sample in await samples(gateway) if sample[0] == "aigate_requests_in_flight"]
    assert value == 0


# --- the log of a real process --------------------------------------------------------------------------------


@dataclass
class Served:
    """A gateway in a process of its own and what it has written so far."""

    process: asyncio.subprocess.Process
    url: str = ""
    key: str = ""
    text: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text]

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == "request"]

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.text.append(line.decode())
            found = re.search(r"running on (http://[\d.:]+)", self.text[-1])
            self.url = self.url or (found[1] if found else "")


@pytest.fixture
async def served(settings: Settings, database: Database) -> AsyncIterator[Served]:
    """`aigate serve` as an operator starts it."""
    key = await create_key(database, "acme")
    async with database.connection() as connection:
        await connection.execute(PRICES, await connection.fetchval("select id from organisations"))
    environment = {**settings.environment, "PATH": os.environ["PATH"], "AIGATE_DATABASE_TIMEOUT": "2"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "aigate",
        "serve",
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    running = Served(process, key=key)
    reading = asyncio.create_task(running.read())
    try:
        await eventually(lambda: running.url or process.returncode is not None, within=20)
        assert running.url, running.text
        yield running
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
        await reading


async def _exercise(served: Served, database: Database, provider: FakeProvider) -> int:
    """Good, bad and failing requests, each with the prompt; returns how many there were."""
    document = {**CHAT, "messages": [{"role": "user", "content": PROMPT}]}
    bearer = {"authorization": f"Bearer {served.key}"}
    async with httpx.AsyncClient(base_url=served.url, headers=bearer, trust_env=False) as client:

        async def ask(changes: Any = None, **headers: str) -> int:
            body = {**document, **(changes or {})}
            return (await client.post("/v1/chat/completions", json=body, headers=headers)).status_code

        assert await ask() == 200
        assert await ask({"stream": True}) == 200
        assert await ask(authorization=f"Bearer {STRANGER}") == 401
        assert await ask(authorization=f"Basic {STRANGER}") == 401
        assert await ask({"messages": [{"role": 1, "content": PROMPT}]}) == 400
        assert (await client.post("/v1/chat/completions", content=f'{{"{PROMPT}')).status_code == 400
        assert (await client.get(f"/nowhere?key={STRANGER}")).status_code == 404
        provider.default = answer_json({"error": {"message": f"Incorrect API key: {SECRET}"}}, 401)
        assert await ask() == 502
        async with database.connection() as connection:
            await connection.execute("alter table calls rename column model to renamed")
        assert await ask() == 500
        assert (await client.get("/metrics")).status_code == 200
    return 9


async def test_log(served: Served, database: Database, provider: FakeProvider) -> None:
    """Every line is JSON in one form, each request has one, and none holds a prompt or a key."""
    asked = await _exercise(served, database, provider)
    _, _, port = served.url.rpartition(":")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    writer.write(f"GARBAGE {STRANGER}\r\n\r\n".encode())
    await reader.read()
    writer.close()
    served.process.send_signal(signal.SIGTERM)
    await served.process.wait()
    await eventually(lambda: any("Finished server process" in line for line in served.text))

    for line in served.lines:
        assert {"time", "level", "event", "logger"} <= set(line)
    assert {line["logger"] for line in served.lines} >= {"uvicorn.error"}
    assert len(served.requests) == asked
    assert [line["status"] for line in served.requests] == [200, 200, 401, 401, 400, 400, 404, 502, 500]
    text = "".join(served.text)
    for secret in (PROMPT, served.key, served.key.split("_", 2)[2], STRANGER, "stranger-s-secret", SECRET, "Bearer"):
        assert secret not in text, secret


async def test_line_of_a_request(served: Served, database: Database, provider: FakeProvider) -> None:
    """The line of a request says all that an operator asks for."""
    await _exercise(served, database, provider)
    await eventually(lambda: len(served.requests) == 9)
    whole, streamed, stranger, *_, refused, failed = served.requests
    assert (whole["method"], whole["path"], whole["org"]) == ("POST", "/v1/chat/completions", "acme")
    assert (whole["provider"], whole["model"], whole["stream"]) == ("openai", "gpt-4o", False)
    assert whole["key"] == served.key.split("_")[1]
    assert len(whole["request_id"]) == 32
    assert (whole["input_tokens"], whole["output_tokens"], whole["cost_usd"]) == (12, 5, 8e-5)
    assert (whole["outcome"], whole["replayed"]) == ("ok", False)
    assert whole["duration_ms"] >= whole["first_byte_ms"] > 0
    assert streamed["stream"] is True
    assert stranger["code"] == "caller_invalid_api_key"
    assert refused["code"] == "gateway_provider_credentials"
    assert failed["code"] == "gateway_internal_error"
    (defect,) = [line for line in served.lines if "exception" in line]
    assert defect["request_id"] == failed["request_id"]
    assert "UndefinedColumnError" in defect["exception"]
