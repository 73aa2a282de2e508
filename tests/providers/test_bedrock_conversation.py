"""How a conversation is told to Bedrock."""

from typing import Any

import orjson
import pytest

from providers.bedrock import BedrockWire
from providers.contract import Call
from tests.providers.bedrock_asking import (
    CALLED,
    CLAUDE,
    MARK,
    PNG,
    POINT,
    RESULT,
    USER,
    parts,
    refused,
    sent,
    turns,
)

# --- the conversation -------------------------------------------------------------------------------------------


def test_system_text_stands_apart() -> None:
    """Developer messages are system text, wherever they stand."""
    body = sent(
        {"role": "system", "content": "a"}, USER, {"role": "developer", "content": [{"type": "text", "text": "b"}]}
    )
    assert body == {
        "messages": [{"role": "user", "content": [{"text": "hi"}]}],
        "system": [{"text": "a"}, {"text": "b"}],
    }


def test_a_tool_loop_goes_there_and_back() -> None:
    """Results, in whatever order, open the next user's turn; a mark stays behind its result."""
    second = {"id": "t2", "type": "function", "function": {"name": "g", "arguments": ""}}
    called = {**CALLED, "content": "wait", "tool_calls": [*CALLED["tool_calls"], second]}
    later = {"role": "tool", "tool_call_id": "t2", "name": "g", "content": [{"type": "text", "text": "x", **MARK}]}
    assert turns(USER, called, {"role": "user", "content": "hurry"}, later, RESULT) == [
        ("user", [{"text": "hi"}]),
        (
            "assistant",
            [
                {"text": "wait"},
                {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": 1}}},
                {"toolUse": {"toolUseId": "t2", "name": "g", "input": {}}},
            ],
        ),
        (
            "user",
            [
                {"toolResult": {"toolUseId": "t2", "content": [{"text": "x"}]}},
                POINT,
                {"toolResult": {"toolUseId": "t1", "content": [{"text": "done"}]}},
                {"text": "hurry"},
            ],
        ),
    ]


@pytest.mark.parametrize("content", [{"n": 1}, 5, [1, 2]])
def test_a_result_that_is_no_text_is_json(content: Any) -> None:
    """It needs no translation."""
    (_, _, (_, blocks)) = turns(USER, CALLED, {**RESULT, "content": content})
    assert blocks == [{"toolResult": {"toolUseId": "t1", "content": [{"json": content}]}}]


def test_ids_are_made_fit_and_stay_apart() -> None:
    """Other providers have longer ones, and put bars into them."""
    ids = ["call_1|fc.2", "x" * 80, "x" * 81]
    called = {**CALLED, "tool_calls": [{**CALLED["tool_calls"][0], "id": each} for each in ids]}
    (_, (_, calls), (_, results)) = turns(USER, called, *({**RESULT, "tool_call_id": each} for each in ids))
    made = [block["toolUse"]["toolUseId"] for block in calls]
    assert made == [block["toolResult"]["toolUseId"] for block in results]
    assert made[0] == "call_1_fc_2"
    assert len(set(made)) == 3


def test_thinking_is_given_back_with_its_signature() -> None:
    """As answers tell it; what nobody signed, or another signed, is left out."""
    details = [
        {"type": "reasoning.text", "text": "hm", "signature": "s", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "QUJD", "index": 1},
        {"type": "reasoning.text", "text": "unsigned"},
        {"type": "reasoning.text", "text": "x", "signature": "s", "format": "google-gemini-v1"},
    ]
    told = {**CALLED, "reasoning_content": "hm", "reasoning_details": details}
    (_, (_, blocks), _) = turns(USER, told, RESULT)
    assert blocks[:-1] == [
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}},
        {"reasoningContent": {"redactedContent": "QUJD"}},
    ]


