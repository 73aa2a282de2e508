"""Wall clocks that jump under running replicas: by libfaketime where it is installed, else from inside of Python."""

import asyncio
import random
import struct
from functools import partial
from pathlib import Path

from tests.faults.provider import Plan
from tests.faults.site import Site, complaints
from tests.running import eventually

HOUR = 3600.0
DAY = 24 * HOUR
JUMPS = {"an hour ahead": HOUR, "an hour back": -HOUR, "a day ahead": DAY}
LIBRARIES = "lib/*/faketime/libfaketimeMT.so.1"
"""Where Debian and Ubuntu put libfaketime, below /usr."""
SHIFTED = Path(__file__).parent / "shifted_clock"


class Clock:
    """The wall clock of one replica; `environment` lets the replica see it."""

    def __init__(self, folder: Path, name: str, library: Path | None = None) -> None:
        self._file = folder / f"{name}.clock"
        self._library = library
        self.jump(0.0)

    @property
    def environment(self) -> dict[str, str]:
        if self._library is None:
            return {"PYTHONPATH": str(SHIFTED), "AIGATE_FAULTS_CLOCK": str(self._file)}
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: float) -> None:
        """From now on the clock is off by so many seconds."""
        written = struct.pack("d", seconds) if self._library is None else f"{seconds:+f}".encode()
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(written)
            file.truncate()


def libfaketime() -> Path | None:
    """The library, where it is installed."""
    return next(iter(sorted(Path("/usr").glob(LIBRARIES))), None)


async def clock_jumps(site: Site, chance: random.Random, seconds: float, count: int = 24) -> list[str]:
    """The clock of one replica jumps with calls in it; then that replica dies."""
    victim, other = site.pair(chance)
    clock = Clock(site.folder, site.replicas[victim].name, libfaketime())
    await site.replicas[victim].stop()
    await site.replicas[victim].start(**clock.environment)
    before = site.calls("clock", count, plan=Plan(words=5, pause=0.01, hold="middle"))
    lonely = site.calls("clock-unkeyed", count // 2, keyed=False, plan=Plan(words=5, hold="middle"))
    site.provider.hold()
    asking = [asyncio.create_task(site.insist(call, victim)) for call in before]
    once = [asyncio.create_task(site.attempt(call, victim)) for call in lonely]
    await eventually(partial(site.provider.held, [call.name for call in before + lonely]), within=20)
    clock.jump(seconds)
    attached = [asyncio.create_task(site.insist(call, other)) for call in before]
    after = await site.all_insist(calls := site.calls("clock-after", count))
    site.provider.released.set()
    replies = [*after, *await asyncio.gather(*asking, *attached)]
    broken = [f"{call.name}: broke" for call, task in zip(lonely, once, strict=True) if await task is None]
    upstream = [
        f"{call.name}: {len(site.provider.bill[call.name])} upstream calls"
        for call in before + calls
        if len(site.provider.bill[call.name]) != 1
    ]
    unmoved = [] if await _has_jumped(site, [call.name for call in calls], seconds) else ["no clock has jumped"]
    dying = await _dies(site, victim)
    return [
        *complaints(site, replies),
        *broken,
        *upstream,
        *unmoved,
        *dying,
        *await site.balance(before + lonely + calls),
    ]


async def _has_jumped(site: Site, names: list[str], seconds: float) -> bool:
    """Whether some of these calls were named by a clock so far off: the first 48 bits are its milliseconds."""
    rows = await site.rows("select request_id, opened_at from calls where model = any($1)", names)
    offsets = [(row["request_id"].int >> 80) / 1000 - row["opened_at"].timestamp() for row in rows]
    return any(abs(offset - seconds) < 60 for offset in offsets)


async def _dies(site: Site, victim: int, count: int = 6) -> list[str]:
    """The lease of a dead replica runs out in time, whatever its clock said."""
    calls = site.calls("clock-death", count, plan=Plan(words=5, hold="middle"))
    site.provider.hold()
    asking = [asyncio.create_task(site.insist(call, victim)) for call in calls]
    await eventually(partial(site.provider.held, [call.name for call in calls]), within=20)
    await site.kill(victim)
    site.provider.released.set()
    _, replies = await asyncio.gather(site.replicas[victim].start(), asyncio.gather(*asking))
    return [*complaints(site, replies), *await site.balance(calls)]
