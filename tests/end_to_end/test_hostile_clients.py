"""What a hostile or unlucky client must not achieve: to hold, to break, or to have for free."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from aigate.estimate import PATIENCE
from aigate.stores.tail import RedisTail
from middleware.asgi import Message
from middleware.claims import Claim, Running
from middleware.exchange import Answer
from middleware.faults import GatewayFault
from middleware.live_answer import LiveAnswers
from tests.running import CHAT, RunningGateway, eventually
from tests.upstream import ANSWER, FakeProvider, answer_json, chunk, sse, stream, words

Start = Callable[..., Awaitable[RunningGateway]]

REFUSE_CLOSINGS = """
create function refuse() returns trigger language plpgsql as $$ begin raise exception 'out of order'; end $$;
create trigger refuse before update on calls for each row execute function refuse();
"""


async def ask(
    gateway: RunningGateway, document: object, *headers: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a chat request on a connection of one's own."""
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    body = json.dumps({**CHAT, **dict(document)}, separators=(",", ":")).encode()  # type: ignore[call-overload]
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: x", f"authorization: Bearer {gateway.key}", *headers]
    writer.write("\r\n".join([*lines, f"content-length: {len(body)}"]).encode() + b"\r\n\r\n" + body)
    await writer.drain()
    return reader, writer


async def state_of(gateway: RunningGateway) -> str:
    rows = await gateway.calls()
    return rows[0]["state"] if rows else "none"


async def test_client_that_does_not_read(start_gateway: Start, provider: FakeProvider) -> None:
    """It is cut off after a while, the provider's connection is closed, and the call is settled."""
    gateway = await start_gateway(write_timeout=0.5)
    provider.default = stream(*sse(*words(*["x" * 60_000] * 200)))
    _, writer = await ask(gateway, {"stream": True})
    await eventually(lambda: _is(gateway, "settled"), within=20)
    await eventually(lambda: provider.open_connections == 0)
    writer.close()


async def test_client_that_does_not_read_with_a_key(start_gateway: Start, provider: FakeProvider) -> None:
    """Its answer is finished all the same, and waits for the retry."""
    gateway = await start_gateway(write_timeout=0.5)
    provider.default = stream(*sse(*words(*["x" * 60_000] * 100)))
    _, writer = await ask(gateway, {"stream": True}, "idempotency-key: k")
    await eventually(lambda: provider.calls)
    retry = await gateway.chat({"stream": True}, idempotency_key="k")
    assert retry.text.endswith("data: [DONE]\n\n")
    assert len(provider.calls) == 1
    writer.close()


async def _is(gateway: RunningGateway, state: str) -> bool:
    return await state_of(gateway) == state


async def test_settlement_that_the_store_refuses(gateway: RunningGateway, provider: FakeProvider) -> None:
    """An error that is no outage neither cuts the answer nor ends the accounting."""
    await gateway.chat()
    async with gateway.database.connection() as connection:
        await connection.execute(REFUSE_CLOSINGS)
    answer = await gateway.chat({"seed": 2}, idempotency_key="k")
    assert (answer.status_code, answer.json()["choices"]) == (200, ANSWER["choices"])
    async with gateway.database.connection() as connection:
        await connection.execute("drop trigger refuse on calls")
    assert await gateway.rows("select from calls where state = 'open'")
    assert gateway.app.stores.overdue.waiting == 1


async def test_error_beside_content_is_told_at_once(gateway: RunningGateway, provider: FakeProvider) -> None:
    """An error that comes in the same bytes as content does not wait for the idle time-out."""
    together = b"".join(sse(chunk({"content": "a"}), {"error": {"message": "busy", "code": 503}}, done=False))
    provider.script.append(stream(together, then=30))
    async with asyncio.timeout(PATIENCE + 5):  # the estimate of what it cost may take the first of these
        answer = await gateway.chat({"stream": True})
    assert "provider_overloaded" in answer.text


async def test_followers_that_leave_make_room(start_gateway: Start, provider: FakeProvider) -> None:
    """Who waits for a running answer and leaves does not count against those who come."""
    gateway = await start_gateway(idempotency_followers=1)
    provider.default = stream(*sse(*words("a", "b", "c")), pause=0.4)
    running = asyncio.create_task(gateway.chat({"stream": True}, idempotency_key="k"))
    await eventually(lambda: provider.calls)
    _, writer = await ask(gateway, {"stream": True}, "idempotency-key: k")
    live = gateway.app.stores.live.of_request((await gateway.calls())[0]["request_id"].hex)
    assert live is not None
    await eventually(lambda: live.followers == 1)
    writer.close()
    await eventually(lambda: live.followers == 0)
    again = await gateway.chat({"stream": True}, idempotency_key="k")
    assert again.content == (await running).content


async def test_request_that_breaks_the_estimate(gateway: RunningGateway, provider: FakeProvider) -> None:
    """Nonsense in a field that a provider tolerates does not make the answer free."""
    provider.default = answer_json({name: value for name, value in ANSWER.items() if name != "usage"})
    message = {"role": "user", "content": "Say hello", "tool_calls": 5}
    await gateway.chat({"messages": [message]})
    (row,) = await gateway.calls()
    assert row["usage_source"] == "estimated"
    assert row["billed_cost_nano"] > 0


class _OtherAnswer:
    """A store in which the key has been taken over, and its new answer is finished."""

    async def look(self, claim: Claim) -> tuple[str, Answer]:
        return "b" * 32, Answer(200, (), b"data: OTHER-0\n\ndata: OTHER-1\n\ndata: [DONE]\n\n")


async def test_begun_answer_is_never_ended_by_another(redis_url: str) -> None:
    """What was begun from one replica is broken off rather than finished with the bytes of a later answer."""
    tail = RedisTail(redis_url, "me", LiveAnswers(1000), _OtherAnswer(), timeout=0.25, longest=5)  # type: ignore[arg-type]
    running = Running("a" * 32, "c" * 32, 0.1)
    stream_name = "{aigate}:live:" + running.request_id
    await tail._client.xadd(stream_name, {"status": 200, "headers": b"[]"})
    await tail._client.xadd(stream_name, {"at": 0, "body": b"data: FIRST\n\n", "more": 1})
    received: list[Message] = []
    with pytest.raises(GatewayFault):
        await _collect(tail.follow(Claim(1, "k", b"f", "d" * 32), running), received)
    assert [message.get("body") for message in received] == [None, b"data: FIRST\n\n"]
    await tail._client.delete(stream_name)
    await tail.stop()


async def _collect(messages: AsyncIterator[Message], into: list[Message]) -> None:
    async for message in messages:
        into.append(message)
