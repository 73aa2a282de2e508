"""What Bedrock is sent: every field has its place, or is refused by name."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.contract import Call, ProviderError
from tests.providers.bedrock_asking import (
    ADAPTIVE,
    CALLED,
    CLAUDE,
    FUNCTION,
    MARK,
    NOVA,
    POINT,
    RESULT,
    SPEC,
    TOOLS,
    USER,
    WIRE,
    refused,
    sent,
)

# --- fields -----------------------------------------------------------------------------------------------------


def test_sampling_has_its_places() -> None:
    """A house's own go beside Converse's."""
    fields = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop": "x", "top_k": 5}
    body = sent(**fields)
    assert body["inferenceConfig"] == {"maxTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["x"]}
    assert body["additionalModelRequestFields"] == {"top_k": 5}
    assert sent(max_completion_tokens=3, max_tokens=9)["inferenceConfig"] == {"maxTokens": 3}
    assert sent(model=NOVA, top_k=5)["additionalModelRequestFields"] == {"inferenceConfig": {"topK": 5}}
    cohere = sent(model="cohere.command-r-v1:0", top_k=5, seed=1, presence_penalty=0.5, stop=["a"])
    assert cohere["additionalModelRequestFields"] == {"k": 5, "seed": 1, "presence_penalty": 0.5}


def test_harmless_fields_change_nothing() -> None:
    """Hints, defaults, and what the gateway sees to."""
    harmless = {
        "user": "u", "safety_identifier": "u", "prompt_cache_key": "k", "n": 1, "store": False, "logprobs": False,
        "stream": False, "stream_options": {"include_usage": True}, "frequency_penalty": 0, "seed": None,
        "service_tier": "auto", "response_format": {"type": "text"}, "parallel_tool_calls": False, "tools": [],
        "tool_choice": "auto", "logit_bias": {}, "modalities": ["text"],
    }  # fmt: skip
    assert sent(**harmless) == sent()


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"logprobs": True},
        {"logit_bias": {"1": 2}},
        {"seed": 1},
        {"presence_penalty": 1},
        {"temperature": 1.5},
        {"store": True},
        {"service_tier": "scale"},
        {"modalities": ["text", "audio"]},
        {"web_search_options": {"a": 1}},
        {"functions": [FUNCTION]},
        {"tool_choice": "required"},
        {"tools": [{"type": "custom", "custom": {"name": "x"}}]},
        {"response_format": {"type": "grammar"}},
        {"reasoning_effort": "immense"},
        {"reasoning": {"exclude": True}},
        {"max_tokens": "many"},
        {"stop": 5},
        {"bedrock": 5},
    ],
)
def test_what_has_no_place_is_refused_by_name(fields: dict[str, Any]) -> None:
    """And nothing was sent."""
    (name,) = fields
    assert str(refused(**fields)).replace(".", "[").partition("[")[0] == name


def test_lenience_drops_what_cannot_be_said() -> None:
    """Where the caller would rather lose a field than the answer."""
    fields = {"n": 2, "logit_bias": {"1": 2}, "seed": 1, "temperature": 1.5}
    assert sent(**fields, bedrock={"lenient": True})["inferenceConfig"] == {"temperature": 1}


def test_the_providers_own_fields_are_merged_in() -> None:
    """With those of OpenAI that go into the same object."""
    own = {"additionalModelRequestFields": {"x": 1}, "requestMetadata": {"b": "c"}}
    body = sent(top_k=5, metadata={"a": "b"}, service_tier="flex", bedrock=own)
    assert body["additionalModelRequestFields"] == {"top_k": 5, "x": 1}
    assert body["requestMetadata"] == {"a": "b", "b": "c"}
    assert body["serviceTier"] == {"type": "flex"}
    assert refused(bedrock={"modelId": "other"}) == "bedrock.modelId"


def test_json_is_held_to_its_schema() -> None:
    """With objects closed, as they must be there; the schema is text."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    asked = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    found = sent(response_format=asked)["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert json.loads(found.pop("schema")) == {**schema, "additionalProperties": False}
    assert found == {"name": "n"}


def test_json_without_a_schema_is_asked_for_in_words() -> None:
    """There is no switch for it."""
    assert "JSON" in sent(response_format={"type": "json_object"})["system"][0]["text"]


# --- tools ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "made"),
    [
        ("auto", {"auto": {}}),
        ("required", {"any": {}}),
        ({"type": "function", "function": {"name": "f"}}, {"tool": {"name": "f"}}),
    ],
)
def test_each_choice_has_its_word(choice: Any, made: Any) -> None:
    """Three of four."""
    assert sent(tools=TOOLS, tool_choice=choice)["toolConfig"] == {"tools": [SPEC], "toolChoice": made}


def test_strict_and_marked_tools() -> None:
    """Arguments held to their schema; the mark follows its tool."""
    tool = {"type": "function", "function": {"name": "f", "strict": True}, **MARK}
    spec = {"name": "f", "inputSchema": {"json": {"type": "object", "properties": {}}}, "strict": True}
    assert sent(tools=[tool])["toolConfig"] == {"tools": [{"toolSpec": spec}, POINT]}


def test_no_tool_is_chosen_by_offering_none() -> None:
    """Unless earlier calls need them declared: then only a Claude can be told."""
    assert "toolConfig" not in sent(tools=TOOLS, tool_choice="none")
    loop = (USER, CALLED, RESULT)
    body = sent(*loop, tools=TOOLS, tool_choice="none")
    assert body["toolConfig"] == {"tools": [SPEC]}
    assert body["additionalModelRequestFields"] == {"tool_choice": {"type": "none"}}
    assert refused(*loop, model=NOVA, tools=TOOLS, tool_choice="none") == "tool_choice"


