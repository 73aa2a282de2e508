"""Whatever is asked of Bedrock: nothing is lost on the way to what botocore's own model of the service accepts."""

import json
from itertools import pairwise
from typing import Any

import orjson
from botocore.validate import ParamValidator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.contract import Call
from tests.providers.bedrock_asking import ADAPTIVE, CLAUDE, INPUT, NOVA, PNG, TOOLS, USER, WIRE, sent
from tests.providers.bedrock_frames import START, delta, end, frame, metadata, stop
from tests.wire.bedrock_requests import canonical, comparable

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])

WORDS = st.text(min_size=1, max_size=8).filter(str.strip)
IDS = st.from_regex(r"[a-zA-Z0-9_-]{1,8}", fullmatch=True)
DATA = st.sampled_from(["QUJD", "QUJDRA=="])
POINTS = st.sampled_from(
    [[], [{"cachePoint": {"type": "default"}}], [{"cachePoint": {"type": "default", "ttl": "1h"}}]]
)
SAID = WORDS.map(lambda words: {"text": words})
IMAGE = st.builds(
    lambda kind, data: {"image": {"format": kind, "source": {"bytes": data}}},
    st.sampled_from(["png", "jpeg", "gif", "webp"]),
    DATA,
)
DOCUMENT = st.builds(
    lambda kind, data: {"document": {"format": kind, "name": "", "source": {"bytes": data}}},
    st.sampled_from(["pdf", "txt", "csv", "md", "html"]),
    DATA,
)
NATIVE = st.sampled_from(
    [
        {"video": {"format": "mp4", "source": {"bytes": "QUJD"}}},
        {"searchResult": {"source": "s", "title": "t", "content": [{"text": "x"}]}},
    ]
)
GUARDED = {"guardContent": {"text": {"text": "x", "qualifiers": ["guard_content"]}}}
INSIDE = st.one_of(SAID, IMAGE, DOCUMENT, NATIVE, st.just({"json": {"a": [1, None]}}))
INPUTS = st.dictionaries(WORDS, st.none() | st.booleans() | st.integers(-9, 9) | WORDS, max_size=3)
USE = st.builds(lambda i, name, given: {"toolUse": {"toolUseId": i, "name": name, "input": given}}, IDS, IDS, INPUTS)
RESULT = st.builds(
    lambda i, content, status: {"toolResult": {"toolUseId": i, "content": content, **status}},
    IDS,
    st.lists(INSIDE, max_size=2),
    st.sampled_from([{}, {"status": "error"}]),
)
SIGNED = st.builds(lambda words, signature: {"text": words, "signature": signature}, st.text(max_size=8), WORDS)
THOUGHT = st.one_of(
    SIGNED.map(lambda thought: {"reasoningContent": {"reasoningText": thought}}),
    DATA.map(lambda data: {"reasoningContent": {"redactedContent": data}}),
)
SEARCHED = [
    {"toolUse": {"toolUseId": "s1", "name": "nova_grounding", "input": {}, "type": "server_tool_use"}},
    {"toolResult": {"toolUseId": "s1", "content": [{"json": {"a": 1}}], "type": "nova_grounding_result"}},
]
CITED = {"citationsContent": {"content": [{"text": "so"}], "citations": [{"title": "t"}]}}


def marked(blocks: st.SearchStrategy[Any], most: int, least: int = 0) -> st.SearchStrategy[list[Any]]:
    """Blocks, each with a mark behind it or none."""
    pairs = st.lists(st.tuples(blocks, POINTS), min_size=least, max_size=most)
    return pairs.map(lambda found: [each for block, points in found for each in (block, *points)])


ASKED = marked(st.one_of(SAID, IMAGE, DOCUMENT, NATIVE, st.just(GUARDED)), 3, 1)
ASKING = st.builds(lambda results, rest: [*results, *rest], marked(RESULT, 2), ASKED)
ANSWERING = st.one_of(
    st.builds(
        lambda thoughts, said, uses: [*thoughts, *said, *uses],
        st.lists(THOUGHT, max_size=2),
        marked(SAID, 2, 1),
        marked(USE, 3),
    ),
    SAID.map(lambda said: [*SEARCHED, said]),
    SAID.map(lambda said: [said, CITED]),
)


