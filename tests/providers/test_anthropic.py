"""What Claude answers in one piece, in OpenAI's words."""

from typing import Any

import orjson
import pytest

from providers.contract import Kind, ProviderError, Usage
from tests.providers.anthropic_answers import (
    BY_TOOL,
    CITATION,
    FOUND,
    HIDDEN,
    READ,
    SEARCH,
    SIGNED,
    THOUGHT,
    TOLD,
    USAGE,
    USE,
    WIRE,
    answer,
    call,
    choice,
    priced,
    text,
)

# --- an answer in one piece ----------------------------------------------------------------------------------------


def test_text_is_the_content_with_the_providers_id_and_model() -> None:
    """And nothing that was not said."""
    decoded = WIRE.response(call(), answer(text("Hello")))
    document = orjson.loads(decoded.body)
    assert (document["id"], document["model"], document["object"]) == ("msg_1", "claude-x", "chat.completion")
    assert document["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello"},
            "finish_reason": "stop",
            "native_finish_reason": "end_turn",
        }
    ]
    assert document["usage"] == TOLD
    assert decoded.usage == READ


def test_tool_calls_have_their_arguments_as_text() -> None:
    """Without text the content is null."""
    found = choice(USE, stop="tool_use")
    assert found["message"]["content"] is None
    assert found["message"]["tool_calls"] == [
        {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Ulm"}'}}
    ]
    assert found["finish_reason"] == "tool_calls"


def test_thinking_is_told_with_what_a_tool_loop_gives_back() -> None:
    """The text for people, and its signature for the next request."""
    message = choice(THOUGHT, HIDDEN, text("So"))["message"]
    assert message["reasoning_content"] == "Hm"
    assert message["reasoning_details"] == [
        {"type": "reasoning.text", "text": "Hm", "format": SIGNED, "signature": "sig", "index": 0},
        {"type": "reasoning.encrypted", "data": "xyz", "format": SIGNED, "index": 1},
    ]
    assert "anthropic" not in message


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
    ],
)
def test_each_stop_reason_has_its_finish_reason(stop: str, finish: str) -> None:
    """The provider's own stands beside it."""
    found = choice(text("x"), stop=stop)
    assert (found["finish_reason"], found["native_finish_reason"]) == (finish, stop)


def test_a_refusal_says_why() -> None:
    """In the field that OpenAI has for it."""
    details = {"type": "refusal", "category": "cyber", "explanation": "No."}
    assert choice(stop="refusal", stop_details=details)["message"] == {
        "role": "assistant",
        "content": "",
        "refusal": "No.",
    }


def test_citations_are_annotations_and_blocks_that_have_no_form_are_carried() -> None:
    """So that the next request can give back the answer as it was."""
    blocks = [THOUGHT, SEARCH, FOUND, text("It "), text("is", citations=[CITATION])]
    message = choice(*blocks)["message"]
    assert message["content"] == "It is"
    cited = {"url": "https://a.example", "title": "A", "start_index": 3, "end_index": 5}
    assert message["annotations"] == [{"type": "url_citation", "url_citation": cited}]
    assert message["anthropic"] == {"content": blocks}
    assert "tool_calls" not in message


def test_an_empty_text_is_nothing_to_give_back() -> None:
    """Requests with one are refused."""
    assert "anthropic" not in choice(text("a"), USE, text(""))["message"]
    assert choice(SEARCH, FOUND, text("\n"), USE)["message"]["anthropic"]["content"] == [SEARCH, FOUND, USE]


def test_what_the_provider_says_beside_the_answer_rides_along() -> None:
    """Under its name; the usage's own words in the usage."""
    edits = {"applied_edits": []}
    beside = {"container": {"id": "c_1"}, "context_management": edits, "stop_sequence": None, "novel": 1}
    usage = {"input_tokens": 1, "output_tokens": 1, "service_tier": "priority", "inference_geo": "us"}
    document = orjson.loads(WIRE.response(call(), answer(text("x"), usage=usage, **beside)).body)
    assert document["anthropic"] == {"container": {"id": "c_1"}, "context_management": edits}
    assert (document["usage"]["service_tier"], document["usage"]["inference_geo"]) == ("priority", "us")


def test_an_answer_by_tool_is_the_content() -> None:
    """Where an older model was made to call one, for lack of schemas."""
    made = call("claude-3-5-haiku", document=BY_TOOL)
    asked = {**USE, "name": "answer_in_json", "input": {"a": 1}}
    found = choice(asked, made=made, stop="tool_use")
    assert found["message"] == {"role": "assistant", "content": '{"a":1}'}
    assert found["finish_reason"] == "stop"
    assert choice(USE, made=made, stop="tool_use")["finish_reason"] == "tool_calls"


