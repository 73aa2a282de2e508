"""Why: httpx's request and response are the words of our seam, and making their headers costs more than a call's I/O.

So a request's head is written once for all calls that have the same, and headers are made for who asks for them.
"""

from typing import Any

import httpx


def head_of(method: str, url: httpx.URL, headers: httpx.Headers) -> bytes:
    """Request line and headers. Raises `LocalProtocolError` if a value holds a line end: it would make another."""
    fields = headers.raw
    parts = [method.encode(), b" ", url.raw_path, b" HTTP/1.1\r\n"]
    for name, value in fields:
        parts += (name, b": ", value, b"\r\n")
    parts.append(b"\r\n")
    head = b"".join(parts)
    if head.count(b"\n") != len(fields) + 2 or head.count(b"\r") != len(fields) + 2:
        raise httpx.LocalProtocolError("a header of the request holds a line end")
    return head


class Prepared(httpx.Request):
    """A request whose head was written before: all calls of a wire have the same one, but for the body's length.

    It is httpx's request to whoever asks; its headers are made then (httpx works them out anew each time, 10 us).
    """

    def __init__(
        self, method: str, url: httpx.URL, fields: httpx.Headers, head: bytes, body: bytes, extensions: dict[str, Any]
    ) -> None:
        self.method = method
        self.url = url
        self.extensions = extensions
        self.stream = httpx.ByteStream(body)
        self.head = b"%scontent-length: %d\r\n\r\n" % (head[:-2], len(body)) if body else head
        self.body = self._content = body
        self._fields = fields

    @property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # an attribute there, and written by nobody
        length = [(b"content-length", b"%d" % len(self.body))] if self.body else []
        return httpx.Headers([*self._fields.raw, *length])


class Arrived(httpx.Response):
    """An answer as it came; it is httpx's response, with headers, to whoever asks for them.

    `fields` has the headers by their names in lower case; of several with the same name, the last.
    """

    def __init__(self, status: int, fields: list[tuple[bytes, bytes]], stream: httpx.AsyncByteStream) -> None:
        self._raw = fields
        self.fields = dict(fields)
        self.status_code = status
        self.stream = stream
        self.extensions = {}
        self.is_closed = self.is_stream_consumed = False
        self._request, self._num_bytes_downloaded = None, 0

    @property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # an attribute there, and written by nobody
        return httpx.Headers(self._raw)
