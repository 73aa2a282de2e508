"""Why: Azure speaks OpenAI's language at three kinds of address, of which two want a version and one names no model.

A resource's address with a dated version means its deployments, named in the path; without one, the version-less
`/openai/v1`, which finds the deployment by the `model` of the body. An address ending with `/models` is Foundry's.
Versions before September 2024 refuse `stream_options`, so a stream says no usage there. What the content filter found
rides along; a prompt that it refuses is a 400 like any other.

Sources: https://learn.microsoft.com/azure/ai-foundry/openai/reference, .../openai/api-version-lifecycle,
https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from .contract import Call, WireRequest
from .openai import OpenAIWire
from .refusal import refused

DEPLOYMENT = "{deployment}"
"""Where the model's name goes into a path."""

_CHAT = "/chat/completions"
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")
_KEYWORDS = ("", "v1", "preview", "latest")
_FOUNDRY_VERSION = "2024-05-01-preview"
_FIRST_WITH_USAGE = "2024-09-01"


@dataclass(frozen=True, slots=True)
class AzureWire(OpenAIWire):
    """OpenAI's wire, with the deployment in the path where `path` has a place for it."""

    def request(self, call: Call) -> WireRequest:
        made = OpenAIWire.request(self, call)
        if DEPLOYMENT not in self.path:
            return made
        if not call.model.strip("."):
            raise refused("model", "is no deployment's name.")
        path = self.path.replace(DEPLOYMENT, quote(call.model, safe=""))
        return WireRequest(path, made.headers, made.body)


def at(address: str, version: str) -> tuple[str, AzureWire]:
    """The base URL and the wire for an address and an API version, which may be empty.

    Raises `ValueError` for a version that is neither a date nor `v1`, `preview` or `latest`.
    """
    if version not in _KEYWORDS and not _DATED.fullmatch(version):
        raise ValueError("must be a date such as 2024-10-21, v1, preview or latest")
    path = urlsplit(address).path
    if path.endswith("/models"):
        return address, AzureWire(_versioned(_CHAT, version or _FOUNDRY_VERSION))
    if version in _KEYWORDS or path.endswith("/v1"):
        keyword = version if version in ("preview", "latest") else ""
        base = address if path not in ("", "/openai") else f"{address.removesuffix('/openai')}/openai/v1"
        return base, AzureWire(_versioned(_CHAT, keyword))
    place = _CHAT if "/deployments/" in path else f"/openai/deployments/{DEPLOYMENT}{_CHAT}"
    wire = AzureWire(_versioned(place, version), stream_usage=version[:10] >= _FIRST_WITH_USAGE)
    return address.removesuffix("/openai"), wire


def _versioned(path: str, version: str) -> str:
    return f"{path}?api-version={version}" if version else path
