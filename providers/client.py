"""Why: the only module that touches the network, kept thin because every call and every chunk goes through it.

It speaks httpx's transport interface directly: `httpx.AsyncClient` costs ten times as much, and follows, retries and
remembers (redirects, cookies) what a gateway must not. Nothing is retried here: a second attempt is a second bill.

What each failure means for money stands in `ProviderError.sent`: False only where no request can have arrived.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import httpx

from .catalog import Provider
from .contract import Call, Decoded, Decoder, Fetching, Kind, ProviderError, Usage, WireRequest
from .deadline import Watch
from .document import loads
from .fetch import Fetcher
from .http1 import Arrived, Prepared, head_of
from .inflate import inflated

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
LINGER = 0.2
"""Seconds that a stream's connection may take to end after the terminator, so that it can be used again."""

_Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
_Target: TypeAlias = tuple[httpx.URL, httpx.Headers, bytes]

_STANDARD = (
    (b"accept", b"*/*"),
    (b"accept-encoding", b"identity"),
    (b"user-agent", b"aigate"),
)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds. `first_byte` until the answer begins, `idle` between its chunks, `total` for a whole call."""

    connect: float = 5.0
    first_byte: float = 300.0
    idle: float = 60.0
    total: float = 900.0


class Client:
    """Calls providers over one transport, which it owns. `local`: providers that have a transport of their own.

    `fetcher` gets files that a request names by URL, where a wire needs their bytes.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        timeouts: Timeouts | None = None,
        *,
        local: Mapping[str, httpx.AsyncBaseTransport] | None = None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        fetcher: Fetcher | None = None,
    ) -> None:
        self._fetcher = fetcher or Fetcher()
        self._transport = transport
        self._timeouts = timeouts or Timeouts()
        self._local = dict(local or {})
        self._max_answer_bytes = max_answer_bytes
        connect = self._timeouts.connect
        self._extensions = {"timeout": {"connect": connect, "pool": connect, "write": None, "read": None}}
        self._targets: dict[tuple[str, str, str, _Headers], tuple[Provider, _Target]] = {}

    async def open(self, provider: Provider, call: Call) -> "Upstream":
        """Send one call. The answer has begun when this returns; whoever called closes it.

        Raises `ProviderError` for an error status, too.
        """
        request = self._request(provider, "POST", provider.wire.request(await self._filled(provider, call)))
        watch = Watch(self._timeouts.first_byte, self._timeouts.total, then=self._timeouts.idle)
        try:
            response = await self._send(provider, request, watch)
            upstream = Upstream(provider, call, response, watch, self._max_answer_bytes)
        except BaseException:
            watch.stop()
            raise
        if not 200 <= response.status_code < 300:
            raise await upstream.refusal()
        return upstream

    async def models(self, provider: Provider, timeout: float) -> list[dict[str, Any]]:
        """What the provider lists at `/models`, within `timeout` seconds. Raises `ProviderError`."""
        if not provider.lists:
            raise ProviderError(Kind.NOT_FOUND, f"{provider.name} has no list of models.", sent=False)
        path = getattr(provider.wire, "models_path", "/models")
        request = self._request(provider, "GET", WireRequest(path, (), b""))
        watch = Watch(timeout, timeout)
        try:
            response = await self._send(provider, request, watch)
            upstream = Upstream(provider, _LISTING, response, watch, self._max_answer_bytes)
        except BaseException:
            watch.stop()
            raise
        if response.status_code != 200:
            raise await upstream.refusal()
        return _listed(await upstream.body())

    async def aclose(self) -> None:
        """Close the transports; answers that are still open break off."""
        for transport in (self._transport, *self._local.values()):
            await transport.aclose()

    async def _filled(self, provider: Provider, call: Call) -> Call:
        """The call with the files that its wire needs; `hasattr`, for `isinstance` of a protocol takes 8 us."""
        if not hasattr(provider.wire, "remote"):
            return call
        remote = cast(Fetching, provider.wire).remote(call)
        return replace(call, fetched=await self._fetcher.fetch(remote)) if remote else call

    async def _send(self, provider: Provider, request: httpx.Request, watch: Watch) -> httpx.Response:
        transport = self._local.get(provider.name, self._transport)
        try:
            with watch:
                return await transport.handle_async_request(request)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise _unanswered(provider, error) from error

    def _request(self, provider: Provider, method: str, prepared: WireRequest) -> httpx.Request:
        try:
            url, headers, head = self._target(provider, method, prepared.path, prepared.headers)
            if provider.signer is not None:
                headers = httpx.Headers([*headers.raw, *provider.signer(method, str(url), prepared.body)])
                head = head_of(method, url, headers)
        except (httpx.LocalProtocolError, httpx.InvalidURL) as error:
            raise ProviderError(Kind.REJECTED, f"This cannot be asked: {error}.", status=400, sent=False) from error
        return Prepared(method, url, headers, head, prepared.body, self._extensions)

    def _target(self, provider: Provider, method: str, path: str, extra: _Headers) -> _Target:
        """URL, headers and head, built once: they are the same for each call of a provider's wire."""
        key = (provider.name, method, path, extra)
        found = self._targets.get(key)
        if found is None or found[0] is not provider:
            url = httpx.URL(provider.base_url + path)
            headers = httpx.Headers([(b"host", url.netloc), *_STANDARD, *provider.authentication(), *extra])
            if len(self._targets) >= 1000:
                self._targets.clear()
            self._targets[key] = found = (provider, (url, headers, head_of(method, url, headers)))
        return found[1]


