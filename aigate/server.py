"""uvicorn, with the bounds that it lacks: time for the head, size of the head, and a JSON answer to broken HTTP.

uvicorn's own time-outs begin after the first request, so a client that sends one byte of a header a minute would hold
a connection for ever, and one that sends headers without end would fill the memory.
"""

import asyncio
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from middleware.faults import CallerFault

DEFAULT_HEADER_TIMEOUT = 10.0
LARGEST_HEAD = 64 * 1024
"""Bytes of request line and headers."""
LARGEST_IGNORED = 64 * 1024 * 1024
"""Bytes of a body that may still arrive after it has been refused, so that its sender can read the refusal."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds. The application sets `state["header_timeout"]` (seconds) at start-up."""

    _deadline: asyncio.TimerHandle | None = None
    _head = 0
    _ignored = 0

    @property
    def _header_timeout(self) -> float:
        return float(self.app_state.get("header_timeout", DEFAULT_HEADER_TIMEOUT))

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = self._ignored = 0
        self._await_head()

    def on_url(self, url: bytes) -> None:
        self._grow_head(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow_head(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_came()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            self._ignored += len(body)
            if self._ignored > LARGEST_IGNORED:
                self.transport.close()
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        self._head_came()
        self._refuse(b"400 Bad Request", msg)

    def _await_head(self) -> None:
        self._head_came()
        self._deadline = self.loop.call_later(self._header_timeout, self._head_is_late)

    def _head_came(self) -> None:
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
