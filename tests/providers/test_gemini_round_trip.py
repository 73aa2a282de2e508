"""Whatever is asked of Gemini: nothing is lost on the way, Google's own types know it, and answers come back."""

from typing import Any

import orjson
import pytest
from google.genai import types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.contract import Call, Kind, ProviderError
from providers.gathered import gathered
from tests.providers.test_gemini import WIRE, answer, call, candidate, read, sse
from tests.providers.test_gemini_request import sent, tool_call

CALM = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
FORMAT = "google-gemini-v1"
NEW = "gemini-3-pro"

Pair = tuple[Any, dict[str, Any]]
"""The same in OpenAI's words and in Gemini's."""

WORDS = st.text(min_size=1, max_size=8)
DATA = st.sampled_from(["QUJD", "iVBORw0KGgo=", "AAAA"])
NAMES = st.from_regex(r"[a-z]{1,6}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
OBJECT = st.dictionaries(WORDS, VALUES, max_size=3)


def inline(kind: str, data: str) -> dict[str, Any]:
    return {"inlineData": {"mimeType": kind, "data": data}}


def stored(uri: str, kind: str) -> dict[str, Any]:
    return {"fileData": {"fileUri": uri, "mimeType": kind}}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


TEXT = st.builds(lambda text: ({"type": "text", "text": text}, {"text": text}), WORDS)
MEDIA = st.one_of(
    st.builds(lambda data: (image(f"data:image/png;base64,{data}"), inline("image/png", data)), DATA),
    st.builds(
        lambda data: (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{data}"}},
            inline("application/pdf", data),
        ),
        DATA,
    ),
    st.builds(
        lambda data: (
            {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
            inline("audio/wav", data),
        ),
        DATA,
    ),
    st.sampled_from(
        [
            (image("https://example.com/a.png"), stored("https://example.com/a.png", "image/png")),
            (image("gs://bucket/a.jpeg"), stored("gs://bucket/a.jpeg", "image/jpeg")),
            (
                {"type": "file", "file": {"file_id": "https://youtu.be/x", "format": "video/mp4"}},
                stored("https://youtu.be/x", "video/mp4"),
            ),
        ]
    ),
)
PARTS = st.lists(st.one_of(TEXT, MEDIA), min_size=1, max_size=3)
RESULT = st.one_of(
    st.builds(lambda text: (f"={text}", {"result": f"={text}"}), WORDS),
    st.builds(lambda found: (orjson.dumps(found).decode(), found), OBJECT),
)
SIGNATURE = st.none() | st.sampled_from(["QUJD", "AAAA"])
TOLD = st.tuples(NAMES, OBJECT, RESULT, SIGNATURE)
THOUGHTS = st.lists(st.tuples(WORDS, st.sampled_from(["QUJD", "AAAA"])), max_size=2)
NATIVE = st.sampled_from([[], [{"executableCode": {"language": "PYTHON", "code": "1"}}]])
TURN = st.tuples(PARTS, THOUGHTS, NATIVE, st.none() | WORDS, SIGNATURE, st.lists(TOLD, max_size=3))


def detail(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "format": FORMAT, **fields}


def signed(part: dict[str, Any], signature: str | None) -> dict[str, Any]:
    return {**part, "thoughtSignature": signature} if signature else part


def talk(turns: list[Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The messages of OpenAI's request, and the contents that mean the same."""
    messages: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    for number, (asked, thoughts, native, said, signature, calls) in enumerate(turns):
        messages.append({"role": "user", "content": [ours for ours, _ in asked]})
        contents.append({"role": "user", "parts": [theirs for _, theirs in asked]})
        details = [detail("reasoning.text", text=text, signature=each) for text, each in thoughts]
        parts = [signed({"text": text, "thought": True}, each) for text, each in thoughts]
        parts += native
        if said:
            parts.append(signed({"text": said}, signature))
            details += [detail("reasoning.encrypted", data=signature)] if signature else []
        made, results = [], []
        for index, (name, arguments, _, each) in enumerate(calls):
            identifier = f"{number}.{index}"
            made.append(tool_call(identifier, name, orjson.dumps(arguments).decode()))
            details += [detail("reasoning.encrypted", data=each, id=identifier)] if each else []
            parts.append(signed({"functionCall": {"name": name, "args": arguments, "id": identifier}}, each))
        for index, (name, _, (ours, theirs), _) in enumerate(calls):
            identifier = f"{number}.{index}"
            messages_of = {"role": "tool", "tool_call_id": identifier, "content": ours}
            results.append((messages_of, {"id": identifier, "name": name, "response": theirs}))
        message = {"role": "assistant", "content": said, "tool_calls": made, "reasoning_details": details}
        messages.append({**message, "gemini": {"parts": native}} if native else message)
        messages += [ours for ours, _ in results]
        contents += [{"role": "model", "parts": parts}] if parts else []
        if results:
            contents.append({"role": "user", "parts": [{"functionResponse": theirs} for _, theirs in results]})
    return messages, contents


def known(kind: Any, value: Any) -> None:
    """Google's own type reads all of it, and loses none: a field that it does not know raises."""
    found = kind.model_validate_json(orjson.dumps(value))
    assert orjson.loads(found.model_dump_json(exclude_none=True, by_alias=True)) == value


@CALM
@given(st.lists(TURN, min_size=1, max_size=3), st.lists(WORDS, max_size=2))
def test_a_talk_arrives_as_it_was(turns: list[Any], rules: list[str]) -> None:
    """Every part, result and signature of it, once and in its order, in words that Google's types know."""
    messages, contents = talk(turns)
    system = [{"role": role, "content": rule} for role, rule in zip(("system", "developer"), rules, strict=False)]
    body = sent(messages=[*system, *messages])
    assert body["contents"] == contents
    assert [part["text"] for part in body.get("systemInstruction", {"parts": []})["parts"]] == rules
    for content in (*body["contents"], *([body["systemInstruction"]] if rules else ())):
        known(types.Content, content)


SCHEMA = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/A"}, "b": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
    "required": ["a"],
    "additionalProperties": False,
    "$defs": {"A": {"type": "integer"}},
}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA}
FIELDS: dict[str, Any] = {
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "top_k": st.integers(1, 99),
    "max_tokens": st.integers(1, 9999),
    "max_completion_tokens": st.integers(1, 9999),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "seed": st.integers(0, 2**31 - 1),
    "n": st.integers(1, 8),
    "stop": st.one_of(WORDS, st.lists(WORDS, min_size=1, max_size=3)),
    "logprobs": st.booleans(),
    "top_logprobs": st.integers(0, 5),
    "modalities": st.just(["text", "image"]),
    "audio": st.just({"voice": "Kore", "format": "pcm16"}),
    "tools": st.sampled_from(
        [
            [{"type": "function", "function": FUNCTION}],
            [{"type": "function", "function": {**FUNCTION, "strict": True}}, {"googleSearch": {}}],
            [{"codeExecution": {}}, {"urlContext": {}}],
        ]
    ),
    "tool_choice": st.sampled_from(
        ["auto", "none", "required", {"type": "function", "function": {"name": "f"}}],
    ),
    "response_format": st.sampled_from(
        [
            {"type": "text"},
            {"type": "json_object"},
            {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}},
        ]
    ),
    "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high"]),
    "service_tier": st.sampled_from(["auto", "flex"]),
    "user": WORDS,
    "metadata": st.just({"a": "b"}),
    "gemini": st.sampled_from(
        [
            {"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]},
            {"generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"}, "cachedContent": "cachedContents/x"},
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": 9}}},
        ]
    ),
}
SAYS_NOTHING = {"user", "metadata", "service_tier"}
PLACES = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_completion_tokens": "maxOutputTokens",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "seed": "seed",
}


