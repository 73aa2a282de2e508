"""Clients that leave: before the headers, after the first chunk, mid-stream, or with a reset."""

import asyncio
import random
import socket
from collections.abc import Sequence
from functools import partial
from urllib.parse import urlsplit

import httpx

from tests.faults.provider import Plan
from tests.faults.proxy import NO_LINGER
from tests.faults.site import Call, Site, complaints
from tests.running import eventually

MOMENTS = {"before the headers": "asked", "after the first chunk": "first", "mid-stream": "middle", "reset": "middle"}
"""When a client leaves, and where the provider is held until it has."""
AT_ONCE = 25
SOCKETS_SPARE = 10 + 14
"""Connections to the stores that a replica may have opened meanwhile and keeps: PostgreSQL's pool, and one to Redis
for each client of a round that waited for another replica's answer at once. 500 clients have left."""
MEMORY_SPARE = 24 * 1024 * 1024


async def leave(site: Site, chance: random.Random, moment: str, policy: str, count: int = AT_ONCE) -> list[str]:
    """Clients leave at this moment; what they asked for is finished (`keyed`, `drain`) or ended (`cancel`)."""
    plan = Plan(words=chance.randint(4, 9), hold=MOMENTS[moment], counts_along=True)
    provider = "draining" if policy == "drain" else "openai"
    what = f"leave-{policy}-{moment.replace(' ', '-')}"
    calls = site.calls(what, count, streamed=True, plan=plan, keyed=policy == "keyed", provider=provider)
    replica = chance.randrange(2)
    names = [call.name for call in calls]
    site.provider.hold()
    leaving = [asyncio.create_task(_leave(site, call, replica, moment)) for call in calls]
    await eventually(partial(site.provider.held, names), within=20)
    await asyncio.gather(*leaving)
    if policy == "cancel":
        await eventually(lambda: all(_left(site, name) for name in names), within=10)
    else:
        await _has_seen(site, replica)
    site.provider.released.set()
    return [*await _outcome(site, calls, policy), *await site.balance(calls)]


async def leave_many(site: Site, chance: random.Random, rounds: int) -> list[str]:
    """Round after round of clients that leave in every way, and what a replica has kept of them."""
    wrong = await _round(site, chance)
    before = [(replica.sockets(), replica.resident()) for replica in site.replicas]
    for _ in range(rounds):
        wrong += await _round(site, chance)
    for replica, (sockets, resident) in zip(site.replicas, before, strict=True):
        wrong += await _kept(site, replica.url, "requests in flight", partial(_in_flight, site, replica.url), 0)
        wrong += await _kept(site, replica.url, "sockets", replica.sockets, sockets + SOCKETS_SPARE)
        wrong += await _kept(site, replica.url, "memory", replica.resident, resident + MEMORY_SPARE)
    return wrong


async def _round(site: Site, chance: random.Random) -> list[str]:
    wrong = []
    for policy in ("keyed", "cancel", "drain"):
        for moment in MOMENTS:
            wrong += await leave(site, chance, moment, policy, 14)
    return wrong


async def _leave(site: Site, call: Call, replica: int, moment: str) -> None:
    """Ask, read as far as the moment says, and go."""
    url = urlsplit(site.replicas[replica].url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(_request(site, call))
    await writer.drain()
    if moment == "before the headers":
        await eventually(partial(site.provider.held, [call.name]), within=20)
    else:
        await reader.readuntil(b"assistant" if MOMENTS[moment] == "first" else b"/0 ")
        await eventually(partial(site.provider.held, [call.name]), within=20)
    if moment == "reset":
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    writer.close()


def _request(site: Site, call: Call) -> bytes:
    lines = [f"{name}: {value}" for name, value in site.headers(call).items()]
    head = ["POST /v1/chat/completions HTTP/1.1", "host: gateway", f"content-length: {len(call.body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + call.body


def _left(site: Site, name: str) -> bool:
    return any(entry.left for entry in site.provider.bill.get(name, ()))


async def _has_seen(site: Site, replica: int) -> None:
    """Return once the replica has had a turn in which it could see that its clients are gone."""
    for _ in range(3):
        await site.client.get(f"{site.replicas[replica].url}/health")


async def _outcome(site: Site, calls: Sequence[Call], policy: str) -> list[str]:
    names = [call.name for call in calls]
    wrong = []
    if policy == "keyed":
        wrong += complaints(site, await site.all_insist(calls))
    else:
        await eventually(partial(_closed, site, names), within=20)
    rows = await site.rows("select * from calls where model = any($1)", names)
    if len(rows) != len(names):
        wrong.append(f"{len(rows)} rows for {len(names)} calls")
    for row in rows:
        (entry,) = site.provider.bill[row["model"]]
        used = (row["input_tokens"], row["output_tokens"])
        charged = entry.usage(entry.said)
        whole = policy != "cancel"
        if whole != entry.finished:
            wrong.append(f"{row['model']}: the provider's answer was {'not ' * whole}read to its end")
        if row["usage_source"] == "provider" and used != (charged["prompt_tokens"], charged["completion_tokens"]):
            wrong.append(f"{row['model']}: {used} tokens on the row, {charged} on the provider's bill")
        if whole and row["usage_source"] != "provider":
            wrong.append(f"{row['model']}: the provider's usage was not taken")
        if not whole and row["outcome"] != "client_disconnect":
            wrong.append(f"{row['model']}: {row['outcome']} instead of client_disconnect")
    return wrong


async def _closed(site: Site, names: Sequence[str]) -> bool:
    open_rows = await site.rows("select from calls where model = any($1) and state = 'open'", list(names))
    return not open_rows


async def _kept(site: Site, url: str, what: str, measure: object, most: int) -> list[str]:
    async def within() -> bool:
        return await _measured(measure) <= most

    try:
        await eventually(within, within=10)
    except TimeoutError:
        return [f"{url}: {what} {await _measured(measure)}, at most {most} expected"]
    return []


async def _measured(measure: object) -> int:
    result = measure()  # type: ignore[operator]
    return await result if asyncio.iscoroutine(result) else result


async def _in_flight(site: Site, url: str) -> int:
    try:
        text = (await site.client.get(f"{url}/metrics")).text
    except httpx.TransportError:
        return -1
    values = [line.split()[-1] for line in text.splitlines() if line.startswith("aigate_requests_in_flight")]
    return round(sum(map(float, values)))
