"""Why: AWS names each failure by an exception, in a header, in the body or in a frame; the name tells more than a 400.

Within a stream the name comes without a status; there it implies the one that it has as an answer. Where AWS refuses
a signature it quotes what was to be signed, the session's token among it: of that only the first line is kept.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html#API_runtime_ConverseStream_Errors,
https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
"""  # noqa: E501

import re
from collections.abc import Mapping
from typing import Any

from providers import errors
from providers.contract import Kind, ProviderError
from providers.document import dumps, loads

_STATUS = {
    "accessdeniedexception": 403,
    "internalserverexception": 500,
    "modelerrorexception": 424,
    "modelnotreadyexception": 429,
    "modelstreamerrorexception": 424,
    "modeltimeoutexception": 408,
    "resourcenotfoundexception": 404,
    "serviceunavailableexception": 503,
    "throttlingexception": 429,
    "validationexception": 400,
}
_KINDS = {
    "accessdeniedexception": Kind.CREDENTIALS,
    "expiredtokenexception": Kind.CREDENTIALS,
    "incompletesignature": Kind.CREDENTIALS,
    "incompletesignatureexception": Kind.CREDENTIALS,
    "invalidclienttokenid": Kind.CREDENTIALS,
    "invalidsignatureexception": Kind.CREDENTIALS,
    "missingauthenticationtoken": Kind.CREDENTIALS,
    "missingauthenticationtokenexception": Kind.CREDENTIALS,
    "unrecognizedclientexception": Kind.CREDENTIALS,
    "modelerrorexception": Kind.FAILED,
    "modelnotreadyexception": Kind.OVERLOADED,
    "modelstreamerrorexception": Kind.FAILED,
    "modeltimeoutexception": Kind.TIMEOUT,
    "servicequotaexceededexception": Kind.QUOTA,
    "serviceunavailableexception": Kind.OVERLOADED,
    "throttlingexception": Kind.RATE_LIMITED,
}
_FAILED_DEPENDENCY = 424
_CONTEXT = re.compile(r"exceeds? (the )?context limit|input tokens exceeded|number of (input )?tokens.{0,30} exceed")
"""In the words of Claude, Nova and Cohere."""


def from_answer(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """What an answer with an error status means."""
    document = _document(body)
    name = headers.get("x-amzn-errortype") or document.get("__type") or document.get("code")
    return _told(status, headers, body, document, _bare(name))


def from_frame(headers: Mapping[str, Any], payload: bytes) -> ProviderError:
    """What a frame means that is an exception, or an error that nobody modelled."""
    name = _bare(headers.get(":exception-type") or headers.get(":error-code"))
    document = _document(payload)
    if not document and isinstance(headers.get(":error-message"), str):
        document = {"message": headers[":error-message"]}
    return _told(_STATUS.get(name, 500), {}, payload, document, name)


def from_document(document: Mapping[str, Any]) -> ProviderError | None:
    """What a whole answer means that is no answer; None where it may be one."""
    output = document.get("Output")
    name = _bare(document.get("__type") or (output.get("__type") if isinstance(output, dict) else None))
    if not name and ("output" in document or not isinstance(document.get("message"), str)):
        return None
    return _told(_STATUS.get(name, 500), {}, dumps(document), dict(document), name)


def _told(status: int, headers: Mapping[str, str], body: bytes, document: dict[str, Any], name: str) -> ProviderError:
    found = errors.from_answer(status, headers, body)
    kind = Kind.FAILED if status == _FAILED_DEPENDENCY else found.kind
    kind = _KINDS.get(name, kind) if status < 500 or kind is Kind.OVERLOADED else kind
    if kind is Kind.REJECTED and _CONTEXT.search(_words(document).lower()):
        kind = Kind.CONTEXT_LENGTH
    message, raw = _words(document) or found.message, found.raw
    if kind is Kind.CREDENTIALS:
        message, raw = message.partition("\n")[0], None
    return ProviderError(kind, message, status=status, param=found.param, raw=raw, retry_after=found.retry_after)


def _words(document: Mapping[str, Any]) -> str:
    words = document.get("message") or document.get("Message")
    original = document.get("originalMessage")
    if isinstance(original, str) and isinstance(words, str) and original not in words:
        words = f"{words} ({original})"
    return words.strip()[: errors.MAX_MESSAGE] if isinstance(words, str) else ""


def _bare(name: Any) -> str:
    """`ThrottlingException` out of `com.amazon#ThrottlingException:http://...`, in lower case."""
    return name.rpartition("#")[2].partition(":")[0].strip().lower() if isinstance(name, str) else ""


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
