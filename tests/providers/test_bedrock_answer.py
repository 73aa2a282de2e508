"""What Bedrock answers in one piece, in OpenAI's words."""

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.bedrock import BedrockWire
from providers.contract import Call, Kind, ProviderError, Usage

WIRE = BedrockWire()
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
USAGE = {"inputTokens": 3, "outputTokens": 7, "totalTokens": 110, "cacheReadInputTokens": 100}


def call(model: str = CLAUDE, **fields: Any) -> Call:
    return Call(model, {"messages": [{"role": "user", "content": "hi"}]}, **fields)


def answer(*blocks: dict[str, Any], reason: str = "end_turn", **more: Any) -> bytes:
    message = {"role": "assistant", "content": list(blocks)}
    return orjson.dumps({"output": {"message": message}, "stopReason": reason, "usage": USAGE, **more})


def message(*blocks: dict[str, Any], model: str = CLAUDE) -> dict[str, Any]:
    return orjson.loads(WIRE.response(call(model), answer(*blocks)).body)["choices"][0]["message"]


def test_an_answer_becomes_a_chat_completion() -> None:
    """With what was read from the cache in its input."""
    decoded = WIRE.response(call(pricing=lambda usage: usage.output_tokens * 10**9), answer({"text": "Hello"}))
    assert decoded.usage == Usage(input_tokens=103, cache_read_tokens=100, output_tokens=7, source="provider")
    document = orjson.loads(decoded.body)
    assert document["object"] == "chat.completion"
    assert document["model"] == CLAUDE
    assert document["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello"},
            "finish_reason": "stop",
            "native_finish_reason": "end_turn",
        }
    ]
    assert document["usage"] == {
        "prompt_tokens": 103,
        "completion_tokens": 7,
        "total_tokens": 110,
        "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 0},
        "cost": 7.0,
    }


def test_calls_and_thoughts_have_their_places() -> None:
    """The signature is kept for the next request."""
    thought = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}}
    use = {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": 1}, "type": "tool_use"}}
    assert message(thought, use) == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hm",
        "reasoning_details": [
            {
                "type": "reasoning.text",
                "text": "hm",
                "signature": "s",
                "format": "anthropic-claude-v1",
                "index": 0,
            }
        ],
        "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
    }


def test_reasoning_that_nobody_signed_is_only_told() -> None:
    """It could not be given back."""
    thought = {"reasoningContent": {"reasoningText": {"text": "hm"}}}
    found = message({"text": "x"}, thought, model="us.deepseek.r1-v1:0")
    assert found == {"role": "assistant", "content": "x", "reasoning_content": "hm"}


def test_cited_text_is_text() -> None:
    """Its citations ride along, and all blocks for the next request."""
    cited = {"citationsContent": {"content": [{"text": "so"}], "citations": [{"title": "t"}]}}
    found = message(cited)
    assert (found["content"], found["citations"]) == ("so", [{"title": "t"}])
    assert found["bedrock"] == {"content": [cited]}


SEARCHED = [
    {"toolUse": {"toolUseId": "s1", "name": "nova_grounding", "input": {}, "type": "server_tool_use"}},
    {"toolResult": {"toolUseId": "s1", "content": [{"json": {"a": 1}}], "type": "nova_grounding_result"}},
]


def test_what_the_providers_tools_did_is_carried() -> None:
    """It is no call that anybody here could answer, but the next request has to give it back."""
    use = {"toolUse": {"toolUseId": "t1", "name": "f", "input": {}}}
    found = message(*SEARCHED, use)
    assert [call["id"] for call in found["tool_calls"]] == ["t1"]
    assert found["bedrock"] == {"content": [*SEARCHED, use]}


def test_reasoning_that_nobody_signed_is_not_carried() -> None:
    """Models refuse it."""
    assert (
        message({"reasoningContent": {"reasoningText": {"text": "hm"}}}, *SEARCHED)["bedrock"]["content"] == SEARCHED
    )


