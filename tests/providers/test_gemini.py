"""What Gemini's answers and streams become."""

from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, settings

from providers.catalog import catalog
from providers.client import Client
from providers.contract import Call, Kind, ProviderError, Usage
from providers.gemini import GeminiWire

WIRE = GeminiWire()
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
USAGE = {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 7, "totalTokenCount": 22}
HEAD = {"responseId": "r1", "modelVersion": "gemini-x"}


def call(**fields: Any) -> Call:
    return Call(**{"model": "gemini-x", "document": {"messages": []}, **fields})


def priced(usage: Usage) -> int:
    return usage.input_tokens * 1000 + usage.output_tokens * 2000


def candidate(*parts: dict[str, Any], finish: str | int | None = "STOP", **more: Any) -> dict[str, Any]:
    found = {"content": {"role": "model", "parts": list(parts)}, **more}
    return {**found, "finishReason": finish} if finish else found


def answer(*candidates: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"candidates": list(candidates), "usageMetadata": USAGE, **HEAD, **more}


def read(document: Any, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(WIRE.response(call(**fields), orjson.dumps(document)).body)
    return found


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = read(answer(candidate(*parts)))["choices"][0]["message"]
    return found


def sse(*documents: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + orjson.dumps(each) + b"\r\n\r\n" for each in documents)


def streamed(data: bytes, piece: int = 1 << 30, **fields: Any) -> list[dict[str, Any]]:
    decoder = WIRE.stream(call(stream=True, **fields))
    out = b"".join(decoder.feed(data[start : start + piece]) for start in range(0, len(data), piece))
    out += decoder.close()
    assert out.endswith(b"data: [DONE]\n\n")
    return [orjson.loads(each.removeprefix(b"data: ")) for each in out.split(b"\n\n")[:-2]]


def deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


# --- answers ------------------------------------------------------------------------------------------------------


def test_an_answer() -> None:
    """OpenAI's shape with the provider's own id and model, and what it costs."""
    assert read(answer(candidate({"text": "a"}, {"text": "b"})), pricing=priced) == {
        "id": "r1",
        "object": "chat.completion",
        "created": 0,
        "model": "gemini-x",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "ab"},
                "finish_reason": "stop",
                "native_finish_reason": "STOP",
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 12,
            "total_tokens": 22,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 7},
            "cost": 0.000034,
        },
    }


def test_usage_has_the_same_meaning_everywhere() -> None:
    """Cached within the input, Google's own tools beside the prompt, thoughts within the output."""
    details = [{"modality": "AUDIO", "tokenCount": 3}, {"modality": "IMAGE", "tokenCount": 2}]
    found = {
        **USAGE,
        "cachedContentTokenCount": 4,
        "toolUsePromptTokenCount": 6,
        "totalTokenCount": 28,
        "promptTokensDetails": details,
    }
    usage = WIRE.response(call(), orjson.dumps(answer(candidate({"text": "a"}), usageMetadata=found))).usage
    assert usage == Usage(16, 4, 0, 12, 7, audio_tokens=3, image_tokens=2, source="provider")


def test_thoughts_that_the_total_counts_within_the_answer() -> None:
    """Then they are not added again."""
    found = {**USAGE, "candidatesTokenCount": 12}
    usage = WIRE.response(call(), orjson.dumps(answer(candidate(), usageMetadata=found))).usage
    assert (usage.output_tokens, usage.reasoning_tokens) == (12, 7)


@pytest.mark.parametrize(
    ("found", "counts", "source"),
    [
        ({"promptTokenCount": 10, "totalTokenCount": 15}, (10, 5), "provider"),
        ({"promptTokenCount": 10, "thoughtsTokenCount": 5}, (10, 5), "provider"),
        ({"promptTokenCount": 10, "totalTokenCount": 10}, (10, 0), "none"),
        ({"promptTokenCount": 10}, (10, 0), "none"),
        ({"candidatesTokenCount": 5}, (0, 5), "none"),
    ],
)
def test_half_a_usage_is_none(found: dict[str, int], counts: tuple[int, int], source: str) -> None:
    """The total may tell the other half; else it has to be estimated, and no cost is known yet."""
    decoded = WIRE.response(call(pricing=priced), orjson.dumps(answer(candidate({"text": "a"}), usageMetadata=found)))
    assert ((decoded.usage.input_tokens, decoded.usage.output_tokens), decoded.usage.source) == (counts, source)
    told = orjson.loads(decoded.body)["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"]) == counts
    assert ("cost" in told) == (source == "provider")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        (2, "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("SPII", "content_filter"),
        ("OTHER", "content_filter"),
        ("SOMETHING_NEW", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "stop"),
    ],
)
def test_finish_reasons(reason: str | int, finish: str) -> None:
    """The provider's own word stands beside OpenAI's."""
    (choice,) = read(answer(candidate({"text": "a"}, finish=reason)))["choices"]
    assert choice["finish_reason"] == finish
    assert choice["native_finish_reason"] == ("MAX_TOKENS" if reason == 2 else reason)


