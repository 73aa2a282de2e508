"""Why: providers word the same failure in twenty ways, and what it means decides who is told what, and who retries.

The status speaks first, then the error's type and code, then its words. Words are looked at only where a status is
known to be used for several meanings; each such rule names the provider that made it necessary.

How long to wait is taken from headers (and by a wire of its own from what it has for that) and never from words
("try again in 1.2s"): the official SDKs do not read them either, and a sentence is no promise of its form.

Sources: https://platform.openai.com/docs/guides/error-codes, https://openrouter.ai/docs/api-reference/errors,
https://help.aliyun.com/en/model-studio/error-code, https://api-docs.deepseek.com/quick_start/error_codes
"""

import html
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from .contract import Kind, ProviderError
from .document import dumps, excerpt, loads

MAX_MESSAGE = 500
MAX_RAW = 2000
MAX_RETRY_AFTER = 3600.0

_BY_STATUS = {
    401: Kind.CREDENTIALS,
    402: Kind.QUOTA,
    403: Kind.CREDENTIALS,
    404: Kind.NOT_FOUND,
    408: Kind.TIMEOUT,
    412: Kind.QUOTA,  # Fireworks: the account is suspended
    429: Kind.RATE_LIMITED,
    498: Kind.OVERLOADED,  # Groq: flex tier capacity
    503: Kind.OVERLOADED,
    504: Kind.TIMEOUT,
    524: Kind.TIMEOUT,  # Cloudflare: the origin took too long
    529: Kind.OVERLOADED,
}

_BY_WORD = {
    "authentication_error": Kind.CREDENTIALS,
    "permission_error": Kind.CREDENTIALS,
    "invalid_api_key": Kind.CREDENTIALS,
    "insufficient_quota": Kind.QUOTA,
    "rate_limit_error": Kind.RATE_LIMITED,
    "rate_limit_exceeded": Kind.RATE_LIMITED,
    "rate_limit_reached_error": Kind.RATE_LIMITED,  # Moonshot
    "limit_requests": Kind.RATE_LIMITED,
    "overloaded_error": Kind.OVERLOADED,
    "engine_overloaded_error": Kind.OVERLOADED,  # Moonshot
    "timeout": Kind.TIMEOUT,
    "model_not_found": Kind.NOT_FOUND,
    "not_found_error": Kind.NOT_FOUND,
    "invalid_request_error": Kind.REJECTED,
    "invalid_parameter_error": Kind.REJECTED,  # DashScope
    "badrequesterror": Kind.REJECTED,  # vLLM
    "invalid_prompt": Kind.REJECTED,
}
"""For errors without a status of their own, inside a stream or a 200."""

_CONTEXT = re.compile(
    r"context.?(length|size|window|overflow)|maximum (context|(prompt|input) length)|too_many_prompt_tokens|"
    r"exceed_context|max_prompt_tokens_exceeded|max_seq_len|max_new_tokens.? must be|"
    r"(prompt|input).{0,40} exceeds? (the )?max\w* (length|tokens|number of tokens)|"
    r"(prompt|input|messages).{0,30} (is|are) too long|too many (prompt|input)? ?tokens|"
    r"token limit|range of input length|reduce the length"
)
_BAD_KEY = re.compile(r"(incorrect|invalid)[ _]api[ _]key|api[ _]key (is )?(not valid|invalid)")  # xAI: a 400
_NO_MONEY = re.compile(
    r"insufficient.?(balance|credit|fund)|not enough (balance|credit)|credit balance|(used|out of) .{0,20}credits|"
    r"credits are (depleted|exhausted)|billing.(hard.limit|not.active)|account is not active|"
    r"arrearage|account is in good standing|exceeded_current_quota|spend(ing)?.?(limit|cap)|freetieronly|"
    r"no resource package"
)
"""zAI, Moonshot, OpenAI, Gemini: 429. xAI, DashScope: 403. Groq: 400. DashScope: 400 for an account in arrears."""

_FILTERED = re.compile(
    r"content.?(policy|filter|management)|data.?inspection|responsibleai|flagged (as|by)|content exists risk|"
    r"considered high risk|violat\w+ (our |the )?(usage|content)|unsafe or sensitive|敏感内容"
)
"""Azure, DashScope, OpenAI, DeepSeek, Moonshot, xAI, zAI, in this order."""

_MODERATED = re.compile(r"moderat|flagged|safety|inspection")  # OpenRouter, xAI: a 403


def from_answer(
    status: int, headers: Mapping[str, str], body: bytes, *, throttles_as_quota: bool = False
) -> ProviderError:
    """What an answer with an error status means.

    `throttles_as_quota`: this provider words its per-minute throttle `insufficient_quota` (DashScope).
    """
    try:
        document = loads(body)
    except ValueError:
        document = None
    error = _error_fields(document)
    message = message_of(error) or _plain_text(body) or f"The provider answered with status {status}."
    found = ProviderError(
        _kind(status, _words(error, message), throttles_as_quota),
        message,
        status=status,
        param=_text(error.get("param")),
        raw=_raw(error) or excerpt(body, MAX_RAW),
        retry_after=retry_after(headers),
    )
    if 300 <= status < 400:
        found.message = f"The provider answered with a redirect ({status}), which is never followed."
    return found


