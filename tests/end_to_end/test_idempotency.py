"""A retry never costs twice: every row of the promise, over real sockets, on one replica and on two."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from aigate.settings import Settings
from aigate.stores.keys import create_key, join_duplicates
from tests.running import CHAT, RunningGateway, eventually
from tests.upstream import ANSWER, FakeProvider, answer_json, silent, sse, stream, words

Start = Callable[..., Awaitable[RunningGateway]]
STREAMED = {"stream": True}
SLOW_WORDS = sse(*words("one", "two", "three", "four", "five", "six", "seven", "eight"))


async def test_finished_answer_is_given_again(gateway: RunningGateway, provider: FakeProvider) -> None:
    """Same status and bytes, marked, billed once, one upstream call."""
    first = await gateway.chat(idempotency_key="k")
    again = await gateway.chat(idempotency_key="k")
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(provider.calls) == len(await gateway.calls()) == 1


async def test_finished_stream_is_given_again(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A stream too, byte for byte."""
    provider.default = stream(*SLOW_WORDS)
    first = await gateway.chat(STREAMED, idempotency_key="k")
    again = await gateway.chat(STREAMED, idempotency_key="k")
    assert first.text.endswith("data: [DONE]\n\n")
    assert again.content == first.content
    assert again.headers["content-type"] == "text/event-stream"
    assert len(provider.calls) == 1


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("replicas", [1, 2])
async def test_fifty_at_once(start_gateway: Start, provider: FakeProvider, *, streamed: bool, replicas: int) -> None:
    """Fifty clients with one key at once: one upstream call, fifty equal answers, one bill."""
    provider.default = stream(*SLOW_WORDS, pause=0.05) if streamed else _after(0.5, answer_json(ANSWER))
    gateways = [await start_gateway() for _ in range(replicas)]
    document = STREAMED if streamed else {}
    async with asyncio.TaskGroup() as group:
        asking = [
            group.create_task(gateways[number % replicas].chat(document, idempotency_key="one"))
            for number in range(50)
        ]
    answers = [task.result() for task in asking]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 49
    assert len(provider.calls) == 1
    (row,) = await gateways[0].calls()
    assert (row["state"], row["billed_cost_nano"], row["idempotency_key"]) == ("settled", 80_000, "one")


@pytest.mark.parametrize("replicas", [1, 2])
async def test_attached_stream_arrives_live(start_gateway: Start, provider: FakeProvider, replicas: int) -> None:
    """Who comes while the first runs gets it from the first byte, before it is finished."""
    provider.default = stream(*SLOW_WORDS, then=2.0)
    first = await start_gateway()
    second = first if replicas == 1 else await start_gateway()
    running = asyncio.create_task(first.chat(STREAMED, idempotency_key="live"))
    await eventually(lambda: provider.calls)
    async with second.client.stream(
        "POST", "/v1/chat/completions", json={**CHAT, **STREAMED}, headers={"idempotency-key": "live"}
    ) as response:
        async with asyncio.timeout(1.8):
            received = b""
            async for data in response.aiter_raw():
                received += data
                if b"eight" in received:
                    break
    assert not running.done()
    await running


async def test_other_body_is_refused(gateway: RunningGateway, provider: FakeProvider) -> None:
    """The same key for another request is a 422 that no SDK retries, running or finished."""
    provider.default = _after(0.3, answer_json(ANSWER))
    running = asyncio.create_task(gateway.chat(idempotency_key="k"))
    await eventually(lambda: provider.calls)
    for _ in range(2):
        refused = await gateway.chat({"seed": 1}, idempotency_key="k")
        assert refused.status_code == 422
        assert refused.json()["error"]["code"] == "caller_idempotency_key_reused"
        assert refused.headers["x-should-retry"] == "false"
        await running
    assert len(provider.calls) == 1


