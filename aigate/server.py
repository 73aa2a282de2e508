"""HTTP/1 for uvicorn, bounded: time for the head and for a client to read, size of the head, JSON answers.

uvicorn's own protocol costs a fifth of a call, and its time-outs begin after the first request and end with the next
byte, so that a client that sends one byte of a header, or of a body that was refused, would hold a connection for
ever, and one that sends headers without end would fill the memory.

A connection has one deadline at a time, and none while it is answering: what the client owes until then is the head
of its first request, the rest of a message that it has begun, or nothing but to use the connection again; once the
connection closes, to read what is left. A timer looks at the deadline now and then, so that a call only notes it.
"""

import asyncio
import logging
from collections import deque
from functools import lru_cache
from itertools import chain
from typing import Any
from urllib.parse import unquote

import httptools
import orjson
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from aigate.cycle import Cycle
from middleware.asgi import RawHeaders
from middleware.faults import CallerFault

DEFAULT_HEADER_TIMEOUT = 10.0
DEFAULT_WRITE_TIMEOUT = 60.0
LARGEST_HEAD = 64 * 1024
"""Bytes of request line and headers."""
AROUND_A_HEADER = len(b": \r\n")
LARGEST_IGNORED = 64 * 1024 * 1024
"""Bytes of a body that may still arrive after it has been refused, so that its sender can read the refusal."""
REFUSAL = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
MOST_WAITING = 32
"""Requests on a connection behind the one that is answered: one read can bring thousands, a kilobyte each."""
UPGRADE = b"upgrade"
SHORTEST_WAIT = 0.05
"""Seconds between two looks at a deadline, at least: a time-out of 0 must not keep the loop busy."""
NEVER = float("inf")

_logger = logging.getLogger("uvicorn.error")


