"""Why: several processes share one server: a gateway, its tests, a second gateway, one that was killed. Each
must find the running one or start it, and only the last may stop it, whatever happened to the others.

Below the folder of a server, three files are locked and never removed:
`start.lock`   by whoever starts or stops, for that moment, so that first starts do not race;
`users.lock`   shared, by each user for its lifetime, so that the last one knows that it is the last;
`server.lock`  by the server's own processes, which inherit it: free means that every one of them is dead.
"""

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from aigate.embedded import locks, temporary
from aigate.embedded.process import EmbeddedError, Program, detach, last_lines

_START_LIMIT = 60.0  # seconds; recovery after a crash is part of a start
_STOP_LIMIT = 30.0  # seconds for each signal
_ANSWER_LIMIT = 1.0  # seconds
_PAUSE = 0.005  # seconds between two looks


@dataclass(frozen=True, slots=True)
class Service:
    """A kind of server in one folder.

    `prepare` is called only when a server must be started: it makes its data ready and says how to run it.
    `is_ready` says whether the running one takes connections. `stop_signals` go from polite to final.
    """

    name: str
    folder: Path
    prepare: Callable[[], Program]
    is_ready: Callable[[], bool]
    stop_signals: tuple[signal.Signals, ...]
    litter: tuple[Path, ...] = ()

    def join(self) -> "Membership":
        """Start the server or adopt the running one; returns once it takes connections.

        Raises `EmbeddedError` with the end of the server's log if it does not come up.
        """
        with locks.exclusive(self.folder / "start.lock"):
            membership = Membership(self, locks.shared(self.folder / "users.lock"))
            try:
                self._bring_up()
            except BaseException:
                membership.end()
                raise
            return membership

    def is_alive(self) -> bool:
        """Whether any process of the server lives, the orphans of a killed one included."""
        return locks.is_held(self.folder / "server.lock")

    def shut_down(self) -> None:
        """End the server and wait until all its processes are gone; the caller holds `start.lock`."""
        for attempt in self.stop_signals:
            if not self.is_alive():
                break
            with suppress(ProcessLookupError):
                os.kill(self._pid(), attempt)
            _wait(lambda: not self.is_alive(), _STOP_LIMIT)
        if self.is_alive():
            raise EmbeddedError(f"the embedded {self.name} in {self.folder} does not stop")
        for path in self.litter:
            temporary.remove(path)

    def _bring_up(self) -> None:
        launched = False

        def up() -> bool:
            nonlocal launched
            if self.is_alive():
                return self.is_ready()
            if launched:
                raise EmbeddedError(f"the embedded {self.name} ended at once; its log says:\n{self._log_end()}")
            self._launch()
            launched = True
            return False

        if not _wait(up, _START_LIMIT):
            raise EmbeddedError(f"the embedded {self.name} does not get ready:\n{self._log_end()}")

    def _launch(self) -> None:
        program = self.prepare()
        with locks.exclusive(self.folder / "server.lock") as lock:
            detach(program, pid_file=self.folder / "pid", log_file=self.folder / "log", keep_open=lock)

    def _pid(self) -> int:
        try:
            return int((self.folder / "pid").read_text())
        except ValueError as error:
            raise EmbeddedError(f"{self.folder}/pid does not name the running {self.name}: end it by hand") from error

    def _log_end(self) -> str:
        log = self.folder / "log"
        return last_lines(log.read_text(errors="replace")) if log.exists() else f"  (no {log})"


@dataclass(slots=True)
class Membership:
    """One user's share in a running server. Keep it: a process that ends without `leave` counts as gone."""

    service: Service
    _users: int | None = field(repr=False)

    def leave(self) -> None:
        """Stop using the server; the last user to leave stops it. Safe to call again.

        Raises `EmbeddedError` if the server does not stop.
        """
        if self._users is None:
            return
        try:
            with locks.exclusive(self.service.folder / "start.lock"):
                self.end()
        except FileNotFoundError as error:
            raise EmbeddedError(f"{error.filename} was removed while its server ran: end that by hand") from error

    def end(self) -> None:
        """`leave` for a caller who holds `start.lock`."""
        users, self._users = self._users, None
        if users is None:
            return
        try:
            if locks.is_last_holder(users):
                self.service.shut_down()
        finally:
            os.close(users)


def private_folder(path: Path) -> Path:
    """Make `path`, readable only by us, if it is not there; what already exists keeps its permissions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    return path.resolve()


def answers(path: Path, question: bytes, answer: bytes) -> bool:
    """Whether the server on the unix socket `path` begins its reply to `question` with `answer`.

    That it takes the connection would not be enough: a process that is being killed still does.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_ANSWER_LIMIT)
        try:
            client.connect(str(path))
            client.sendall(question)
            return client.recv(len(answer)) == answer
        except OSError:
            return False


def _wait(condition: Callable[[], bool], limit: float) -> bool:
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True
