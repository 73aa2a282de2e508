"""Whatever is asked of Claude: nothing is lost on the way, and nothing but a refusal is raised."""

from itertools import pairwise
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.contract import Call, Kind, ProviderError
from tests.providers.anthropic_answers import choice, decode, gathered, stream_of
from tests.providers.anthropic_asking import (
    ASK,
    NEW,
    OLD,
    OLDER,
    SCHEMA,
    WIRE,
    source,
)
from tests.wire.anthropic_requests import canonical, comparable
from tests.wire.anthropic_sdk import is_valid

CALM = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


CLOSED = {**SCHEMA, "additionalProperties": False}
WORDS = st.text(min_size=1, max_size=8).filter(str.strip)
IDS = st.from_regex(r"[a-zA-Z0-9_-]{1,8}", fullmatch=True)
SHORT, LONG = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
MARK = st.sampled_from([{}, {"cache_control": SHORT}, {"cache_control": LONG}])


def blocks(kind: str, *sources: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda found, mark: {"type": kind, "source": found, **mark}, st.sampled_from(sources), MARK)


TEXT = st.builds(lambda text, mark: {"type": "text", "text": text, **mark}, WORDS, MARK)
URL = {"type": "url", "url": "https://example.com/a"}
STORED = {"type": "file", "file_id": "file_1"}
PLAIN = {"type": "text", "media_type": "text/plain", "data": "hello"}
IMAGE = blocks("image", source("image/png", "QUJD"), source("image/jpeg", "QUJD"), URL, STORED)
DOCUMENT = blocks("document", source("application/pdf", "QUJD"), URL, STORED, PLAIN)
FOUND = {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "x"}]}
BLOCK = st.one_of(TEXT, IMAGE, DOCUMENT, st.just(FOUND))
INPUT = st.dictionaries(WORDS, st.one_of(st.none(), st.booleans(), st.integers(-9, 9), WORDS), max_size=3)
USE = st.builds(
    lambda i, name, given, mark: {"type": "tool_use", "id": i, "name": name, "input": given, **mark},
    IDS,
    IDS,
    INPUT,
    MARK,
)
RESULT = st.builds(
    lambda i, content, error, mark: {"type": "tool_result", "tool_use_id": i, "content": content, **error, **mark},
    IDS,
    st.one_of(st.text(max_size=8), st.lists(BLOCK, min_size=1, max_size=2)),
    st.sampled_from([{}, {"is_error": True}]),
    MARK,
)
THOUGHT = st.one_of(
    st.builds(lambda text, signature: {"type": "thinking", "thinking": text, "signature": signature},
              st.text(max_size=8), WORDS),
    st.builds(lambda data: {"type": "redacted_thinking", "data": data}, WORDS),
)  # fmt: skip
SEARCH = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "q"}}
HIT = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []}
USER = st.builds(
    lambda results, rest: [*results, *rest], st.lists(RESULT, max_size=2), st.lists(BLOCK, min_size=1, max_size=3)
)
SAID = st.builds(lambda text: {"type": "text", "text": text}, WORDS)
ASSISTANT = st.builds(
    lambda thoughts, searches, said, uses: [*thoughts, *searches, *said, *uses],
    st.lists(THOUGHT, max_size=2),
    st.sampled_from([[], [SEARCH, HIT]]),
    st.lists(SAID, min_size=1, max_size=2),
    st.lists(USE, max_size=3),
)


def _turns(pairs: list[tuple[Any, Any]]) -> list[dict[str, Any]]:
    both = (({"role": "user", "content": u}, {"role": "assistant", "content": a}) for u, a in pairs)
    return [turn for pair in both for turn in pair]