def test_reasoning_is_part_of_the_output_and_the_cost_is_told() -> None:
    """What the provider bills is its total."""
    usage = {**USAGE, "output_tokens_details": {"thinking_tokens": 4}, "server_tool_use": {"web_search_requests": 1}}
    decoded = WIRE.response(call(pricing=priced), answer(text("x"), usage=usage))
    assert (decoded.usage.output_tokens, decoded.usage.reasoning_tokens) == (7, 4)
    told = orjson.loads(decoded.body)["usage"]
    assert told["cost"] == 0.000031
    assert told["server_tool_use"] == {"web_search_requests": 1}


ITERATIONS = [
    {"type": "compaction", "input_tokens": 100, "cache_creation_input_tokens": 55_000, "output_tokens": 80},
    {"type": "message", "input_tokens": 180, "output_tokens": 8},
    {"type": "advisor_message", "input_tokens": 20, "cache_read_input_tokens": 7, "output_tokens": 2},
]


def test_what_was_sampled_beside_the_answer_is_counted() -> None:
    """A summary of the context costs more than the answer, and is not in the counts of the usage object."""
    found = {"input_tokens": 180, "output_tokens": 8, "iterations": ITERATIONS}
    decoded = WIRE.response(call(), answer(text("x"), usage=found))
    assert decoded.usage == Usage(55_307, 7, 55_000, 90, source="provider")
    told = orjson.loads(decoded.body)["usage"]
    assert (told["prompt_tokens"], told["iterations"]) == (55_307, ITERATIONS)


@pytest.mark.parametrize("iterations", [3, [], [3], [{"type": []}], [{"type": "compaction", "input_tokens": -1}]])
def test_iterations_that_are_none_count_nothing(iterations: Any) -> None:
    """Whatever stands there."""
    found = {"input_tokens": 1, "output_tokens": 1, "iterations": iterations}
    assert WIRE.response(call(), answer(text("x"), usage=found)).usage.input_tokens == 1


def test_no_usage_is_invented() -> None:
    """An answer without usage stays without, and says so."""
    decoded = WIRE.response(call(pricing=priced), answer(text("x"), usage=None))
    assert decoded.usage == Usage(source="none")
    assert "usage" not in orjson.loads(decoded.body)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"content":null}', b'{"con'])
def test_what_is_no_answer_is_broken(body: bytes) -> None:
    """A 200 alone is not an answer."""
    with pytest.raises(ProviderError) as caught:
        WIRE.response(call(), body)
    assert caught.value.kind is Kind.BROKEN


def test_an_error_inside_a_200_is_an_error() -> None:
    """Whatever the status said."""
    with pytest.raises(ProviderError) as caught:
        WIRE.response(call(), b'{"type":"error","error":{"type":"overloaded_error","message":"Busy"}}')
    assert (caught.value.kind, caught.value.message) == (Kind.OVERLOADED, "Busy")


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "message", "meaning"),
    [
        (400, "invalid_request_error", "tools.0: Field required", Kind.REJECTED),
        (400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum", Kind.CONTEXT_LENGTH),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 9 + 1 > 8",
            Kind.CONTEXT_LENGTH,
        ),
        (400, "invalid_request_error", "Your credit balance is too low to access the API", Kind.QUOTA),
        (400, "invalid_request_error", "You have reached your specified API usage limits.", Kind.QUOTA),
        (400, "invalid_request_error", "This organization has been disabled.", Kind.CREDENTIALS),
        (429, "rate_limit_error", "Extra usage is required for long context requests.", Kind.QUOTA),
        (401, "authentication_error", "invalid x-api-key", Kind.CREDENTIALS),
        (402, "billing_error", "Payment required", Kind.QUOTA),
        (403, "permission_error", "Not allowed", Kind.CREDENTIALS),
        (404, "not_found_error", "model: claude-nine", Kind.NOT_FOUND),
        (413, "request_too_large", "Request exceeds the maximum size", Kind.REJECTED),
        (429, "rate_limit_error", "Slow down", Kind.RATE_LIMITED),
        (500, "api_error", "Internal server error", Kind.FAILED),
        (504, "timeout_error", "Too slow", Kind.TIMEOUT),
        (529, "overloaded_error", "Overloaded", Kind.OVERLOADED),
    ],
)
def test_each_refusal_has_its_meaning(status: int, kind: str, message: str, meaning: Kind) -> None:
    """Status first, then the words; with the provider's time to wait."""
    body = orjson.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"})
    error = WIRE.error(status, {"retry-after": "3"}, body)
    assert (error.kind, error.message, error.status, error.retry_after) == (meaning, message, status, 3.0)