def test_an_empty_text_is_nothing_to_give_back() -> None:
    """Some models end with one, and requests with one are refused."""
    use = {"toolUse": {"toolUseId": "t1", "name": "f", "input": {}}}
    assert "bedrock" not in message({"text": "so"}, use, {"text": ""})
    assert message(*SEARCHED, {"text": "\n"}, use)["bedrock"]["content"] == [*SEARCHED, use]


def test_a_picture_is_told_as_openrouter_does() -> None:
    """And carried, for OpenAI's assistant has no pictures."""
    block = {"image": {"format": "png", "source": {"bytes": "QUJD"}}}
    found = message({"text": "so"}, block)
    assert found["images"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}]
    assert found["bedrock"]["content"] == [{"text": "so"}, block]


def test_cited_web_pages_are_annotations() -> None:
    """With the place of the text that cites them."""
    web = {"title": "T", "location": {"web": {"url": "https://a.example", "domain": "a.example"}}}
    page = {"title": "P", "location": {"documentPage": {"documentIndex": 0}}}
    found = message({"text": "It "}, {"citationsContent": {"content": [{"text": "is"}], "citations": [web, page]}})
    cited = {"url": "https://a.example", "title": "T", "start_index": 3, "end_index": 5}
    assert found["annotations"] == [{"type": "url_citation", "url_citation": cited}]
    assert found["citations"] == [web, page]


def test_what_only_bedrock_says_rides_along() -> None:
    """Beside the answer, and in its usage."""
    beside = {"performanceConfig": {"latency": "optimized"}, "serviceTier": {"type": "flex"}, "metrics": {}}
    more = {"serverToolUsage": {"webSearchRequests": 1}, "cacheDetails": [{"ttl": "1h", "inputTokens": 2}]}
    body = answer({"text": "x"}, **beside).replace(b'"inputTokens":3', orjson.dumps(more)[1:-1] + b',"inputTokens":3')
    document = orjson.loads(WIRE.response(call(), body).body)
    assert document["bedrock"] == {name: beside[name] for name in ("performanceConfig", "serviceTier")}
    assert document["usage"]["server_tool_use"] == more["serverToolUsage"]
    assert document["usage"]["cache_details"] == more["cacheDetails"]


def test_what_a_guardrail_found_rides_along() -> None:
    """Under the provider's name."""
    trace = {"guardrail": {"actionReason": "masked"}}
    decoded = WIRE.response(call(), answer({"text": "x"}, reason="guardrail_intervened", trace=trace))
    document = orjson.loads(decoded.body)
    assert document["choices"][0]["finish_reason"] == "content_filter"
    assert document["bedrock"] == {"trace": trace}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"<html>", b'{"output":{"message":{"content":3}}}', b'{"output":']
)
def test_what_is_no_answer_is_broken(body: bytes) -> None:
    """A 200 alone is not an answer."""
    with pytest.raises(ProviderError) as caught:
        WIRE.response(call(), body)
    assert caught.value.kind is Kind.BROKEN


def test_an_error_inside_a_200_is_one() -> None:
    """Proxies do so."""
    with pytest.raises(ProviderError, match="slow down") as caught:
        WIRE.response(call(), b'{"__type":"com.amazon#ThrottlingException","message":"slow down"}')
    assert caught.value.kind is Kind.RATE_LIMITED
    with pytest.raises(ProviderError) as caught:
        WIRE.response(call(), b'{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"}}')
    assert caught.value.kind is Kind.FAILED


@given(
    body=st.recursive(
        st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["output", "message", "content", "text", "toolUse", "reasoningContent", "usage", "name"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_document_is_an_answer_or_an_error(body: Any) -> None:
    """Nothing but `ProviderError` is raised."""
    for document in (body, {"output": {"message": {"content": [body, {"toolUse": body}]}}, "usage": body}):
        try:
            WIRE.response(call(), orjson.dumps(document))
        except ProviderError:
            continue
