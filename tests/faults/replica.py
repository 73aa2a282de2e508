"""A replica of the gateway as a process of its own, that can be killed, stopped and looked into."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
PORTS = range(20_000, 32_000)
"""Below those that the system gives to outgoing connections: a replica comes back where it was."""


@dataclass
class Replica:
    """`aigate serve` with these variables; its log goes to `folder`."""

    name: str
    folder: Path
    environment: dict[str, str]
    port: int = field(default_factory=lambda: free_port())
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    async def start(self, **variables: str) -> None:
        """Return once it answers."""
        self.process = self._launch(variables)
        await self._answers()

    def kill(self) -> None:
        """`kill -9`."""
        self._signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Shut down in order, and return once it has ended."""
        if self.runs:
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGTERM)
            assert self.process is not None
            await asyncio.to_thread(self.process.wait, 30)

    def sockets(self) -> int:
        """How many sockets it has open."""
        count = 0
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                count += os.readlink(entry).startswith("socket:")
            except FileNotFoundError:
                continue
        return count

    def resident(self) -> int:
        """Its memory, in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def log_end(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()[-3000:]

    def _launch(self, variables: dict[str, str]) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, **self.environment, **variables, "AIGATE_PORT": str(self.port)}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (variables.get("PYTHONPATH"), str(ROOT))))
        with (self.folder / f"{self.name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "aigate", "serve"],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _answers(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(1500):
                if not self.runs:
                    raise AssertionError(f"replica {self.name} ended:\n{self.log_end()}")
                try:
                    await client.get(f"{self.url}/health")
                except httpx.TransportError:
                    await asyncio.sleep(0.02)
                else:
                    return
        raise AssertionError(f"replica {self.name} does not answer:\n{self.log_end()}")

    def _signal(self, number: signal.Signals) -> None:
        if self.runs:
            os.kill(self.pid, number)


def free_port() -> int:
    """A port that nobody listens on."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
