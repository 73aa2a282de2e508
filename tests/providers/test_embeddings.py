"""What a request for embeddings becomes where a provider embeds in its own language, and what its answers become."""

import struct
from base64 import b64decode
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.bedrock.embeddings import BedrockEmbeddings
from providers.catalog import catalog
from providers.contract import Call, Kind, ProviderError, Usage, Wire
from providers.document import dumps
from providers.gemini.embeddings import GeminiEmbeddings
from providers.openai import OpenAIWire
from providers.operations import for_completions, for_embeddings
from providers.vectors import OpenAIEmbeddings

GEMINI, VERTEX, BEDROCK = GeminiEmbeddings(), GeminiEmbeddings(vertex=True), BedrockEmbeddings()
NEW, OLD = "gemini-embedding-2", "text-embedding-005"
TITAN, TITAN_1 = "amazon.titan-embed-text-v2:0", "amazon.titan-embed-text-v1"
COHERE_4, COHERE_3 = "us.cohere.embed-v4:0", "cohere.embed-english-v3"
WIRES = [(GEMINI, NEW), (VERTEX, NEW), (VERTEX, OLD), (BEDROCK, TITAN), (BEDROCK, COHERE_3)]
VECTOR = [0.25, -0.5, 1e-3]
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def each() -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("wire", "model"), WIRES, ids=[f"{type(w).__name__}-{m}" for w, m in WIRES])


def call(model: str, given: Any = "Hello", pricing: Any = None, **fields: Any) -> Call:
    return Call(model, {"model": model, "input": given, **fields}, pricing=pricing)


def sent(wire: Wire, made: Call) -> tuple[str, Any]:
    request = wire.request(made)
    assert request.headers == ((b"content-type", b"application/json"),)
    return request.path, orjson.loads(request.body)


def refusal(wire: Wire, made: Call) -> tuple[str | None, str]:
    with pytest.raises(ProviderError) as caught:
        wire.request(made)
    assert (caught.value.kind, caught.value.status, caught.value.sent) == (Kind.REJECTED, 400, False)
    return caught.value.param, caught.value.message


def read(wire: Wire, made: Call, document: Any) -> tuple[dict[str, Any], Usage]:
    decoded = wire.response(made, orjson.dumps(document))
    return orjson.loads(decoded.body), decoded.usage


def vectors(answer: dict[str, Any]) -> list[Any]:
    assert answer["object"] == "list"
    assert [each["index"] for each in answer["data"]] == list(range(len(answer["data"])))
    assert {each["object"] for each in answer["data"]} == {"embedding"}
    return [each["embedding"] for each in answer["data"]]


def text(words: str) -> dict[str, Any]:
    return {"content": {"parts": [{"text": words}]}}


# --- requests ---------------------------------------------------------------------------------------------------


def test_gemini_request() -> None:
    """All texts are one batch, each with the size and the caller's own settings."""
    made = call(f"models/{NEW}", ["a", "b"], dimensions=768, gemini={"taskType": "RETRIEVAL_QUERY"}, user="u")
    more = {"model": f"models/{NEW}", "outputDimensionality": 768, "taskType": "RETRIEVAL_QUERY"}
    path, body = sent(GEMINI, made)
    assert path == f"/models/{NEW}:batchEmbedContents"
    assert body == {"requests": [{**text("a"), **more}, {**text("b"), **more}]}
    assert sent(GEMINI, call(NEW))[1] == {"requests": [{"model": f"models/{NEW}", **text("Hello")}]}


def test_model_is_a_name() -> None:
    """Nothing of a model's name changes where the call goes."""
    assert sent(GEMINI, call("a/../b?c"))[0] == "/models/a%2F..%2Fb%3Fc:batchEmbedContents"
    assert refusal(GEMINI, call("models/"))[0] == "model"
    assert sent(BEDROCK, call("a/b?cohere.embed-x/cohere.embed-v4"))[0].count("/") == 3


