"""Every recorded embedding through the wire that speaks its language, and all of OpenAI's through the whole gateway.

The oracle has read none of these: what has to come out is read here from the recorded bytes, as OpenAI's SDK does it.
"""

import json
import struct
from array import array
from base64 import b64decode
from typing import Any

import openai
import orjson
import pytest

from providers.bedrock.embeddings import BedrockEmbeddings
from providers.catalog import Provider
from providers.contract import Call, Kind, ProviderError, Wire
from providers.gemini.embeddings import GeminiEmbeddings
from providers.openai import OpenAIWire
from providers.operations import for_embeddings
from tests.running import run_gateway, settings_of
from tests.upstream import FakeProvider, answer
from tests.wire.conformance import Tape, expected_status
from tests.wire.recordings import Case, Document, available, unread

OPENAI, GEMINI, COHERE = "openai-embeddings", "gemini-batchEmbedContents", "cohere-embed"
KINDS = {400: Kind.REJECTED, 404: Kind.NOT_FOUND, 501: Kind.FAILED}
OLLAMAS_OWN = "/api/embeddings"
"""A language of Ollama's own, whose recordings are filed with OpenAI's."""


def recorded(wire: str) -> list[Case]:
    return [case for case in unread(wire) if case.expected["path"] != OLLAMAS_OWN]


def each(*wires: str, ok: bool) -> pytest.MarkDecorator:
    cases = [case for wire in wires for case in recorded(wire) if case.ok == ok]
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])


def wire_of(case: Case) -> Wire:
    """The wire of this row of the catalog, as it embeds."""
    name = case.id.rpartition("/")[2].partition("__")[0]
    if name == GEMINI:
        return GeminiEmbeddings()
    if name == COHERE:
        return BedrockEmbeddings()
    found = for_embeddings({case.row: Provider(case.row, "http://x/v1", OpenAIWire())})[case.row]
    assert found is not None
    return found.wire


def call(case: Case, **fields: Any) -> Call:
    """The OpenAI request that means what was recorded."""
    request = case.request or {}
    if "requests" in request:
        first = request["requests"][0]
        texts = [each["content"]["parts"][0]["text"] for each in request["requests"]]
        size = first.get("outputDimensionality", first.get("output_dimensionality"))
        own = {name: first[name] for name in ("taskType",) if name in first}
        return Call(first["model"], {"input": texts, "dimensions": size, "gemini": own, **fields})
    if "texts" in request:
        own = {name: request[name] for name in ("input_type", "truncate") if name in request}
        model = f"cohere.{request['model'].removesuffix('.0')}"
        return Call(model, {"input": request["texts"], "bedrock": own, **fields})
    return Call(request.get("model", "m"), {**(request or {"input": "x"}), **fields})


def numbers(value: Any) -> list[float]:
    """As OpenAI's SDK reads them."""
    return array("f", b64decode(value)).tolist() if isinstance(value, str) else value


def told(case: Case) -> list[list[float]]:
    document = json.loads(case.body)
    if "data" in document:
        return [numbers(each["embedding"]) for each in document["data"]]
    found = document["embeddings"]
    return found["float"] if isinstance(found, dict) else [each["values"] for each in found]


def counted(case: Case) -> int | None:
    document = json.loads(case.body)
    usage, meta = document.get("usage") or {}, document.get("meta") or {"billed_units": {}}
    google = document.get("usageMetadata") or {}
    return usage.get("prompt_tokens") or meta["billed_units"].get("input_tokens") or google.get("promptTokenCount")


def data_of(body: bytes) -> list[Any]:
    return [each["embedding"] for each in orjson.loads(body)["data"]]


@each(OPENAI, GEMINI, COHERE, ok=True)
def test_answer(case: Case) -> None:
    """The vectors and the count are those that were recorded."""
    decoded = wire_of(case).response(call(case, encoding_format=None), case.body)
    assert [numbers(each) for each in data_of(decoded.body)] == told(case)
    tokens = counted(case)
    assert (decoded.usage.input_tokens, decoded.usage.source) == ((tokens, "provider") if tokens else (0, "none"))
    assert decoded.usage.output_tokens == 0


@each(GEMINI, COHERE, ok=True)
def test_base64(case: Case) -> None:
    """The same as float32, where we pack it."""
    decoded = wire_of(case).response(call(case, encoding_format="base64"), case.body)
    for packed, values in zip(data_of(decoded.body), told(case), strict=True):
        assert b64decode(packed) == struct.pack(f"<{len(values)}f", *values)


