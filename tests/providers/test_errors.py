"""What providers' refusals mean: each line is what one of them says, in words of our own."""

import orjson
import pytest

from providers import errors
from providers.contract import Kind, ProviderError


def refusal(status: int, message: str, code: object = None, **headers: str) -> ProviderError:
    body = orjson.dumps({"error": {"message": message, "code": code}})
    return errors.from_answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, "The response was filtered due to our content management policy.", "content_filter"),
        (400, "Input data may contain inappropriate content.", "data_inspection_failed"),
        (400, "<400> InternalError.Algo.DataInspectionFailed: inappropriate", None),
        (400, "Invalid prompt: your prompt was flagged as potentially violating our usage policy.", "invalid_prompt"),
        (400, "Content Exists Risk", "invalid_request_error"),
        (400, "The request was rejected because it was considered high risk", None),
        (400, "Potentially unsafe or sensitive content was detected.", "1301"),
        (403, "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_X", None),
        (403, "Input was rejected by moderation", 403),
    ],
)
def test_what_a_filter_refused_is_told_from_what_is_wrong(status: int, message: str, code: object) -> None:
    """Nothing of it is our credentials' fault, nor worth another try."""
    assert refusal(status, message, code).kind is Kind.CONTENT_FILTERED


def test_a_filtered_answer_with_an_error_status() -> None:
    """Foundry answers 400 with the completion whose text it took out."""
    verdict = {"error": {"code": "content_filter", "message": "Blocked by label 'x'."}}
    choice = {"finish_reason": "content_filter", "content_filter_results": verdict}
    error = errors.from_answer(400, {}, orjson.dumps({"choices": [choice], "usage": {}}))
    assert (error.kind, error.message) == (Kind.CONTENT_FILTERED, "Blocked by label 'x'.")


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, "This model's maximum prompt length is 8 but the request contains 9 tokens.", None),
        (400, "Prompt exceeds max length", "1261"),
        (400, "prompt token count of 9 exceeds the limit of 8", "model_max_prompt_tokens_exceeded"),
        (400, "length of prompt_tokens (9) must be less than max_seq_len (8).", 20015),
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8.", None),
        (400, "Invalid 'input': maximum input length is 8 tokens.", None),
        (400, "Request exceeded model token limit: 8", None),
        (400, "The input length exceeds the context length", None),
    ],
)
def test_what_is_too_long_for_the_model(status: int, message: str, code: object) -> None:
    """However it is worded."""
    assert refusal(status, message, code).kind is Kind.CONTEXT_LENGTH


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("max_tokens is too large: 9. This model supports at most 8 completion tokens.", None),
        ("Unsupported value: 'messages[0].role' does not support 'system' with this model.", "unsupported_value"),
        ("Invalid model: x", "1500"),
        ("Input image exceeds the maximum size of 8 MB.", None),
    ],
)
def test_what_is_only_wrong(message: str, code: object) -> None:
    """Words that sound alike do not make it something else."""
    assert refusal(400, message, code).kind is Kind.REJECTED


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (429, "Billing hard limit has been reached", "billing_hard_limit_reached"),
        (429, "Your account is not active, please check your billing details.", "billing_not_active"),
        (429, "Your prepayment credits are depleted.", 429),
        (403, "Your team has used all available credits or reached its monthly spending limit.", None),
        (400, "Access blocked: the organization has reached its spend limit.", "blocked_api_access"),
    ],
)
def test_our_account_is_empty(status: int, message: str, code: object) -> None:
    """Whatever the status: no retry helps, and it is nothing that the caller did."""
    assert refusal(status, message, code).kind is Kind.QUOTA


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "content_filter", "message": "x"}, Kind.CONTENT_FILTERED),
        ({"type": "engine_overloaded_error", "message": "x"}, Kind.OVERLOADED),
        ({"type": "BadRequestError", "message": "x"}, Kind.REJECTED),
        ({"type": "x", "message": "Insufficient balance"}, Kind.QUOTA),
        ({"type": "server_error", "message": "x"}, Kind.FAILED),
    ],
)
def test_an_error_without_a_status(error: dict[str, str], kind: Kind) -> None:
    """Inside a stream its own words have to do."""
    assert errors.from_document({"error": error}).kind is kind


def test_the_time_to_wait_is_never_taken_from_a_sentence() -> None:
    """What the official SDKs do not read, we do not tell."""
    message = "Rate limit reached. Please try again in 26.604s."
    assert refusal(429, message).retry_after is None
    assert refusal(429, message, retry_after="2").retry_after == 2.0
