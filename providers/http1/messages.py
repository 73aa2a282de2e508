"""Why: httpx's request and response are the words of our seam, and making their headers costs more than a call's I/O.

So a request's head is written once for all calls that have the same, and headers are made for who asks for them.
"""

from typing import Any, TypeAlias

import httpx

Origin: TypeAlias = tuple[str, str, int]
"""Scheme, host and port."""


def head_of(method: str, url: httpx.URL, headers: httpx.Headers) -> bytes:
    """Request line and headers, without the empty line that ends them.

    Raises `LocalProtocolError` if a value holds a line end: it would make another.
    """
    fields = headers.raw
    parts = [method.encode(), b" ", url.raw_path, b" HTTP/1.1\r\n"]
    for name, value in fields:
        parts += (name, b": ", value, b"\r\n")
    head = b"".join(parts)
    if head.count(b"\n") != len(fields) + 1 or head.count(b"\r") != len(fields) + 1:
        raise httpx.LocalProtocolError("a header of the request holds a line end")
    return head


def origin_of(url: httpx.URL) -> Origin:
    """Where a request goes, by the name that is looked up: `url.host` is for people, and may be written otherwise."""
    return url.scheme, url.raw_host.decode(), url.port or (443 if url.scheme == "https" else 80)


class Target:
    """What is the same for all requests of a kind: where they go, and their head but for the body's length.

    Raises `LocalProtocolError` if a header holds a line end.
    """

    __slots__ = ("extensions", "head", "headers", "method", "origin", "url")

    def __init__(self, method: str, url: httpx.URL, headers: httpx.Headers, extensions: dict[str, Any]) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.extensions = extensions
        self.origin = origin_of(url)
        self.head = head_of(method, url, headers)


class Prepared(httpx.Request):
    """A request to a target. It is httpx's request to whoever asks; headers and stream are made then."""

    def __init__(self, target: Target, body: bytes) -> None:
        self.target = target
        self.method = target.method
        self.url = target.url
        self.extensions = target.extensions
        self.body = self._content = body
        self.head = b"%scontent-length: %d\r\n\r\n" % (target.head, len(body)) if body else target.head + b"\r\n"

    @property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # an attribute there, and written by nobody
        length = [(b"content-length", b"%d" % len(self.body))] if self.body else []
        return httpx.Headers([*self.target.headers.raw, *length])

    @property
    def stream(self) -> httpx.ByteStream:  # type: ignore[override]  # an attribute there, and written by nobody
        return httpx.ByteStream(self.body)


class Arrived(httpx.Response):
    """An answer as it came; it is httpx's response, with headers, to whoever asks for them.

    `fields` has the headers by their names in lower case; of several with the same name, the last. `body` is its
    stream, or all of it where it came with the head.
    """

    is_closed = is_stream_consumed = False
    _request = None
    _num_bytes_downloaded = 0

    def __init__(self, status: int, fields: dict[bytes, bytes], body: bytes | httpx.AsyncByteStream) -> None:
        self.fields = fields
        self.body = body
        self.status_code = status
        self.extensions = {}

    @property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # an attribute there, and written by nobody
        return httpx.Headers(list(self.fields.items()))

    @property
    def stream(self) -> httpx.AsyncByteStream:  # type: ignore[override]  # an attribute there, and written by nobody
        return httpx.ByteStream(self.body) if isinstance(self.body, bytes) else self.body
