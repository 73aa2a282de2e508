"""Why: Google says in an error's details what its status leaves open: a bad key is a 400, the wait is no header.

Source: https://google.aip.dev/193, https://ai.google.dev/gemini-api/docs/troubleshooting
"""

import re
from collections.abc import Mapping
from typing import Any

from providers import errors
from providers.contract import Kind, ProviderError
from providers.document import loads

_CONTEXT = re.compile(
    r"(input )?token count.{0,40} exceeds the maximum|exceeds the maximum number of (input )?tokens"
)
_BAD_KEY = {"API_KEY_INVALID", "API_KEY_SERVICE_BLOCKED", "ACCESS_TOKEN_EXPIRED", "BILLING_DISABLED"}
_SECONDS = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s")


def from_answer(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """What an answer with an error status means."""
    try:
        document = loads(body)
    except ValueError:
        document = None
    return _refined(errors.from_answer(status, headers, body), document)


def from_document(document: Any) -> ProviderError:
    """What an error inside a stream, or inside a 200, means."""
    return _refined(errors.from_document(document), document)


def _refined(found: ProviderError, document: Any) -> ProviderError:
    details = _details(document)
    if any(each.get("reason") in _BAD_KEY for each in details if isinstance(each.get("reason"), str)):
        found.kind = Kind.CREDENTIALS
    elif found.status == 400 and _CONTEXT.search(found.message):
        found.kind = Kind.CONTEXT_LENGTH
    if found.retry_after is None:
        waits = (_SECONDS.fullmatch(delay) for each in details if isinstance(delay := each.get("retryDelay"), str))
        found.retry_after = next((min(float(wait[1]), errors.MAX_RETRY_AFTER) for wait in waits if wait), None)
    return found


def _details(document: Any) -> list[dict[str, Any]]:
    if isinstance(document, list) and document:
        document = document[0]
    error = document.get("error") if isinstance(document, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    return [each for each in details if isinstance(each, dict)] if isinstance(details, list) else []
