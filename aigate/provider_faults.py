"""What a provider's failure is to our caller: whose fault, which status, and whether a retry can help.

A provider that refuses our credentials or says that our account is empty is a fault of this gateway's set-up: its
words stay in our log and never become the caller's 401 or 402. Our key, if a provider quotes it, goes nowhere.
"""

from typing import Any

import orjson
from loguru import logger

from middleware.exchange import Exchange, Outcome
from middleware.faults import (
    ContentFiltered,
    ContextLengthExceeded,
    Fault,
    ModelNotFound,
    ProviderBroken,
    ProviderCredentials,
    ProviderFault,
    ProviderOverloaded,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnreachable,
    RejectedByProvider,
)
from providers.catalog import Provider
from providers.contract import Kind, ProviderError

FAULTS: dict[Kind, type[Fault]] = {
    Kind.REJECTED: RejectedByProvider,
    Kind.CONTEXT_LENGTH: ContextLengthExceeded,
    Kind.CONTENT_FILTERED: ContentFiltered,
    Kind.NOT_FOUND: ModelNotFound,
    Kind.RATE_LIMITED: ProviderRateLimited,
    Kind.OVERLOADED: ProviderOverloaded,
    Kind.TIMEOUT: ProviderTimeout,
    Kind.UNREACHABLE: ProviderUnreachable,
    Kind.FAILED: ProviderFault,
    Kind.BROKEN: ProviderBroken,
}
SHORTEST_SECRET = 8
"""Characters of a key that is looked for in a provider's words: a shorter one is no secret, and would be anywhere."""
MAY_HAVE_COST = {Kind.TIMEOUT, Kind.BROKEN}
"""Failures after which the provider may still charge; it charges for no answer with an error status."""


def fault_of(error: ProviderError, provider: Provider) -> Fault:
    """The fault to be raised, or to be sent as the last event of a stream, for this provider's error."""
    message = _masked(error.message, provider.api_key)
    if error.kind in (Kind.CREDENTIALS, Kind.QUOTA):
        logger.error("the provider {} refused the gateway's account: {} {}", provider.name, error.status, message)
        what = (
            "refused this gateway's credentials"
            if error.kind is Kind.CREDENTIALS
            else "refused this gateway's account"
        )
        return ProviderCredentials(f"The provider '{provider.name}' {what}; its operator finds why in the log.")
    fault = FAULTS[error.kind](
        f"{provider.name}: {message}",
        param=error.param,
        retry_after=error.retry_after,
        metadata=_metadata(error, provider),
    )
    if isinstance(fault, RejectedByProvider) and 400 <= error.status < 500:
        fault.status = error.status
    return fault


def note_failure(exchange: Exchange, error: ProviderError, provider: Provider, *, began: bool) -> Fault:
    """Say on the exchange how its call failed, and whether it may have cost money.

    `began`: some of the provider's answer has been passed on.
    """
    truncated = error.kind is Kind.BROKEN and began
    exchange.outcome = Outcome.TRUNCATED if truncated else Outcome.UPSTREAM_ERROR
    used = exchange.usage is not None and exchange.usage.source != "none"
    if not (used or began or _may_have_cost(error)):
        exchange.spent = False
    return fault_of(error, provider)


def _may_have_cost(error: ProviderError) -> bool:
    redirected = 300 <= error.status < 400
    return error.sent and error.kind in MAY_HAVE_COST and not redirected


def _metadata(error: ProviderError, provider: Provider) -> dict[str, Any]:
    metadata: dict[str, Any] = {"provider_name": provider.name}
    if error.status:
        metadata["status"] = error.status
    if error.raw is not None:
        metadata["raw"] = orjson.loads(_masked(orjson.dumps(error.raw).decode(), provider.api_key))
    return metadata


def _masked(text: str, secret: str) -> str:
    """The text without our key for the provider: some quote what they were sent."""
    return text.replace(secret, "***") if len(secret) >= SHORTEST_SECRET else text