@CALM
@given(st.fixed_dictionaries({}, optional=FIELDS), st.sampled_from(["gemini-2.5-flash", NEW]))
def test_fields_arrive_under_names_that_google_knows(fields: dict[str, Any], model: str) -> None:
    """Whatever is asked for together, none of it is lost, and none of it is unknown there."""
    body = sent(model, **fields)
    config = body.get("generationConfig", {})
    for name, place in PLACES.items():
        assert config.get(place) == fields.get(name, config.get(place) if name == "max_completion_tokens" else None)
    if fields.get("response_format", {}).get("type") == "json_schema":
        assert config["responseJsonSchema"] == SCHEMA
    known(types.GenerationConfig, config)
    known(types.ToolConfig, body.get("toolConfig", {}))
    for tool in body.get("tools", ()):
        known(types.Tool, tool)
    for setting in body.get("safetySettings", ()):
        known(types.SafetySetting, setting)


# --- there and back ---------------------------------------------------------------------------------------------

SAID = st.one_of(
    st.builds(lambda text: {"text": text}, WORDS),
    st.builds(lambda text, each: {"text": text, "thoughtSignature": each}, WORDS, st.sampled_from(["QUJD", "AAAA"])),
)
MADE = st.builds(
    lambda data, each: signed(inline("image/png", data), each), DATA, st.none() | st.sampled_from(["QUJD"])
)
CALLED = st.builds(
    lambda name, given, each: signed({"functionCall": {"name": name, "args": given}}, each), NAMES, OBJECT, SIGNATURE
)
THOUGHT = st.builds(
    lambda text, each: {"text": text, "thought": True, "thoughtSignature": each}, WORDS, st.sampled_from(["QUJD"])
)
RAN = st.sampled_from(
    [
        {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "QUJD"},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}, "thought": True},
        {"toolCall": {"id": "x"}},
    ]
)


