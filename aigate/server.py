"""uvicorn, with the bounds that it lacks: time for the head and for a client to read, size of the head, JSON answers.

uvicorn's own time-outs begin after the first request and end with the next byte, so a client that sends one byte of
a header, or of a body that was refused, would hold a connection for ever, and one that sends headers without end
would fill the memory. When a client leaves, uvicorn tells so to the last request that it has sent, which is not
always the one that is being answered.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from middleware.faults import CallerFault

DEFAULT_HEADER_TIMEOUT = 10.0
DEFAULT_WRITE_TIMEOUT = 60.0
LARGEST_HEAD = 64 * 1024
"""Bytes of request line and headers."""
AROUND_A_HEADER = b": \r\n"
LARGEST_IGNORED = 64 * 1024 * 1024
"""Bytes of a body that may still arrive after it has been refused, so that its sender can read the refusal."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds.

    The application sets `state["header_timeout"]` and `state["write_timeout"]` (seconds) at start-up.
    """

    _deadline: asyncio.TimerHandle | None = None
    _answered: RequestResponseCycle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _head = 0
    _ignored = 0

    @property
    def _header_timeout(self) -> float:
        return float(self.app_state.get("header_timeout", DEFAULT_HEADER_TIMEOUT))

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def pause_writing(self) -> None:
        """A client that does not read must not hold its call, nor who waits for the same answer."""
        super().pause_writing()
        timeout = float(self.app_state.get("write_timeout", DEFAULT_WRITE_TIMEOUT))
        self._stalled = self.loop.call_later(timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._go_on()

    def _go_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._go_on()
        super().connection_lost(exc)
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True
            self._answered.message_event.set()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_idle():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = self._ignored = 0
        self._await_head()

    def on_url(self, url: bytes) -> None:
        self._grow_head(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow_head(name, value, AROUND_A_HEADER)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            self._ignored += len(body)
            if self._ignored > LARGEST_IGNORED:
                self.transport.close()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:  # it was refused before its body had come
            self._wait(self.transport.close)

    def send_400_response(self, msg: str) -> None:
        self._stop_waiting()
        self._refuse(b"400 Bad Request", msg)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _is_idle(self) -> bool:
        """Whether nothing is being answered and no timer would end the connection."""
        timed = self._deadline is not None or self.timeout_keep_alive_task is not None
        return not timed and self.cycle is not None and self.cycle.response_complete

    def _await_head(self) -> None:
        self._wait(self._head_is_late)

    def _wait(self, late: Callable[[], None]) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(self._header_timeout, late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_is_late(self) -> None:
        if not self.transport.is_closing():
            self._refuse(b"408 Request Timeout", f"The headers did not arrive within {self._header_timeout:g} s.")

    def _grow_head(self, *parts: bytes) -> None:
        self._head += sum(map(len, parts))
        if self._head > LARGEST_HEAD and not self.transport.is_closing():
            self._refuse(b"431 Request Header Fields Too Large", f"The head is over {LARGEST_HEAD} bytes.")

    def _refuse(self, status: bytes, message: str) -> None:
        body = orjson.dumps(CallerFault(message).body())
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, len(body)) + body)
        self.transport.close()
