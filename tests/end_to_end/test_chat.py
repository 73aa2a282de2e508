"""A chat completion through the whole gateway, over real sockets, stores included."""

import asyncio
import json
from typing import Any

import pytest

from tests.running import RunningGateway, eventually
from tests.upstream import ANSWER, USAGE, Asked, FakeProvider, answer_json, sse, stream, words


async def test_json_answer(gateway: RunningGateway, provider: FakeProvider) -> None:
    """The answer is the provider's, with what it cost beside the usage."""
    response = await gateway.chat()
    assert response.status_code == 200
    answer = response.json()
    assert answer["usage"].pop("cost") == 8e-5
    assert answer == ANSWER
    asked = provider.calls[0].document
    assert asked == {"model": "gpt-4o", "messages": [{"role": "user", "content": "Say hello"}]}
    assert provider.calls[0].headers["authorization"] == "Bearer sk-provider-secret"


async def test_call_is_settled(gateway: RunningGateway) -> None:
    """A call is one row: settled, with the provider's tokens, at the pinned price."""
    response = await gateway.chat()
    (row,) = await gateway.calls()
    assert row["request_id"].hex == response.headers["x-request-id"]
    assert (row["state"], row["outcome"], row["usage_source"]) == ("settled", "ok", "provider")
    assert (row["input_tokens"], row["output_tokens"], row["billed_cost_nano"]) == (12, 5, 80_000)
    assert row["price_rule_id"] is not None


