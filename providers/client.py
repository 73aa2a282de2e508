"""Why: the only module that touches the network, kept thin because every call and every chunk goes through it.

It speaks httpx's transport interface directly: `httpx.AsyncClient` costs ten times as much, and follows, retries and
remembers (redirects, cookies) what a gateway must not. Nothing is retried here: a second attempt is a second bill.

What each failure means for money stands in `ProviderError.sent`: False only where no request can have arrived.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import httpx

from .catalog import Provider
from .contract import Call, Decoded, Decoder, Fetching, Kind, ProviderError, Usage, WireRequest
from .deadline import Lookout, Watch
from .document import loads
from .fetch import Fetcher
from .http1 import Arrived, Prepared, Target
from .inflate import inflated

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
LINGER = 0.2
"""Seconds that a stream's connection may take to end after the terminator, so that it can be used again."""

_Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]
_Kind: TypeAlias = tuple[str, str, str, _Fields]

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
        self._targets: dict[_Kind, tuple[Provider, Target]] = {}
        self._lookout = Lookout(min(self._timeouts.first_byte, self._timeouts.idle, self._timeouts.total))

    def open(self, provider: Provider, call: Call) -> Coroutine[Any, Any, "Upstream"]:
        """Send one call. The answer has begun when this has been awaited; whoever called closes it.

        Raises `ProviderError` for an error status, too.
        """
        if call.fetched is None and hasattr(provider.wire, "remote"):  # `isinstance` of a protocol takes 8 us
            return self._with_files(provider, call)
        request = self._request(provider, "POST", provider.wire.request(call))
        timeouts = self._timeouts
        watch = Watch(timeouts.first_byte, timeouts.total, timeouts.idle, self._lookout)
        return self._ask(provider, call, request, watch)

    async def models(self, provider: Provider, timeout: float) -> list[dict[str, Any]]:
        """What the provider lists at `/models`, within `timeout` seconds. Raises `ProviderError`."""
        if not provider.lists:
            raise ProviderError(Kind.NOT_FOUND, f"{provider.name} has no list of models.", sent=False)
        path = getattr(provider.wire, "models_path", "/models")
        request = self._request(provider, "GET", WireRequest(path, (), b""))
        upstream = await self._ask(provider, _LISTING, request, Watch(timeout, timeout))
        if upstream.status != 200:
            raise await upstream.refusal()
        return _listed(await upstream.body())

    async def aclose(self) -> None:
        """Close the transports; answers that are still open break off."""
        for transport in (self._transport, *self._local.values()):
            await transport.aclose()

    async def _with_files(self, provider: Provider, call: Call) -> "Upstream":
        """Send a call with the files that its wire needs."""
        remote = cast(Fetching, provider.wire).remote(call)
        return await self.open(provider, replace(call, fetched=await self._fetcher.fetch(remote)))

    async def _ask(self, provider: Provider, call: Call, request: httpx.Request, watch: Watch) -> "Upstream":
        """Send a request and wait until its answer begins. Raises what an error status means."""
        transport = self._local.get(provider.name, self._transport)
        try:
            watch.begin()
            response = await transport.handle_async_request(request)
            watch.rest()
            upstream = Upstream(provider, call, response, watch, self._max_answer_bytes)
        except BaseException as error:
            late = watch.end()
            watch.stop()
            if late is not None:
                raise late from None
            if isinstance(error, (httpx.HTTPError, httpx.InvalidURL, OSError)):
                raise _unanswered(provider, error) from error
            raise
        if not 200 <= upstream.status < 300:
            raise await upstream.refusal()
        return upstream

    def _request(self, provider: Provider, method: str, prepared: WireRequest) -> httpx.Request:
        path, extra, body = prepared
        key = (provider.name, method, path, extra)
        found = self._targets.get(key)
        try:
            if found is None or found[0] is not provider:
                found = self._remembered(key, provider)
            target = found[1]
            if provider.signer is not None:
                signed = provider.signer(method, str(target.url), body)
                headers = httpx.Headers([*target.headers.raw, *signed])
                target = Target(method, target.url, headers, self._extensions)
        except (httpx.LocalProtocolError, httpx.InvalidURL) as error:
            raise ProviderError(Kind.REJECTED, f"This cannot be asked: {error}.", status=400, sent=False) from error
        return Prepared(target, body)

    def _remembered(self, key: _Kind, provider: Provider) -> tuple[Provider, Target]:
        """The target of such requests, built once: it is the same for each call of a provider's wire."""
        _, method, path, extra = key
        url = httpx.URL(provider.base_url + path)
        headers = httpx.Headers([(b"host", url.netloc), *_STANDARD, *provider.authentication(), *extra])
        if len(self._targets) >= 1000:
            self._targets.clear()
        self._targets[key] = found = (provider, Target(method, url, headers, self._extensions))
        return found