class BoundedProtocol(asyncio.Protocol):
    """One connection: what uvicorn makes for each, and what httptools tells of the bytes that come.

    It takes of uvicorn's configuration what `aigate.serve` gives; there is no access log, WebSocket or root path.
    The application sets `state["header_timeout"]` and `state["write_timeout"]` (seconds) at start-up.
    """

    transport: asyncio.Transport
    flow: FlowControl

    _cycle: Cycle
    """The last request whose head has come."""
    _answered: Cycle | None = None
    """The one that is being answered."""
    _timer: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _deadline = NEVER
    _head_is_open = True
    """A head is owed: the first of the connection, or the rest of one that has begun."""
    _unread = 0
    """Bytes that have come and are neither a whole head nor body."""
    _url = b""
    _scope: dict[str, Any]
    """Of each request of the connection, before it says what it is for."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._app = config.loaded_app
        self._asgi = {"version": config.asgi_version, "spec_version": "2.3"}
        self._keep_alive = float(config.timeout_keep_alive)
        self.server_state = server_state
        self._state = app_state
        self._header_timeout = float(app_state.get("header_timeout", DEFAULT_HEADER_TIMEOUT))
        self._write_timeout = float(app_state.get("write_timeout", DEFAULT_WRITE_TIMEOUT))
        self._loop = _loop or asyncio.get_running_loop()
        self._headers: RawHeaders = []
        self._queue: deque[Cycle] = deque()
        self._parser = httptools.HttpRequestParser(self)
        # what a client sends on behind a request with `connection: close` must not take away the answer to that
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)

    # --- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.server_state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own
        self.transport = transport
        self.flow = FlowControl(transport)
        self._scope = {
            "type": "http",
            "asgi": self._asgi,
            "http_version": "1.1",
            "method": "",
            "scheme": "https" if is_ssl(transport) else "http",
            "path": "",
            "raw_path": b"",
            "query_string": b"",
            "root_path": "",
            "headers": [],
            "client": get_remote_addr(transport),
            "server": get_local_addr(transport),
            "state": {},
        }
        self._allow(self._header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server_state.connections.discard(self)
        self._deadline = NEVER
        if self._timer is not None:
            self._timer.cancel()
        self.resume_writing()
        if self._answered is not None:
            self._answered.disconnect()
        self._queue.clear()
        del self._parser  # it holds this connection

    def data_received(self, data: bytes) -> None:
        had_begun = self._head_is_open and self._deadline != NEVER  # its time runs already
        self._unread += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as wish:
            self._unread = 0
            self.data_received(self._head_without_wish() + data[wish.args[0] :])
        except httptools.HttpParserError:
            _logger.warning("Invalid HTTP request received.")
            self._refuse(b"400 Bad Request", "Invalid HTTP request received.")
        else:
            if self._head_is_open and not had_begun and self._answered is None:
                self._allow(self._header_timeout)
        if self._unread > LARGEST_HEAD:
            self._refuse_head()

    def eof_received(self) -> None:
        """The client has gone, or sends nothing more: nobody can tell which, and the connection ends."""
        self.close()

    def pause_writing(self) -> None:
        """A client that does not read must not hold its call, nor who waits for the same answer."""
        self.flow.pause_writing()
        self._stalled = self._loop.call_later(self._write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def shutdown(self) -> None:
        """uvicorn's wish that the connection ends as soon as nothing is being answered."""
        if self._answered is None:
            self.close()
        else:
            self._cycle.keep_alive = False

    def close(self) -> None:
        """End the connection as soon as the client has what has been written, or has not read it in time."""
        self.transport.close()
        self._allow(self._write_timeout)

    # --- what the parser finds

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._head_is_open = True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._unread > LARGEST_HEAD and self._is_large():
            self._refuse_head()
            raise ValueError("the head is too large")  # ends the parsing
        if self._parser.should_upgrade() and self._wishes():
            return  # the head is told again
        self._head_is_open = False
        self._unread = 0
        cycle = self._cycle = self._request()
        if self._answered is None:
            self._start(cycle)
        elif len(self._queue) < MOST_WAITING:
            self._queue.append(cycle)
            self.flow.pause_reading()
        else:
            raise ValueError("too many requests wait for their turn")

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        cycle = self._cycle
        if not cycle.complete:
            cycle.feed(body)
            return
        cycle.ignored += len(body)
        if cycle.ignored > LARGEST_IGNORED:
            self.close()

    def on_message_complete(self) -> None:
        if self._head_is_open:
            return
        self._unread = 0
        self._cycle.end_body()
        if self._answered is None:
            self._allow(self._keep_alive)

    def _is_large(self) -> bool:
        size = len(self._url) + AROUND_A_HEADER * len(self._headers)
        return size + sum(map(len, chain(*self._headers))) > LARGEST_HEAD

    def _wishes(self) -> bool:
        """Whether a header wishes for another protocol; the method CONNECT is no such wish, and has no path."""
        return any(name == UPGRADE for name, _ in self._headers)

    def _head_without_wish(self) -> bytes:
        """The head that has just come, for a parser that would take its body for bytes of another protocol.

        Nobody offers one, and HTTP lets a server ignore the wish; who sends a body with it means it as one.
        """
        parser = self._parser
        lines = [b"%b %b HTTP/%b" % (parser.get_method(), self._url, parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self._headers if header[0] != UPGRADE]
        return b"\r\n".join((*lines, b"", b""))

    def _request(self) -> Cycle:
        parser = self._parser
        headers, self._headers = self._headers, []  # what comes behind a body is nobody's
        path, raw_path, query = _parts(self._url)
        version = parser.get_http_version()
        scope = self._scope.copy()
        scope["http_version"] = version
        scope["method"] = parser.get_method().decode()
        scope["path"] = path
        scope["raw_path"] = raw_path
        scope["query_string"] = query
        scope["headers"] = headers
        scope["state"] = self._state.copy()
        return Cycle(self, scope, version != "1.0" and parser.should_keep_alive())

    # --- one after the other

    def _start(self, cycle: Cycle) -> None:
        self._deadline = NEVER
        self._answered = cycle
        cycle.task = asyncio.Task(cycle.run(self._app), loop=self._loop, name="request")  # a number for a name costs
        self.server_state.tasks.add(cycle.task)

    def answered(self) -> None:
        self._answered = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self._queue:
            self._start(self._queue.popleft())
        elif self._head_is_open or self._cycle.more_body:
            self._allow(self._header_timeout)
        else:
            self._allow(self._keep_alive)

    # --- what a client must not do

    def _allow(self, seconds: float) -> None:
        """The client has so long to go on."""
        self._deadline = self._loop.time() + seconds
        if self._timer is None:
            self._look_after(seconds)

    def _look_after(self, seconds: float) -> None:
        shortest = min(self._header_timeout, self._keep_alive, self._write_timeout)  # that could be noted until then
        self._timer = self._loop.call_later(min(seconds, max(shortest, SHORTEST_WAIT)), self._look)

    def _look(self) -> None:
        self._timer = None
        if self._deadline == NEVER:
            return
        left = self._deadline - self._loop.time()
        if left > 0:
            self._look_after(left)
        elif self.transport.is_closing():
            self.transport.abort()
        elif self._head_is_open:
            self._refuse(b"408 Request Timeout", f"The headers did not arrive within {self._header_timeout:g} s.")
        else:
            self.close()

    def _refuse_head(self) -> None:
        self._refuse(b"431 Request Header Fields Too Large", f"The head is over {LARGEST_HEAD} bytes.")

    def _refuse(self, status: bytes, message: str) -> None:
        """Answer and close, but never into the midst of another answer."""
        if self.transport.is_closing():
            return
        if self._answered is None or not self._answered.begun:
            body = orjson.dumps(CallerFault(message).body())
            self.transport.write(REFUSAL % (status, len(body)) + body)
        if self._answered is not None:
            self._answered.disconnect()  # a transport takes more as long as something waits in it
        self.close()


@lru_cache(maxsize=64)
def _parts(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, the same as it was sent, and query string. Raises for what has no path.

    Nearly all requests are for a few.
    """
    if url.startswith(b"/") and b"#" not in url:
        raw_path, _, query = url.partition(b"?")
    else:
        parsed = httptools.parse_url(url)
        raw_path, query = parsed.path, parsed.query or b""
    path = raw_path.decode("ascii")
    return unquote(path) if "%" in path else path, raw_path, query
