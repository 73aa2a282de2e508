"""What Claude is sent: the conversation and its parts."""

from typing import Any

import pytest

from tests.providers.anthropic_asking import (
    ASK,
    CALL,
    NEW,
    PIXEL,
    USED,
    WEATHER,
    blocks,
    image,
    refused,
    result,
    sent,
    source,
    text,
)

# --- the conversation ----------------------------------------------------------------------------------------------


def test_system_and_developer_messages_are_joined_apart() -> None:
    """Wherever they stand, in order."""
    body = sent({"role": "system", "content": "A"}, ASK, {"role": "developer", "content": [text("B")]})
    assert body["system"] == [text("A"), text("B")]
    assert body["messages"] == [{"role": "user", "content": [text("hi")]}]


def test_neighbours_of_one_role_become_one_turn() -> None:
    """Turns alternate there."""
    body = sent(ASK, {"role": "user", "content": "you"}, {"role": "assistant", "content": "yes"}, ASK)
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][0]["content"] == [text("hi"), text("you")]


def test_empty_texts_are_left_out() -> None:
    """They would be refused."""
    body = sent(ASK, {"role": "assistant", "content": "", "tool_calls": [CALL]}, result("1", "toolu_1"))
    assert body["messages"][1]["content"] == [USED]
    assert [turn["role"] for turn in sent(ASK, {"role": "assistant", "content": None}, ASK)["messages"]] == ["user"]


def test_white_space_alone_is_no_text() -> None:
    """It would be refused; beside words it is left as it is."""
    said = {"role": "user", "content": ["\n", text(" "), text(" a ")]}
    assert blocks(said) == [text(" a ")]
    assert blocks(ASK, {"role": "assistant", "content": " \n"}, ASK) == [text("hi"), text("hi")]


def test_a_result_without_a_word_is_a_result() -> None:
    """Commands often say nothing."""
    said = {"role": "assistant", "tool_calls": [CALL]}
    (made,) = sent(ASK, said, result("", "toolu_1"))["messages"][2]["content"]
    assert made == {"type": "tool_result", "tool_use_id": "toolu_1", "content": ""}


def test_system_text_stays_between_a_question_and_its_answer_where_it_may() -> None:
    """What was cached before it stays cached, and it holds from there on."""
    first, rule, said = ({"role": role, "content": role[0]} for role in ("system", "developer", "assistant"))
    talk = [first, ASK, rule, said, ASK, rule, rule]
    assert [turn["role"] for turn in sent(*talk, model=NEW)["messages"]] == ["user", "assistant", "user"]
    body = sent(*talk, model="claude-opus-4-8")
    assert [turn["role"] for turn in body["messages"]] == ["user", "system", "assistant", "user", "system"]
    assert (body["system"], body["messages"][1]["content"]) == ([text("s")], [text("d")])
    assert body["messages"][4]["content"] == [text("d"), text("d")]


def test_system_text_elsewhere_is_joined_apart() -> None:
    """Behind an answer, or before a further question, the provider refuses it."""
    rule = {"role": "system", "content": "R"}
    for messages in ([rule, ASK], [ASK, rule, ASK], [ASK, {"role": "assistant", "content": "a"}, rule, ASK]):
        body = sent(*messages, model="claude-opus-4-8")
        assert body["system"] == [text("R")]
        assert "system" not in [turn["role"] for turn in body["messages"]]


def test_only_text_stands_in_a_system_message() -> None:
    """The provider would refuse anything else in words about a field that the caller never wrote."""
    for role in ("system", "developer"):
        message = {"role": role, "content": [image("https://a.example/b.png"), "S"]}
        assert refused(message).param == "messages[0].content"
        assert sent(message, ASK, anthropic={"lenient": True})["system"] == [text("S")]


