"""A provider that answers each call with the case that its `model` names: whole, in small pieces, or cut off."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

from tests.upstream import Asked
from tests.wire.recordings import Case

Ending = Literal["whole", "dropped", "ended"]

PACED = 100
"""Pieces at either end of an answer that go out one by one; a socket glues together what lies between them."""
SEEN = 0.03
"""Seconds that a cut answer stays open, where all of what has been sent must have been read."""


@dataclass(frozen=True, slots=True)
class Playing:
    """How a case is played: `piece` bytes at a time (0: an event at a time), up to `end`, and then?

    `dropped` resets the connection; `ended` ends the body as if it were whole. `linger`: what was sent is read first.
    """

    case: Case
    piece: int = 0
    end: int | None = None
    ending: Ending = "whole"
    linger: bool = False

    @property
    def body(self) -> bytes:
        return self.case.body[: self.end]

    def pieces(self) -> list[bytes]:
        body = self.body
        if self.piece:
            return [body[start : start + self.piece] for start in range(0, len(body), self.piece)]
        return [part + b"\n\n" for part in body.split(b"\n\n")[:-1]] + [body.rpartition(b"\n\n")[2]]


@dataclass
class Replay:
    """The behaviour of a `FakeProvider`."""

    playing: dict[str, Playing] = field(default_factory=dict)

    def play(self, playing: Playing) -> None:
        self.playing[playing.case.model] = playing

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        playing = self.playing[_model(asked)]
        lines = [f"{name}: {value}" for name, value in playing.case.answer_headers().items()]
        head = "\r\n".join([f"HTTP/1.1 {playing.case.status} Recorded", *lines])
        if not playing.case.streamed:
            writer.write(_encoded(f"{head}\r\ncontent-length: {len(playing.case.body)}\r\n\r\n") + playing.body)
            await writer.drain()
        else:
            writer.write(_encoded(f"{head}\r\ntransfer-encoding: chunked\r\n\r\n"))
            await _stream(playing, writer)
        if playing.ending == "dropped":
            await asyncio.sleep(SEEN if playing.linger else 0)
            writer.close()


def _model(asked: Asked) -> str:
    """The model that is asked for: AWS's address holds it, and Google's."""
    found = re.search(r"/model/([^/]+)/converse|/models/([^/:]+):\w*[gG]enerateContent", asked.path)
    return unquote(found[1] or found[2]) if found else asked.document["model"]


async def _stream(playing: Playing, writer: asyncio.StreamWriter) -> None:
    for data in _paced([b"%x\r\n%s\r\n" % (len(piece), piece) for piece in playing.pieces() if piece]):
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(0)
    if playing.ending != "dropped":
        writer.write(b"0\r\n\r\n")


def _paced(pieces: list[bytes]) -> Iterator[bytes]:
    yield from pieces[:PACED]
    if middle := b"".join(pieces[PACED:-PACED]):
        yield middle
    yield from pieces[max(PACED, len(pieces) - PACED) :]


def _encoded(head: str) -> bytes:
    return head.encode("latin-1", "replace")
