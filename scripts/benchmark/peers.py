"""Other gateways, measured beside ours in the same run: LiteLLM's proxy and Portkey's gateway, as lean as they go.

Theirs is switched off what ours has on: no database, no Redis, no metering, no log of calls; one process on the
measured core. They are optional, pinned, and each is installed into its own folder of the user's cache.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from . import cache
from .gateway import authorization
from .system import Cores, family_of, free_port, program, running, wait_until
from .targets import LITELLM, PORTKEY, Process, Target, answers

PATIENCE = 90.0
"""Seconds that a peer may take to start."""
PEER_KEY = "sk-peer"
"""What the mock is shown: calls by a peer are on nobody's bill."""
INHERITED = ("PATH", "HOME")
"""Of the caller's environment: a database or a Redis that is named there is not theirs to find."""


class Peer(Protocol):
    """How one is installed, started and asked."""

    name: ClassVar[str]
    package: ClassVar[str]
    ready: ClassVar[str]
    environment: ClassVar[Mapping[str, str]]

    @property
    def place(self) -> Path: ...
    def missing(self) -> str: ...
    def install(self, folder: Path) -> None: ...
    def command(self, folder: Path, port: int, upstream: str) -> Sequence[str]: ...
    def headers(self, upstream: str) -> bytes: ...


class LiteLLM:
    """From PyPI, in a virtual environment. It does not start without a master key."""

    name: ClassVar[str] = LITELLM
    package: ClassVar[str] = "litellm[proxy]==1.108.7"
    ready: ClassVar[str] = "/health/liveliness"
    environment: ClassVar[Mapping[str, str]] = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_TELEMETRY": "False",
    }
    key: ClassVar[str] = f"sk-{secrets.token_hex(24)}"

    @property
    def place(self) -> Path:
        return cache.place(self.package.replace("[proxy]==", "-"))

    def missing(self) -> str:
        return ""

    def install(self, folder: Path) -> None:
        cache.venv(self.package)(folder)

    def command(self, folder: Path, port: int, upstream: str) -> Sequence[str]:
        configuration = folder / "litellm.yaml"
        configuration.write_text(json.dumps(self.configuration(upstream)))  # JSON is YAML
        options = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
        return [str(self.place / "bin" / "litellm"), "--config", str(configuration), *options]

    def configuration(self, upstream: str) -> dict[str, object]:
        model = {"model": "openai/*", "api_base": upstream, "api_key": PEER_KEY}
        return {
            "model_list": [{"model_name": "openai:*", "litellm_params": model}],
            "litellm_settings": {"telemetry": False, "callbacks": [], "disable_streaming_logging": True},
            "general_settings": {
                "master_key": self.key,
                "disable_spend_logs": True,
                "disable_spend_updates": True,
                "disable_error_logs": True,
            },
        }

    def headers(self, upstream: str) -> bytes:
        return authorization(self.key)


class Portkey:
    """From npm. With later versions of its HTTP server each stream fails; by itself it listens on all interfaces."""

    name: ClassVar[str] = PORTKEY
    package: ClassVar[str] = "@portkey-ai/gateway@1.15.2"
    server: ClassVar[str] = "1.13.8"
    ready: ClassVar[str] = "/"
    environment: ClassVar[Mapping[str, str]] = {"NODE_ENV": "production"}
    loopback: ClassVar[str] = """
const { Server } = require("node:net");
const listen = Server.prototype.listen;
Server.prototype.listen = function (port, _host, ...rest) {
  return listen.call(this, port, "127.0.0.1", ...rest);
};
"""

    @property
    def place(self) -> Path:
        return cache.place(f"portkey-{self.package.rpartition('@')[2]}")

    def missing(self) -> str:
        return ", ".join(name for name in ("node", "npm") if program(name) is None)

    def install(self, folder: Path) -> None:
        name, _, version = self.package.rpartition("@")
        wanted = {
            "private": True,
            "dependencies": {name: version},
            "overrides": {"@hono/node-server": self.server},
        }
        (folder / "package.json").write_text(json.dumps(wanted))
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        cache.command(["npm", "install", *options], folder)

    def command(self, folder: Path, port: int, upstream: str) -> Sequence[str]:
        preload = folder / "loopback.cjs"
        preload.write_text(self.loopback)
        server = self.place / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
        return ["node", "--require", str(preload), str(server), f"--port={port}", "--headless"]

    def headers(self, upstream: str) -> bytes:
        lines = b"x-portkey-provider: openai\r\nx-portkey-custom-host: %s\r\n" % upstream.encode()
        return lines + authorization(PEER_KEY)


ALL: tuple[Peer, ...] = (LiteLLM(), Portkey())


@contextlib.contextmanager
def started(folder: Path, upstream: Target, cores: Cores, *, install: bool) -> Iterator[list[Target]]:
    """Those that are installed, and, if it is wanted, those that can be; each on the measured core."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(_running(peer, folder, upstream, cores))
            for peer in ALL
            if not peer.missing() and (install or cache.is_installed(peer.place))
        ]


def environment(peer: Peer, callers: Mapping[str, str]) -> dict[str, str]:
    """What a peer is started with."""
    return {name: callers[name] for name in INHERITED if name in callers} | dict(peer.environment)


def left_out() -> dict[str, str]:
    """The peers that cannot be installed here, and what they lack."""
    return {peer.name: peer.missing() for peer in ALL if peer.missing()}


@contextlib.contextmanager
def _running(peer: Peer, folder: Path, upstream: Target, cores: Cores) -> Iterator[Target]:
    cache.installed(peer.place, peer.install)
    own = folder / peer.name
    own.mkdir()
    port, address = free_port(), f"http://127.0.0.1:{upstream.ports[0]}/v1"
    command = peer.command(own, port, address)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(own / "log", "wb"))
        with cores.measured_here():
            process = stack.enter_context(
                running(command, folder=own, environment=environment(peer, os.environ), output=log)
            )
        seconds = wait_until(lambda: answers(port, peer.ready), f"the start of {peer.name}", within=PATIENCE)
        watched = {"itself": lambda: family_of(process.pid)}
        about = Process.of(process.pid, seconds)
        yield Target(peer.name, [port], peer.headers(address), watched, process=about)