def _turns(pairs: list[tuple[Any, Any]]) -> list[dict[str, Any]]:
    """The turns, with a name of its own for each document."""
    both = (({"role": "user", "content": u}, {"role": "assistant", "content": a}) for u, a in pairs)
    turns = orjson.loads(orjson.dumps([turn for pair in both for turn in pair]))
    blocks = [block for turn in turns for block in turn["content"]]
    inside = [block for each in blocks for block in each.get("toolResult", {}).get("content", [])]
    for number, block in enumerate(each for each in [*blocks, *inside] if "document" in each):
        block["document"]["name"] = f"Document {number}"
    return turns


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
FORMAT = {"schema": json.dumps(SCHEMA), "name": "answer"}
SPECS = st.lists(
    st.sampled_from(
        [
            {"toolSpec": {"name": "f", "description": "d", "inputSchema": {"json": SCHEMA}, "strict": True}},
            {"toolSpec": {"name": "g", "inputSchema": {"json": {"type": "object", "properties": {}}}}},
            {"systemTool": {"name": "nova_grounding"}},
        ]
    ),
    min_size=1,
    max_size=3,
    unique_by=str,
)
CHOICE = st.sampled_from([{}, {"toolChoice": {"auto": {}}}, {"toolChoice": {"any": {}}},
                          {"toolChoice": {"tool": {"name": "f"}}}])  # fmt: skip
REQUEST = st.fixed_dictionaries(
    {"messages": st.lists(st.tuples(ASKING, ANSWERING), min_size=1, max_size=2).map(_turns)},
    optional={
        "system": marked(SAID, 2, 1),
        "inferenceConfig": st.fixed_dictionaries(
            {},
            optional={
                "maxTokens": st.integers(1, 9999),
                "temperature": st.floats(0, 1),
                "topP": st.floats(0, 1),
                "stopSequences": st.lists(WORDS, min_size=1, max_size=3),
            },
        ),
        "toolConfig": st.builds(lambda tools, choice: {"tools": tools, **choice}, SPECS, CHOICE),
        "outputConfig": st.just({"textFormat": {"type": "json_schema", "structure": {"jsonSchema": FORMAT}}}),
        "requestMetadata": st.dictionaries(IDS, WORDS, min_size=1, max_size=2),
        "serviceTier": st.sampled_from([{"type": "flex"}, {"type": "priority"}]),
        "performanceConfig": st.just({"latency": "optimized"}),
        "guardrailConfig": st.just({"guardrailIdentifier": "g", "guardrailVersion": "1", "trace": "enabled"}),
        "additionalModelResponseFieldPaths": st.just(["/stop_sequence"]),
        "additionalModelRequestFields": st.sampled_from(
            [{"thinking": {"type": "enabled", "budget_tokens": 2048}}, {"k": 5}, {"anthropic_beta": ["b"]}]
        ),
    },
)


@CALM
@given(REQUEST)
def test_nothing_is_lost_on_the_way(body: dict[str, Any]) -> None:
    """Whatever Converse can hold, said in OpenAI's words, arrives as it was, and botocore knows it."""
    asked = canonical(body)
    made = orjson.loads(WIRE.request(Call(ADAPTIVE, asked)).body)
    if "toolConfig" not in body:  # a talk with calls in it needs their tools
        made.pop("toolConfig", None)
        made.get("additionalModelRequestFields", {}).pop("tool_choice", None)
    assert comparable(made) == comparable(body)
    report = ParamValidator().validate({**made, "modelId": ADAPTIVE}, INPUT)
    assert not report.has_errors(), report.generate_report()


def _grown(index: int, block: dict[str, Any]) -> bytes:
    """A block as ConverseStream sends it."""
    head = {"contentBlockIndex": index}
    if use := block.get("toolUse"):
        begun = {name: value for name, value in use.items() if name != "input"}
        written = json.dumps(use["input"])
        pieces = [delta(index, toolUse={"input": each}) for each in (written[:3], written[3:])]
        return frame("contentBlockStart", {**head, "start": {"toolUse": begun}}) + b"".join(pieces) + stop(index)
    if result := block.get("toolResult"):
        begun = {name: value for name, value in result.items() if name != "content"}
        pieces = [delta(index, toolResult=[each]) for each in result["content"]]
        return frame("contentBlockStart", {**head, "start": {"toolResult": begun}}) + b"".join(pieces) + stop(index)
    if cited := block.get("citationsContent"):
        (said,), (citation,) = cited["content"], cited["citations"]
        return delta(index, citation=citation) + delta(index, text=said["text"]) + stop(index)
    content = block.get("reasoningContent", {})
    if thought := content.get("reasoningText"):
        told = [{"text": each} for each in thought["text"]] + [{"signature": thought["signature"]}]
        return b"".join([delta(index, reasoningContent=each) for each in told]) + stop(index)
    if content:
        return delta(index, reasoningContent=content) + stop(index)
    return b"".join([delta(index, text=each) for each in block["text"]]) + stop(index)


