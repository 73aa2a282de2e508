"""What wires that speak in blocks read alike out of OpenAI's request."""

from typing import Any

import pytest

from providers.canonical import Reasoning, add_turn, arguments_of, check, closed, most_tokens, reasoning_of
from providers.contract import ProviderError
from providers.refusal import Tolerance


def test_how_hard_to_think_is_said_in_a_word_or_in_tokens() -> None:
    """OpenAI's field goes before OpenRouter's object."""
    assert reasoning_of({}) == Reasoning(None, None, False)
    assert reasoning_of({"reasoning_effort": "low", "reasoning": {"effort": "high"}}).effort == "low"
    assert reasoning_of({"reasoning": {"max_tokens": 3000, "exclude": True}}) == Reasoning(None, 3000, True)
    assert [reasoning_of({"reasoning": {"enabled": on}}).effort for on in (True, False)] == ["medium", "none"]


@pytest.mark.parametrize("effort", ["", "enormous", 3, ["low"]])
@pytest.mark.parametrize("field", ["reasoning_effort", "reasoning.effort"])
def test_another_word_is_refused_by_name(field: str, effort: Any) -> None:
    """The field is the one that the caller wrote."""
    document = {"reasoning_effort": effort} if field == "reasoning_effort" else {"reasoning": {"effort": effort}}
    with pytest.raises(ProviderError) as caught:
        reasoning_of(document)
    assert caught.value.param == field


@pytest.mark.parametrize(
    ("asked", "most", "tokens"),
    [
        (Reasoning("medium", None, False), None, 8192),
        (Reasoning("high", None, False), 8000, 4000),
        (Reasoning("high", None, False), 1500, 1024),
        (Reasoning(None, 5, False), 100, 1024),
    ],
)
def test_a_budget_leaves_half_for_the_answer(asked: Reasoning, most: int | None, tokens: int) -> None:
    """Unless the caller says the number; less than the least is none."""
    assert asked.tokens(most) == tokens


def test_the_newer_name_of_the_bound_goes_first() -> None:
    """OpenAI has two."""
    assert most_tokens({"max_tokens": 5, "max_completion_tokens": 7}) == 7
    assert (most_tokens({"max_tokens": 0}), most_tokens({})) == (0, None)


def test_a_field_without_a_place_is_refused_unless_it_asks_for_nothing() -> None:
    """Or unless the caller is lenient."""
    tolerance = Tolerance("anthropic")
    check({"a": 1, "n": 1, "b": None, "c": [], "d": {}}, {"a"}, {"n": 1}, tolerance)
    for document in ({"n": 2}, {"zeal": 1}):
        with pytest.raises(ProviderError, match="'anthropic'"):
            check(document, {"a"}, {"n": 1}, tolerance)
        check(document, {"a"}, {"n": 1}, Tolerance("anthropic", lenient=True))


def test_neighbours_of_one_role_are_one_turn() -> None:
    """A turn without a block is none."""
    turns: list[dict[str, Any]] = []
    for role, blocks in (("user", [{"a": 1}]), ("user", [{"a": 2}]), ("assistant", []), ("assistant", [{"a": 3}])):
        add_turn(turns, role, blocks)
    assert turns == [{"role": "user", "content": [{"a": 1}, {"a": 2}]}, {"role": "assistant", "content": [{"a": 3}]}]


@pytest.mark.parametrize("arguments", [None, "", "{}", {}])
def test_no_arguments_are_an_empty_object(arguments: Any) -> None:
    """However a client writes them."""
    assert arguments_of(arguments, "f") == {}


@pytest.mark.parametrize("arguments", ["[]", "{", "null", 3, "[" * 100_000])
def test_arguments_are_an_object(arguments: Any) -> None:
    """Nothing else can be called with."""
    with pytest.raises(ProviderError) as caught:
        arguments_of(arguments, "f")
    assert caught.value.param == "f"


def test_an_object_that_may_be_null_is_closed_and_a_property_of_that_name_is_none() -> None:
    """`type` and `properties` are words of a schema, and may be names of fields."""
    fields = {"type": {"type": "string"}, "properties": {"type": ["object", "null"], "properties": {}}}
    made = closed({"type": "object", "properties": fields})
    assert made["properties"].keys() == fields.keys()
    assert made["properties"]["properties"]["additionalProperties"] is False


def test_a_schema_is_closed_at_every_depth_and_the_callers_stays_open() -> None:
    """What the caller says about further fields is left alone."""
    inner = {"type": "object", "properties": {"b": {"type": "string"}}}
    schema = {"anyOf": [inner, {**inner, "additionalProperties": True}]}
    assert closed(schema) == {
        "anyOf": [{**inner, "additionalProperties": False}, {**inner, "additionalProperties": True}]
    }
    assert "additionalProperties" not in inner
