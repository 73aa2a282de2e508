"""What Claude is sent: each field of an OpenAI request."""

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from providers.catalog import catalog
from providers.contract import Call
from tests.providers.anthropic_asking import (
    ASK,
    NEW,
    OLD,
    OLDER,
    SCHEMA,
    WEATHER,
    WIRE,
    refused,
    schema_format,
    sent,
)

# --- the whole -----------------------------------------------------------------------------------------------------


def test_a_plain_request_says_the_model_the_bound_and_the_turns() -> None:
    """What must be there is there, and nothing else."""
    text = [{"type": "text", "text": "hi"}]
    assert sent() == {"model": NEW, "max_tokens": 128_000, "messages": [{"role": "user", "content": text}]}


def test_a_stream_is_asked_for() -> None:
    """Usage comes unasked."""
    assert sent(stream=True, stream_options={"include_usage": True})["stream"] is True


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("claude-opus-5-5", 128_000),
        ("claude-haiku-5-5", 128_000),
        ("claude-mythos-preview", 128_000),
        ("claude-sonnet-4-6", 128_000),
        ("claude-haiku-4-5-20251001", 64_000),
        ("claude-opus-4-1-20250805", 32_000),
        ("claude-opus-4-20250514", 32_000),
        ("anthropic.claude-opus-4-1-20250805-v1:0", 32_000),
        ("claude-3-7-sonnet-20250219", 32_000),
        ("claude-3-5-haiku-20241022", 8192),
        ("claude-3-haiku-20240307", 4096),
        ("somebody-elses", 8192),
    ],
)
def test_without_a_bound_it_is_the_models_own(model: str, most: int) -> None:
    """There it must be said; OpenAI's default is all that the model can write."""
    assert sent(model=model)["max_tokens"] == most


def test_a_bound_is_passed_on_by_either_name() -> None:
    """The newer name counts."""
    assert sent(max_tokens=5)["max_tokens"] == 5
    assert sent(max_tokens=5, max_completion_tokens=6)["max_tokens"] == 6
    assert refused(max_tokens="many").param == "max_tokens"


def test_sampling_stop_user_and_tier_have_their_places() -> None:
    """Each under the name that it has there."""
    body = sent(temperature=0.5, top_p=0.9, top_k=5, stop="END", user="u-1", service_tier="default")
    assert (body["temperature"], body["top_p"], body["top_k"]) == (0.5, 0.9, 5)
    assert body["stop_sequences"] == ["END"]
    assert body["metadata"] == {"user_id": "u-1"}
    assert body["service_tier"] == "standard_only"


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "presence_penalty": 0.0, "frequency_penalty": 0, "logprobs": False, "logit_bias": {}},
        {"seed": None, "store": False, "modalities": ["text"], "functions": [], "verbosity": "medium"},
        {"prompt_cache_key": "k", "prediction": {"type": "content", "content": "x"}, "metadata": {"a": "b"}},
    ],
)
def test_what_asks_for_nothing_is_dropped(fields: Mapping[str, Any]) -> None:
    """Defaults, and hints that change no answer."""
    assert sent(**fields) == sent()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("seed", 7),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"1": 1}),
        ("presence_penalty", 0.5),
        ("frequency_penalty", 0.5),
        ("store", True),
        ("modalities", ["text", "audio"]),
        ("functions", [{"name": "f"}]),
        ("temperature", 1.5),
        ("service_tier", "flex"),
        ("something_new", "x"),
        ("response_format", {"type": "grammar"}),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name_or_dropped_on_request(name: str, value: Any) -> None:
    """Never silently."""
    assert refused(**{name: value}).param == name
    lenient = sent(**{name: value, "anthropic": {"lenient": True}})
    lenient.pop("temperature", None)
    assert lenient == sent()


def test_the_providers_own_fields_are_merged_as_they_are() -> None:
    """A documented escape for what OpenAI has no field for."""
    own = {"container": "c_1", "output_config": {"effort": "max"}, "betas": ["a-1", "b-2"]}
    made = Call(NEW, {"messages": [ASK], "response_format": schema_format(), "anthropic": own})
    request = WIRE.request(made)
    body = orjson.loads(request.body)
    assert body["container"] == "c_1"
    assert body["output_config"]["effort"] == "max"
    assert body["output_config"]["format"]["type"] == "json_schema"
    assert (b"anthropic-beta", b"a-1,b-2") in request.headers
    assert "betas" not in body


