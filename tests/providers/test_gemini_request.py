"""What Gemini is sent for OpenAI's requests."""

from typing import Any

import orjson
import pytest

from providers.contract import Call, Kind, ProviderError
from providers.gemini import GeminiWire

WIRE = GeminiWire()
PIXEL = "iVBORw0KGgo="
SAID = [{"role": "user", "content": "hi"}]
ADD = {"type": "function", "function": {"name": "add", "description": "Adds", "parameters": {"type": "object"}}}


def call(model: str = "gemini-2.5-flash", **document: Any) -> Call:
    fetched = document.pop("fetched", {})
    return Call(model, {"messages": SAID, **document}, fetched=fetched)


def sent(model: str = "gemini-2.5-flash", **document: Any) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(WIRE.request(call(model, **document)).body)
    return body


def refusal(model: str = "gemini-2.5-flash", **document: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        WIRE.request(call(model, **document))
    error = caught.value
    assert (error.kind, error.status, error.sent) == (Kind.REJECTED, 400, False)
    return error


def config(model: str = "gemini-2.5-flash", **document: Any) -> dict[str, Any]:
    found: dict[str, Any] = sent(model, **document)["generationConfig"]
    return found


def tool_call(identifier: str, name: str = "add", arguments: str = '{"a":1}', **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": identifier, "type": "function", "function": function, **more}


# --- path ---------------------------------------------------------------------------------------------------------


def test_the_model_stands_in_the_path() -> None:
    """One method for an answer, one for a stream; Google's own prefixes are left out."""
    assert WIRE.request(call("models/gemini-x")).path == "/models/gemini-x:generateContent"
    stream = Call("gemini-x", {"messages": SAID}, stream=True)
    assert WIRE.request(stream).path == "/models/gemini-x:streamGenerateContent?alt=sse"


def test_no_model_leads_out_of_the_path() -> None:
    """Whatever a caller writes there is a name."""
    path = WIRE.request(call("../../v1/x?key=1#a/b c")).path
    assert path == "/models/..%2F..%2Fv1%2Fx%3Fkey%3D1%23a%2Fb%20c:generateContent"
    assert refusal("").param == "model"


# --- fields -------------------------------------------------------------------------------------------------------


def test_sampling() -> None:
    """What has another name only."""
    assert config(
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        max_tokens=9,
        max_completion_tokens=10,
        stop="x",
        seed=1,
        n=2,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logprobs=True,
        top_logprobs=3,
        modalities=["text", "image"],
    ) == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 3,
        "maxOutputTokens": 10,
        "stopSequences": ["x"],
        "seed": 1,
        "candidateCount": 2,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "responseLogprobs": True,
        "logprobs": 3,
        "responseModalities": ["TEXT", "IMAGE"],
    }


def test_fields_that_say_nothing_here_are_left_out() -> None:
    """Who the user is, book-keeping, hints for a cache, and defaults."""
    assert set(
        sent(
            user="u",
            metadata={"a": "b"},
            store=False,
            n=1,
            stream_options={"include_usage": True},
            parallel_tool_calls=True,
            service_tier="auto",
            logit_bias={},
            prompt_cache_key="k",
            seed=None,
            response_format={"type": "text"},
        )
    ) == {"contents"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("parallel_tool_calls", False),
        ("logit_bias", {"1": 2}),
        ("prediction", {"type": "content"}),
        ("functions", [{}]),
        ("store", True),
        ("never_heard_of", 1),
        ("service_tier", "scale"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(name: str, value: Any) -> None:
    """Unless the caller would rather lose the field than the answer."""
    assert refusal(**{name: value}).param == name
    assert set(sent(**{name: value, "gemini": {"lenient": True}})) == {"contents"}


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "name": "bob", "content": "x"}]}, "messages[0].name"),
        ({"messages": [{"role": "tool", "tool_call_id": "9", "content": ""}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [tool_call("1", arguments="{")]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0]"),
        ({"tool_choice": "perhaps"}, "tool_choice"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"reasoning_effort": ["low"]}, "reasoning_effort"),
    ],
)
def test_what_is_wrong_is_named(document: dict[str, Any], param: str) -> None:
    """The error's `param` is the place."""
    assert refusal(**document).param == param


def test_tools() -> None:
    """Schemas go as JSON schema; Google's own tools pass as they are."""
    assert sent(tools=[ADD, {"googleSearch": {}}])["tools"] == [
        {"googleSearch": {}},
        {
            "functionDeclarations": [
                {"name": "add", "description": "Adds", "parametersJsonSchema": {"type": "object"}},
            ]
        },
    ]


STRICT = {"type": "function", "function": {**ADD["function"], "strict": True}}  # type: ignore[dict-item]
NAMED = {"type": "function", "function": {"name": "add"}}


@pytest.mark.parametrize(
    ("tool", "choice", "config"),
    [
        (ADD, "auto", {"mode": "AUTO"}),
        (ADD, "none", {"mode": "NONE"}),
        (ADD, "required", {"mode": "ANY"}),
        (ADD, NAMED, {"mode": "ANY", "allowedFunctionNames": ["add"]}),
        (STRICT, None, {"mode": "VALIDATED"}),
        (STRICT, "auto", {"mode": "VALIDATED"}),
        (STRICT, "none", {"mode": "NONE"}),
        (
            ADD,
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}},
            {"mode": "VALIDATED", "allowedFunctionNames": ["add"]},
        ),
    ],
)
def test_tool_choice(tool: Any, choice: Any, config: Any) -> None:
    """In either order of the fields."""
    expected = {"functionCallingConfig": config}
    assert sent(tools=[tool], tool_choice=choice)["toolConfig"] == expected
    assert sent(tool_choice=choice, tools=[tool])["toolConfig"] == expected