async def test_too_many_waiters(start_gateway: Start, provider: FakeProvider) -> None:
    """Over the cap a waiter is sent away with the word to come back."""
    provider.default = _after(0.5, answer_json(ANSWER))
    gateway = await start_gateway(idempotency_followers=2)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(gateway.chat(idempotency_key="k")) for _ in range(5)]
    refused = [task.result() for task in asking if task.result().status_code == 409]
    assert len(refused) == 2
    assert refused[0].headers["retry-after"] == "2"
    assert refused[0].headers["x-should-retry"] == "true"


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_failure_that_cost_nothing_runs_again(
    gateway: RunningGateway, provider: FakeProvider, status: int
) -> None:
    """A refusal before money was spent is not stored: the retry runs."""
    provider.script.append(answer_json({"error": {"message": "no"}}, status))
    failed = await gateway.chat(idempotency_key="k")
    assert failed.status_code == (502 if status == 500 else status)
    assert (await gateway.chat(idempotency_key="k")).status_code == 200
    states = [row["state"] for row in await gateway.calls()]
    assert states == ["void", "settled"]


async def test_failure_that_may_have_cost_is_stored(start_gateway: Start, provider: FakeProvider) -> None:
    """A time-out after the request was sent may be billed: the retry learns of it and calls nobody."""
    gateway = await start_gateway(upstream_first_byte_timeout=0.3)
    provider.script.append(silent())
    failed = await gateway.chat(idempotency_key="k")
    again = await gateway.chat(idempotency_key="k")
    assert (failed.status_code, again.status_code) == (504, 504)
    assert again.headers["idempotent-replayed"] == "true"
    assert len(provider.calls) == 1


async def test_broken_stream_is_given_again_as_broken(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A stream that broke off after money was spent is what its retry gets: with the error, without [DONE]."""
    provider.script.append(stream(*SLOW_WORDS[:3], end=False))
    first = await gateway.chat(STREAMED, idempotency_key="k")
    again = await gateway.chat(STREAMED, idempotency_key="k")
    assert first.content == again.content
    assert b"provider_invalid_response" in again.content
    assert b"[DONE]" not in again.content
    (row,) = await gateway.calls()
    assert row["outcome"] == "truncated"


async def test_answer_is_finished_without_its_client(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A client that hangs up does not stop the answer of a held key: the retry collects all of it."""
    provider.default = stream(*SLOW_WORDS, pause=0.05)
    async with gateway.client.stream(
        "POST", "/v1/chat/completions", json={**CHAT, **STREAMED}, headers={"idempotency-key": "k"}
    ) as response:
        await anext(response.aiter_raw())
    again = await gateway.chat(STREAMED, idempotency_key="k")
    assert again.text.endswith("data: [DONE]\n\n")
    assert again.text.count("data: ") == len(SLOW_WORDS) - 1  # all but the usage chunk
    assert len(provider.calls) == 1
    (row,) = await gateway.calls()
    assert (row["outcome"], row["billed_cost_nano"]) == ("ok", 80_000)


async def test_keys_are_the_organisations_own(start_gateway: Start, provider: FakeProvider) -> None:
    """Two organisations may use the same key."""
    gateway = await start_gateway()
    other = await create_key(gateway.database, "other")
    await gateway.rows("update price_rules set organisation_id = null")
    await gateway.chat(idempotency_key="k")
    answer = await gateway.chat(idempotency_key="k", authorization=f"Bearer {other}")
    assert "idempotent-replayed" not in answer.headers
    assert len(provider.calls) == 2


async def test_key_of_a_dead_replica_is_taken_over(gateway: RunningGateway, provider: FakeProvider) -> None:
    """When the holder's lease has run out, the retry runs; the dead attempt stays visible and is not billed."""
    await gateway.chat(idempotency_key="warm up")
    await gateway.rows(
        """insert into idempotency_keys (organisation_id, key, fingerprint, request_id, replica_id, expires_at)
        select organisation_id, 'k', fingerprint, gen_random_uuid(), gen_random_uuid(), expires_at
        from idempotency_keys"""
    )
    answer = await gateway.chat(idempotency_key="k")
    assert answer.status_code == 200
    assert len(provider.calls) == 2


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "a\tb", "ü"])
async def test_malformed_keys(gateway: RunningGateway, provider: FakeProvider, key: str) -> None:
    """A key that is empty, too long or not printable ASCII is a 400."""
    response = await gateway.client.post(
        "/v1/chat/completions", json=CHAT, headers={"idempotency-key": key.encode("latin-1")}
    )
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "Idempotency-Key"
    assert provider.calls == []