def lists(each: Any, most: int = 2) -> Any:
    return st.lists(each, max_size=most)


ANSWER = st.tuples(lists(THOUGHT), lists(RAN), lists(SAID, 1), lists(MADE), lists(CALLED, 3)).map(
    lambda kinds: [part for kind in kinds for part in kind]
)


def streamed(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The message of an answer whose parts come one by one."""
    decoder = WIRE.stream(call(stream=True, wants_usage=True))
    pieces = [answer(candidate(part, finish=None)) for part in parts]
    out = decoder.feed(sse(*pieces, answer(candidate())))
    message: dict[str, Any] = gathered(out + decoder.close())["choices"][0]["message"]
    return {**message, "content": message["content"] or None}


@CALM
@given(ANSWER)
def test_an_answer_comes_back_as_it_went_out(parts: list[dict[str, Any]]) -> None:
    """Whole or streamed, an assistant's message holds all that Gemini has to be given back."""
    whole = read(answer(candidate(*parts)))["choices"][0]["message"]
    assert streamed(parts) == whole
    if not parts:
        return
    identifiers = iter(each["id"] for each in whole.get("tool_calls", ()))
    expected = [
        {**part, "functionCall": {**part["functionCall"], "id": next(identifiers)}}
        if "functionCall" in part
        else part
        for part in parts
    ]
    (content,) = sent(messages=[whole])["contents"]
    assert content == {"role": "model", "parts": expected}


# --- anything ---------------------------------------------------------------------------------------------------

ODD_NAMES = "type text role content function name image_url url file file_data input_audio gemini parts"
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(ODD_NAMES.split()),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)
ODD_FIELDS = (
    "messages tools tool_choice response_format reasoning reasoning_effort stop max_tokens metadata user thinking "
    "gemini vertex extra_body temperature service_tier parallel_tool_calls n modalities audio web_search_options"
)
ODD = st.dictionaries(st.sampled_from(ODD_FIELDS.split()), ANYTHING)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system", "developer", "function"])},
    optional=dict.fromkeys(
        ("content", "tool_calls", "tool_call_id", "reasoning_details", "images", "gemini", "refusal", "name"),
        ANYTHING,
    ),
)


@CALM
@given(ODD, st.lists(MESSAGE, max_size=3), st.sampled_from(["gemini-2.0-flash", NEW, "x", ""]))
def test_an_odd_request_is_translated_or_refused(document: dict[str, Any], messages: list[Any], model: str) -> None:
    """And nothing else: a caller's slip is the caller's 400."""
    for each in ({**document, "messages": messages}, document):
        made = Call(model, each)
        try:
            WIRE.request(made)
            WIRE.remote(made)
        except ProviderError as error:
            assert (error.kind, error.sent) == (Kind.REJECTED, False)  # noqa: PT017


# --- every reason to end ----------------------------------------------------------------------------------------

ENDS = {"STOP", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "NO_IMAGE"}
ENDS |= {"MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE"}
TOO_LONG = {"MAX_TOKENS", "CONTINUATION"}


@pytest.mark.parametrize("reason", [each for each in types.FinishReason if each != "FINISH_REASON_UNSPECIFIED"])
def test_every_finish_reason_has_a_meaning(reason: str) -> None:
    """Each that Google's SDK knows; the word itself is told, too, and what was said of it."""
    word = str(reason.value)  # type: ignore[attr-defined]
    document = answer(candidate(finish=word, finishMessage="why"))
    (choice,) = read(document)["choices"]
    expected = "stop" if word in ENDS else "length" if word in TOO_LONG else "content_filter"
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (expected, word)
    assert choice["gemini"] == {"finishMessage": "why"}


@pytest.mark.parametrize("reason", [each for each in types.BlockedReason if each != "BLOCKED_REASON_UNSPECIFIED"])
def test_every_reason_to_block_a_prompt_is_a_filter(reason: str) -> None:
    """With what was found."""
    feedback = {"blockReason": str(reason.value), "blockReasonMessage": "why"}  # type: ignore[attr-defined]
    (choice,) = read({"promptFeedback": feedback})["choices"]
    assert choice["finish_reason"] == "content_filter"
    assert choice["gemini"] == {"promptFeedback": feedback}