class Upstream:
    """One provider's answer, owned by whoever opened it. `streamed` says whether it is to be read as events."""

    def __init__(
        self,
        provider: Provider,
        call: Call,
        response: httpx.Response,
        watch: Watch,
        max_answer_bytes: int,
    ) -> None:
        self.usage = Usage()
        self.streamed = call.stream and not _is_document(_field(response, b"content-type"))
        self._provider = provider
        self._call = call
        self._response = response
        self._watch = watch
        self._max_answer_bytes = max_answer_bytes
        self._source: AsyncIterator[bytes] | None = None
        self._decoder: Decoder | None = None
        self._whole = False
        self._closed = False

    @property
    def finished(self) -> bool:
        """Whether the provider has ended its answer, as far as it has been read."""
        return self._whole or (self._decoder is not None and self._decoder.finished)

    async def read(self) -> Decoded:
        """The whole answer. Raises `ProviderError` when it breaks off, is too large or is none."""
        decoded = self._provider.wire.response(self._call, await self.body(), self._response.headers)
        self.usage = decoded.usage
        self._whole = True
        return decoded

    async def body(self) -> bytes:
        """The whole answer as it came; closes it."""
        chunks = []
        size = 0
        try:
            while (chunk := await self._next()) is not None:
                chunks.append(chunk)
                size += len(chunk)
                if size > self._max_answer_bytes:
                    message = f"The provider's answer is larger than {self._max_answer_bytes} bytes."
                    raise ProviderError(Kind.BROKEN, message)
        finally:
            await self.aclose()
        return b"".join(chunks)

    async def events(self) -> AsyncIterator[bytes]:
        """Canonical server-sent events, whole ones, to `[DONE]`. Raises `ProviderError` when the answer breaks off.

        An answer that breaks off after it has said that it is finished counts as whole. Leaving the loop early
        closes nothing: `aclose` does.
        """
        self._decoder = decoder = self._provider.wire.stream(self._call)
        self.usage = decoder.usage
        try:
            while not (decoder.ended or decoder.failed) and (chunk := await self._next()) is not None:
                if out := decoder.feed(chunk):
                    yield out
        except ProviderError:
            if not decoder.finished:
                raise
        yield decoder.close()
        await self._linger()

    async def refusal(self) -> ProviderError:
        """What an answer with an error status means; closes it."""
        body = b""
        with contextlib.suppress(ProviderError):
            try:
                while len(body) <= MAX_ERROR_BYTES and (chunk := await self._next()) is not None:
                    body += chunk
            finally:
                await self.aclose()
        response = self._response
        return self._provider.wire.error(response.status_code, response.headers, body[:MAX_ERROR_BYTES])

    async def aclose(self) -> None:
        """Let go of the connection; at once, unless the answer has come to its end. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._watch.stop()
        with contextlib.suppress(httpx.HTTPError, OSError, RuntimeError):
            stream: httpx.AsyncByteStream = self._response.stream  # type: ignore[assignment]  # ours are never sync
            await stream.aclose()

    async def _next(self) -> bytes | None:
        """The next bytes of the answer, None at its end."""
        try:
            source = self._source or self._begun()
            with self._watch:
                chunk = await anext(source)
        except StopAsyncIteration:
            return None
        except httpx.TimeoutException as error:
            raise ProviderError(Kind.TIMEOUT, "The provider stopped sending its answer.") from error
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise ProviderError(Kind.BROKEN, f"The provider's answer was cut off: {_words(error)}") from error
        self._watch.go_on()  # until now the first bytes were awaited: a model may think for long after its head
        return chunk

    def _begun(self) -> AsyncIterator[bytes]:
        stream: httpx.AsyncByteStream = self._response.stream  # type: ignore[assignment]  # ours are never sync
        chunks = aiter(stream)
        self._source = source = inflated(_field(self._response, b"content-encoding").decode("latin-1"), chunks)
        return source

    async def _linger(self) -> None:
        """Read what follows the terminator, normally nothing: only a connection read to its end is used again."""
        with contextlib.suppress(ProviderError, TimeoutError):
            async with asyncio.timeout(LINGER):
                while await self._next() is not None:
                    pass


_LISTING = Call("", {})


def _field(response: httpx.Response, name: bytes) -> bytes:
    """A header of the answer; httpx's own way to it works out the encoding of all of them first (8 us)."""
    if isinstance(response, Arrived):
        return response.fields.get(name, b"")
    return str(response.headers.get(name.decode(), "")).encode("latin-1", "replace")