def from_document(document: Any, *, throttles_as_quota: bool = False) -> ProviderError:
    """What an error object inside a stream, or inside a 200, means; its own status speaks where it names one."""
    error = _error_fields(document)
    message = message_of(error) or "The provider ended its answer with an error."
    status = _own_status(error)
    words = _words(error, message)
    kind = _kind(status, words, throttles_as_quota) if status else _kind_by_word(error, words)
    return ProviderError(kind, message, status=status, param=_text(error.get("param")), raw=_raw(error))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, 0 to an hour; from `retry-after-ms`, or `retry-after` in seconds or as a date.

    Source: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    if milliseconds := _number(headers.get("retry-after-ms")):  # Azure: 0 beside a `retry-after` of seconds
        return _bounded(milliseconds / 1000)
    value = headers.get("retry-after")
    if (seconds := _number(value)) is not None:
        return _bounded(seconds)
    try:
        return _bounded(parsedate_to_datetime(value or "").timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def message_of(error: Mapping[str, Any]) -> str:
    """The error's own words, shortened; empty where it has none."""
    for name in ("message", "detail", "error", "msg", "error_message"):
        value = error.get(name)
        if isinstance(value, dict):  # Mistral's 422: {"message": {"detail": [...]}}
            value = message_of(value)
        if isinstance(value, list):  # FastAPI's validation errors
            value = "; ".join(str(each.get("msg", "")) if isinstance(each, dict) else str(each) for each in value)
        if isinstance(value, str) and value.strip():
            return value.strip()[:MAX_MESSAGE]
    return ""


def _kind(status: int, words: str, throttles_as_quota: bool) -> Kind:
    if 300 <= status < 400:
        return Kind.BROKEN
    if status in (400, 413, 422) and _CONTEXT.search(words):
        return Kind.CONTEXT_LENGTH
    if status in (400, 403, 429) and _NO_MONEY.search(words):
        return Kind.QUOTA
    if status == 429 and "insufficient_quota" in words and not throttles_as_quota:
        return Kind.QUOTA
    if status == 400 and _BAD_KEY.search(words):
        return Kind.CREDENTIALS
    if status in (400, 403, 422) and (_FILTERED.search(words) or (status == 403 and _MODERATED.search(words))):
        return Kind.CONTENT_FILTERED
    return _BY_STATUS.get(status) or (Kind.REJECTED if 400 <= status < 500 else Kind.FAILED)


def _kind_by_word(error: Mapping[str, Any], words: str) -> Kind:
    if _CONTEXT.search(words):
        return Kind.CONTEXT_LENGTH
    if _FILTERED.search(words):
        return Kind.CONTENT_FILTERED
    for name in ("code", "type"):
        if found := _BY_WORD.get(str(error.get(name)).lower()):
            return found
    return Kind.QUOTA if _NO_MONEY.search(words) else Kind.FAILED


def _error_fields(document: Any) -> dict[str, Any]:
    """The error object itself, out of `{"error": {}}`, `{"error": ""}`, `[{"error": {}}]` or the bare object."""
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, dict):
        return {}
    inner = document.get("error") or _filtered(document.get("choices"))
    return inner if isinstance(inner, dict) else document


def _filtered(choices: Any) -> Any:
    """Foundry's refusal of what its model answered: a 400 with the completion that it would have been."""
    choice = choices[0] if isinstance(choices, list) and choices else None
    results = choice.get("content_filter_results") if isinstance(choice, dict) else None
    return results.get("error") if isinstance(results, dict) else None


def _words(error: Mapping[str, Any], message: str) -> str:
    """Everything in lower case that a rule may look at; OpenRouter keeps the first provider's words in metadata."""
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    return f"{error.get('type')} {error.get('code')} {message} {str(raw or '')[:MAX_RAW]}".lower()


def _own_status(error: Mapping[str, Any]) -> int:
    for name in ("status_code", "status", "code"):
        value = _number(error.get(name))
        if value is not None and 400 <= value < 600:
            return int(value)
    return 0


def _raw(error: dict[str, Any]) -> Any:
    if not error:
        return None
    encoded = dumps(error)
    return error if len(encoded) <= MAX_RAW else excerpt(encoded, MAX_RAW)


def _plain_text(body: bytes) -> str:
    """An HTML page or plain text as one short line."""
    text = body[: 16 * MAX_RAW].decode("utf-8", "replace")
    if text.lstrip().startswith("<"):
        text = re.sub(r"(?is)<(script|style)\b.*?(</\1>|$)|<!--.*?(-->|$)|<[^>]*>?", " ", text)
        text = html.unescape(text)
    return " ".join(text.split())[:MAX_MESSAGE]


def _text(value: Any) -> str | None:
    return value[:MAX_MESSAGE] if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _bounded(seconds: float) -> float | None:
    return min(max(seconds, 0.0), MAX_RETRY_AFTER) if seconds == seconds else None