def test_thinking_blocks_of_litellm_are_understood() -> None:
    """They are a Claude's; to another model they are nobody's."""
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "QUJD"},
        {"type": []},
    ]
    said = {"role": "assistant", "content": "a", "thinking_blocks": blocks}
    signed = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}}
    assert turns(USER, said)[1][1] == [signed, {"reasoningContent": {"redactedContent": "QUJD"}}, {"text": "a"}]
    assert turns(USER, said, model="us.deepseek.r1-v1:0")[1][1] == [{"text": "a"}]


def test_unsigned_reasoning_is_left_out() -> None:
    """Models refuse it; and a message of reasoning alone, too."""
    details = [{"type": "reasoning.text", "text": "hm"}]
    told = {"role": "assistant", "content": "x", "reasoning_content": "hm", "reasoning_details": details}
    assert turns(USER, told, model="us.deepseek.r1-v1:0")[1] == ("assistant", [{"text": "x"}])
    alone = {"role": "assistant", "content": "", "reasoning_details": [{**details[0], "signature": "s"}]}
    assert turns(USER, alone, USER) == [("user", [{"text": "hi"}, {"text": "hi"}])]


def test_blocks_that_an_answer_carried_are_sent_as_they_were() -> None:
    """In place of all else in the message."""
    content = [
        {"text": "a"},
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}},
        {"text": "b"},
    ]
    told = {"role": "assistant", "content": "ab", "bedrock": {"content": content}}
    assert turns(USER, told)[1] == ("assistant", content)


def test_a_result_may_say_that_it_is_an_error() -> None:
    """In a field that OpenAI has not, and other clients use."""
    (made,) = turns(USER, CALLED, {**RESULT, "is_error": True})[2][1]
    assert made["toolResult"]["status"] == "error"


def test_ids_with_dots_and_colons_are_left_to_who_makes_them() -> None:
    """Kimi's ids hold both; a Claude allows neither."""
    odd = "functions.f:0"
    said = {**CALLED, "tool_calls": [{**CALLED["tool_calls"][0], "id": odd}]}
    for model, made in (("moonshot.kimi-k2-thinking", odd), (CLAUDE, "functions_f_0"), ("arn:x/y", "functions_f_0")):
        (_, _), (_, [use]), (_, [result]) = turns(USER, said, {**RESULT, "tool_call_id": odd}, model=model)
        assert (use["toolUse"]["toolUseId"], result["toolResult"]["toolUseId"]) == (made, made)


def test_white_space_alone_is_no_text() -> None:
    """It would be refused; a user who says nothing keeps the turn, so that the provider can say so."""
    assert parts("\n", {"type": "text", "text": " "}, "a ") == [{"text": "a "}]
    assert turns(USER, {"role": "assistant", "content": "\n"}, USER) == [("user", [{"text": "hi"}, {"text": "hi"}])]
    assert turns(USER, {"role": "assistant", "content": "a"}, {"role": "user", "content": " "})[2] == ("user", [])


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "system", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}, "messages[0].content"),
        ({**RESULT, "content": [{"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}}]},
         "messages[0].content"),
    ],
)  # fmt: skip
def test_what_cannot_stand_in_its_place_is_refused(message: dict[str, Any], field: str) -> None:
    """There the provider would refuse it in words about a field that the caller never wrote."""
    assert refused(message) == field
    assert b"bytes" not in orjson.dumps(sent(message, bedrock={"lenient": True}))


@pytest.mark.parametrize(
    ("part", "kind", "name"),
    [
        ({"type": "image_url", "image_url": {"url": "data:application/pdf;base64,QUJD"}}, "document", "pdf"),
        ({"type": "file", "file": {"file_data": "data:image/webp;base64,QUJD"}}, "image", "webp"),
        ({"type": "file", "file": {"file_data": "data:video/mp4;base64,QUJD"}}, "video", "mp4"),
        ({"type": "file", "file": {"file_data": "data:audio/mpeg;base64,QUJD"}}, "audio", "mp3"),
        ({"type": "file", "file": {"file_data": "data:application/json;base64,QUJD"}}, "document", "txt"),
        ({"type": "file", "file": {"file_data": "data:text/x-python;base64,QUJD"}}, "document", "txt"),
    ],
)
def test_a_file_is_what_it_holds_not_what_its_part_is_called(part: dict[str, Any], kind: str, name: str) -> None:
    """Clients send PDFs as images, and images as files; any text can be read."""
    (made,) = parts(part)
    assert made[kind]["format"] == name


def test_an_answer_of_another_provider_goes_on_here() -> None:
    """What only its own provider understands in it is left out; the fields of OpenAI say the rest."""
    own = {"anthropic": {"content": [{"type": "text"}]}, "gemini": {"parts": [{}]}, "parsed": {"a": 1}}
    assert turns(USER, {"role": "assistant", "content": "a", **own})[1] == ("assistant", [{"text": "a"}])


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "wizard", "content": "x"}, "messages[0].role"),
        ({"role": "user", "content": "x", "name": "Bob"}, "messages[0].name"),
        ({"role": "user", "content": [{"type": "hologram"}]}, "messages[0].content[0]"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "messages[0].audio"),
        ({**CALLED, "tool_calls": [{"id": "t", "function": {"name": "f", "arguments": "{"}}]},
         "messages[0].tool_calls[0].function.arguments"),
        ({**CALLED, "tool_calls": [{"function": {"name": "f"}}]}, "messages[0].tool_calls[0].id"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
    ],
)  # fmt: skip
def test_what_a_message_cannot_hold_is_refused_by_name(message: dict[str, Any], field: str) -> None:
    """Never dropped in silence."""
    assert refused(message) == field


