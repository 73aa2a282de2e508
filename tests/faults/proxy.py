"""A proxy between a gateway and a store that breaks the way as a test wants it, from outside.

As a whole it passes, delays, cuts, resets, hangs, refuses, or delivers and drops the answer (`half`). In front of
PostgreSQL it also knows which statement a message executes, and can stop exactly there: before it is delivered, after
it is delivered and before it is answered, or by a cut in its place.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self, TypeAlias

Open: TypeAlias = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
NO_LINGER = struct.pack("ii", 1, 0)


@dataclass
class Rule:
    """What happens at a statement, for at most `times` of them: `before`, `after` or `cut`.

    `before` holds the statement back; `after` delivers it and holds the answer back; `cut` delivers it and cuts the
    connection as soon as PostgreSQL has answered.
    """

    action: str
    statement: str
    times: int = 1_000_000
    hits: int = 0
    verdict: str = ""
    decided: asyncio.Event = field(default_factory=asyncio.Event)

    def matches(self, statement: str) -> bool:
        return self.statement in statement and self.hits < self.times and not self.verdict

    def end(self, verdict: str) -> None:
        """What becomes of what is held: `deliver` or `drop`. The rule holds no longer."""
        self.verdict = verdict
        self.decided.set()


class Statements:
    """Cuts what a client of PostgreSQL sends into messages, each with the statement that it executes, or ''.

    Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
    """

    def __init__(self) -> None:
        self._unread = b""
        self._greeted = False
        self._prepared: dict[bytes, str] = {}

    def feed(self, data: bytes) -> list[tuple[bytes, str]]:
        self._unread += data
        messages = []
        while (message := self._next()) is not None:
            messages.append((message, self._executed(message)))
        return messages

    def _next(self) -> bytes | None:
        at = 1 if self._greeted else 0
        if len(self._unread) < at + 4:
            return None
        length = at + int.from_bytes(self._unread[at : at + 4])
        if len(self._unread) < length:
            return None
        message, self._unread = self._unread[:length], self._unread[length:]
        self._greeted = True
        return message

    def _executed(self, message: bytes) -> str:
        kind, fields = message[:1], message[5:].split(b"\0", 2)
        if kind == b"P":
            self._prepared[fields[0]] = fields[1].decode()
        elif kind == b"B":
            return self._prepared.get(fields[1], "")
        elif kind == b"Q":
            return fields[0].decode()
        return ""


class Proxy:
    """Listens on loopback and passes on to what `opened` opens. `rules` need PostgreSQL on the other side."""

    def __init__(self, opened: Open) -> None:
        self.mode = "pass"
        self.amount = 0.0
        self.rules: list[Rule] = []
        self._open = opened
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.heal()
        self.sever()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def at(self, action: str, statement: str, *, times: int = 1_000_000) -> Rule:
        """A rule that holds from now on."""
        rule = Rule(action, statement, times)
        self.rules.append(rule)
        return rule

    def heal(self) -> None:
        """Pass everything again; what is held is dropped."""
        self.mode = "pass"
        for rule in self.rules:
            rule.end("drop")
        self.rules.clear()

    def sever(self) -> None:
        """Cut every connection there is."""
        for link in list(self._links):
            link.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "refuse":
            writer.transport.abort()
            return
        if self.mode == "hang":
            with suppress(OSError):
                await reader.read(-1)
            writer.close()
            return
        try:
            upstream = await self._open()
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, (reader, writer), upstream)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)


class _Link:
    """One connection through the proxy."""

    def __init__(
        self,
        proxy: Proxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client_reader, self._client = client
        self._upstream_reader, self._upstream = upstream
        self._after: Rule | None = None
        self._answered = 0

    async def run(self) -> None:
        """Pass on in both directions until both have ended."""
        down = asyncio.create_task(self._down())
        try:
            with suppress(OSError):
                await self._up()
        finally:
            with suppress(OSError):
                self._upstream.close()
            await down

    def abort(self, *, reset: bool = False) -> None:
        """Cut it, with a FIN or a reset."""
        if reset:
            self._client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self._client.transport.abort()
        self._upstream.transport.abort()

    async def _up(self) -> None:
        statements = Statements()
        while data := await self._client_reader.read(65536):
            for message, statement in statements.feed(data):
                await self._deliver(message, statement)
            await self._upstream.drain()

    async def _deliver(self, message: bytes, statement: str) -> None:
        rule = self._rule(statement) if statement else None
        if rule is not None:
            rule.hits += 1
            if rule.action == "before":
                await rule.decided.wait()
                if rule.verdict == "drop":
                    self.abort()
                    return
            else:
                self._after = rule
        self._upstream.write(message)

    def _rule(self, statement: str) -> Rule | None:
        return next((rule for rule in self._proxy.rules if rule.matches(statement)), None)

    async def _down(self) -> None:
        with suppress(OSError):
            while data := await self._upstream_reader.read(65536):
                if self._after is not None:
                    if self._after.action == "after":
                        await self._after.decided.wait()
                    self.abort()
                    return
                if not await self._pass_down(data):
                    return
        with suppress(OSError):
            self._client.close()

    async def _pass_down(self, data: bytes) -> bool:
        mode, amount = self._proxy.mode, self._proxy.amount
        if mode == "half":
            return True
        if mode == "delay":
            await asyncio.sleep(amount)
        if mode in ("cut", "rst") and self._answered + len(data) >= amount:
            self._client.write(data[: max(0, int(amount) - self._answered)])
            self.abort(reset=mode == "rst")
            return False
        self._answered += len(data)
        self._client.write(data)
        await self._client.drain()
        return True
