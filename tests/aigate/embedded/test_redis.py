"""Real redis-servers in a temporary folder, shared, killed and adopted."""

import os
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import redis.asyncio

from aigate.embedded import EmbeddedError, start_redis
from aigate.embedded.process import wheel

from .conftest import Owner, Stoppable, lives, wait_until_dead

Owning = Callable[..., Owner]
Ending = Callable[[Stoppable], Stoppable]


async def answers(url: str) -> bool:
    """Whether a Redis takes commands at `url`."""
    async with redis.asyncio.from_url(url) as client:
        await client.set("key", "value")
        return bool(await client.get("key") == b"value")


def pid(data_dir: Path) -> int:
    """The pid of the running server."""
    return int((data_dir / "redis" / "pid").read_text())


async def test_it_answers_below_any_path(tmp_path: Path, ending: Ending) -> None:
    """redis-py takes the url, blanks and all; only we may enter the folder."""
    server = ending(start_redis(tmp_path / "a b,c%20é"))
    assert await answers(server.url)
    assert stat.S_IMODE((tmp_path / "a b,c%20é" / "redis").stat().st_mode) == 0o700


async def test_a_path_too_long_for_a_socket(tmp_path: Path, ending: Ending) -> None:
    """Below a very long path the server is reached through a short link."""
    assert await answers(ending(start_redis(tmp_path / ("long" * 40))).url)


async def test_it_writes_nothing(tmp_path: Path) -> None:
    """It lends speed only: nothing is left but locks, logs and its pid."""
    server = start_redis(tmp_path)
    assert await answers(server.url)
    server.stop()
    assert {path.name for path in (tmp_path / "redis").iterdir()} == {
        "log",
        "pid",
        "server.lock",
        "start.lock",
        "users.lock",
    }


async def test_the_last_user_stops_it(tmp_path: Path) -> None:
    """The first stop leaves it running, the second ends it, a third does nothing."""
    first, second = start_redis(tmp_path), start_redis(tmp_path)
    first.stop()
    first.stop()
    assert await answers(second.url)
    second.stop()
    assert not lives(tmp_path / "redis")


async def test_the_server_of_a_killed_owner_is_adopted(tmp_path: Path, owner: Owning) -> None:
    """`kill -9` of its owner leaves it running; the next start takes the same one, the stop ends it."""
    killed = owner("redis", tmp_path)
    url, server = killed.url(), pid(tmp_path)
    killed.kill()
    adopted = start_redis(tmp_path)
    assert (adopted.url, pid(tmp_path)) == (url, server)
    assert await answers(url)
    adopted.stop()
    assert not lives(tmp_path / "redis")


async def test_simultaneous_first_starts_share_one_server(tmp_path: Path, owner: Owning) -> None:
    """First starts do not race, and the last leave ends the one server."""
    owners = [owner("redis", tmp_path) for _ in range(3)]
    urls = {each.url() for each in owners}
    assert len(urls) == 1
    assert await answers(urls.pop())
    for each in owners:
        each.leave()
    assert not lives(tmp_path / "redis")


async def test_a_killed_server_is_started_again(tmp_path: Path, ending: Ending) -> None:
    """After `kill -9` of the server, and with a stranger's pid in its file, the next start works."""
    first = ending(start_redis(tmp_path))
    os.kill(pid(tmp_path), signal.SIGKILL)
    wait_until_dead(tmp_path / "redis")
    (tmp_path / "redis" / "pid").write_text(f"{os.getpid()}\n")
    second = ending(start_redis(tmp_path))
    assert await answers(second.url)
    assert await answers(first.url)


def test_a_removed_folder_is_named(tmp_path: Path) -> None:
    """Whoever deletes the data under a running server is told that it goes on."""
    server = start_redis(tmp_path)
    running = pid(tmp_path)
    shutil.rmtree(tmp_path / "redis")
    with pytest.raises(EmbeddedError, match="was removed"):
        server.stop()
    os.kill(running, signal.SIGTERM)


def test_a_missing_wheel_says_what_to_do() -> None:
    """Where there is no wheel the message names the extra and the two variables."""
    with pytest.raises(EmbeddedError, match=r"aigate\[dev\].*DATABASE_URL.*REDIS_URL"):
        wheel("no_such_wheel")
