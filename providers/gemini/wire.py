"""Why: the model stands in the path, and the same language is spoken at two addresses.

The base URL ends before `/models`: https://generativelanguage.googleapis.com/v1beta with a key, or Vertex's
https://LOCATION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/LOCATION/publishers/google with a token.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from providers.contract import NO_HEADERS, Call, Decoded, ProviderError, WireRequest
from providers.document import dumps
from providers.refusal import refused

from . import answer, faults
from .media import holds_media
from .request import translated
from .stream import GeminiDecoder

_JSON = ((b"content-type", b"application/json"),)


@dataclass(frozen=True, slots=True)
class GeminiWire:
    """generateContent and streamGenerateContent. `models_path` lists the models.

    `buckets`: a caller may name files in Google's storage. Off where the gateway's own identity would read them.
    """

    models_path: str = "/models?pageSize=1000"
    buckets: bool = True

    def request(self, call: Call) -> WireRequest:
        body, missing = translated(call, buckets=self.buckets)
        if missing:
            url, place = next(iter(missing.items()))
            raise refused(place, f"the file at {url[:200]!r} has not been fetched.")
        return WireRequest(_path(call), _JSON, dumps(body))

    def remote(self, call: Call) -> Mapping[str, str]:
        """The URLs whose files the request needs in `call.fetched`, each with the field that it stands in."""
        return translated(call, buckets=self.buckets)[1] if holds_media(call.document) else {}

    def response(self, call: Call, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Decoded:
        return answer.response(call, body)

    def stream(self, call: Call) -> GeminiDecoder:
        return GeminiDecoder(call)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return faults.from_answer(status, headers, body)


def _path(call: Call) -> str:
    """Everything in a model's name is a name: no slash, dot or question mark of it changes where the call goes."""
    name = call.model.removeprefix("models/").removeprefix("google/")
    if not name:
        raise refused("model", "names no model.")
    method = "streamGenerateContent?alt=sse" if call.stream else "generateContent"
    return f"/models/{quote(name, safe='@')}:{method}"