def _is_document(content_type: bytes) -> bool:
    return b"json" in content_type or b"html" in content_type


def _listed(body: bytes) -> list[dict[str, Any]]:
    """OpenAI's `{"data": [...]}`; Together sends the bare list, Gemini `{"models": [{"name": "models/..."}]}`."""
    try:
        document = loads(body)
    except ValueError:
        document = None
    found = document.get("data") if isinstance(document, dict) else document
    if isinstance(document, dict) and isinstance(models := document.get("models"), list) and found is None:
        found = [{"id": str(each.get("name")).removeprefix("models/"), **each} for each in models if _is_object(each)]
    if not isinstance(found, list):
        raise ProviderError(Kind.BROKEN, "The provider's list of models cannot be understood.")
    return [each for each in found if _is_object(each)]


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _unanswered(provider: Provider, error: Exception) -> ProviderError:
    """A call that got no head of an answer. Only before the connection stands is it sure that nothing was sent.

    A connection that the provider closed while it lay idle counts as sent, too: it cannot be told from one that
    was closed after the request had been read.
    """
    words = f"{provider.name}: {_words(error)}"
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return ProviderError(Kind.TIMEOUT, f"No connection in time to {words}", sent=False)
    if isinstance(error, httpx.ConnectError | httpx.ProxyError | httpx.UnsupportedProtocol | httpx.InvalidURL):
        return ProviderError(Kind.UNREACHABLE, f"No connection to {words}", sent=False)
    if isinstance(error, httpx.TimeoutException):
        return ProviderError(Kind.TIMEOUT, f"No answer in time from {words}")
    return ProviderError(Kind.BROKEN, f"The connection was lost before an answer from {words}")


def _words(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:300]