async def test_answer_over_the_bound(start_gateway: Start, provider: FakeProvider) -> None:
    """An answer too large to be kept was given and billed once; the retry learns so and calls nobody."""
    gateway = await start_gateway(idempotency_answer_bytes=100)
    first = await gateway.chat(idempotency_key="k")
    again = await gateway.chat(idempotency_key="k")
    assert (first.status_code, again.status_code) == (200, 400)
    assert "too large" in again.json()["error"]["message"]
    assert len(provider.calls) == 1


async def test_expired_answers_are_reaped(gateway: RunningGateway, provider: FakeProvider) -> None:
    """After its retention an answer is forgotten: the key runs again."""
    await gateway.chat(idempotency_key="k")
    await gateway.rows("update idempotency_keys set expires_at = now() - interval '1 second'")
    await gateway.chat(idempotency_key="k")
    assert len(provider.calls) == 2


async def test_store_away_fails_closed(settings: Settings, start_gateway: Start, provider: FakeProvider) -> None:
    """With PostgreSQL out of reach nothing is called."""
    gateway = await start_gateway()
    await gateway.chat()
    await gateway.rows("alter table idempotency_keys rename to away")
    refused = await gateway.chat(idempotency_key="k")
    await gateway.rows("alter table away rename to idempotency_keys")
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
    assert len(provider.calls) == 1
    assert (await gateway.chat(idempotency_key="k")).status_code == 200


async def test_duplicates_without_a_key_are_joined(gateway: RunningGateway, provider: FakeProvider) -> None:
    """Where it is switched on, the same request without a key joins the first while that runs."""
    provider.default = _after(0.5, answer_json(ANSWER))
    await join_duplicates(gateway.database, "acme", 5)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(gateway.chat()) for _ in range(3)]
    assert sum("idempotent-replayed" in task.result().headers for task in asking) == 2
    (row,) = await gateway.calls()
    assert row["idempotency_key"].startswith("auto:")


async def test_retry_without_a_key_finds_its_answer(gateway: RunningGateway, provider: FakeProvider) -> None:
    """What says that it is a retry is given the finished answer; what does not, runs again."""
    await join_duplicates(gateway.database, "acme", 5)
    first = await gateway.chat()
    retry = await gateway.chat(x_stainless_retry_count="1")
    assert retry.content == first.content
    assert retry.headers["idempotent-replayed"] == "true"
    anew = await gateway.chat(x_stainless_retry_count="0")
    assert "idempotent-replayed" not in anew.headers
    assert len(provider.calls) == 2


async def test_duplicates_are_not_joined_later(gateway: RunningGateway, provider: FakeProvider) -> None:
    """After the stated time an equal request is another request, also while the first runs."""
    provider.default = _after(0.5, answer_json(ANSWER))
    await join_duplicates(gateway.database, "acme", 0)
    first = asyncio.create_task(gateway.chat())
    await eventually(lambda: provider.calls)
    assert "idempotent-replayed" not in (await gateway.chat()).headers
    await first
    assert len(provider.calls) == 2


async def test_duplicates_are_separate_by_default(gateway: RunningGateway, provider: FakeProvider) -> None:
    """Nobody's requests are joined unless they want it."""
    provider.default = _after(0.2, answer_json(ANSWER))
    await asyncio.gather(gateway.chat(), gateway.chat(x_stainless_retry_count="1"))
    assert len(provider.calls) == 2


def _after(seconds: float, behaviour: object) -> object:
    async def behave(asked: object, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await behaviour(asked, writer)  # type: ignore[operator]

    return behave
