"""Every recorded plain completion, through the whole gateway with the official SDK.

The oracle has read none of these: what has to come out is read here from the recorded bytes.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from openai import AsyncStream

from providers.contract import Call
from providers.openai import OpenAIWire
from tests.wire.conformance import Line, expected_status
from tests.wire.cuts import events, is_finished
from tests.wire.recordings import Case, Document, unread
from tests.wire.replay import Ending, Playing

pytestmark = pytest.mark.asyncio(loop_scope="session")

CASES = unread("openai-completions")
ANSWERS = [case for case in CASES if case.ok]
STREAMS = [case for case in ANSWERS if case.streamed]
FAILURES = [case for case in CASES if not case.ok]


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])


@dataclass
class Completed:
    """What an application has of an answer: the text and the end of each choice, and the usage."""

    texts: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str | None] = field(default_factory=dict)
    usage: Document | None = None
    error: openai.APIError | None = None
    row: Any = None

    def note(self, document: Document) -> None:
        for choice in document["choices"]:
            index = choice["index"]
            self.texts[index] = self.texts.get(index, "") + (choice.get("text") or "")
            self.reasons[index] = choice.get("finish_reason") or self.reasons.get(index)
        if usage := document.get("usage"):
            self.usage = {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}

    def comparable(self) -> tuple[Any, ...]:
        return self.texts, self.reasons, self.usage


def told(case: Case) -> Completed:
    found = Completed()
    documents = events(case.body) if case.streamed else [case.body]
    for data in documents:
        if data != b"[DONE]":
            found.note(json.loads(data))
    return found


async def ask(
    line: Line,
    case: Case,
    *,
    stream: bool,
    piece: int = 0,
    end: int | None = None,
    ending: Ending = "whole",
) -> Completed:
    line.replay.play(Playing(case, piece, end, ending))
    line.provider.asked.clear()
    document = {**(case.request or {}), "model": case.id, "stream": stream}
    if stream:
        document["stream_options"] = {"include_usage": True}
    else:
        document.pop("stream_options", None)
    heard, headers = Completed(), {}
    try:
        raw = await line.client.completions.with_raw_response.create(
            model=case.id, prompt="", stream=stream, extra_body={**document, "model": f"{case.row}:{case.id}"}
        )
        headers = raw.headers
        answer: Any = raw.parse()
        if isinstance(answer, AsyncStream):
            async for chunk in answer:
                heard.note(chunk.model_dump())
        else:
            heard.note(answer.model_dump())
    except openai.APIStatusError as error:
        heard.error, headers = error, error.response.headers
    except openai.APIError as error:
        heard.error = error
    rows = await line.gateway.rows("select * from calls where request_id = $1", headers["x-request-id"])
    heard.row = rows[0] if rows else None
    return heard


def is_billed(heard: Completed) -> None:
    assert (heard.row["state"], heard.row["outcome"]) == ("settled", "ok")
    if heard.usage is None:
        assert heard.row["usage_source"] == "estimated"
        return
    counted = (heard.usage["prompt_tokens"], heard.usage["completion_tokens"])
    assert (heard.row["input_tokens"], heard.row["output_tokens"]) == counted


@pytest.mark.parametrize("stream", [True, False])
@each(ANSWERS)
async def test_answer(line: Line, case: Case, stream: bool) -> None:
    """Text, finish reasons and usage are those that were recorded, in either mode."""
    heard = await ask(line, case, stream=stream)
    assert heard.error is None
    assert heard.comparable() == told(case).comparable()
    is_billed(heard)
    (asked,) = line.provider.asked
    assert asked.path.endswith("/completions")
    sent = {name: value for name, value in asked.document.items() if not name.startswith("stream")}
    recorded = {name: value for name, value in (case.request or {}).items() if not name.startswith("stream")}
    assert sent == {**recorded, "model": case.id}


@pytest.mark.parametrize("piece", [1, 7])
@each(STREAMS)
async def test_stream_in_pieces(line: Line, case: Case, piece: int) -> None:
    """The same, however the stream is cut into pieces."""
    heard = await ask(line, case, stream=True, piece=piece)
    assert heard.comparable() == told(case).comparable()
    is_billed(heard)


@pytest.mark.parametrize("part", [0.3, 0.9])
@each(STREAMS)
async def test_cut_stream(line: Line, case: Case, part: float) -> None:
    """It never looks whole, unless its end was told."""
    end = int(len(case.body) * part)
    heard = await ask(line, case, stream=True, end=end, ending="ended")
    if is_finished(case.body[:end], several=False, ended=True):
        assert heard.error is None
        return
    assert getattr(heard.error, "code", None) == "provider_invalid_response"
    assert heard.row["outcome"] == "truncated"


@each(FAILURES)
async def test_failure(line: Line, case: Case) -> None:
    """A refusal has its status and costs nothing, whether the provider refuses or the gateway itself."""
    heard = await ask(line, case, stream=False)
    assert isinstance(heard.error, openai.APIStatusError)
    assert heard.error.status_code == expected_status(case)
    assert (heard.row is None) == (line.provider.asked == [])
    assert heard.row is None or (heard.row["state"], heard.row["billed_cost_nano"]) == ("void", 0)


@each(STREAMS)
async def test_any_chunking(case: Case) -> None:
    """The decoder returns the same bytes at any chunking."""
    outs = set()
    for piece in (1, 7, len(case.body)):
        decoder = OpenAIWire(path="/completions").stream(Call("m", {}, True, wants_usage=True))
        parts = [case.body[start : start + piece] for start in range(0, len(case.body), piece)]
        outs.add(b"".join([decoder.feed(part) for part in parts]) + decoder.close())
    assert len(outs) == 1
