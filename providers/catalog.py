"""Why: a provider is a row, not code; whoever adds one that speaks a known wire writes one line, or only environment.

`<NAME>_API_KEY`, `<NAME>_BASE_URL`, `<NAME>_MODELS` (comma list) and `<NAME>_ON_DISCONNECT` complete or override each
row; `AIGATE_PROVIDERS="acme,lab"` adds rows that stand only there. An empty value counts as unset; a bad one raises
`ValueError` at start, naming its variable and never its value where that may be a secret.

`on_disconnect` is what a hang-up of ours does to the bill: `cancel` where the provider is known to stop generating
and billing, `drain` (read to the end, so that what is billed is known) where it is not, or where nobody says.
Source: https://openrouter.ai/docs/api-reference/streaming, "Stream Cancellation"
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from . import azure
from .anthropic import AnthropicWire
from .bedrock import BedrockWire, Keys, SigV4
from .contract import Wire
from .gemini import GeminiWire
from .openai import OpenAIWire

ENVIRONMENT = (
    "AIGATE_PROVIDERS",
    "QWEN_REGION",
    "DASHSCOPE_API_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_REGION",
    "AZURE_OPENAI_API_KEY",
    "AZURE_OPENAI_ENDPOINT",
    "AZURE_API_VERSION",
    "GOOGLE_API_KEY",
    "<NAME>_API_KEY",
    "<NAME>_BASE_URL",
    "<NAME>_MODELS",
    "<NAME>_ON_DISCONNECT",
)
"""Every variable that is read here; `<NAME>` is a row's name in capitals, a hyphen as an underscore."""

QWEN_REGIONS = {
    "intl": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
    "cn": "https://dashscope.aliyuncs.com/compatible-mode/v1",
    "us": "https://dashscope-us.aliyuncs.com/compatible-mode/v1",
    "hk": "https://cn-hongkong.dashscope.aliyuncs.com/compatible-mode/v1",
}
"""A key is valid in its own region only. Source: https://www.alibabacloud.com/help/model-studio/base-url"""

QWEN_REGION = "intl"
"""Singapore, where an account from outside mainland China gets its key; inside, the operator sets `cn`."""

ECHO_URL = "http://echo.invalid/v1"

AWS_REGION = "us-east-1"

OnDisconnect = Literal["cancel", "drain"]

