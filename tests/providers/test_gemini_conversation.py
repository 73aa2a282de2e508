"""What Gemini is sent for the messages of OpenAI's requests, and for the files in them."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.test_gemini_request import SAID, WIRE, call, refusal, sent, tool_call

PIXEL = "iVBORw0KGgo="


def parts(*content: dict[str, Any], model: str = "gemini-2.5-flash", **more: Any) -> list[dict[str, Any]]:
    messages = [{"role": "user", "content": list(content)}]
    found: list[dict[str, Any]] = sent(model, messages=messages, **more)["contents"][0]["parts"]
    return found


# --- messages -----------------------------------------------------------------------------------------------------


def test_system_and_developer_messages_are_one_instruction() -> None:
    """Wherever they stand."""
    messages = [
        {"role": "system", "content": "a"},
        {"role": "user", "content": "hi", "cache_control": {"type": "ephemeral"}},
        {"role": "developer", "content": [{"type": "text", "text": "b"}]},
    ]
    assert sent(messages=messages) == {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "systemInstruction": {"parts": [{"text": "a"}, {"text": "b"}]},
    }


def test_a_system_message_alone_is_what_the_user_says() -> None:
    """Gemini takes no request without contents, OpenAI does."""
    body = sent(messages=[{"role": "system", "content": "go"}])
    assert body == {"contents": [{"role": "user", "parts": [{"text": "go"}]}]}


def test_a_tool_loop() -> None:
    """Results come as one turn in the order of their calls, whatever order and form they were given in."""
    messages = [
        *SAID,
        {"role": "assistant", "content": None, "tool_calls": [tool_call("1"), tool_call("2", "mul", "")]},
        {"role": "tool", "tool_call_id": "2", "content": "six"},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": '{"sum":'}, "3}"]},
        {"role": "user", "content": "go on"},
    ]
    assert sent(messages=messages)["contents"][1:] == [
        {
            "role": "model",
            "parts": [
                {"functionCall": {"name": "add", "args": {"a": 1}, "id": "1"}},
                {"functionCall": {"name": "mul", "args": {}, "id": "2"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "1", "name": "add", "response": {"sum": 3}}},
                {"functionResponse": {"id": "2", "name": "mul", "response": {"result": "six"}}},
            ],
        },
        {"role": "user", "parts": [{"text": "go on"}]},
    ]


@pytest.mark.parametrize(("content", "told"), [({"a": 1}, {"a": 1}), (7, {"result": 7}), (None, {"result": ""})])
def test_a_result_that_is_no_text(content: Any, told: Any) -> None:
    """Gemini wants an object: anything else becomes its `result`."""
    messages = [
        {"role": "assistant", "tool_calls": [tool_call("1")]},
        {"role": "tool", "tool_call_id": "1", "content": content},
    ]
    assert sent(messages=messages)["contents"][1]["parts"][0]["functionResponse"]["response"] == told


def test_an_image_in_a_result() -> None:
    """From Gemini 3 on it is a part of the response, before that it follows it."""
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    messages = [
        {"role": "assistant", "tool_calls": [tool_call("1")]},
        {"role": "tool", "tool_call_id": "1", "content": [image]},
    ]
    inline = {"inlineData": {"mimeType": "image/png", "data": PIXEL}}
    (new,) = sent("gemini-3-pro", messages=messages)["contents"][1]["parts"]
    assert new["functionResponse"]["parts"] == [inline]
    assert sent(messages=messages)["contents"][1]["parts"][1] == inline


def test_signatures_return_to_the_parts_that_they_came_with() -> None:
    """A call's by its id, the text's without one; another provider's are nobody's to give back."""
    details = [
        {"type": "reasoning.text", "text": "hm", "format": "google-gemini-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "T", "format": "google-gemini-v1", "index": 1},
        {"type": "reasoning.encrypted", "data": "C", "id": "1", "format": "google-gemini-v1", "index": 2},
        {"type": "reasoning.text", "text": "x", "signature": "A", "format": "anthropic-claude-v1"},
    ]
    message = {
        "role": "assistant",
        "content": "so",
        "reasoning_content": "hm",
        "tool_calls": [tool_call("1"), tool_call("2")],
        "reasoning_details": details,
    }
    (content,) = sent("gemini-3-pro", messages=[message])["contents"]
    assert content["parts"] == [
        {"text": "so", "thoughtSignature": "T"},
        {"functionCall": {"name": "add", "args": {"a": 1}, "id": "1"}, "thoughtSignature": "C"},
        {"functionCall": {"name": "add", "args": {"a": 1}, "id": "2"}},
    ]


def test_a_signature_as_googles_own_layer_keeps_it() -> None:
    """For clients that give back nothing but the calls."""
    kept: dict[str, Any] = {"extra_content": {"google": {"thought_signature": "C"}}}
    message = {"role": "assistant", "tool_calls": [tool_call("1", **kept)]}
    assert sent("gemini-3-pro", messages=[message])["contents"][0]["parts"][0]["thoughtSignature"] == "C"


def test_a_call_without_its_signature() -> None:
    """Gemini 3 would refuse it; Google documents a mark for talks that come from another model."""
    message = {"role": "assistant", "tool_calls": [tool_call("1"), tool_call("2")]}
    first, second = sent("gemini-3-pro", messages=[message])["contents"][0]["parts"]
    assert first["thoughtSignature"] == "skip_thought_signature_validator"
    assert "thoughtSignature" not in second
    assert "thoughtSignature" not in sent(messages=[message])["contents"][0]["parts"][0]


def test_parts_of_googles_own_in_what_the_user_says() -> None:
    """Whatever OpenAI has no form for, such as a piece of a video; nobody else's message may hold it."""
    clip = {"fileData": {"fileUri": "https://youtu.be/x"}, "videoMetadata": {"startOffset": "5s"}}
    messages = [{"role": "user", "content": "What is it?", "gemini": {"parts": [clip]}}]
    assert sent(messages=messages)["contents"][0]["parts"] == [{"text": "What is it?"}, clip]
    messages = [{"role": "system", "content": "x", "gemini": {"parts": [clip]}}, *SAID]
    assert refusal(messages=messages).param == "messages[0].gemini"


