"""What a caller sees of the own calls: over real sockets, with what the gateway itself wrote."""

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest

from aigate.stores.keys import create_key
from tests.running import RunningGateway
from tests.upstream import FakeProvider, answer_json


async def get(gateway: RunningGateway, path: str, **query: Any) -> Any:
    """The answer's document, with its numbers exact."""
    response = await gateway.client.get(path, params=query)
    assert response.status_code == 200, response.text
    return json.loads(response.text, parse_float=Decimal)


async def other_key(gateway: RunningGateway, organisation: str) -> dict[str, str]:
    return {"authorization": f"Bearer {await create_key(gateway.database, organisation)}"}


async def adjust(gateway: RunningGateway, billed: int, reason: str) -> None:
    await gateway.rows(
        """insert into adjustments (request_id, attempt, organisation_id, reason, usage_source, billed_cost_nano)
        select request_id, attempt, organisation_id, $2, 'none', $1 from calls order by opened_at limit 1""",
        billed,
        reason,
    )


async def test_one_call(gateway: RunningGateway) -> None:
    """A call is found by its request id, with its tokens, its exact cost and the price that it was billed at."""
    response = await gateway.chat(idempotency_key="order-1")
    call = await get(gateway, f"/v1/calls/{response.headers['x-request-id']}")
    assert call["id"] == response.headers["x-request-id"]
    assert (call["state"], call["outcome"], call["usage_source"]) == ("settled", "ok", "provider")
    assert (call["provider"], call["model"], call["idempotency_key"]) == ("openai", "gpt-4o", "order-1")
    assert (call["usage"]["input_tokens"], call["usage"]["output_tokens"]) == (12, 5)
    assert (call["billed_cost"], call["billed_cost_nano"]) == (Decimal("0.00008"), 80_000)
    assert call["price_rule"]["usd_per_million_tokens"]["input"] == Decimal("2.5")
    assert call["price_rule"]["usd_per_million_tokens"]["cache_read"] is None
    assert call["price_rule"]["markup_percent"] == 0
    assert [attempt["attempt"] for attempt in call["attempts"]] == [1]
    assert call["adjustments"] == []
    assert call["opened_at"] < call["settled_at"]
    assert call["settled_at"].endswith("Z")


async def test_dashes_are_the_same_call(gateway: RunningGateway) -> None:
    """A request id may be written as a UUID."""
    name = (await gateway.chat()).headers["x-request-id"]
    dashed = "-".join([name[:8], name[8:12], name[12:16], name[16:20], name[20:]])
    assert (await get(gateway, f"/v1/calls/{dashed}"))["id"] == name


async def test_adjustments_are_in_what_it_cost(gateway: RunningGateway) -> None:
    """What was corrected later is shown beside the row, and counted."""
    name = (await gateway.chat()).headers["x-request-id"]
    await adjust(gateway, -30_000, "credit")
    await adjust(gateway, 1, "one more")
    call = await get(gateway, f"/v1/calls/{name}")
    assert call["billed_cost_nano"] == 50_001
    assert call["billed_cost"] == Decimal("0.000050001")
    assert [(item["reason"], item["billed_cost_nano"]) for item in call["adjustments"]] == [
        ("credit", -30_000),
        ("one more", 1),
    ]


@pytest.mark.parametrize("name", ["0" * 32, "0" * 36, "nonsense", f"{'0' * 32}/more"])
async def test_no_such_call(gateway: RunningGateway, name: str) -> None:
    """What is not there is 404."""
    assert (await gateway.client.get(f"/v1/calls/{name}")).status_code == 404


async def test_calls_of_others_do_not_exist(gateway: RunningGateway) -> None:
    """Another organisation sees neither the call nor that there is one."""
    name = (await gateway.chat()).headers["x-request-id"]
    stranger = await other_key(gateway, "globex")
    assert (await gateway.client.get(f"/v1/calls/{name}", headers=stranger)).status_code == 404
    assert (await gateway.client.get("/v1/calls", headers=stranger)).json()["data"] == []
    before = await gateway.client.get("/v1/calls", params={"before": name}, headers=stranger)
    assert before.status_code == 400
    assert (await gateway.client.get("/v1/usage", headers=stranger)).json()["data"][0]["calls"] == 0


async def test_any_key_of_the_organisation(gateway: RunningGateway) -> None:
    """A call belongs to the organisation, not to the key that made it."""
    name = (await gateway.chat()).headers["x-request-id"]
    assert (
        await gateway.client.get(f"/v1/calls/{name}", headers=await other_key(gateway, "acme"))
    ).status_code == 200