# --- parts ------------------------------------------------------------------------------------------------------


def test_files_are_sent_as_bytes_with_a_format() -> None:
    """Pictures, films, sounds and documents; two of one name are told apart."""
    pdf = {"type": "file", "file": {"filename": "my_report.v2.pdf", "file_data": "data:application/pdf;base64,QUJD"}}
    made = parts(
        {"type": "image_url", "image_url": {"url": PNG, "detail": "high"}, **MARK},
        {"type": "image_url", "image_url": "data:image/jpg;base64,QUJD"},
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,QUJD"}},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
        pdf,
        pdf,
        {"type": "text", "text": ""},
    )
    source = {"source": {"bytes": "QUJD"}}
    assert made == [
        {"image": {"format": "png", **source}},
        POINT,
        {"image": {"format": "jpeg", **source}},
        {"video": {"format": "mp4", **source}},
        {"audio": {"format": "mp3", **source}},
        {"document": {"name": "my report v2", "format": "pdf", **source}},
        {"document": {"name": "my report v2 (2)", "format": "pdf", **source}},
    ]


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/tiff;base64,QUJD"}}, "image_url"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,abc"}}, "image_url"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "image_url"),
        ({"type": "image_url", "image_url": {}}, "image_url.url"),
        ({"type": "file", "file": {"file_id": "f"}}, "file.file_id"),
        ({"type": "file", "file": {"file_data": "data:application/zip;base64,QUJD"}}, "file"),
    ],
)
def test_what_is_no_file_there_is_refused_by_name(part: dict[str, Any], field: str) -> None:
    """So are addresses that nobody fetches."""
    assert refused({"role": "user", "content": [part]}) == f"messages[0].content[0].{field}"


def test_a_part_may_be_a_block_of_converse() -> None:
    """What OpenAI has no form for."""
    guarded = {"guardContent": {"text": {"text": "x", "qualifiers": ["query"]}}}
    assert parts({"type": "guardContent", **guarded}) == [guarded]


@pytest.mark.parametrize("inside", [False, True])
def test_objects_in_s3_are_refused(inside: bool) -> None:
    """Bedrock would read them with the gateway's identity, whoever asks."""
    image = {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://bucket/key"}}}}
    part = {"type": "image", **image}
    asked = {**RESULT, "content": [part]} if inside else {"role": "user", "content": [part]}
    assert refused(asked) == "messages"
    assert refused(USER, bedrock={"messages": [{"role": "user", "content": [image]}]}) == "messages"
    made = BedrockWire(s3=True).request(Call(CLAUDE, {"messages": [asked]}))
    assert b"s3Location" in made.body
