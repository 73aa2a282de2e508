"""What a wire is: pure functions between the canonical form and one provider's HTTP messages.

The canonical form is OpenAI's chat completions request and response as plain dicts; only the fields that the
gateway works on are named here, unknown ones ride along. A wire never mutates the call: a retry translates again.

Sans-I/O, after h11: https://sans-io.readthedocs.io/
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
"""Of an answer of which only the body is known."""


@dataclass(slots=True)
class Usage:
    """What a call consumed, in tokens; a decoder updates it as bytes pass.

    The classes mean the same for every provider (OpenTelemetry GenAI): `input_tokens` contains the cache reads and
    writes, `output_tokens` the reasoning. `source` says where the numbers come from: `provider`, `estimated` or
    `none`. `provider_cost` is the charge that the provider itself reports, in 1e-9 USD.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0
    source: str = "none"
    provider_cost: int | None = None


Pricing: TypeAlias = Callable[[Usage], int]
"""The billed cost of a usage in 1e-9 USD."""


@dataclass(slots=True)
class Call:
    """One canonical request to one provider's model; never changed, but frozen it would take three times as long."""

    model: str
    document: Mapping[str, Any]
    stream: bool = False
    wants_usage: bool = False
    """Whether the caller of a stream asked for usage (`stream_options.include_usage`)."""
    pricing: Pricing | None = None
    """Where present, `usage.cost` in USD is written into the answer's usage."""
    fetched: Mapping[str, tuple[str, bytes]] | None = None
    """Files that the document names, by URL: media type and content. Filled where a wire is `Fetching`."""


class WireRequest(NamedTuple):
    """What is to be sent: the path below the provider's base URL, headers beside authentication, and the body."""

    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Kind(StrEnum):
    """What a provider's error means to us, whatever its words."""

    REJECTED = "rejected"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTERED = "content_filtered"
    NOT_FOUND = "not_found"
    CREDENTIALS = "credentials"
    QUOTA = "quota"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    FAILED = "failed"
    BROKEN = "broken"


class ProviderError(Exception):
    """A provider refused, failed or broke off.

    `status` is the provider's own (0 when none arrived), `raw` its error object or text, bounded. `retry_after` is in
    seconds. `sent` says whether the request may have reached the provider and so may have cost money.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        status: int = 0,
        param: str | None = None,
        raw: Any = None,
        retry_after: float | None = None,
        sent: bool = True,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.param = param
        self.raw = raw
        self.retry_after = retry_after
        self.sent = sent


@dataclass(slots=True)
class Decoded:
    """A whole answer, translated: canonical body and what it used."""

    body: bytes
    usage: Usage = field(default_factory=Usage)


class Decoder(Protocol):
    """Translates a stream as it passes; the same answer at any chunking.

    `feed` and `close` return canonical SSE bytes, always whole events (possibly none: `b""`). `usage` is live.
    `ended` says that the provider's terminator has been seen: nothing of use follows, whether or not it hangs up.
    `failed` is the error that the stream has carried, from when it was read: nothing follows it, either.
    """

    usage: Usage
    ended: bool
    failed: ProviderError | None

    @property
    def finished(self) -> bool:
        """Whether the provider has ended its answer: a finish reason or its terminator has been seen."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Raises `ProviderError` when the stream carries an error or cannot be understood.

        Events before the error are not lost: they are returned first, and the next `feed` or `close` raises.
        """
        ...

    def close(self) -> bytes:
        """The end of the canonical stream, its terminator, once. Raises `ProviderError` (broken) if not finished."""
        ...


class Wire(Protocol):
    """One provider family's language."""

    def request(self, call: Call) -> WireRequest: ...

    def response(self, call: Call, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Decoded:
        """Translate a whole answer. Raises `ProviderError` for an error inside a 200 and for what is no answer.

        `headers` are the answer's, with names in any case; some providers count there.
        """
        ...

    def stream(self, call: Call) -> Decoder: ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """What an answer with an error status means."""
        ...


class Fetching(Protocol):
    """A wire that may need the bytes of files which a document names by URL; the other wires have no `remote`."""

    def remote(self, call: Call) -> Mapping[str, str]:
        """The URLs that `call.fetched` has to hold before `request`, each with the field that it stands in."""
        ...