def test_vertex_request() -> None:
    """A Gemini embeds one text or a batch; the settings have a place of their own."""
    config = {"embedContentConfig": {"outputDimensionality": 768, "title": "t"}}
    options: dict[str, Any] = {"dimensions": 768, "vertex": {"title": "t"}}
    assert sent(VERTEX, call(NEW, "a", **options)) == (f"/models/{NEW}:embedContent", {**text("a"), **config})
    path, body = sent(VERTEX, call(f"google/{NEW}", ["a", "b"], **options))
    assert path == f"/models/{NEW}:batchEmbedContents"
    assert body == {"requests": [{**text("a"), **config}, {**text("b"), **config}]}
    assert sent(VERTEX, call(NEW))[1] == text("Hello")


def test_vertex_prediction() -> None:
    """Every other model predicts: the task stands with each text, the rest beside them."""
    own = {"taskType": "CLUSTERING", "autoTruncate": False}
    path, body = sent(VERTEX, call(OLD, ["a", "b"], dimensions=256, gemini=own))
    assert path == f"/models/{OLD}:predict"
    assert body["instances"] == [
        {"content": "a", "task_type": "CLUSTERING"},
        {"content": "b", "task_type": "CLUSTERING"},
    ]
    assert body["parameters"] == {"outputDimensionality": 256, "autoTruncate": False}
    assert sent(VERTEX, call(OLD))[1] == {"instances": [{"content": "Hello"}]}


def test_titan_request() -> None:
    """One text, its size, and what only Titan has a word for."""
    path, body = sent(BEDROCK, call(TITAN, ["a"], dimensions=256, bedrock={"normalize": False}))
    assert path == f"/model/{TITAN}/invoke"
    assert body == {"inputText": "a", "dimensions": 256, "normalize": False}
    assert sent(BEDROCK, call(TITAN_1))[1] == {"inputText": "Hello"}


def test_titan_takes_one() -> None:
    """Several texts would be several calls."""
    param, message = refusal(BEDROCK, call(TITAN, ["a", "b"]))
    assert param == "input"
    assert "one text a call" in message


def test_cohere_request() -> None:
    """Several texts, for a stated purpose."""
    usual = {"texts": ["a", "b"], "embedding_types": ["float"]}
    assert sent(BEDROCK, call(COHERE_4, ["a", "b"], dimensions=512)) == (
        f"/model/{COHERE_4}/invoke",
        {**usual, "input_type": "search_document", "output_dimension": 512},
    )
    own = {"input_type": "search_query", "truncate": "END"}
    assert sent(BEDROCK, call(COHERE_3, ["a", "b"], bedrock=own))[1] == {**usual, **own}


@pytest.mark.parametrize(
    "model", [TITAN_1, "amazon.titan-embed-g1-text-02", COHERE_3, "cohere.embed-multilingual-v3"]
)
def test_one_size(model: str) -> None:
    """A model with one size says so before it is asked."""
    assert refusal(BEDROCK, call(model, dimensions=256))[0] == "dimensions"


@pytest.mark.parametrize(
    "model", ["anthropic.claude-3", "my.amazon-titan", "arn:aws:bedrock:x:1:provisioned-model/a"]
)
def test_unknown_house(model: str) -> None:
    """Of a model that is neither Titan's nor Cohere's nobody knows what it wants."""
    assert refusal(BEDROCK, call(model))[0] == "model"


def test_model_within_an_arn() -> None:
    """An ARN that ends with a model's id tells whose it is."""
    arn = f"arn:aws:bedrock:us-east-1::foundation-model/{COHERE_3}"
    assert sent(BEDROCK, call(arn))[0] == f"/model/arn:aws:bedrock:us-east-1::foundation-model%2F{COHERE_3}/invoke"


@each()
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [1, 2]}, "input"),
        ({"input": [[1], [2]]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"dimensions": "256"}, "dimensions"),
        ({"dimensions": True}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"stream": True}, "stream"),
        ({"temperature": 1}, "temperature"),
        ({"gemini": 1, "bedrock": 1}, None),
        ({"gemini": {"content": {}}, "bedrock": {"texts": ["free"]}}, None),
        ({"gemini": {"model": "dear"}, "bedrock": {"modelId": "dear"}}, None),
    ],
)
def test_refused(wire: Wire, model: str, fields: dict[str, Any], param: str | None) -> None:
    """What cannot be expressed, or would be metered wrongly, is refused by name and never sent."""
    ours = "bedrock" if wire is BEDROCK else "gemini"
    fields = {name: value for name, value in fields.items() if name == ours or name not in ("bedrock", "gemini")}
    named, message = refusal(wire, call(model, **{"given": "x", **fields}))
    assert named is not None
    assert named in message
    assert named == param if param else named.partition(".")[0] == ours


