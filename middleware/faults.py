"""Every way in which a request can be refused or fail, and whose fault it is.

To refuse, a layer raises one of these before the first byte; `middleware.errors` renders it once, in the
caller's format. `code` is a closed vocabulary, the same word in the answer, the log line and the metric; its
first word says whose fault it is: `caller_`, `policy_`, `provider_` or `gateway_`. `type` is the word of
OpenAI's own error objects that SDKs and apps look at.

`should_retry` becomes the header `x-should-retry`, which the official SDKs obey before looking at the status
(openai-python, `_base_client.py`, `_should_retry`); `None` leaves the choice to them.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class Fault(Exception):
    """A refusal or a failure with everything that the caller may know about it.

    `retry_after` is in seconds. `headers` are added to the answer. `metadata` stands in the error object as it
    is; a provider's own error is reported there (the form that OpenRouter introduced).
    """

    status: int = 500
    code: ClassVar[str] = "gateway_internal_error"
    type: str = "server_error"
    should_retry: bool | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.headers = headers or {}
        self.metadata = metadata

    def body(self) -> dict[str, Any]:
        """The OpenAI-shaped error object.

        Source: https://platform.openai.com/docs/guides/error-codes
        """
        error: dict[str, Any] = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        if self.metadata:
            error["metadata"] = dict(self.metadata)
        return {"error": error}


# --- the caller's ---------------------------------------------------------------------------------------------


class CallerFault(Fault):
    """The request is wrong; sending it again as it is cannot help."""

    status = 400
    code = "caller_invalid_request"
    type = "invalid_request_error"
    should_retry: bool | None = False


class MalformedBody(CallerFault):
    """The body is not one JSON object."""

    code = "caller_malformed_body"


class Unauthenticated(CallerFault):
    """No API key, or one that is unknown, expired or revoked."""

    status = 401
    code = "caller_invalid_api_key"
    type = "authentication_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"www-authenticate": 'Bearer realm="aigate"'})


class NotFound(CallerFault):
    """No such path."""

    status = 404
    code = "caller_unknown_path"
    type = "not_found_error"


class ModelNotFound(NotFound):
    """No such model, provider or alias."""

    code = "caller_model_not_found"


class MethodNotAllowed(CallerFault):
    """The path exists, for another method."""

    status = 405
    code = "caller_method_not_allowed"


class BodyTimeout(CallerFault):
    """The request body did not arrive in time."""

    status = 408
    code = "caller_body_timeout"
    should_retry: bool | None = None


class IdempotencyConflict(CallerFault):
    """A request with this key still runs; coming back collects its answer."""

    status = 409
    code = "caller_idempotency_key_in_use"
    should_retry = True


class BodyTooLarge(CallerFault):
    """The body, or what it is nested in, is over a bound."""

    status = 413
    code = "caller_body_too_large"


class UnsupportedEncoding(CallerFault):
    """A compressed or otherwise encoded request body."""

    status = 415
    code = "caller_unsupported_encoding"


class IdempotencyKeyReused(CallerFault):
    """The key was used before, with another body or path."""

    status = 422
    code = "caller_idempotency_key_reused"


class ClientDisconnected(CallerFault):
    """The client left before the answer ended. Nobody reads this answer; 499 (nginx) stands in log and metric."""

    status = 499
    code = "caller_disconnected"


class RejectedByProvider(CallerFault):
    """The provider says that the request is wrong; the status is the provider's own (4xx)."""

    code = "caller_rejected_by_provider"


class ContextLengthExceeded(RejectedByProvider):
    """The provider says that the prompt is longer than the model's context."""

    code = "caller_context_length_exceeded"


class ContentFiltered(RejectedByProvider):
    """The provider's filter refused what was asked; an answer that it stopped has `finish_reason` instead."""

    code = "caller_content_filtered"


# --- the policy's ---------------------------------------------------------------------------------------------


class PolicyFault(Fault):
    """The operator of this gateway does not allow it."""

    status = 403
    code = "policy_refused"
    type = "permission_error"
    should_retry: bool | None = False


class ModelNotAllowed(PolicyFault):
    """The key's allow-list does not hold this model."""

    code = "policy_model_not_allowed"


class Unpriced(PolicyFault):
    """The model has no price, and unpriced calls are refused."""

    status = 402
    code = "policy_model_unpriced"
    type = "insufficient_quota"


class RateLimited(PolicyFault):
    """Over a rate limit of this gateway."""

    status = 429
    code = "policy_rate_limited"
    type = "rate_limit_error"
    should_retry: bool | None = None


# --- the provider's -------------------------------------------------------------------------------------------


class ProviderFault(Fault):
    """The provider failed, or answered something that is no answer."""

    status = 502
    code = "provider_error"


class ProviderUnreachable(ProviderFault):
    """No connection to the provider: nothing was sent and nothing can have been billed."""

    code = "provider_unreachable"


class ProviderTimeout(ProviderFault):
    """The provider did not answer in time."""

    status = 504
    code = "provider_timeout"


class ProviderBroken(ProviderFault):
    """The provider's answer was cut off or cannot be understood."""

    code = "provider_invalid_response"


class ProviderRateLimited(ProviderFault):
    """The provider's rate limit on our account."""

    status = 429
    code = "provider_rate_limited"
    type = "rate_limit_error"


class ProviderOverloaded(ProviderFault):
    """The provider says that it is too busy."""

    status = 503
    code = "provider_overloaded"


# --- the gateway's --------------------------------------------------------------------------------------------


class GatewayFault(Fault):
    """This gateway failed, or is set up wrongly."""


class ProviderCredentials(GatewayFault):
    """The provider refused our credentials or our account is empty: the operator must act, not the caller."""

    status = 502
    code = "gateway_provider_credentials"
    should_retry = False


class ProviderNotConfigured(GatewayFault):
    """The provider is known, but the operator has set up no key or base URL for it."""

    status = 404
    code = "gateway_provider_not_configured"
    type = "not_found_error"
    should_retry = False


class StoreUnavailable(GatewayFault):
    """A store that this request needs does not answer; nothing was called and nothing billed."""

    status = 503
    code = "gateway_store_unavailable"

    def __init__(self, message: str, *, retry_after: float = 2.0, unsure: bool = True) -> None:
        """`unsure`: something was sent to the store, and may have been done although no answer came."""
        super().__init__(message, retry_after=retry_after)
        self.unsure = unsure