def _message(out: bytes) -> dict[str, Any]:
    """What a client puts together from a stream."""
    message: dict[str, Any] = {"role": "assistant"}
    documents = [json.loads(each[6:]) for each in out.split(b"\n\n") if each and each != b"data: [DONE]"]
    for part in (choice["delta"] for each in documents for choice in each["choices"]):
        for name, value in part.items():
            if name == "tool_calls":
                calls = message.setdefault(name, [])
                for piece in value:
                    if piece["index"] == len(calls):
                        calls.append({"id": piece["id"], "type": "function", "function": dict(piece["function"])})
                    else:
                        calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
            elif name != "role":
                message[name] = message[name] + value if name in message else value
    return message


@CALM
@given(ANSWERING)
def test_an_answer_given_back_is_the_answer(found: list[dict[str, Any]]) -> None:
    """As an application gives it back: the message that it was told, whole or streamed, and nothing added."""
    blocks = [each for each in found if "cachePoint" not in each]
    made = Call(CLAUDE, {"messages": [USER]}, True)
    body = {"output": {"message": {"role": "assistant", "content": blocks}}, "stopReason": "end_turn"}
    whole = orjson.loads(WIRE.response(made, orjson.dumps(body)).body)["choices"][0]["message"]
    decoder = WIRE.stream(made)
    grown = b"".join([_grown(*each) for each in enumerate(blocks)])
    streamed = _message(decoder.feed(START + grown + end() + metadata()) + decoder.close())
    for message in (whole, streamed):
        given_back = orjson.loads(WIRE.request(Call(CLAUDE, {"messages": [USER, message]})).body)
        assert _joined(given_back["messages"][1]["content"]) == _joined(blocks)


def _joined(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring texts as one: it is the same to whoever reads them."""
    found: list[dict[str, Any]] = []
    for block in blocks:
        if found and "text" in block and "text" in found[-1]:
            found[-1] = {"text": found[-1]["text"] + block["text"]}
        else:
            found.append(block)
    return found


PARTS = WORDS.map(lambda text: {"type": "text", "text": text}) | st.just(
    {"type": "image_url", "image_url": {"url": PNG}}
)
USERS = st.lists(PARTS, min_size=1, max_size=3).map(lambda content: [{"role": "user", "content": content}])
CALLS = st.lists(st.dictionaries(WORDS, st.integers(-9, 9) | WORDS, max_size=2), min_size=1, max_size=3)


@st.composite
def exchanges(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A question and an answer, by way of tools or at once."""
    asked = draw(USERS)
    number = draw(st.integers(0, 10**6))
    loop: list[dict[str, Any]] = []
    if draw(st.booleans()):
        inputs = draw(CALLS)
        ids = [f"t{number}_{index}" for index in range(len(inputs))]
        functions = [{"name": "f", "arguments": json.dumps(each)} for each in inputs]
        calls = [{"id": i, "type": "function", "function": f} for i, f in zip(ids, functions, strict=True)]
        results = [{"role": "tool", "tool_call_id": each, "content": draw(WORDS)} for each in ids]
        loop = [{"role": "assistant", "content": None, "tool_calls": calls}, *draw(st.permutations(results))]
    return [*asked, *loop, {"role": "assistant", "content": draw(WORDS)}]


@given(talk=st.lists(exchanges(), min_size=1, max_size=3), model=st.sampled_from([CLAUDE, NOVA]))
@CALM
def test_no_conversation_loses_anything(talk: list[list[dict[str, Any]]], model: str) -> None:
    """Each text, picture, call and result comes out of what botocore's model accepts, in order."""
    messages = [message for exchange in talk for message in exchange]
    body = sent(*messages, tools=TOOLS, model=model)
    assert _told(body["messages"]) == _meant(messages)
    roles = [turn["role"] for turn in body["messages"]]
    assert all(first != second for first, second in pairwise(roles))


def _meant(messages: list[dict[str, Any]]) -> list[Any]:
    found: list[Any] = []
    for message in messages:
        if message["role"] == "tool":
            found.append(["result", message["tool_call_id"], message["content"]])
            continue
        content = message["content"] or []
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            found.append(part.get("text") or "png")
        for call in message.get("tool_calls", ()):
            found.append([call["id"], json.loads(call["function"]["arguments"])])
    return found


def _told(made: list[dict[str, Any]]) -> list[Any]:
    found: list[Any] = []
    for block in (block for turn in made for block in turn["content"]):
        if "toolUse" in block:
            found.append([block["toolUse"]["toolUseId"], block["toolUse"]["input"]])
        elif "toolResult" in block:
            found.append(["result", block["toolResult"]["toolUseId"], block["toolResult"]["content"][0]["text"]])
        else:
            found.append(block.get("text") or block["image"]["format"])
    return found