def test_results_of_tools_come_first_in_the_next_turn() -> None:
    """In whatever order they were given, and beside whatever else the user says."""
    second = {**CALL, "id": "call|2"}
    body = sent(
        ASK,
        {"role": "assistant", "content": "Looking", "tool_calls": [CALL, second]},
        ASK,
        result("warm", "call|2"),
        result([text("cold")], "toolu_1"),
    )
    assert body["messages"][1]["content"] == [text("Looking"), USED, {**USED, "id": "call_2"}]
    assert body["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "call_2", "content": "warm"},
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("cold")]},
        text("hi"),
    ]


def test_a_result_may_say_that_it_is_an_error() -> None:
    """OpenAI has no field for it; who knows the provider may use its own."""
    body = sent(ASK, {"role": "assistant", "tool_calls": [CALL]}, {**result("down", "toolu_1"), "is_error": True})
    assert body["messages"][2]["content"][0]["is_error"] is True


@pytest.mark.parametrize("arguments", ["[1]", "{", "7", 7])
def test_arguments_must_be_an_object(arguments: Any) -> None:
    """A tool's input is one there."""
    call = {**CALL, "function": {"name": "f", "arguments": arguments}}
    error = refused(ASK, {"role": "assistant", "tool_calls": [call]})
    assert error.param == "messages[1].tool_calls[0].function.arguments"


def test_thinking_is_given_back_with_its_signature() -> None:
    """As our answers carry it; what has no signature, or is another provider's, is nobody's to give back."""
    details = [
        {"type": "reasoning.text", "text": "Hm", "signature": "s", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "d", "index": 1},
        {"type": "reasoning.text", "text": "unsigned"},
        {"type": "reasoning.encrypted", "data": "d", "format": "openai-responses-v1"},
    ]
    said = {"role": "assistant", "content": None, "reasoning_content": "Hm", "reasoning_details": details}
    body = sent(ASK, {**said, "tool_calls": [CALL]}, result("1", "toolu_1"))
    thoughts = [{"type": "thinking", "thinking": "Hm", "signature": "s"}, {"type": "redacted_thinking", "data": "d"}]
    assert body["messages"][1]["content"] == [*thoughts, USED]


def test_thinking_blocks_of_litellm_are_understood() -> None:
    """Clients that were written for it keep them."""
    thought = {"type": "thinking", "thinking": "Hm", "signature": "s"}
    body = sent(ASK, {"role": "assistant", "content": "x", "thinking_blocks": [thought]})
    assert body["messages"][1]["content"] == [thought, text("x")]


def test_blocks_that_an_answer_carried_are_given_back_as_they_were() -> None:
    """In place of the canonical fields, which do not hold their order."""
    carried = [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, text("a"), text("b")]
    said = {"role": "assistant", "content": "ab", "annotations": [{}], "anthropic": {"content": carried}}
    assert sent(ASK, said)["messages"][1]["content"] == carried


def test_an_answer_of_another_provider_goes_on_here() -> None:
    """What only its own provider understands in it is left out; the fields of OpenAI say the rest."""
    own = {"bedrock": {"content": [{"text": "b"}]}, "gemini": {"parts": [{}]}, "citations": [{}], "parsed": {"a": 1}}
    assert sent(ASK, {"role": "assistant", "content": "a", **own})["messages"][1]["content"] == [text("a")]


def test_thinking_blocks_of_an_odd_type_are_left_out() -> None:
    """Whatever stands there."""
    said = {"role": "assistant", "content": "a", "thinking_blocks": [{"type": []}, {"type": "thinking"}]}
    assert sent(ASK, said)["messages"][1]["content"] == [{"type": "thinking"}, text("a")]


def test_a_refusal_that_was_said_is_text() -> None:
    """It is what the assistant answered."""
    assert sent(ASK, {"role": "assistant", "refusal": "No"})["messages"][1]["content"] == [text("No")]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": "x", "name": "ann"}, "messages[0].name"),
        ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "messages[0].audio"),
        ({"role": "assistant", "function_call": {"name": "f"}}, "messages[0].function_call"),
        ({"role": "oracle", "content": "x"}, "messages[0].role"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
        ({"role": "user", "content": {"a": 1}}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": []}]}, "messages[0].content[0]"),
        ("text", "messages[0]"),
    ],
)
def test_a_message_names_what_has_no_place(message: Any, param: str) -> None:
    """With its path."""
    assert refused(message).param == param