def test_a_talk_with_calls_goes_on_without_tools() -> None:
    """They have to be declared there, and a Claude can be told not to call them."""
    body = sent(USER, CALLED, RESULT, CALLED, RESULT)
    spec = {"name": "f", "inputSchema": {"json": {"type": "object", "properties": {}}}}
    assert body["toolConfig"] == {"tools": [{"toolSpec": spec}]}
    assert body["additionalModelRequestFields"] == {"tool_choice": {"type": "none"}}
    assert "toolConfig" not in sent(USER, CALLED, RESULT, model=NOVA)


def test_one_call_at_a_time_is_a_claudes() -> None:
    """Beside Converse's own choice, and never twice the same."""
    named = {"type": "function", "function": {"name": "f"}}
    body = sent(tools=TOOLS, parallel_tool_calls=False, tool_choice=named)
    assert body["toolConfig"] == {"tools": [SPEC], "toolChoice": {"tool": {"name": "f"}}}
    assert body["additionalModelRequestFields"] == {"tool_choice": {"disable_parallel_tool_use": True}}
    body = sent(tools=TOOLS, parallel_tool_calls=False, tool_choice="auto")
    assert body["toolConfig"] == {"tools": [SPEC]}
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert body["additionalModelRequestFields"] == {"tool_choice": choice}
    assert refused(model=NOVA, tools=TOOLS, parallel_tool_calls=False) == "parallel_tool_calls"
    assert sent(tools=TOOLS, parallel_tool_calls=True)["toolConfig"] == {"tools": [SPEC]}


# --- thinking ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "fields", "beside", "effort"),
    [
        (CLAUDE, {"reasoning_effort": "low"}, {"thinking": {"type": "enabled", "budget_tokens": 2048}}, None),
        (CLAUDE, {"reasoning_effort": "high", "max_tokens": 4000},
         {"thinking": {"type": "enabled", "budget_tokens": 2000}}, None),
        (CLAUDE, {"reasoning": {"max_tokens": 5000}}, {"thinking": {"type": "enabled", "budget_tokens": 5000}}, None),
        (CLAUDE, {"reasoning_effort": "none"}, None, None),
        (ADAPTIVE, {"reasoning_effort": "high"}, {"thinking": {"type": "adaptive"}}, "high"),
        (ADAPTIVE, {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}, None),
        ("anthropic.claude-opus-4-7", {"reasoning_effort": "minimal"},
         {"thinking": {"type": "adaptive", "display": "summarized"}}, "low"),
        (CLAUDE, {"thinking": {"type": "enabled", "budget_tokens": 2000}},
         {"thinking": {"type": "enabled", "budget_tokens": 2000}}, None),
        (NOVA, {"reasoning_effort": "xhigh"},
         {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}, None),
        ("openai.gpt-oss-120b-1:0", {"reasoning_effort": "minimal"}, {"reasoning_effort": "low"}, None),
        ("us.openai.gpt-5.2", {"reasoning_effort": "minimal"}, {"reasoning": {"effort": "minimal"}}, None),
        ("us.openai.gpt-5.2", {"reasoning": {"enabled": False}}, {"reasoning": {"effort": "none"}}, None),
        ("qwen.qwen3-32b-v1:0", {"reasoning_effort": "medium"}, None, "medium"),
    ],
)  # fmt: skip
def test_each_house_is_told_in_its_words_how_to_think(
    model: str, fields: dict[str, Any], beside: Any, effort: str | None
) -> None:
    """One word here, five forms there."""
    body = sent(model=model, **fields)
    assert body.get("additionalModelRequestFields") == beside
    assert body.get("outputConfig", {}).get("effort") == effort


def test_a_claude_that_always_plans_is_told_so_in_its_word() -> None:
    """Sonnet refuses `disabled` from 5.5 on."""
    fields = sent(model="us.anthropic.claude-sonnet-5-5-v1", reasoning_effort="none")["additionalModelRequestFields"]
    assert fields == {"thinking": {"type": "between_tools"}}


@pytest.mark.parametrize("fields", [{"web_search_options": {}}, {"tools": [{**TOOLS[0], "defer_loading": True}]}])
def test_nothing_beside_what_is_known_is_dropped(fields: dict[str, Any]) -> None:
    """An empty object may ask for something, and a tool may say more than its function."""
    (name,) = fields
    assert str(refused(**fields)).startswith(name)
    assert sent(**fields, bedrock={"lenient": True})


def test_a_thought_must_leave_room_for_an_answer() -> None:
    """The budget is spent from the same bound."""
    assert refused(reasoning_effort="low", max_tokens=500) == "reasoning_effort"
    assert refused(model=NOVA, thinking={"type": "enabled"}) == "thinking"


# --- any request ------------------------------------------------------------------------------------------------


@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["messages", "role", "content", "type", "text", "tools", "function", "name", "tool_calls", "id",
                 "image_url", "url", "file", "file_data", "cache_control", "bedrock", "reasoning", "tool_choice",
                 "response_format", "metadata", "reasoning_details", "image", "source", "stop"]
            ),
            inner,
            max_size=4,
        ),
        max_leaves=20,
    )
)  # fmt: skip
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_request_is_translated_or_refused(document: Any) -> None:
    """Nothing but `ProviderError` is raised."""
    for asked in (document, {"messages": [document]}, {"messages": [{"role": "user", "content": document}]}):
        for fields in (asked, {"messages": [USER], "tools": [document], "bedrock": asked}):
            made = Call(CLAUDE, fields if isinstance(fields, dict) else {})
            for translate in (WIRE.request, WIRE.remote):
                try:
                    translate(made)
                except ProviderError:
                    continue
