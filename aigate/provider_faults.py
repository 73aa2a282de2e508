"""What a provider's failure is to our caller: whose fault, which status, and whether a retry can help.

A provider that refuses our credentials or says that our account is empty is a fault of this gateway's set-up: its
words stay in our log, because they may quote the key, and never become the caller's 401 or 402.
"""

from typing import Any

from loguru import logger

from middleware.exchange import Exchange, Outcome
from middleware.faults import (
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
from providers.contract import Kind, ProviderError

FAULTS: dict[Kind, type[Fault]] = {
    Kind.REJECTED: RejectedByProvider,
    Kind.CONTEXT_LENGTH: ContextLengthExceeded,
    Kind.NOT_FOUND: ModelNotFound,
    Kind.RATE_LIMITED: ProviderRateLimited,
    Kind.OVERLOADED: ProviderOverloaded,
    Kind.TIMEOUT: ProviderTimeout,
    Kind.UNREACHABLE: ProviderUnreachable,
    Kind.FAILED: ProviderFault,
    Kind.BROKEN: ProviderBroken,
}
MAY_HAVE_COST = {Kind.TIMEOUT, Kind.BROKEN}
"""Failures after which the provider may still charge; it charges for no answer with an error status."""


def fault_of(error: ProviderError, provider: str) -> Fault:
    """The fault to be raised, or to be sent as the last event of a stream, for this provider's error."""
    if error.kind in (Kind.CREDENTIALS, Kind.QUOTA):
        logger.error("the provider {} refused the gateway's account: {} {}", provider, error.status, error.message)
        what = (
            "refused this gateway's credentials"
            if error.kind is Kind.CREDENTIALS
            else "refused this gateway's account"
        )
        return ProviderCredentials(f"The provider '{provider}' {what}; its operator finds why in the log.")
    fault = FAULTS[error.kind](
        f"{provider}: {error.message}",
        param=error.param,
        retry_after=error.retry_after,
        metadata=_metadata(error, provider),
    )
    if isinstance(fault, RejectedByProvider) and 400 <= error.status < 500:
        fault.status = error.status
    return fault


def note_failure(exchange: Exchange, error: ProviderError, provider: str) -> Fault:
    """Say on the exchange how its call failed, and whether it may have cost money."""
    truncated = error.kind is Kind.BROKEN and exchange.first_byte is not None
    exchange.outcome = Outcome.TRUNCATED if truncated else Outcome.UPSTREAM_ERROR
    if not _may_have_cost(exchange, error):
        exchange.spent = False
    return fault_of(error, provider)


def _may_have_cost(exchange: Exchange, error: ProviderError) -> bool:
    used = exchange.usage is not None and exchange.usage.source != "none"
    began = exchange.first_byte is not None
    return error.sent and (used or began or error.kind in MAY_HAVE_COST)


def _metadata(error: ProviderError, provider: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"provider_name": provider}
    if error.status:
        metadata["status"] = error.status
    if error.raw is not None:
        metadata["raw"] = error.raw
    return metadata