CHOICES = st.sampled_from(
    [
        {"type": "auto"},
        {"type": "any", "disable_parallel_tool_use": True},
        {"type": "tool", "name": "weather"},
        {"type": "none"},
    ]
)
TOOLS = st.lists(
    st.sampled_from(
        [
            {"name": "weather", "input_schema": SCHEMA, "strict": True},
            {"name": "now", "description": "d", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
        ]
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda tool: tool["name"],
)
REQUEST = st.fixed_dictionaries(
    {
        "max_tokens": st.integers(1, 9999),
        "messages": st.lists(st.tuples(USER, ASSISTANT), min_size=1, max_size=2).map(_turns),
    },
    optional={
        "system": st.lists(TEXT, min_size=1, max_size=2),
        "temperature": st.floats(0, 1),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(1, 99),
        "stop_sequences": st.lists(WORDS, min_size=1),
        "metadata": st.just({"user_id": "u"}),
        "service_tier": st.just("standard_only"),
        "cache_control": st.just({"type": "ephemeral"}),
        "output_config": st.sampled_from([{"effort": "low"}, {"format": {"type": "json_schema", "schema": CLOSED}}]),
        "thinking": st.sampled_from(
            [{"type": "adaptive"}, {"type": "disabled"}, {"type": "enabled", "budget_tokens": 2048}]
        ),
    },
)
TOOLED = st.fixed_dictionaries({}, optional={"tools": TOOLS, "tool_choice": CHOICES})


@CALM
@given(REQUEST, TOOLED)
def test_nothing_is_lost_on_the_way(body: dict[str, Any], tooled: dict[str, Any]) -> None:
    """Whatever the wire can hold, said in OpenAI's words, arrives as it was, and the provider's SDK knows it."""
    body = {**body, **(tooled if "tools" in tooled else {})}
    made = orjson.loads(WIRE.request(Call(NEW, canonical(body))).body)
    assert comparable(made) == comparable({**body, "model": NEW})
    assert is_valid(made)


@CALM
@given(st.lists(st.tuples(st.sampled_from(["system", "developer", "user", "assistant"]), WORDS), min_size=1))
def test_every_word_of_every_role_arrives(said: list[tuple[str, str]]) -> None:
    """Those of the system together and apart, the others in turns that alternate, all in their order."""
    messages = [{"role": role, "content": words} for role, words in said]
    made = orjson.loads(WIRE.request(Call(NEW, {"messages": messages})).body)
    above = [words for role, words in said if role in ("system", "developer")]
    assert [block["text"] for block in made.get("system", [])] == above
    told = [(turn["role"], block["text"]) for turn in made["messages"] for block in turn["content"]]
    assert told == [each for each in said if each[0] in ("user", "assistant")]
    roles = [turn["role"] for turn in made["messages"]]
    assert all(first != second for first, second in pairwise(roles))


@CALM
@given(ASSISTANT)
def test_an_answer_given_back_is_the_answer(blocks: list[dict[str, Any]]) -> None:
    """As an application gives it back: the message that it was told, whole or streamed, and nothing added."""
    blocks = [{name: value for name, value in each.items() if name != "cache_control"} for each in blocks]
    whole = choice(*blocks)["message"]
    streamed = gathered(decode(stream_of(blocks))[0])["message"]
    for message in (whole, streamed):
        if "tool_calls" in message:
            message["tool_calls"] = [
                {name: value for name, value in each.items() if name != "index"} for each in message["tool_calls"]
            ]
        made = orjson.loads(WIRE.request(Call(NEW, {"messages": [ASK, message]})).body)
        assert made["messages"][1]["content"] == blocks


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["type", "text", "role", "content", "function", "name", "image_url", "url", "file", "anthropic"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)
FIELDS = (
    "messages tools tool_choice response_format reasoning reasoning_effort stop max_tokens metadata user thinking "
    "anthropic temperature service_tier parallel_tool_calls n"
)
ODD = st.dictionaries(st.sampled_from(FIELDS.split()), ANYTHING)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system"])},
    optional={
        "content": ANYTHING,
        "tool_calls": ANYTHING,
        "tool_call_id": ANYTHING,
        "reasoning_details": ANYTHING,
        "thinking_blocks": ANYTHING,
        "anthropic": ANYTHING,
        "cache_control": ANYTHING,
    },
)


@CALM
@given(ODD, st.lists(MESSAGE, max_size=3), st.sampled_from([NEW, OLD, OLDER, "x"]))
def test_an_odd_request_is_translated_or_refused(document: dict[str, Any], messages: list[Any], model: str) -> None:
    """And nothing else: a caller's slip is the caller's 400."""
    for each in ({**document, "messages": messages}, document):
        try:
            WIRE.request(Call(model, each))
        except ProviderError as error:
            assert (error.kind, error.sent) == (Kind.REJECTED, False)  # noqa: PT017