def test_response_format() -> None:
    """JSON, freely or by a schema."""
    schema = {"type": "object", "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    assert config(response_format={"type": "json_object"}) == {"responseMimeType": "application/json"}
    assert config(response_format=wanted) == {"responseMimeType": "application/json", "responseJsonSchema": schema}


@pytest.mark.parametrize(
    ("model", "document", "thinking"),
    [
        ("gemini-2.5-pro", {"reasoning_effort": "low"}, {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-flash", {"reasoning_effort": "none"}, {"thinkingBudget": 0}),
        ("gemini-3-flash", {"thinking": {"type": "disabled"}}, {"thinkingBudget": 0}),
        ("gemini-3-pro", {"reasoning_effort": "high"}, {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-flash-latest", {"reasoning": {"effort": "low", "exclude": True}}, {"thinkingLevel": "LOW"}),
        (
            "gemini-3-pro",
            {"thinking": {"type": "enabled", "budget_tokens": 512}},
            {"thinkingBudget": 512, "includeThoughts": True},
        ),
        ("gemini-2.5-pro", {"reasoning": {"max_tokens": 9}}, {"thinkingBudget": 9, "includeThoughts": True}),
    ],
)
def test_thinking(model: str, document: dict[str, Any], thinking: Any) -> None:
    """OpenAI's, OpenRouter's and Anthropic's way of asking for it."""
    assert config(model, **document)["thinkingConfig"] == thinking


def test_what_was_written_for_googles_own_layer() -> None:
    """Its escape is understood, and what is not is refused by name."""
    google = {
        "thinking_config": {"thinking_budget": 800, "include_thoughts": True},
        "cached_content": "cachedContents/x",
    }
    body = sent(extra_body={"google": google})
    assert body["generationConfig"] == {"thinkingConfig": {"thinkingBudget": 800, "includeThoughts": True}}
    assert body["cachedContent"] == "cachedContents/x"
    assert refusal(extra_body={"google": {"thought_tag_marker": "x"}}).param == "extra_body.google.thought_tag_marker"
    assert refusal(extra_body={"other": {}}).param == "extra_body.other"


@pytest.mark.parametrize("budget", [{"thinkingBudget": 9}, {"thinkingBudget": 0}])
def test_a_level_and_a_budget_are_never_sent_together(budget: dict[str, Any]) -> None:
    """Gemini refuses both at once: the caller's own word for it counts."""
    own = {"generationConfig": {"thinkingConfig": budget}}
    assert config("gemini-3-pro", reasoning_effort="low", gemini=own)["thinkingConfig"] == {
        **budget,
        "includeThoughts": True,
    }
    level = {"generationConfig": {"thinkingConfig": {"thinkingLevel": "HIGH"}}}
    found = config("gemini-2.5-pro", reasoning_effort="low", gemini=level)["thinkingConfig"]
    assert found == {"thinkingLevel": "HIGH", "includeThoughts": True}
    both = config("gemini-3-pro", reasoning_effort="low", thinking={"type": "enabled", "budget_tokens": 9})
    assert both["thinkingConfig"] == {"thinkingBudget": 9, "includeThoughts": True}


def test_the_escape_is_merged() -> None:
    """Objects into objects, tools beside tools; never into the call itself."""
    own = {"generationConfig": {"topK": 1}, "tools": [{"urlContext": {}}], "safetySettings": []}
    made = call(temperature=1, tools=[{"googleSearch": {}}], gemini=own)
    for _ in range(2):
        body = orjson.loads(WIRE.request(made).body)
        assert body["generationConfig"] == {"temperature": 1, "topK": 1}
        assert body["tools"] == [{"googleSearch": {}}, {"urlContext": {}}]
        assert body["safetySettings"] == []


def test_a_bucket_is_refused_where_our_own_identity_would_read_it() -> None:
    """On Vertex, Google reads storage as the gateway: a caller may not point it there."""
    part = {"type": "image_url", "image_url": {"url": "gs://somebody-elses/secret.png"}}
    call = Call("gemini-2.5-flash", {"messages": [{"role": "user", "content": [part]}]})
    with pytest.raises(ProviderError) as refusal:
        GeminiWire(buckets=False).request(call)
    assert (refusal.value.status, refusal.value.sent) == (400, False)


BUCKET = {"fileData": {"fileUri": "gs://somebody-elses/secret.png"}}


@pytest.mark.parametrize(
    "document",
    [
        {"messages": [{"role": "user", "content": "x", "gemini": {"parts": [BUCKET]}}]},
        {"messages": [*SAID, {"role": "assistant", "gemini": {"parts": [BUCKET]}}]},
        {"messages": SAID, "vertex": {"contents": [{"parts": [{"file_data": {"file_uri": "GS://x/y"}}]}]}},
    ],
)
def test_a_bucket_is_refused_in_googles_own_words_too(document: dict[str, Any]) -> None:
    """No escape leads around it."""
    with pytest.raises(ProviderError) as caught:
        GeminiWire(buckets=False).request(Call("gemini-2.5-flash", document))
    assert (caught.value.status, caught.value.sent) == (400, False)
    WIRE.request(Call("gemini-2.5-flash", document))