# --- media --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PIXEL}"}}, "image/jpeg"),
        ({"type": "image_url", "image_url": f"data:image/png;base64,{PIXEL}"}, "image/png"),
        ({"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PIXEL}"}}, "application/pdf"),
        ({"type": "file", "file": {"file_data": PIXEL, "filename": "a.pdf"}}, "application/pdf"),
        ({"type": "input_audio", "input_audio": {"data": PIXEL, "format": "mp3"}}, "audio/mpeg"),
        ({"type": "input_audio", "input_audio": {"data": PIXEL, "format": "wav"}}, "audio/wav"),
    ],
)
def test_files_in_the_request(part: dict[str, Any], kind: str) -> None:
    """Images, PDFs and audio go as they are, with their media type."""
    assert parts(part) == [{"inlineData": {"mimeType": kind, "data": PIXEL}}]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://example.com/a.png?x=1", "image/png"),
        ("gs://bucket/a.jpeg", "image/jpeg"),
        ("https://www.youtube.com/watch?v=1", "video/mp4"),
    ],
)
def test_urls_that_google_reads_itself(url: str, kind: str) -> None:
    """Its storage, and what is public and has a known media type."""
    found = parts({"type": "image_url", "image_url": {"url": url}})
    assert found == [{"fileData": {"fileUri": url, "mimeType": kind}}]
    assert WIRE.remote(call(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": url}]}])) == {}


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("gemini-2.5-flash", "https://example.com/image"),
        ("gemini-2.5-flash", "http://example.com/a.png"),
        ("gemini-2.0-flash", "https://example.com/a.png"),
    ],
)
def test_urls_that_have_to_be_fetched(model: str, url: str) -> None:
    """They are listed with the field that they stand in, and sent as bytes once they are there."""
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    assert WIRE.remote(call(model, messages=messages)) == {url: "messages[0].content[0].image_url"}
    assert refusal(model, messages=messages).param == "messages[0].content[0].image_url"
    fetched = {url: ("image/png", b"\x89PNG\r\n\x1a\n")}
    body = sent(model, messages=messages, fetched=fetched)
    assert body["contents"][0]["parts"] == [{"inlineData": {"mimeType": "image/png", "data": PIXEL}}]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "/a.png", "ftp://a/b.png", "data:,x"])
def test_urls_of_another_kind(url: str) -> None:
    """Nothing is read from here."""
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    assert refusal(messages=messages).param == "messages[0].content[0].image_url"


# --- round trip ---------------------------------------------------------------------------------------------------

TEXT = st.text(min_size=1, max_size=8)
ARGUMENTS = st.dictionaries(TEXT, st.integers(-9, 9) | TEXT | st.booleans() | st.none(), max_size=3)
CALLS = st.lists(st.tuples(TEXT, ARGUMENTS, TEXT, TEXT | st.none()), max_size=3)
TURNS = st.lists(st.tuples(TEXT, TEXT | st.none(), CALLS, st.randoms(use_true_random=False)), min_size=1, max_size=4)


@given(TURNS)
def test_a_talk_loses_nothing(turns: list[tuple[str, str | None, list[Any], Any]]) -> None:
    """What was said, called, answered and signed stands in the contents, each part once and in its order."""
    messages: list[dict[str, Any]] = []
    expected: list[dict[str, Any]] = []
    for number, (asked, said, calls, random) in enumerate(turns):
        ids = [f"{number}.{index}" for index in range(len(calls))]
        assistant: dict[str, Any] = {"role": "assistant", "content": said, "tool_calls": [], "reasoning_details": []}
        model: list[dict[str, Any]] = [{"text": said}] if said else []
        answers, results = [], []
        for identifier, (name, arguments, result, signature) in zip(ids, calls, strict=True):
            assistant["tool_calls"].append(tool_call(identifier, name, orjson.dumps(arguments).decode()))
            part: dict[str, Any] = {"functionCall": {"name": name, "args": arguments, "id": identifier}}
            if signature:
                detail = {"type": "reasoning.encrypted", "data": signature, "id": identifier}
                assistant["reasoning_details"].append({**detail, "format": "google-gemini-v1"})
                part["thoughtSignature"] = signature
            model.append(part)
            answers.append({"role": "tool", "tool_call_id": identifier, "content": f"={result}"})
            results.append(
                {"functionResponse": {"id": identifier, "name": name, "response": {"result": f"={result}"}}}
            )
        random.shuffle(answers)
        messages += [{"role": "user", "content": asked}, assistant, *answers]
        rows = [("user", [{"text": asked}]), ("model", model), ("user", results)]
        expected += [{"role": role, "parts": found} for role, found in rows if found]
    assert sent(messages=messages)["contents"] == expected
