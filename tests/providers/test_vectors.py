"""Embeddings of compatible providers: in the form that was asked for, whatever they make of that."""

import struct
from base64 import b64encode
from typing import Any

import orjson
import pytest

from providers.catalog import catalog
from providers.contract import Call, Kind, ProviderError, Wire
from providers.operations import for_embeddings

NUMBERS = [0.25, -0.5, 1.0]
PACKED = b64encode(struct.pack("<3f", *NUMBERS)).decode()
USAGE = {"prompt_tokens": 8, "total_tokens": 8}


def wire(name: str = "openai") -> Wire:
    found = for_embeddings(catalog({}))[name]
    assert found is not None
    return found.wire


def call(encoding: str | None, **fields: Any) -> Call:
    asked = {"input": "x"} if encoding is None else {"input": "x", "encoding_format": encoding}
    return Call("m", {**asked, **fields})


def answer(embedding: Any) -> bytes:
    return orjson.dumps({"data": [{"object": "embedding", "index": 0, "embedding": embedding}], "usage": USAGE})


@pytest.mark.parametrize("given", [NUMBERS, PACKED])
@pytest.mark.parametrize(("encoding", "told"), [("base64", PACKED), ("float", NUMBERS), (None, NUMBERS)])
def test_the_form_that_was_asked_for(given: Any, encoding: str | None, told: Any) -> None:
    """Whether or not the provider heeds it; usage is read in any case."""
    decoded = wire().response(call(encoding), answer(given))
    assert orjson.loads(decoded.body)["data"][0]["embedding"] == told
    assert decoded.usage.input_tokens == 8


def test_an_answer_in_that_form_passes_as_it_came() -> None:
    """Large answers are not written anew without need."""
    body = answer(PACKED)
    assert wire().response(call("base64"), body).body is body


@pytest.mark.parametrize(
    ("encoding", "given"), [("base64", [1, "x"]), ("base64", [1e300]), ("float", "%%"), ("float", "QQ==")]
)
def test_what_is_no_vector_is_broken(encoding: str, given: Any) -> None:
    """Nothing is made of it."""
    with pytest.raises(ProviderError) as caught:
        wire().response(call(encoding), answer(given))
    assert caught.value.kind is Kind.BROKEN


@pytest.mark.parametrize(("name", "asked"), [("openai", "base64"), ("qwen", "float"), ("openrouter", "float")])
def test_who_knows_no_base64_is_asked_for_numbers(name: str, asked: str) -> None:
    """The caller's own request is left as it is."""
    made = call("base64")
    assert orjson.loads(wire(name).request(made).body)["encoding_format"] == asked
    assert made.document["encoding_format"] == "base64"
    assert "encoding_format" not in orjson.loads(wire(name).request(call(None)).body)


def test_mistrals_word_for_dimensions() -> None:
    """It refuses OpenAI's."""
    body = orjson.loads(wire("mistral").request(call(None, dimensions=2)).body)
    assert body == {"input": "x", "output_dimension": 2, "model": "m"}


def test_an_error_is_an_error() -> None:
    """As in a chat."""
    assert wire("qwen").error(429, {"retry-after": "2"}, b"{}").retry_after == 2.0
    with pytest.raises(ProviderError):
        wire().response(call(None), b'{"error":{"message":"boom"}}')