@each()
def test_lenient(wire: Wire, model: str) -> None:
    """A caller may rather lose a field than the answer; `lenient` itself is not sent."""
    ours = "bedrock" if wire is BEDROCK else "gemini"
    lenient = sent(wire, call(model, temperature=1, **{ours: {"lenient": True}}))
    assert lenient == sent(wire, call(model))


@each()
def test_deep_request(wire: Wire, model: str) -> None:
    """A tower of lists is no setting."""
    tower: list[Any] = []
    for _ in range(100_000):
        tower = [tower]
    ours = "bedrock" if wire is BEDROCK else "gemini"
    assert refusal(wire, call(model, **{ours: {"x": tower}}))[0] == ours


@pytest.mark.parametrize("model", [TITAN, COHERE_4])
@pytest.mark.parametrize("kinds", ["float", [], ["float", "int8"], ["base64"], [{}], [["float"]]])
def test_one_kind(model: str, kinds: Any) -> None:
    """OpenAI's answer has a place for one kind of vectors."""
    field = "embeddingTypes" if model == TITAN else "embedding_types"
    assert refusal(BEDROCK, call(model, bedrock={field: kinds}))[0] == f"bedrock.{field}"


# --- answers ----------------------------------------------------------------------------------------------------


def answers(one: list[Any]) -> list[tuple[Wire, Call, Any, int | None]]:
    """Every form of an answer, with the tokens that it tells."""
    types = {"float": [one], "int8": [[1]]}
    counted = {"values": one, "statistics": {"token_count": 3.0, "truncated": False}}
    meta = {"billed_units": {"input_tokens": 7}}
    return [
        (GEMINI, call(NEW), {"embeddings": [{"values": one}]}, None),
        (GEMINI, call(NEW), {"embeddings": [{"values": one}], "usageMetadata": {"promptTokenCount": 4}}, 4),
        (VERTEX, call(NEW), {"embedding": {"values": one}, "usageMetadata": {"promptTokenCount": 4}}, 4),
        (VERTEX, call(NEW), {"embeddings": [{"values": one}]}, None),
        (VERTEX, call(OLD), {"predictions": [{"embeddings": counted}], "metadata": {}}, 3),
        (VERTEX, call(OLD), {"predictions": [{"embeddings": {"values": one}}]}, None),
        (BEDROCK, call(TITAN), {"embedding": one, "inputTextTokenCount": 5, "embeddingsByType": {}}, 5),
        (BEDROCK, call(COHERE_3), {"embeddings": [one], "response_type": "embeddings_floats"}, None),
        (BEDROCK, call(COHERE_4), {"embeddings": types, "response_type": "embeddings_by_type"}, None),
        (BEDROCK, call(COHERE_4), {"embeddings": types, "meta": meta}, 7),
    ]


@pytest.mark.parametrize(("wire", "made", "document", "tokens"), answers(VECTOR))
def test_answer(wire: Wire, made: Call, document: Any, tokens: int | None) -> None:
    """OpenAI's answer; where the provider counts nothing, nothing is told, and the row will be an estimate."""
    answer, usage = read(wire, made, document)
    assert vectors(answer) == [VECTOR]
    assert answer["model"] == made.model
    assert answer["usage"] == (tokens and {"prompt_tokens": tokens, "total_tokens": tokens})
    assert usage == (Usage(input_tokens=tokens, source="provider") if tokens else Usage())


@pytest.mark.parametrize(("wire", "made", "document", "tokens"), answers(VECTOR))
def test_base64(wire: Wire, made: Call, document: Any, tokens: int | None) -> None:
    """Little-endian float32, whatever the machine."""
    packed = Call(made.model, {**made.document, "encoding_format": "base64"})
    (found,) = vectors(read(wire, packed, document)[0])
    assert b64decode(found) == struct.pack("<3f", *VECTOR)