@each(OPENAI, GEMINI, COHERE, ok=True)
def test_cut_answer(case: Case) -> None:
    """Half an answer is none."""
    for part in (0.1, 0.5, 0.9):
        with pytest.raises(ProviderError) as caught:
            wire_of(case).response(call(case), case.body[: int(len(case.body) * part)])
        assert caught.value.kind is Kind.BROKEN


@each(OPENAI, GEMINI, COHERE, ok=False)
def test_refusal(case: Case) -> None:
    """A refusal has its meaning and the provider's words."""
    error = wire_of(case).error(case.status, case.headers, case.body)
    document = json.loads(case.body)
    words = document.get("detail") or (document.get("error") or document).get("message")
    assert error.kind is KINDS[case.status]
    assert error.message == words[:500]


@each(OPENAI, GEMINI, COHERE, ok=True)
def test_request(case: Case) -> None:
    """The equivalent OpenAI request becomes what was recorded."""
    assert case.request is not None
    sent = orjson.loads(wire_of(case).request(call(case)).body)
    assert comparable(sent) == comparable(without_image(case.request))


def without_image(request: Document) -> Document:
    """OpenAI's embeddings have no place for an image."""
    text: Document = json.loads(json.dumps(request))
    for row in text.get("requests", ()):
        row["content"]["parts"] = [part for part in row["content"]["parts"] if "text" in part]
    return text


def comparable(body: Document) -> Document:
    """Bedrock names the model in the path; Google takes a field in either spelling."""
    body = {
        name: value for name, value in body.items() if value is not None and not ("texts" in body and name == "model")
    }
    rows = body.get("requests")
    if rows:
        body["requests"] = [{name.replace("output_d", "outputD"): row[name] for name in row} for row in rows]
    return body


if available():

    async def test_through_the_gateway(database_url: str, redis_url: str) -> None:
        """OpenAI's and Gemini's, asked for by OpenAI's SDK: read, settled and billed as it should be."""
        cases = [case for case in (*recorded(OPENAI), *recorded(GEMINI)) if case.request is not None]
        rows = sorted({case.row for case in cases})
        async with FakeProvider() as provider:
            base = provider.base_url
            variables = {f"{row.upper()}_BASE_URL": base for row in rows} | {
                f"{row.upper()}_API_KEY": "k" for row in rows
            }
            variables["AIGATE_PROVIDERS"] = ",".join(row for row in rows if row in ("doubleword", "voyage"))
            settings = settings_of(database_url, redis_url, base, **variables)
            async with run_gateway(settings) as gateway:
                http = openai.DefaultAsyncHttpxClient(transport=Tape(), trust_env=False)
                async with openai.AsyncOpenAI(
                    base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, http_client=http
                ) as client:
                    await gateway.rows(PRICE, [row for row in rows if row not in ("openai", "vllm")])
                    for case in cases:
                        provider.script.append(answer(case.status, case.body, "application/json"))
                        await check_asked(client, gateway, provider, case)


PRICE = """
insert into price_rules (provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok)
select provider, '*', 2500000000, 10000000000 from unnest($1::text[]) provider
"""


async def check_asked(client: openai.AsyncOpenAI, gateway: Any, provider: FakeProvider, case: Case) -> None:
    made = call(case)
    asked, status = len(provider.calls), 200
    document = {name: value for name, value in made.document.items() if name not in ("model", "input", "user")}
    try:
        raw = await client.embeddings.with_raw_response.create(
            model=f"{case.row}:{made.model}", input=made.document["input"], extra_body=document
        )
        headers = raw.headers
        got = [each.embedding for each in raw.parse().data]
        expected = told(case)
        if "encoding_format" not in made.document:  # asked for base64, as the SDK does
            expected = [array("f", values).tolist() for values in expected]
        assert got == expected, case.id
    except openai.APIStatusError as error:
        headers, status = error.response.headers, error.status_code
    if made.document.get("encoding_format") not in (None, "float", "base64"):  # refused by the gateway itself
        provider.script.clear()
        assert (status, len(provider.calls)) == (400, asked)
        return
    assert status == (502 if case.status == 501 else expected_status(case)), case.id
    (row,) = await gateway.rows("select * from calls where request_id = $1", headers["x-request-id"])
    if not case.ok:
        assert (row["state"], row["billed_cost_nano"]) == ("void", 0)
        return
    assert (row["state"], row["outcome"], row["output_tokens"]) == ("settled", "ok", 0)
    tokens = counted(case)
    assert row["usage_source"] == ("provider" if tokens else "estimated")
    assert row["input_tokens"] == (tokens or row["input_tokens"])
    assert row["input_tokens"] > 0