class Upstream(AsyncIterator[bytes]):
    """One provider's answer, owned by whoever opened it. `streamed` says whether it is to be read as `events`.

    `usage` is there as soon as it is being read.
    """

    def __init__(
        self,
        provider: Provider,
        call: Call,
        response: httpx.Response,
        watch: Watch,
        max_answer_bytes: int,
    ) -> None:
        self.usage: Usage
        self.status = response.status_code
        self.streamed = call.stream and not _is_document(_field(response, b"content-type"))
        self._provider = provider
        self._call = call
        self._response = response
        self._watch = watch
        self._max_answer_bytes = max_answer_bytes
        self._source: AsyncIterator[bytes] | None = None
        self._decoder: Decoder | None = None
        self._whole = self._over = False
        self._closed = False

    @property
    def finished(self) -> bool:
        """Whether the provider has ended its answer, as far as it has been read."""
        return self._whole or (self._decoder is not None and self._decoder.finished)

    async def read(self) -> Decoded:
        """The whole answer. Raises `ProviderError` when it breaks off, is too large or is none."""
        if (body := self._at_once()) is None:
            body = await self._gathered()
        decoded = self._provider.wire.response(self._call, body, _Headers(self._response))
        self.usage = decoded.usage
        self._whole = True
        return decoded

    async def body(self) -> bytes:
        """The whole answer as it came; closes it."""
        return await self._gathered() if (whole := self._at_once()) is None else whole

    def _at_once(self) -> bytes | None:
        """The body, if it came with its head and nothing has to be done to it."""
        response = self._response
        if type(response) is not Arrived or type(whole := response.body) is not bytes:
            return None
        if b"content-encoding" in response.fields:
            return None
        self._closed = True
        self._watch.stop()
        if len(whole) > self._max_answer_bytes:
            raise self._too_large()
        return whole

    def events(self) -> AsyncIterator[bytes]:
        """Canonical server-sent events, whole ones, to `[DONE]`. Raises `ProviderError` when the answer breaks off.

        An answer that breaks off after it has said that it is finished counts as whole. Leaving the loop early
        closes nothing: `aclose` does.
        """
        self._decoder = decoder = self._provider.wire.stream(self._call)
        self.usage = decoder.usage
        return self

    async def __anext__(self) -> bytes:
        decoder, watch = self._decoder, self._watch
        if decoder is None or self._over:
            await self._linger()
            raise StopAsyncIteration
        failure = None
        try:
            while not (decoder.ended or decoder.failed):
                watch.begin()
                chunk = await anext(self._source or self._begun())
                watch.task, watch.limit = None, watch.then  # as `go_on`, which would be a call more for each chunk
                if out := decoder.feed(chunk):
                    return out
        except BaseException as error:
            failure = self._failure(error)
        self._over = True
        if failure is not None and not decoder.finished:
            raise failure
        return decoder.close()

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
        try:
            stream: httpx.AsyncByteStream = self._response.stream  # type: ignore[assignment]  # ours are never sync
            await stream.aclose()
        except (httpx.HTTPError, OSError, RuntimeError):
            pass  # it is closed all the same

    async def _next(self) -> bytes | None:
        """The next bytes of the answer, None at its end."""
        try:
            self._watch.begin()
            chunk = await anext(self._source or self._begun())
        except BaseException as error:
            failure = self._failure(error)
        else:
            self._watch.go_on()
            return chunk
        if failure is not None:
            raise failure
        return None

    def _failure(self, error: BaseException) -> ProviderError | None:
        """What a wait that ended so says of the answer; None is its end. Raises what is not the provider's doing."""
        found: ProviderError | None = None
        if (late := self._watch.end()) is not None:
            return late
        if isinstance(error, ProviderError):
            return error
        if isinstance(error, httpx.TimeoutException):
            found = ProviderError(Kind.TIMEOUT, "The provider stopped sending its answer.")
        elif isinstance(error, (httpx.HTTPError, httpx.StreamError, OSError)):
            found = ProviderError(Kind.BROKEN, f"The provider's answer was cut off: {_words(error)}")
        elif not isinstance(error, StopAsyncIteration):
            raise error
        if found is not None:
            found.__cause__ = error
        return found

    async def _linger(self) -> None:
        """Read what follows the terminator, normally nothing: only a connection read to its end is used again."""
        if getattr(self._response.stream, "ended", False):
            return
        with contextlib.suppress(ProviderError, TimeoutError):
            async with asyncio.timeout(LINGER):
                while await self._next() is not None:
                    pass

    def _begun(self) -> AsyncIterator[bytes]:
        stream: httpx.AsyncByteStream = self._response.stream  # type: ignore[assignment]  # ours are never sync
        chunks = aiter(stream)
        self._source = source = inflated(_field(self._response, b"content-encoding").decode("latin-1"), chunks)
        return source

    async def _gathered(self) -> bytes:
        chunks = []
        size = 0
        try:
            while (chunk := await self._next()) is not None:
                chunks.append(chunk)
                size += len(chunk)
                if size > self._max_answer_bytes:
                    raise self._too_large()
        finally:
            await self.aclose()
        return b"".join(chunks)

    def _too_large(self) -> ProviderError:
        return ProviderError(Kind.BROKEN, f"The provider's answer is larger than {self._max_answer_bytes} bytes.")


class _Headers(Mapping[str, str]):
    """The headers of an answer, made for a wire that looks at them: nearly none does."""

    __slots__ = ("_response",)

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    def __getitem__(self, name: str) -> str:
        return self._response.headers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._response.headers)

    def __len__(self) -> int:
        return len(self._response.headers)


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