def test_cost() -> None:
    """What it costs stands in the usage, where there is a price."""
    made = call(TITAN, pricing=lambda usage: usage.input_tokens * 1000)
    answer, _ = read(BEDROCK, made, {"embedding": VECTOR, "inputTextTokenCount": 5})
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5, "cost": 5e-6}


def test_several() -> None:
    """One vector a text, in the order of the texts; tokens are those of all."""
    rows = [{"embeddings": {"values": [n], "statistics": {"token_count": n}}} for n in (1, 2, 3)]
    answer, usage = read(VERTEX, call(OLD, ["a", "b", "c"]), {"predictions": rows})
    assert vectors(answer) == [[1], [2], [3]]
    assert usage.input_tokens == 6


def test_other_kinds() -> None:
    """A kind that was asked for by name is what is told."""
    made = call(COHERE_4, bedrock={"embedding_types": ["int8"]})
    assert vectors(read(BEDROCK, made, {"embeddings": {"int8": [[1, -2]]}})[0]) == [[1, -2]]
    made = call(TITAN, bedrock={"embeddingTypes": ["binary"]})
    assert vectors(read(BEDROCK, made, {"embedding": VECTOR, "embeddingsByType": {"binary": [1, 0]}})[0]) == [[1, 0]]


BAD = [[], [None], ["x"], [True], [[0.5]], [10**400], [1e39], {}, None, "AAAA", 1]


@pytest.mark.parametrize("values", BAD, ids=lambda value: str(value)[:9])
@pytest.mark.parametrize("form", range(10))
def test_bad_vectors(form: int, values: Any) -> None:
    """What is no list of finite numbers is no embedding."""
    wire, made, document, _ = answers(values)[form]
    body = str(document).replace("'", '"').replace("None", "null").replace("True", "true").replace("False", "false")
    with pytest.raises(ProviderError) as caught:
        wire.response(made, body.encode())
    assert caught.value.kind is Kind.BROKEN