# --- parts ---------------------------------------------------------------------------------------------------------


def test_an_image_goes_as_base64_or_by_url() -> None:
    """Both are native; the hint `detail` has no field."""
    url = "https://example.com/a.png"
    parts = [image(f"data:image/JPG;base64,{PIXEL}"), image(url, detail="low")]
    assert blocks({"role": "user", "content": parts}) == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": PIXEL}},
        {"type": "image", "source": {"type": "url", "url": url}},
    ]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "data:image/png,raw", "data:;base64,x", "data:", "", None])
def test_an_image_from_elsewhere_is_refused(url: Any) -> None:
    """Nothing is read from here."""
    assert str(refused({"role": "user", "content": [image(url)]}).param).startswith(
        "messages[0].content[0].image_url"
    )


def test_a_file_is_a_document() -> None:
    """PDFs as base64, by URL or by the id of an upload; text as text."""
    pdf = {"type": "base64", "media_type": "application/pdf", "data": PIXEL}
    files = [
        {"file_data": f"data:application/pdf;base64,{PIXEL}", "filename": "a.pdf"},
        {"file_data": PIXEL},
        {"file_data": "https://example.com/a.pdf"},
        {"file_url": "https://example.com/a.pdf"},
        {"file_id": "file_1"},
        {"file_data": f"data:text/markdown;base64,{PIXEL}"},
    ]
    sources = [
        pdf,
        pdf,
        {"type": "url", "url": "https://example.com/a.pdf"},
        {"type": "url", "url": "https://example.com/a.pdf"},
        {"type": "file", "file_id": "file_1"},
        {"type": "text", "media_type": "text/plain", "data": "hello"},
    ]
    found = blocks({"role": "user", "content": [{"type": "file", "file": file} for file in files]})
    assert [block["source"] for block in found] == sources
    assert [block.get("title") for block in found] == ["a.pdf", *[None] * 5]


def test_a_file_is_what_it_holds_not_what_its_part_is_called() -> None:
    """Clients send PDFs as images, and images as files."""
    pdf, png = f"data:application/pdf;base64,{PIXEL}", f"data:image/png;base64,{PIXEL}"
    files = [{"type": "file", "file": {"file_data": each}} for each in (png, "https://a.example/b.PNG?c=d")]
    assert blocks({"role": "user", "content": [image(pdf), *files]}) == [
        {"type": "document", "source": source("application/pdf", PIXEL)},
        {"type": "image", "source": source("image/png", PIXEL)},
        {"type": "image", "source": {"type": "url", "url": "https://a.example/b.PNG?c=d"}},
    ]


@pytest.mark.parametrize("data", ["data:video/mp4;base64,x", "data:text/plain;base64,@@@", None])
def test_a_file_of_another_kind_is_refused(data: Any) -> None:
    """By name."""
    file = {"type": "file", "file": {"file_data": data}}
    assert refused({"role": "user", "content": [file]}).param == "messages[0].content[0].file.file_data"


def test_a_native_block_passes_as_it_is() -> None:
    """Who knows the provider may use its own."""
    block = {"type": "search_result", "source": "s", "title": "t", "content": []}
    assert blocks({"role": "user", "content": [block]}) == [block]


def test_cache_marks_are_passed_on() -> None:
    """On parts, messages, tools, results and the whole request, as OpenAI clients send them already."""
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    body = sent(
        {"role": "system", "content": [{**text("S"), **mark}]},
        {"role": "user", "content": "whole", **mark},
        {"role": "assistant", "tool_calls": [CALL]},
        {**result("1", "toolu_1"), **mark},
        tools=[{**WEATHER, **mark}],
        cache_control={"type": "ephemeral"},
    )
    assert body["cache_control"] == {"type": "ephemeral"}
    marked = [
        body["system"][0],
        body["tools"][0],
        body["messages"][0]["content"][-1],
        body["messages"][2]["content"][0],
    ]
    assert all(block["cache_control"] == mark["cache_control"] for block in marked)