@pytest.mark.parametrize("name", ["model", "stream"])
def test_the_escape_cannot_change_what_is_billed(name: str) -> None:
    """The model is what a call is allowed and priced by."""
    assert refused(anthropic={name: "claude-other"}).param == f"anthropic.{name}"


# --- tools and formats ---------------------------------------------------------------------------------------------


def test_a_function_is_declared_with_its_schema() -> None:
    """Strict where it was asked for; without parameters it takes none."""
    strict = {"type": "function", "function": {"name": "f", "strict": True}}
    native = {"type": "web_search_20250305", "name": "web_search"}
    assert sent(tools=[WEATHER, strict, native])["tools"] == [
        {"name": "weather", "description": "Of a town", "input_schema": {"type": "object", "properties": {}}},
        {"name": "f", "input_schema": {"type": "object", "properties": {}}, "strict": True},
        native,
    ]


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ({"type": "function", "function": {"name": "weather"}}, None, {"type": "tool", "name": "weather"}),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
    ],
)
def test_the_choice_of_a_tool(choice: Any, parallel: bool | None, expected: Any) -> None:
    """With one call at a time in the same place."""
    body = sent(tools=[WEATHER], tool_choice=choice, parallel_tool_calls=parallel)
    assert body.get("tool_choice") == expected


def test_a_choice_without_tools_is_none() -> None:
    """It would be refused."""
    assert "tool_choice" not in sent(tool_choice="auto", parallel_tool_calls=False)


@pytest.mark.parametrize("fields", [{"tool_choice": "some"}, {"tool_choice": {"type": "allowed_tools"}}])
def test_another_choice_is_refused(fields: dict[str, Any]) -> None:
    """By name."""
    assert refused(tools=[WEATHER], **fields).param == "tool_choice"


def test_a_function_may_say_what_only_claude_understands() -> None:
    """Within it or beside it, as clients write it; anything else is refused by name."""
    own = {"defer_loading": True, "allowed_callers": ["direct"], "input_examples": [{"a": 1}]}
    for tool in ({**WEATHER, **own}, {**WEATHER, "function": {**WEATHER["function"], **own}}):
        (made,) = sent(tools=[tool])["tools"]
        assert {name: made[name] for name in own} == own
    assert refused(tools=[{**WEATHER, "novel": 1}]).param == "tools[0].novel"
    assert "novel" not in sent(tools=[{**WEATHER, "novel": 1}], anthropic={"lenient": True})["tools"][0]


@pytest.mark.parametrize("options", [{}, {"search_context_size": "medium"}])
def test_a_search_of_the_web_is_the_providers_tool(options: dict[str, Any]) -> None:
    """An empty object asks for it, too."""
    search = {"type": "web_search_20250305", "name": "web_search"}
    assert sent(web_search_options=options)["tools"] == [search]
    where = {"type": "approximate", "approximate": {"city": "Ulm", "country": "DE"}}
    (made,) = sent(web_search_options={**options, "user_location": where})["tools"]
    assert made["user_location"] == {"type": "approximate", "city": "Ulm", "country": "DE"}


def test_how_much_a_search_reads_cannot_be_said() -> None:
    """So it is refused by name."""
    asked = {"search_context_size": "low"}
    assert refused(web_search_options=asked).param == "web_search_options.search_context_size"
    assert len(sent(web_search_options=asked, anthropic={"lenient": True})["tools"]) == 1


@pytest.mark.parametrize("beta", ["", "a b", "a\r\nx-api-key: k", "ü", "a,b", 1, None])
def test_a_beta_is_a_name(beta: Any) -> None:
    """It becomes part of a header, and nothing else may."""
    assert refused(anthropic={"betas": [beta]}).param == "anthropic.betas"


def test_a_custom_tool_is_refused() -> None:
    """It answers in free text, for which there is nothing."""
    assert refused(tools=[{"type": "custom", "custom": {"name": "c"}}]).param == "tools[0]"


def test_a_schema_is_held_to_where_the_model_can() -> None:
    """Objects must be closed there; an answer without further fields fits the caller's schema all the same."""
    config = sent(model=OLD, response_format=schema_format())["output_config"]
    assert config == {"format": {"type": "json_schema", "schema": {**SCHEMA, "additionalProperties": False}}}


