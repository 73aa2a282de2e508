"""The built-in provider that says what it was told."""

import time
from typing import Any

import httpx
import orjson
import pytest

from providers.echo import EchoTransport


async def ask(document: Any, path: str = "/v1/chat/completions", pause: float = 0.0) -> httpx.Response:
    async with httpx.AsyncClient(transport=EchoTransport(pause)) as client:
        return await client.post(f"http://echo.invalid{path}", content=orjson.dumps(document))


def said(content: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": content}], **fields}


def chunks(response: httpx.Response) -> list[Any]:
    events = response.text.removesuffix("data: [DONE]\n\n").split("\n\n")
    return [orjson.loads(each.removeprefix("data: ")) for each in events if each]


async def test_it_says_the_last_user_message() -> None:
    """The words come back as they were, white space too."""
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "first"},
        {"role": "user", "content": "hello,  wide\nworld"},
        {"role": "assistant", "content": "no"},
    ]
    answer = (await ask({"model": "echo", "messages": messages})).json()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "hello,  wide\nworld"}
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_it_counts_words_as_tokens() -> None:
    """The rule is stated, so that a bill can be checked by hand."""
    answer = (await ask(said("three little words"))).json()
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


async def test_parts_that_are_no_text_are_named() -> None:
    """An image is heard of, not seen."""
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    assert (await ask(said(parts))).json()["choices"][0]["message"]["content"] == "look [image]"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_it_stops_at_the_limit_of_tokens(name: str) -> None:
    """A cut answer says that it is cut."""
    answer = (await ask(said("one two three", **{name: 2}))).json()
    assert answer["choices"][0]["message"]["content"] == "one two "
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


async def test_it_streams_a_word_at_a_time() -> None:
    """The same words, in chunks, to the terminator."""
    response = await ask(said("one two", stream=True))
    assert response.headers["content-type"] == "text/event-stream"
    assert response.text.endswith("data: [DONE]\n\n")
    deltas = [each["choices"][0]["delta"].get("content") for each in chunks(response)]
    assert deltas == ["", "one ", "two", None]
    assert chunks(response)[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_stream_tells_its_usage_when_asked() -> None:
    """As with OpenAI, in a chunk of its own."""
    response = await ask(said("one", stream=True, stream_options={"include_usage": True}))
    assert chunks(response)[-1]["usage"]["total_tokens"] == 2
    assert chunks(response)[-1]["choices"] == []


async def test_a_stream_has_a_pause_between_its_words() -> None:
    """Streaming can be seen."""
    begun = time.monotonic()
    await ask(said("one two three", stream=True), pause=0.01)
    assert time.monotonic() - begun > 0.04


async def test_it_gives_as_many_answers_as_asked_for() -> None:
    """`n` choices, each counted."""
    answer = (await ask(said("one two", n=3))).json()
    assert [each["index"] for each in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 6


async def test_the_number_of_answers_is_bounded() -> None:
    """A wish for a billion answers is not a way to fill the memory."""
    assert len((await ask(said("one", n=10**9))).json()["choices"]) == 128


async def test_another_model_is_unknown() -> None:
    """The error is OpenAI's."""
    response = await ask({**said("x"), "model": "gpt"})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("document", [None, [], {"model": "echo"}, {"model": "echo", "messages": "x"}])
async def test_what_is_no_request_is_refused(document: Any) -> None:
    """A bad body is a 400, not an exception."""
    assert (await ask(document)).status_code == 400


async def test_it_lists_its_model() -> None:
    """`GET /models` has one."""
    async with httpx.AsyncClient(transport=EchoTransport(0)) as client:
        listed = (await client.get("http://echo.invalid/v1/models")).json()
        unknown = await client.get("http://echo.invalid/v1/other")
    assert [each["id"] for each in listed["data"]] == ["echo"]
    assert unknown.status_code == 404