@pytest.mark.parametrize("bad", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_not_finite(bad: bytes) -> None:
    """NaN is JSON to some, and a number to nobody."""
    for packed in ("float", "base64"):
        with pytest.raises(ProviderError):
            BEDROCK.response(call(TITAN, encoding_format=packed), b'{"embedding": [0.5, %s]}' % bad)


@each()
@pytest.mark.parametrize("number", [0, 2])
def test_wrong_number(wire: Wire, model: str, number: int) -> None:
    """One embedding a text, neither fewer nor more."""
    one = {"values": VECTOR}
    documents = [
        {"embeddings": [one] * number, "inputTextTokenCount": 1},
        {"predictions": [{"embeddings": one}] * number},
        {"embeddings": [VECTOR] * number},
        {"embeddings": {"float": [VECTOR] * number}},
    ]
    for document in documents:
        with pytest.raises(ProviderError) as caught:
            wire.response(call(model), orjson.dumps(document))
        assert caught.value.kind is Kind.BROKEN


@pytest.mark.parametrize("count", [0, -1, "4", None, True, 1.5, 10**16, [4], {}])
def test_bad_counts(count: Any) -> None:
    """What is no count of tokens counts nothing: then it is estimated."""
    for wire, made, document in (
        (GEMINI, call(NEW), {"embeddings": [{"values": VECTOR}], "usageMetadata": {"promptTokenCount": count}}),
        (BEDROCK, call(TITAN), {"embedding": VECTOR, "inputTextTokenCount": count}),
    ):
        answer, usage = read(wire, made, document)
        assert (answer["usage"], usage) == (None, Usage())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["values", "float", "error", "statistics", "token_count", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
FIELDS = ["embeddings", "embedding", "predictions", "error", "usageMetadata", "meta", "message", "__type", "metadata"]


@CALM
@given(st.sampled_from(WIRES), st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_any_document(wire: tuple[Wire, str], document: dict[str, Any]) -> None:
    """Whatever a provider sends is an answer of one vector or a `ProviderError`."""
    try:
        answer = orjson.loads(wire[0].response(call(wire[1]), dumps(document)).body)
    except ProviderError:
        return
    assert len(vectors(answer)[0]) > 0


@CALM
@given(st.sampled_from(WIRES), st.binary() | st.just(b"[" * 100_000) | st.just(b'{"a":' * 100_000))
def test_any_bytes(wire: tuple[Wire, str], body: bytes) -> None:
    with pytest.raises(ProviderError):
        wire[0].response(call(wire[1]), body)


@pytest.mark.parametrize(("wire", "made", "document", "tokens"), answers(VECTOR))
def test_cut_answer(wire: Wire, made: Call, document: Any, tokens: int | None) -> None:
    """A part of an answer is none."""
    body = orjson.dumps(document)
    for end in range(len(body)):
        with pytest.raises(ProviderError) as caught:
            wire.response(made, body[:end])
        assert caught.value.kind is Kind.BROKEN


# --- errors -----------------------------------------------------------------------------------------------------


def test_errors() -> None:
    """A refusal means what it means in a chat."""
    spent = orjson.dumps({"error": {"code": 429, "message": "slow", "details": [{"retryDelay": "7s"}]}})
    error = GEMINI.error(429, {}, spent)
    assert (error.kind, error.retry_after, error.message) == (Kind.RATE_LIMITED, 7.0, "slow")
    named = {"x-amzn-errortype": "ValidationException:http://internal"}
    error = BEDROCK.error(400, named, b'{"message":"Malformed input request"}')
    assert (error.kind, error.message) == (Kind.REJECTED, "Malformed input request")


@each()
def test_error_in_an_answer(wire: Wire, model: str) -> None:
    """An error object inside a 200 is an error."""
    document = {"__type": "ThrottlingException", "message": "slow", "error": {"code": 429, "message": "slow"}}
    with pytest.raises(ProviderError) as caught:
        wire.response(call(model), orjson.dumps(document))
    assert (caught.value.kind, caught.value.message) == (Kind.RATE_LIMITED, "slow")


@each()
def test_no_stream(wire: Wire, model: str) -> None:
    with pytest.raises(ProviderError) as caught:
        wire.stream(call(model))
    assert caught.value.param == "stream"


# --- rows -------------------------------------------------------------------------------------------------------


def test_rows() -> None:
    """Who embeds in which language, and who does not."""
    rows = for_embeddings(catalog({"GEMINI_API_KEY": "k"}))
    wires = {name: row and row.wire for name, row in rows.items()}
    assert (wires["gemini"], wires["vertex"], wires["bedrock"]) == (GEMINI, VERTEX, BEDROCK)
    assert wires["anthropic"] is None
    openai = wires["openai"]
    assert isinstance(openai, OpenAIEmbeddings)
    assert (openai.wire.path, openai.wire.holds) == ("/embeddings", "data")
    assert rows["gemini"] is not None
    assert rows["gemini"].api_key == "k"


def test_completions() -> None:
    """The legacy operation is OpenAI's alone."""
    rows = for_completions(catalog({}))
    assert {rows[name] for name in ("gemini", "vertex", "bedrock", "anthropic")} == {None}
    row = rows["openai"]
    assert row is not None
    assert isinstance(row.wire, OpenAIWire)
    assert row.wire.path == "/completions"


@pytest.mark.parametrize(
    ("endpoint", "version", "url"),
    [
        ("https://r.openai.azure.com", "2024-10-21", "/openai/deployments/m/{}?api-version=2024-10-21"),
        ("https://r.openai.azure.com", "", "/openai/v1/{}"),
        ("https://r.services.ai.azure.com/models", "", "/models/{}?api-version=2024-05-01-preview"),
    ],
)
@pytest.mark.parametrize("operation", ["embeddings", "completions"])
def test_azure(endpoint: str, version: str, url: str, operation: str) -> None:
    """Azure's deployment and version stay in the address of every operation."""
    environment = {"AZURE_OPENAI_ENDPOINT": endpoint, "AZURE_API_VERSION": version, "AZURE_OPENAI_API_KEY": "k"}
    rows = (for_embeddings if operation == "embeddings" else for_completions)(catalog(environment))
    row = rows["azure"]
    assert row is not None
    whole = row.base_url + row.wire.request(call("m")).path
    assert whole == endpoint.removesuffix("/models") + url.format(operation)
