"""Every recorded Converse answer through our translation, and every recorded request back through it.

What has to come out of an answer stands in the recordings' oracle: what boto3 reads from the same bytes. Answers are
read here with OpenAI's types, as an application does it; requests are held against botocore's own model.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import openai
import orjson
import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from providers.bedrock import BedrockWire
from providers.contract import Call, Kind, ProviderError
from tests.running import run_gateway, settings_of
from tests.upstream import Asked, FakeProvider
from tests.wire.bedrock_requests import canonical, comparable, model_of
from tests.wire.conformance import Tape, expected_status
from tests.wire.mutations import SEEDS, mutated, mutated_frames
from tests.wire.reading import Reading, read_stream, read_whole
from tests.wire.recordings import Case, Document, available, folder, recorded

WIRE = BedrockWire(s3=True)
FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
KINDS = {
    400: {Kind.REJECTED, Kind.CONTEXT_LENGTH},
    403: {Kind.CREDENTIALS},
    404: {Kind.NOT_FOUND},
    424: {Kind.FAILED},
    429: {Kind.RATE_LIMITED, Kind.OVERLOADED},
    500: {Kind.FAILED},
    503: {Kind.OVERLOADED},
}

CASES = list(recorded("bedrock-converse")) if available() else []
ANSWERS = [case for case in CASES if case.status == 200 and case.ok]
STREAMS = [case for case in ANSWERS if "eventstream" in case.headers.get("content-type", "")]
DOCUMENTS = [case for case in ANSWERS if case not in STREAMS]
REFUSALS = [case for case in CASES if case.status != 200]
REQUESTS = [case for case in CASES if case.request is not None]

PRICE = """
insert into price_rules (provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok)
values ('bedrock', '*', 3000000000, 15000000000)
"""
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret/+", "AWS_SESSION_TOKEN": "token"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The cases that a test's argument is named after."""
    groups = {"stream": STREAMS, "document": DOCUMENTS, "refusal": REFUSALS, "request_case": REQUESTS}
    for name, cases in groups.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, cases, ids=[case.id for case in cases])


def path_of(case: Case) -> str:
    request = json.loads((folder() / f"{case.id}.json").read_text(encoding="utf-8"))["request"] or {}
    return request.get("path") or ""


def call(case: Case) -> Call:
    document = canonical(case.request) if case.request else {"messages": [{"role": "user", "content": "hi"}]}
    return Call(model_of(case, path_of(case)), document, case in STREAMS, wants_usage=True)


def decoded(case: Case, piece: int, end: int | None = None) -> tuple[bytes, str]:
    """The canonical stream, and the error that ended it."""
    decoder, body, out = WIRE.stream(call(case)), case.body[:end], b""
    try:
        for start in range(0, len(body), piece):
            out += decoder.feed(body[start : start + piece])
        return out + decoder.close(), ""
    except ProviderError as error:
        return out, error.message


async def chunks(out: bytes) -> AsyncIterator[ChatCompletionChunk]:
    for event in out.split(b"\n\n"):
        if event and event != b"data: [DONE]":
            yield ChatCompletionChunk.model_validate(orjson.loads(event.removeprefix(b"data: ")))


def check(reading: Reading, case: Case) -> None:
    expected = case.expected
    assert reading.text == expected["text"]
    assert reading.reasoning == expected["reasoning"]
    assert reading.tool_calls == expected["tool_calls"]
    assert reading.finish == FINISH[expected["finish"]]
    assert reading.usage is not None
    assert _counted(reading.usage) == _expected(expected["usage"])