def test_a_blocked_prompt_is_a_filtered_answer() -> None:
    """Whole or streamed."""
    document = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 3}}
    (choice,) = read(document)["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("content_filter", None)
    assert streamed(sse(document))[-1]["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize(
    "rest",
    [{"promptFeedback": {"blockReason": "SAFETY"}}, {"candidates": [{"content": {}, "finishReason": "SAFETY"}]}],
)
def test_an_empty_answer_has_no_tokens(rest: dict[str, Any]) -> None:
    """Nothing of it has to be estimated, and its cost is told."""
    document = {**rest, "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 3}}
    assert WIRE.response(call(), orjson.dumps(document)).usage == Usage(input_tokens=3, source="provider")
    assert read(document, pricing=priced)["usage"]["cost"] == 3000 / 1e9
    assert streamed(sse(document), wants_usage=True, pricing=priced)[-1]["usage"]["cost"] == 3000 / 1e9


def test_tool_calls() -> None:
    """With the provider's ids or stable ones of ours, and their signatures to be given back."""
    parts = (
        {"functionCall": {"name": "f", "args": {"a": 1}, "id": "own"}, "thoughtSignature": "S"},
        {"functionCall": {"name": "g"}},
    )
    (choice,) = read(answer(candidate(*parts)))["choices"]
    first, second = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert first["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert (first["id"], first["extra_content"]) == ("own", {"google": {"thought_signature": "S"}})
    assert second["function"] == {"name": "g", "arguments": "{}"}
    assert second["id"].startswith("call_")
    assert message(*parts)["tool_calls"][1]["id"] == second["id"]
    assert choice["message"]["reasoning_details"] == [
        {"type": "reasoning.encrypted", "data": "S", "id": "own", "format": "google-gemini-v1", "index": 0}
    ]


def test_a_tool_loop_keeps_its_signatures() -> None:
    """What an answer carries comes back on the same parts."""
    parts: list[dict[str, Any]] = [
        {"text": "first", "thoughtSignature": "T"},
        {"functionCall": {"name": "f", "args": {}, "id": "1"}, "thoughtSignature": "C"},
    ]
    document = {"messages": [message({"text": "hm", "thought": True}, *parts)]}
    body = orjson.loads(WIRE.request(call(document=document)).body)
    assert body["contents"] == [{"role": "model", "parts": parts}]


def test_parts_that_openai_has_no_form_for() -> None:
    """Code that Google ran rides along and is given back."""
    code = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "S"}
    told = message(code, {"text": "1"})
    assert told == {"role": "assistant", "content": "1", "gemini": {"parts": [code]}}
    body = orjson.loads(WIRE.request(call(document={"messages": [told]})).body)
    assert body["contents"][0]["parts"] == [code, {"text": "1"}]


def test_images_and_sound() -> None:
    """Images as OpenRouter has them, sound as OpenAI."""
    image, sound = ({"inlineData": {"mimeType": kind, "data": "QQ=="}} for kind in ("image/png", "audio/pcm"))
    told = message(image, sound)
    assert told["images"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}}]
    assert told["audio"]["data"] == "QQ=="


def test_citations_stand_at_characters() -> None:
    """Gemini counts bytes."""
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://a", "title": "A"}}],
        "groundingSupports": [{"segment": {"startIndex": 3, "endIndex": 5}, "groundingChunkIndices": [0, 9]}],
    }
    told = read(answer(candidate({"text": "äöü"}, groundingMetadata=grounding)))["choices"][0]["message"]
    (found,) = told["annotations"]
    assert found["url_citation"] == {"url": "https://a", "title": "A", "start_index": 2, "end_index": 3}