def test_an_older_model_answers_by_a_tool() -> None:
    """Its arguments are the answer; beside the caller's tools it must call one of them all."""
    body = sent(model=OLDER, response_format=schema_format())
    assert body["tool_choice"] == {"type": "tool", "name": "answer_in_json"}
    assert body["tools"][0]["input_schema"]["properties"] == SCHEMA["properties"]
    beside = sent(model=OLDER, response_format=schema_format(), tools=[WEATHER])
    assert beside["tool_choice"] == {"type": "any"}
    assert [tool["name"] for tool in beside["tools"]] == ["weather", "answer_in_json"]


def test_a_json_object_is_forced_or_asked_for() -> None:
    """Models that cannot be forced to call a tool are told in words."""
    old = sent(model=OLD, response_format={"type": "json_object"})
    assert old["tool_choice"] == {"type": "tool", "name": "answer_in_json"}
    assert "JSON object" in sent(model=NEW, response_format={"type": "json_object"})["system"][-1]["text"]
    assert sent(response_format={"type": "text"}) == sent()


# --- thinking ------------------------------------------------------------------------------------------------------


def test_effort_is_adaptive_thinking_that_can_be_read() -> None:
    """The newest keep their thinking to themselves unless asked."""
    body = sent(reasoning_effort="minimal")
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": "low"}


@pytest.mark.parametrize(
    ("effort", "most", "budget"),
    [("low", 9999, 2048), ("high", None, 16_384), ("high", 4000, 2000), ("max", 1100, 1024)],
)
def test_effort_is_a_budget_on_older_models(effort: str, most: int | None, budget: int) -> None:
    """At most half of what the answer may have, at least what is allowed."""
    body = sent(model=OLD, reasoning_effort=effort, max_tokens=most)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert "output_config" not in body


def test_a_budget_that_cannot_be_is_refused() -> None:
    """The least is 1,024 of the answer's own tokens."""
    assert refused(model=OLD, reasoning_effort="low", max_tokens=1000).param == "reasoning_effort"
    assert refused(reasoning_effort="enormous").param == "reasoning_effort"


@pytest.mark.parametrize(
    ("model", "kind"), [(NEW, "disabled"), (OLD, "disabled"), ("claude-sonnet-5-5", "between_tools")]
)
def test_no_effort_turns_thinking_off(model: str, kind: str) -> None:
    """In the word that the model knows."""
    assert sent(model=model, reasoning_effort="none")["thinking"] == {"type": kind}


@pytest.mark.parametrize(
    ("reasoning", "thinking"),
    [
        ({"effort": "high"}, {"type": "adaptive", "display": "summarized"}),
        ({"effort": "high", "exclude": True}, {"type": "adaptive", "display": "omitted"}),
        ({"max_tokens": 2000}, {"type": "enabled", "budget_tokens": 2000}),
        ({"enabled": True}, {"type": "adaptive", "display": "summarized"}),
        ({"enabled": False}, {"type": "disabled"}),
        ({}, None),
    ],
)
def test_reasoning_as_openrouter_has_it(reasoning: dict[str, Any], thinking: Any) -> None:
    """Clients that were written for it send an object."""
    assert sent(reasoning=reasoning).get("thinking") == thinking


def test_the_providers_own_thinking_passes_as_it_is() -> None:
    """With room for an answer beside its budget, where the caller sets no bound."""
    thinking = {"type": "enabled", "budget_tokens": 90_000}
    body = sent(model=OLD, thinking=thinking)
    assert body["thinking"] == thinking
    assert body["max_tokens"] == 94_096


# --- the row -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["https://proxy.example/claude", "https://proxy.example/claude/v1/"])
def test_the_base_url_is_understood_with_and_without_its_version(url: str) -> None:
    """Anthropic's SDKs take the same variable without."""
    row = catalog({"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "k"})["anthropic"]
    assert row.base_url == "https://proxy.example/claude/v1"


def test_the_key_has_a_header_of_its_own() -> None:
    """And the version must be said."""
    row = catalog({"ANTHROPIC_API_KEY": "k"})["anthropic"]
    assert dict(row.authentication()) == {b"x-api-key": b"k", b"anthropic-version": b"2023-06-01"}
    assert (row.base_url, row.wire.request(Call("m", {"messages": []})).path) == (
        "https://api.anthropic.com/v1",
        "/messages",
    )