Signer: TypeAlias = Callable[[str, str, bytes], tuple[tuple[bytes, bytes], ...]]
"""The headers that sign one request: its method, its URL byte by byte, its body."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider as it is set up here. `local`: self-hosted, free unless a price rule says otherwise."""

    name: str
    base_url: str
    wire: Wire = field(default_factory=OpenAIWire)
    api_key: str = field(default="", repr=False)
    requires_key: bool = True
    auth_header: str = "authorization"
    auth_scheme: str = "Bearer"
    on_disconnect: OnDisconnect = "drain"
    models: tuple[str, ...] = ()
    """What it serves, where it has no list of models to ask; also what may be asked of it. Empty: anything."""
    local: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    signer: Signer | None = field(default=None, repr=False)
    """Signs each request, where a key is not enough."""
    lists: bool = True
    """Whether it has a list of models to ask."""

    @property
    def configured(self) -> bool:
        """Whether it can be called."""
        return bool(self.base_url) and (bool(self.api_key or self.signer) or not self.requires_key)

    def authentication(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers that every call carries for this provider, the key among them."""
        headers = tuple((name.lower().encode(), value.encode()) for name, value in self.headers)
        if not self.api_key:
            return headers
        return (*headers, (self.auth_header.encode(), f"{self.auth_scheme} {self.api_key}".strip().encode()))


def _self_hosted(name: str) -> Provider:
    """Known by name and without a key, but nowhere until `<NAME>_BASE_URL` says where."""
    return Provider(name, "", requires_key=False, on_disconnect="cancel", local=True)


MISTRAL = OpenAIWire(
    stream_usage=False,
    reasoning="thinking",
    renames=(("max_completion_tokens", "max_tokens"), ("seed", "random_seed"), ("dimensions", "output_dimension")),
)
"""It refuses every field that it does not know. Source: https://docs.mistral.ai/api/#tag/chat"""

ROWS = (
    Provider("qwen", QWEN_REGIONS[QWEN_REGION], OpenAIWire(throttles_as_quota=True, embeds_numbers=True)),
    Provider("openai", "https://api.openai.com/v1", on_disconnect="cancel"),
    Provider("deepseek", "https://api.deepseek.com", on_disconnect="cancel"),
    Provider("mistral", "https://api.mistral.ai/v1", MISTRAL),
    Provider("groq", "https://api.groq.com/openai/v1", OpenAIWire(reasoning="reasoning")),
    Provider("openrouter", "https://openrouter.ai/api/v1", OpenAIWire(embeds_numbers=True), on_disconnect="cancel"),
    Provider("together", "https://api.together.ai/v1", on_disconnect="cancel"),
    Provider("fireworks", "https://api.fireworks.ai/inference/v1", on_disconnect="cancel"),
    Provider("xai", "https://api.x.ai/v1", on_disconnect="cancel"),
    Provider("moonshot", "https://api.moonshot.ai/v1"),
    Provider("zai", "https://api.z.ai/api/paas/v4"),
    Provider("siliconflow", "https://api.siliconflow.com/v1"),
    Provider("cerebras", "https://api.cerebras.ai/v1", OpenAIWire(reasoning="reasoning")),
    Provider("perplexity", "https://api.perplexity.ai"),
    Provider("nvidia", "https://integrate.api.nvidia.com/v1"),
    Provider(
        "anthropic",
        "https://api.anthropic.com/v1",
        AnthropicWire(),
        auth_header="x-api-key",
        auth_scheme="",
        on_disconnect="cancel",
        headers=(("anthropic-version", "2023-06-01"),),
    ),
    Provider(
        "gemini",
        "https://generativelanguage.googleapis.com/v1beta",
        GeminiWire(),
        auth_header="x-goog-api-key",
        auth_scheme="",
    ),
    Provider("vertex", "", GeminiWire(buckets=False), lists=False),
    Provider("bedrock", f"https://bedrock-runtime.{AWS_REGION}.amazonaws.com", BedrockWire(), lists=False),
    Provider(
        "azure", "", azure.AzureWire(), auth_header="api-key", auth_scheme="", on_disconnect="cancel", lists=False
    ),
    _self_hosted("ollama"),
    _self_hosted("vllm"),
    _self_hosted("llamacpp"),
    _self_hosted("lmstudio"),
)

ECHO = Provider("echo", ECHO_URL, requires_key=False, on_disconnect="cancel", models=("echo",), local=True)
"""Built in, for trying out and for tests: `echo.EchoTransport` answers it, and nothing is resolved or sent."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_REGION = re.compile(r"[a-z]{2,4}(-[a-z0-9]+)+")
_SEPARATORS = re.compile(r"[,\s]+")
_CONTROL = re.compile(r"[^\x21-\x7e]")


def catalog(environment: Mapping[str, str]) -> dict[str, Provider]:
    """Every provider by name, whether it is configured or not. Raises `ValueError` naming the bad variable."""
    rows = {row.name: row for row in (*ROWS, *_custom(environment))}
    rows["qwen"] = _qwen(rows["qwen"], environment)
    rows["azure"] = replace(
        rows["azure"],
        api_key=_key(environment, "AZURE_OPENAI_API_KEY"),
        base_url=_url(environment, "AZURE_OPENAI_ENDPOINT"),
    )
    rows["bedrock"] = replace(rows["bedrock"], api_key=_key(environment, "AWS_BEARER_TOKEN_BEDROCK"))
    rows["gemini"] = replace(rows["gemini"], api_key=_key(environment, "GOOGLE_API_KEY"))
    completed = {name: _completed(row, environment) for name, row in rows.items()}
    completed["anthropic"] = _versioned(completed["anthropic"])
    completed["azure"] = _azure(completed["azure"], environment)
    completed["bedrock"] = _bedrock(completed["bedrock"], environment)
    return {**completed, ECHO.name: ECHO}


def _custom(environment: Mapping[str, str]) -> list[Provider]:
    taken = {_prefix(row.name) for row in (*ROWS, ECHO)} | {"AIGATE", "DASHSCOPE", "GOOGLE"}
    rows = []
    for name in _list(environment, "AIGATE_PROVIDERS"):
        if not _NAME.fullmatch(name):
            raise ValueError(f"AIGATE_PROVIDERS: {name!r} is no name: a-z, 0-9, - and _, at most 32")
        if _prefix(name) in taken:
            raise ValueError(f"AIGATE_PROVIDERS: {name!r} is taken")
        if not _value(environment, f"{_prefix(name)}_BASE_URL"):
            raise ValueError(f"AIGATE_PROVIDERS: {name!r} needs {_prefix(name)}_BASE_URL")
        taken.add(_prefix(name))
        rows.append(Provider(name, "", requires_key=False))
    return rows


def _qwen(row: Provider, environment: Mapping[str, str]) -> Provider:
    region = _value(environment, "QWEN_REGION").lower() or QWEN_REGION
    if region not in QWEN_REGIONS:
        raise ValueError(f"QWEN_REGION: {region!r} is none of {', '.join(QWEN_REGIONS)}")
    return replace(row, base_url=QWEN_REGIONS[region], api_key=_key(environment, "DASHSCOPE_API_KEY"))


def _versioned(row: Provider) -> Provider:
    """`ANTHROPIC_BASE_URL` as Anthropic's SDKs understand it, too: without the version."""
    return row if row.base_url.endswith("/v1") else replace(row, base_url=f"{row.base_url}/v1")


def _azure(row: Provider, environment: Mapping[str, str]) -> Provider:
    try:
        base_url, wire = azure.at(row.base_url, _value(environment, "AZURE_API_VERSION"))
    except ValueError as error:
        raise ValueError(f"AZURE_API_VERSION: {error}") from None
    return replace(row, base_url=base_url, wire=wire) if row.base_url else row


def _bedrock(row: Provider, environment: Mapping[str, str]) -> Provider:
    """A bearer token goes before keys. Keys may be there for another reason: without botocore they do nothing."""
    region = _value(environment, "AWS_REGION").lower() or AWS_REGION
    if not _REGION.fullmatch(region):
        raise ValueError("AWS_REGION: must be a name such as us-east-1")
    if not _value(environment, "BEDROCK_BASE_URL"):
        domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        row = replace(row, base_url=f"https://bedrock-runtime.{region}.{domain}")
    access, secret = _key(environment, "AWS_ACCESS_KEY_ID"), _key(environment, "AWS_SECRET_ACCESS_KEY")
    if find_spec("botocore") is None:
        if row.api_key:
            raise ValueError("AWS_BEARER_TOKEN_BEDROCK: Bedrock needs botocore, which the extra `bedrock` installs")
        return row
    if row.api_key or not (access and secret):
        return row
    return replace(row, signer=SigV4(Keys(access, secret, _key(environment, "AWS_SESSION_TOKEN")), region))


def _completed(row: Provider, environment: Mapping[str, str]) -> Provider:
    prefix = _prefix(row.name)
    return replace(
        row,
        api_key=_key(environment, f"{prefix}_API_KEY") or row.api_key,
        base_url=_url(environment, f"{prefix}_BASE_URL") or row.base_url,
        models=tuple(_list(environment, f"{prefix}_MODELS")) or row.models,
        on_disconnect=_on_disconnect(environment, f"{prefix}_ON_DISCONNECT") or row.on_disconnect,
    )


def _prefix(name: str) -> str:
    return name.upper().replace("-", "_")


def _value(environment: Mapping[str, str], variable: str) -> str:
    return environment.get(variable, "").strip()


def _list(environment: Mapping[str, str], variable: str) -> list[str]:
    return [each for each in _SEPARATORS.split(_value(environment, variable)) if each]


def _key(environment: Mapping[str, str], variable: str) -> str:
    value = _value(environment, variable)
    if _CONTROL.search(value):
        raise ValueError(f"{variable}: holds a space, a control character or one that is not ASCII")
    return value


def _url(environment: Mapping[str, str], variable: str) -> str:
    value = _value(environment, variable)
    if not value:
        return ""
    try:
        parts = urlsplit(value)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or "?" in value or "#" in value or "@" in value or _CONTROL.search(value):
        raise ValueError(f"{variable}: must be http(s)://host[:port][/path], without user, query and fragment")
    return value.rstrip("/")


def _on_disconnect(environment: Mapping[str, str], variable: str) -> OnDisconnect | None:
    match _value(environment, variable).lower():
        case "":
            return None
        case "cancel":
            return "cancel"
        case "drain":
            return "drain"
        case other:
            raise ValueError(f"{variable}: {other!r} is neither cancel nor drain")