def _counted(usage: Document) -> list[int]:
    prompt = usage["prompt_tokens_details"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return [usage["prompt_tokens"], prompt["cached_tokens"], prompt["cache_write_tokens"], usage["completion_tokens"]]


def _expected(usage: Document) -> list[int]:
    cached = [usage.get("cacheReadInputTokens", 0), usage.get("cacheWriteInputTokens", 0)]
    assert usage["totalTokens"] == usage["inputTokens"] + sum(cached) + usage["outputTokens"]
    return [usage["inputTokens"] + sum(cached), *cached, usage["outputTokens"]]


async def test_stream(stream: Case) -> None:
    """An application reads from our stream what boto3 reads from the recorded one."""
    out, error = decoded(stream, len(stream.body))
    assert error == ""
    assert out.endswith(b"data: [DONE]\n\n")
    reading = Reading()
    await read_stream(chunks(out), reading)
    check(reading, stream)


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_any_chunking(stream: Case, piece: int) -> None:
    """The decoder returns the same bytes at any chunking."""
    assert decoded(stream, piece) == decoded(stream, len(stream.body))


def test_mutated_stream(stream: Case) -> None:
    """Whatever became of it on its way, it is told or it is our error, and it is not blown up."""
    for seed in SEEDS:
        out, _ = decoded(replace(stream, body=mutated(stream.body, seed)), 4096)
        assert len(out) < 20 * len(stream.body) + 10_000
        decoded(replace(stream, body=mutated_frames(stream.body, seed)), 4096)


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_cut_stream(stream: Case, part: float) -> None:
    """A stream that breaks off never looks whole, unless its stop reason has been seen."""
    end = int(len(stream.body) * part)
    out, error = decoded(stream, 4096, end)
    start = stream.body.index(b":event-type\x07\x00\x0bmessageStop") - 13
    whole = end >= start + int.from_bytes(stream.body[start : start + 4])
    assert out.endswith(b"data: [DONE]\n\n") == whole
    assert ("truncated" in error) != whole


def read(case: Case, body: bytes) -> bytes:
    decoder = WIRE.stream(call(case))
    return decoder.feed(body) + decoder.close()


def test_flipped_bit(stream: Case) -> None:
    """One bit, wherever it is, breaks the stream: no answer is made of what the checksums do not vouch for."""
    for place in range(0, len(stream.body), 37):
        body = bytearray(stream.body)
        body[place] ^= 4
        with pytest.raises(ProviderError) as caught:
            read(stream, bytes(body))
        assert caught.value.kind is Kind.BROKEN


def test_document(document: Case) -> None:
    """The same for an answer in one piece."""
    answer = WIRE.response(call(document), document.body)
    check(read_whole(ChatCompletion.model_validate(orjson.loads(answer.body))), document)
    assert answer.usage.source == "provider"


def test_cut_document(document: Case) -> None:
    """Half an answer is none."""
    with pytest.raises(ProviderError) as caught:
        WIRE.response(call(document), document.body[: len(document.body) // 2])
    assert caught.value.kind is Kind.BROKEN


def test_refusal(refusal: Case) -> None:
    """A refusal has its meaning and the provider's words."""
    error = WIRE.error(refusal.status, refusal.headers, refusal.body)
    assert error.kind in KINDS[refusal.status]
    assert error.message == json.loads(refusal.body)["message"][:500]


def test_request(request_case: Case) -> None:
    """The equivalent OpenAI request becomes what was recorded, at the same place."""
    assert request_case.request is not None
    made = WIRE.request(call(request_case))
    assert comparable(orjson.loads(made.body)) == comparable(request_case.request)
    assert made.path.replace("%3A", ":") == path_of(request_case).replace("%3A", ":") or request_case in REFUSALS


def test_request_is_valid(request_case: Case) -> None:
    """botocore's model of the service knows every field of what we send."""
    report = ParamValidator().validate(sent(request_case), INPUT)
    assert not report.has_errors(), report.generate_report()


def sent(case: Case) -> Any:
    return {**orjson.loads(WIRE.request(call(case)).body), "modelId": call(case).model}


SERVICE = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"))
INPUT = SERVICE.operation_model("Converse").input_shape

if available():

    @pytest.mark.parametrize("piece", [0, 7])
    async def test_through_the_gateway(database_url: str, redis_url: str, piece: int) -> None:
        """Every case, asked for by OpenAI's SDK: signed, read, settled and billed as it should be."""
        async with FakeProvider() as provider:
            variables = {**KEYS, "BEDROCK_BASE_URL": provider.base_url.removesuffix("/v1")}
            settings = settings_of(database_url, redis_url, provider.base_url, **variables)
            async with run_gateway(settings) as gateway, client_of(gateway) as client:
                await gateway.rows(PRICE)
                for case in [*ANSWERS, *REFUSALS]:
                    if case.request and b"s3Location" in orjson.dumps(case.request):
                        continue
                    provider.script.append(playing(case, piece))
                    await check_asked(client, gateway, provider, case)


def client_of(gateway: Any) -> openai.AsyncOpenAI:
    http = openai.DefaultAsyncHttpxClient(transport=Tape(), trust_env=False)
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, http_client=http)


def playing(case: Case, piece: int) -> Any:
    """A provider that sends the case, in pieces of so many bytes."""

    async def behaviour(asked: Asked, writer: asyncio.StreamWriter) -> None:
        assert asked.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
        lines = [f"{name}: {value}" for name, value in case.answer_headers().items()]
        head = "\r\n".join([f"HTTP/1.1 {case.status} Recorded", *lines, f"content-length: {len(case.body)}"])
        writer.write(head.encode("latin-1", "replace") + b"\r\n\r\n")
        for start in range(0, len(case.body), piece or len(case.body)):
            writer.write(case.body[start : start + (piece or len(case.body))])
            await writer.drain()

    return behaviour


async def check_asked(client: openai.AsyncOpenAI, gateway: Any, provider: FakeProvider, case: Case) -> None:
    made = call(case)
    options: Mapping[str, Any] = {"stream_options": {"include_usage": True}} if made.stream else {}
    reading, status = Reading(), 200
    try:
        raw = await client.chat.completions.with_raw_response.create(
            model="-",
            messages=[],
            stream=made.stream,
            extra_body={**made.document, "model": f"bedrock:{made.model}", **options},
        )
        answer: Any = raw.parse()
        headers = raw.headers
        if made.stream:
            await read_stream(answer, reading)
        else:
            reading = read_whole(answer)
    except openai.APIStatusError as error:
        headers, status = error.response.headers, error.status_code
    assert status == expected_status(case), case.id
    (row,) = await gateway.rows("select * from calls where request_id = $1", headers["x-request-id"])
    assert provider.calls[-1].path == WIRE.request(made).path
    if case.status != 200:
        assert (row["state"], row["billed_cost_nano"]) == ("void", 0)
        return
    check(reading, case)
    assert (row["state"], row["outcome"]) == ("settled", "ok")
    names = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
    assert [row[name] for name in names] == _expected(case.expected["usage"])
    assert reading.usage is not None
    assert reading.usage["cost"] == row["billed_cost_nano"] / 1e9