async def test_stream(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A stream arrives chunk by chunk, without the usage that only we asked for."""
    provider.default = stream(*sse(*words("Hel", "lo")))
    async with gateway.client.stream(
        "POST",
        "/v1/chat/completions",
        json={"model": "openai:gpt-4o", "stream": True, "messages": [{"role": "user", "content": "x"}]},
    ) as response:
        assert response.headers["content-type"] == "text/event-stream"
        lines = [line async for line in response.aiter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Hello"
    assert all("usage" not in chunk for chunk in chunks)
    assert provider.calls[0].document["stream_options"] == {"include_usage": True}
    (row,) = await gateway.calls()
    assert (row["state"], row["outcome"], row["billed_cost_nano"]) == ("settled", "ok", 80_000)


async def test_stream_with_usage(gateway: RunningGateway, provider: FakeProvider) -> None:
    """Who asks for usage gets it in the last chunk, with the cost."""
    provider.default = stream(*sse(*words("Hello")))
    response = await gateway.chat({"stream": True, "stream_options": {"include_usage": True}})
    last = json.loads(response.text.split("\n\n")[-3].removeprefix("data: "))
    assert last["usage"] == {**USAGE, "cost": 8e-5}


async def test_unknown_fields_reach_the_provider(gateway: RunningGateway, provider: FakeProvider) -> None:
    """What the gateway does not know, it does not touch."""
    fields = {
        "seed": 7,
        "enable_thinking": False,
        "response_format": {"type": "json_object"},
        "logprobs": True,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "made_up": {"deep": [1, 2.5, None, "ü"]},
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}
        ],
    }
    await gateway.chat(fields)
    assert provider.calls[0].document == {"model": "gpt-4o", **fields}


async def test_echo(gateway: RunningGateway) -> None:
    """The built-in provider answers with what was said, and with honest usage."""
    response = await gateway.chat({"model": "echo:echo"})
    assert response.json()["choices"][0]["message"]["content"] == "Say hello"
    assert response.json()["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("name", ["openai:gpt-4o", "openai/gpt-4o"])
async def test_both_separators(gateway: RunningGateway, provider: FakeProvider, name: str) -> None:
    """`provider:model` and `provider/model` are the same."""
    assert (await gateway.chat({"model": name})).status_code == 200
    assert provider.calls[0].document["model"] == "gpt-4o"


async def test_unpriced_model_is_refused(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A model without a price is refused before anything is called, with a word to the SDK not to retry."""
    await gateway.rows("update price_rules set valid_until = now() where provider = 'openai'")
    response = await gateway.chat()
    assert response.status_code == 402
    assert response.json()["error"]["code"] == "policy_model_unpriced"
    assert response.headers["x-should-retry"] == "false"
    assert provider.calls == []
    assert await gateway.calls() == []


async def test_replay(gateway: RunningGateway, provider: FakeProvider) -> None:
    """The same key and request get the same answer again, byte for byte, for nothing."""
    first = await gateway.chat(idempotency_key="order-1")
    provider.default = answer_json({"another": "answer"})
    again = await gateway.chat(idempotency_key='"order-1"')
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert len(provider.calls) == len(await gateway.calls()) == 1


async def test_no_usage_is_estimated(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A provider that reports nothing is billed by an estimate, which the row says."""
    provider.default = answer_json({name: value for name, value in ANSWER.items() if name != "usage"})
    await gateway.chat()
    (row,) = await gateway.calls()
    assert (row["usage_source"], row["outcome"]) == ("estimated", "ok")
    assert row["output_tokens"] in (2, 3)
    assert row["billed_cost_nano"] == row["input_tokens"] * 2500 + row["output_tokens"] * 10_000


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("usage", "billed"),
    [
        ({"prompt_tokens": 10}, (10, 2)),
        ({"prompt_tokens": 10, "completion_tokens": None, "total_tokens": None}, (10, 2)),
        ({"completion_tokens": 50}, (3, 50)),
        ({"prompt_tokens": None, "completion_tokens": None}, (3, 2)),
    ],
)
async def test_half_a_usage_is_no_free_answer(
    gateway: RunningGateway, provider: FakeProvider, usage: Any, billed: tuple[int, int], streamed: bool
) -> None:
    """What a provider leaves out of its counts is estimated, and billed."""
    told = stream(*sse(*words("Hello", " there", usage=usage)))
    provider.default = told if streamed else answer_json({**ANSWER, "usage": usage})
    assert (await gateway.chat({"stream": streamed})).status_code == 200
    (row,) = await gateway.calls()
    prompt, completion = billed
    assert row["usage_source"] == "estimated"
    assert row["input_tokens"] == pytest.approx(prompt, abs=3)
    assert row["output_tokens"] == pytest.approx(completion, abs=1)
    assert row["billed_cost_nano"] == row["input_tokens"] * 2_500 + row["output_tokens"] * 10_000


async def test_disconnect_bills_what_was_delivered(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A client that leaves in the middle pays for what it got, by an estimate."""
    provider.default = stream(*sse(*words("Hello ", "there ", "you")), pause=0.3)
    request = {"model": "openai:gpt-4o", "stream": True, "messages": [{"role": "user", "content": "Say hello"}]}
    async with gateway.client.stream("POST", "/v1/chat/completions", json=request) as response:
        async for line in response.aiter_lines():
            if "there" in line:
                break
    await eventually(lambda: _closed(gateway), within=10)
    (row,) = await gateway.calls()
    assert (row["state"], row["outcome"], row["usage_source"]) == ("settled", "client_disconnect", "estimated")
    assert 0 < row["output_tokens"] <= 4


async def _closed(gateway: RunningGateway) -> bool:
    return all(row["state"] != "open" for row in await gateway.calls())


@pytest.mark.parametrize("size", [10, 200_000], ids=["small", "large"])
async def test_nobody_has_a_whole_answer_that_is_unbilled(
    gateway: RunningGateway, provider: FakeProvider, size: int
) -> None:
    """While the settlement cannot be written the last bytes are held back, however large the answer is."""
    text = "x" * size
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    whole = answer_json({**ANSWER, "choices": [choice]})
    called, go_on = asyncio.Event(), asyncio.Event()

    async def held(asked: Asked, writer: asyncio.StreamWriter) -> None:
        called.set()
        await go_on.wait()
        await whole(asked, writer)

    provider.script.append(held)
    asking = asyncio.create_task(gateway.chat())
    await called.wait()
    async with gateway.database.connection() as connection, connection.transaction():
        await connection.execute("lock table calls in access exclusive mode")
        go_on.set()
        done, _ = await asyncio.wait({asking}, timeout=0.5)
        assert not done
    assert (await asking).json()["choices"][0]["message"]["content"] == text
    (row,) = await gateway.calls()
    assert row["state"] == "settled"
