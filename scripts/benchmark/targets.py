"""What is measured, as the load sees it: a port, and the processes behind it. Here are the two floors, the mock and
nginx in front of it; `gateway` and `peers` start the others.

All targets get the same request but for the caller's headers, and all stand before the same mock. What is measured
has one core; the mock, the load and the stores share the others.
"""

import base64
import contextlib
import http.client
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .system import Cores, cpu_of, free_port, program, resident_bytes, running, wait_until

DIRECT, NGINX, GATEWAY, KEYED, LITELLM, PORTKEY = "direct", "nginx", "aigate", "aigate, keyed", "litellm", "portkey"
PEERS = (LITELLM, PORTKEY)
NGINX_CONFIGURATION = """
daemon off; master_process off; error_log stderr crit; pid {folder}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
    access_log off; tcp_nodelay on; keepalive_requests 1000000000; client_max_body_size 0;
    client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi; uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    upstream mock {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
        }}
    }}
}}
"""
Pids = Callable[[], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked: about so many bytes of text, or of an image in base64."""

    size: int = 200
    image: bool = False

    def content(self) -> object:
        if not self.image:
            return "word " * (self.size // 5)
        data = base64.b64encode(b"\x89PNG\r\n\x1a\n".ljust(self.size * 3 // 4, b"\xa5")).decode()
        return [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}]


@dataclass(frozen=True, slots=True)
class Process:
    """One that was started to be measured: how long each start took, in seconds, and its RSS after the last."""

    pid: int
    start_seconds: Sequence[float]
    idle_bytes: int

    @classmethod
    def of(cls, pid: int, *start_seconds: float) -> "Process":
        return cls(pid, start_seconds, resident_bytes(pid))


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers on one port, or on several in turn.

    `watched`: processes whose CPU is counted, by the name in the table. `varying` makes header lines of the number of
    the load and of the request in it.
    """

    name: str
    ports: Sequence[int]
    headers: bytes = b""
    watched: Mapping[str, Pids] = field(default_factory=dict)
    varying: Callable[[int, int], bytes] | None = None
    process: Process | None = None

    def request(self, model: str, *, stream: bool, prompt: Prompt) -> tuple[bytes, bytes]:
        """The request in two parts, between which a header may be put."""
        document = {"model": f"openai:{model}", "messages": [{"role": "user", "content": prompt.content()}]}
        body = json.dumps({**document, "stream": True} if stream else document).encode()
        before = b"POST /v1/chat/completions HTTP/1.1\r\nhost: benchmark\r\n" + self.headers
        return before, b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    def cpu(self) -> dict[str, dict[int, float]]:
        """CPU seconds so far of each watched process."""
        return {name: {pid: cpu_of([pid]).total for pid in pids()} for name, pids in self.watched.items()}


@contextlib.contextmanager
def mock(folder: Path) -> Iterator[Target]:
    """The provider, asked directly."""
    port = free_port()
    command = [sys.executable, "-m", "benchmark.upstream", str(port)]
    with (
        open(folder / "mock.log", "wb") as log,
        running(command, folder=folder, environment=os.environ, output=log),
    ):
        wait_until(lambda: answers(port, "/bill"), "the mock provider's start")
        yield Target(DIRECT, [port])


def bill(upstream: Target) -> dict[str, int]:
    """The provider's own count of what it answered to the gateway."""
    connection = http.client.HTTPConnection("127.0.0.1", upstream.ports[0], timeout=5)
    try:
        connection.request("GET", "/bill")
        return dict(json.loads(connection.getresponse().read()))
    finally:
        connection.close()


@contextlib.contextmanager
def nginx(folder: Path, upstream: Target, cores: Cores) -> Iterator[Target | None]:
    """nginx as one process on the measured core, buffering nothing; `None` where it is not installed."""
    found = program("nginx")
    if found is None:
        yield None
        return
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX_CONFIGURATION.format(folder=folder, upstream=upstream.ports[0], port=port))
    command = [found, "-p", str(folder), "-e", "stderr", "-c", str(configuration)]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(folder / "nginx.log", "wb"))
        with cores.measured_here():
            process = stack.enter_context(running(command, folder=folder, environment=os.environ, output=log))
        seconds = wait_until(lambda: answers(port, "/bill"), "nginx's start")
        watched = {"itself": lambda: [process.pid]}
        yield Target(NGINX, [port], watched=watched, process=Process.of(process.pid, seconds))


def answers(port: int, path: str) -> bool:
    """Whether `path` is answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