async def test_pages(gateway: RunningGateway) -> None:
    """A list is newest first, and its pages meet without a gap or a repetition."""
    made = [(await gateway.chat()).headers["x-request-id"] for _ in range(5)]
    first = await get(gateway, "/v1/calls", limit=2)
    assert first["has_more"] is True
    second = await get(gateway, "/v1/calls", limit=2, before=first["next_before"])
    third = await get(gateway, "/v1/calls", limit=2, before=second["next_before"])
    assert (third["has_more"], third["next_before"]) == (False, None)
    seen = [call["id"] for page in (first, second, third) for call in page["data"]]
    assert seen == made[::-1]
    assert [call["id"] for call in (await get(gateway, "/v1/calls", before=made[1]))["data"]] == [made[0]]


async def test_usage(gateway: RunningGateway, provider: FakeProvider) -> None:
    """Calls, tokens and costs are summed, with adjustments, and a replay is not a call."""
    await gateway.chat(idempotency_key="order-1")
    await gateway.chat(idempotency_key="order-1")
    await gateway.chat()
    provider.default = answer_json({"error": {"message": "no"}}, 429)
    await gateway.chat()
    await adjust(gateway, -30_000, "credit")
    await adjust(gateway, -20_000, "another")
    (total,) = (await get(gateway, "/v1/usage"))["data"]
    assert (total["calls"], total["input_tokens"], total["output_tokens"]) == (3, 24, 10)
    assert (total["billed_cost_nano"], total["billed_cost"]) == (110_000, Decimal("0.00011"))


async def test_usage_in_groups(gateway: RunningGateway) -> None:
    """Sums are grouped by what was asked for, in that order."""
    await gateway.chat()
    await gateway.chat({"model": "echo:echo"})
    usage = await get(gateway, "/v1/usage", group_by="provider, model,day,outcome")
    assert usage["group_by"] == ["provider", "model", "day", "outcome"]
    assert [(group["provider"], group["model"], group["outcome"]) for group in usage["data"]] == [
        ("echo", "echo", "ok"),
        ("openai", "gpt-4o", "ok"),
    ]
    assert usage["data"][0]["day"].endswith("T00:00:00Z")
    (key,) = (await get(gateway, "/v1/usage", group_by="key"))["data"]
    assert key["key"] in gateway.key


async def test_usage_of_a_time(gateway: RunningGateway) -> None:
    """A time begins at `from` and ends just before `to`; dates are midnights in UTC."""
    await gateway.chat()
    await gateway.rows("update calls set opened_at = '2026-11-01T00:00:00Z'")
    for since, until, calls in (
        ("2026-11-01", "2026-11-02", 1),
        ("2026-10-31", "2026-11-01", 0),
        ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00.000001Z", 1),
        ("2026-11-01T00:00:01+00:00", "2026-11-02", 0),
        ("2026-11-01T02:00:00+02:00", "2026-11-01T02:00:01+02:00", 1),
    ):
        usage = await get(gateway, "/v1/usage", **{"from": since, "to": until})
        assert usage["data"][0]["calls"] == calls, (since, until)
    unencoded = await gateway.client.get("/v1/usage?from=2026-11-01T02:00:00+02:00&to=2026-11-02")
    assert unencoded.json()["data"][0]["calls"] == 1


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [
        ("usage", "from=yesterday", "from"),
        ("usage", "to=2026-13-01", "to"),
        ("usage", "from=2026-11-01T00:00:00", "from"),
        ("usage", "from=2026-11-02&to=2026-11-01", "from"),
        ("usage", "from=0001-01-01T00:00:00%2B14:00", "from"),
        ("usage", "group_by=day,colour", "group_by"),
        ("usage", "group_by=organisation", "group_by"),
        ("usage", "form=2026-11-01", "form"),
        ("usage", "from=2026-11-01&from=2026-11-02", "from"),
        ("calls", "limit=0", "limit"),
        ("calls", "limit=101", "limit"),
        ("calls", "limit=ten", "limit"),
        ("calls", "before=x", "before"),
        ("calls", f"before={'0' * 32}", "before"),
        ("calls", f"before={'0' * 32}.x", "before"),
        ("calls", "page=2", "page"),
    ],
)
async def test_bad_parameters(gateway: RunningGateway, path: str, query: str, param: str) -> None:
    """What cannot be understood is refused by name, and never guessed."""
    response = await gateway.client.get(f"/v1/{path}?{query}")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("path", ["/v1/calls", "/v1/usage", f"/v1/calls/{'0' * 32}"])
async def test_only_to_be_read(gateway: RunningGateway, path: str) -> None:
    """Another method is told which one is right."""
    response = await gateway.client.delete(path)
    assert (response.status_code, response.headers["allow"]) == (405, "GET")


async def test_strangers_see_nothing(gateway: RunningGateway) -> None:
    """Without a key there is no report."""
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as stranger:
        assert (await stranger.get("/v1/usage")).status_code == 401
