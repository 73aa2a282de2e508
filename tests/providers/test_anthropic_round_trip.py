"""Whatever is asked of Claude: nothing is lost on the way, and nothing but a refusal is raised."""

from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.contract import Call, Kind, ProviderError
from tests.providers.anthropic_asking import (
    NEW,
    OLD,
    OLDER,
    SCHEMA,
    WIRE,
    source,
)
from tests.wire.anthropic_requests import canonical, comparable

CALM = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


WORDS = st.text(min_size=1, max_size=8)
IDS = st.from_regex(r"[a-zA-Z0-9_-]{1,8}", fullmatch=True)
MARK = st.sampled_from([{}, {"cache_control": {"type": "ephemeral"}}])
BLOCK = st.one_of(
    st.builds(lambda text, mark: {"type": "text", "text": text, **mark}, WORDS, MARK),
    st.builds(lambda data, mark: {"type": "image", "source": source("image/png", data), **mark}, IDS, MARK),
    st.builds(lambda data: {"type": "document", "source": source("application/pdf", data)}, IDS),
    st.just({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}),
)
INPUT = st.dictionaries(WORDS, st.one_of(st.none(), st.booleans(), st.integers(-9, 9), WORDS), max_size=3)
USE = st.builds(lambda i, name, given: {"type": "tool_use", "id": i, "name": name, "input": given}, IDS, IDS, INPUT)
RESULT = st.builds(
    lambda i, content: {"type": "tool_result", "tool_use_id": i, "content": content},
    IDS,
    st.one_of(st.text(max_size=8), st.lists(BLOCK, min_size=1, max_size=2)),
)
THOUGHT = st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": "s"}, WORDS)
USER = st.builds(lambda results, rest: [*results, *rest], st.lists(RESULT, max_size=2), st.lists(BLOCK, min_size=1))
SAID = st.builds(lambda text: {"type": "text", "text": text}, WORDS)
ASSISTANT = st.builds(
    lambda thoughts, said, uses: [*thoughts, *said, *uses],
    st.lists(THOUGHT, max_size=2),
    st.lists(SAID, min_size=1, max_size=2),
    st.lists(USE, max_size=2),
)


def _turns(pairs: list[tuple[Any, Any]]) -> list[dict[str, Any]]:
    both = (({"role": "user", "content": u}, {"role": "assistant", "content": a}) for u, a in pairs)
    return [turn for pair in both for turn in pair]


REQUEST = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, 9999), "messages": st.lists(st.tuples(USER, ASSISTANT), min_size=1).map(_turns)},
    optional={
        "system": st.lists(SAID, min_size=1, max_size=2),
        "temperature": st.floats(0, 1),
        "top_k": st.integers(1, 99),
        "stop_sequences": st.lists(WORDS, min_size=1),
        "tools": st.just([{"name": "weather", "input_schema": SCHEMA, "strict": True}]),
        "metadata": st.just({"user_id": "u"}),
        "thinking": st.just({"type": "adaptive"}),
    },
)


@CALM
@given(REQUEST)
def test_nothing_is_lost_on_the_way(body: dict[str, Any]) -> None:
    """Whatever the wire can hold, said in OpenAI's words, arrives as it was."""
    made = WIRE.request(Call(NEW, canonical(body)))
    assert comparable(orjson.loads(made.body)) == comparable({**body, "model": NEW})


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