def test_logprobs() -> None:
    """Beside each other there, within each other here."""
    result = {
        "chosenCandidates": [{"token": "é", "logProbability": -1.5}],
        "topCandidates": [{"candidates": [{"token": "e", "logProbability": -2}]}],
    }
    (choice,) = read(answer(candidate({"text": "é"}, logprobsResult=result)))["choices"]
    other = {"token": "e", "logprob": -2, "bytes": [101]}
    expected = {"token": "é", "logprob": -1.5, "bytes": [195, 169], "top_logprobs": [other]}
    assert choice["logprobs"] == {"content": [expected]}


def test_an_answer_without_a_finish_reason() -> None:
    """A whole JSON document is a whole answer; in a list, the end may be missing."""
    document = answer(candidate({"text": "a"}, finish=None))
    assert read(document)["choices"][0]["finish_reason"] == "stop"
    with pytest.raises(ProviderError):
        read([document])


def test_a_stream_that_came_as_a_list() -> None:
    """It is the one answer that it is."""
    documents = [answer(candidate({"text": "a"}, finish=None)), answer(candidate({"text": "b"}))]
    assert read(documents)["choices"][0]["message"]["content"] == "ab"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"1", b"{}", b'{"candidates":[]}', b'{"candidates":[{}]}'])
def test_what_is_no_answer_is_broken(body: bytes) -> None:
    """A 200 alone is not an answer."""
    with pytest.raises(ProviderError) as caught:
        WIRE.response(call(), body)
    assert caught.value.kind is Kind.BROKEN


# --- errors -------------------------------------------------------------------------------------------------------


def error(code: int, text: str, *details: dict[str, Any]) -> bytes:
    return orjson.dumps({"error": {"code": code, "message": text, "status": "X", "details": list(details)}})


@pytest.mark.parametrize(
    ("status", "text", "details", "kind"),
    [
        (400, "Wrong.", (), Kind.REJECTED),
        (400, "API key expired.", ({"reason": "API_KEY_INVALID"},), Kind.CREDENTIALS),
        (400, "The input token count (9) exceeds the maximum number of tokens allowed (8).", (), Kind.CONTEXT_LENGTH),
        (403, "No.", (), Kind.CREDENTIALS),
        (404, "models/x is not found", (), Kind.NOT_FOUND),
        (429, "You exceeded your current quota", ({"retryDelay": "34.5s"},), Kind.RATE_LIMITED),
        (500, "Oh.", (), Kind.FAILED),
        (503, "The model is overloaded.", (), Kind.OVERLOADED),
    ],
)
def test_errors(status: int, text: str, details: tuple[dict[str, Any], ...], kind: Kind) -> None:
    """By status, then by what the details say; the same inside a 200."""
    body = error(status, text, *details)
    found = [WIRE.error(status, {}, body)]
    with pytest.raises(ProviderError) as caught:
        WIRE.response(call(), body)
    for each in (*found, caught.value):
        assert (each.kind, each.status, each.message) == (kind, status, text)
        assert each.retry_after == (34.5 if status == 429 else None)


# --- rows ---------------------------------------------------------------------------------------------------------


def test_the_rows() -> None:
    """Gemini by either name of its key; Vertex by a token, where its address is said."""
    found = catalog({"GOOGLE_API_KEY": "k", "VERTEX_API_KEY": "t"})
    assert found["gemini"].configured
    assert found["gemini"].authentication() == ((b"x-goog-api-key", b"k"),)
    assert catalog({"GOOGLE_API_KEY": "k", "GEMINI_API_KEY": "g"})["gemini"].api_key == "g"
    assert not found["vertex"].configured
    base = "https://europe-west1-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google"
    vertex = catalog({"VERTEX_BASE_URL": base, "VERTEX_API_KEY": "t"})["vertex"]
    assert vertex.configured
    assert vertex.authentication() == ((b"authorization", b"Bearer t"),)


async def test_the_list_of_models() -> None:
    """Under its own key, in full, with names as they are asked for."""
    asked: list[str] = []

    def listing(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json={"models": [{"name": "models/gemini-x", "inputTokenLimit": 9}, 1]})

    client = Client(httpx.MockTransport(listing))
    found = await client.models(catalog({"GEMINI_API_KEY": "k"})["gemini"], 1.0)
    assert found == [{"id": "gemini-x", "name": "models/gemini-x", "inputTokenLimit": 9}]
    assert asked == ["https://generativelanguage.googleapis.com/v1beta/models?pageSize=1000"]
