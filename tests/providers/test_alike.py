"""A chunk like the one before it passes without a second look, and nothing else does."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.alike import Alike
from providers.contract import Call, ProviderError
from providers.openai import OpenAIWire


def chunk(text: str, **more: object) -> bytes:
    """One event as OpenAI writes it."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    return b"data: " + orjson.dumps({"id": "c", "choices": [choice], "usage": None, **more}) + b"\n\n"


def without_usage(data: bytes) -> bytes:
    return data.replace(b',"usage":null', b"")


@pytest.fixture
def alike() -> Alike:
    """It has seen one chunk, whose usage was taken out."""
    seen = Alike()
    seen.learn(chunk("Hello"), without_usage(chunk("Hello")))
    return seen


def test_nothing_is_known_at_first() -> None:
    """Whatever comes has to be looked at."""
    assert Alike().passed(chunk("a")) is None


@pytest.mark.parametrize("text", ["", " there", "ü €", "two\nlines", "a\\b", "tab\t."])
def test_another_text(alike: Alike, text: str) -> None:
    """It passes as the first one did; escapes are letters, too."""
    assert alike.passed(chunk(text)) == (without_usage(chunk(text)), b"")


@pytest.mark.parametrize("texts", [["a", "b"], ["", "", ""], ["a\\b", "ü", "two\nlines", "."]])
def test_several_that_came_together(alike: Alike, texts: list[str]) -> None:
    """They pass as each of them would."""
    together = b"".join(map(chunk, texts))
    assert alike.passed(together) == (without_usage(together), b"")


@pytest.mark.parametrize(
    "rest",
    [
        chunk("b", x=1),
        chunk("b")[:-60],
        chunk("b")[:-1],
        b"data: [DONE]\n\n",
        b"\n",
        b"data",
    ],
)
def test_what_follows_is_left(alike: Alike, rest: bytes) -> None:
    """Only the events at the beginning are alike, and only whole ones."""
    assert alike.passed(chunk("a") + chunk("") + rest) == (without_usage(chunk("a") + chunk("")), rest)


def test_an_error_behind_events_waits_until_they_are_told() -> None:
    """It comes with the next feed, and ever after."""
    decoder = OpenAIWire().stream(Call("m", {}, stream=True))
    decoder.feed(chunk("a"))
    told = decoder.feed(chunk("b") + b'data: {"error":{"message":"broken"}}\n\n')
    assert told == without_usage(chunk("b"))
    assert decoder.failed
    for again in (lambda: decoder.feed(chunk("c")), decoder.close):
        with pytest.raises(ProviderError, match="broken"):
            again()


def test_the_last_of_several_teaches() -> None:
    """Those before it may be of another form."""
    seen, data = Alike(), chunk("a", id="other") + chunk("b")
    seen.learn(data, without_usage(data))
    assert seen.passed(chunk("c")) == (without_usage(chunk("c")), b"")
    assert seen.passed(chunk("c", id="other")) is None


@pytest.mark.parametrize("before", ["", "a", "\\"])
def test_a_mark_that_belongs_to_its_text_in_one_of_several(alike: Alike, before: str) -> None:
    """Behind a backslash a quotation mark ends nothing."""
    spoilt = chunk("b").replace(b'"b"', b'"b\\"')
    assert alike.passed(chunk(before) + spoilt) is None
    assert alike.passed(spoilt + chunk(before)) is None


@pytest.mark.parametrize(
    "data",
    [
        *(chunk('a "word"'), chunk("a", id="other"), chunk("a", x=1), chunk("a")[:-1], chunk("a")[1:], b""),
        *(chunk("").replace(b'""', b'"'), chunk("\\")[:-60], chunk("a").replace(b'"a"', b'"a\\"'), chunk("a")[:-60]),
        *(chunk("a") + chunk("b", x=1) + chunk("c"), chunk("a") + chunk("b", id="other") + chunk("c")),
        *(chunk("a").replace(b'"a"', b'"a\n"'), chunk("a").replace(b'"a"', b'"a\r\rdata: [DONE]\r\r"')),
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a","tool_calls":[]}}]}\n\n',
        b'data: {"error":{}}\n\n',
    ],
)
def test_another_form(alike: Alike, data: bytes) -> None:
    """Whatever else is different is not for it."""
    assert alike.passed(data) is None


@pytest.mark.parametrize(
    "data",
    [
        *(b'data: {"choices":[]}\n\n', chunk("a") + b'data: {"choices":[]}\n\n'),
        *(chunk('"'), chunk("a").replace(b"\n\n", b"\n")),
    ],
)
def test_a_form_that_teaches_nothing(data: bytes) -> None:
    """An event without a text, or one whose text has a quotation mark."""
    seen = Alike()
    seen.learn(data, data)
    assert seen.passed(chunk("a")) is None


@given(st.lists(st.text(), min_size=1, max_size=8), st.booleans())
def test_a_decoder_gives_the_same_with_and_without(texts: list[str], wants_usage: bool) -> None:
    """Chunk by chunk, and all at once, where nothing is alike."""
    stream = [chunk(text) for text in texts]
    decoders = [OpenAIWire().stream(Call("m", {}, stream=True, wants_usage=wants_usage)) for _ in range(2)]
    assert b"".join(map(decoders[0].feed, stream)) == decoders[1].feed(b"".join(stream))
