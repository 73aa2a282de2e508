"""The wire of OpenAI's chat completions."""

import time
from email.utils import formatdate
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.contract import Call, Kind, ProviderError, Usage
from providers.document import dumps
from providers.openai import OpenAIWire

WIRE = OpenAIWire()
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
DOCUMENT = {"model": "openai:gpt", "messages": [{"role": "user", "content": "hi"}], "unknown": {"a": 1}}


def call(**fields: Any) -> Call:
    return Call(**{"model": "gpt", "document": DOCUMENT, **fields})


def priced(usage: Usage) -> int:
    return usage.input_tokens * 1000 + usage.output_tokens * 2000


def sent(made: Call, wire: OpenAIWire = WIRE) -> dict[str, Any]:
    return orjson.loads(wire.request(made).body)


def delta(text: str | None = None, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": {} if text is None else {"content": text}, "finish_reason": finish}
    return b"data: " + orjson.dumps({"id": "c", "choices": [choice], **more}) + b"\n\n"


USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
USAGE_CHUNK = b"data: " + orjson.dumps({"id": "c", "choices": [], "usage": USAGE}) + b"\n\n"
DONE = b"data: [DONE]\n\n"


def decode(*chunks: bytes, made: Call | None = None) -> tuple[bytes, Usage]:
    decoder = WIRE.stream(made or call(stream=True))
    out = b"".join([decoder.feed(chunk) for chunk in chunks])
    return out + decoder.close(), decoder.usage


def events(out: bytes) -> list[Any]:
    return [orjson.loads(each.removeprefix(b"data: ")) for each in out.split(b"\n\n") if each and each != DONE[:-2]]


# --- request ----------------------------------------------------------------------------------------------------


def test_the_model_is_replaced_and_everything_else_rides_along() -> None:
    """Only what the gateway works on is changed."""
    assert sent(call()) == {**DOCUMENT, "model": "gpt"}


def test_the_call_is_never_changed() -> None:
    """A retry translates the same call again."""
    document = {"model": "a:b", "messages": [], "stream_options": {"x": 1}}
    WIRE.request(call(document=document, stream=True))
    assert document == {"model": "a:b", "messages": [], "stream_options": {"x": 1}}


@pytest.mark.parametrize("stream", [True, False])
def test_the_call_says_whether_the_answer_is_streamed(stream: bool) -> None:
    """Whatever its document says."""
    assert sent(call(document={**DOCUMENT, "stream": not stream}, stream=stream))["stream"] is stream


def test_a_stream_is_always_asked_for_its_usage() -> None:
    """Usage is what a call is billed by, whether or not the caller wants to see it."""
    document = {**DOCUMENT, "stream_options": {"include_usage": False, "include_obfuscation": False}}
    options = sent(call(document=document, stream=True))["stream_options"]
    assert options == {"include_usage": True, "include_obfuscation": False}


def test_a_wire_can_be_told_that_its_provider_rejects_stream_options() -> None:
    """Mistral answers 422 to the option and sends usage unasked."""
    document = {**DOCUMENT, "stream_options": {"include_usage": True}}
    assert "stream_options" not in sent(call(document=document, stream=True), OpenAIWire(stream_usage=False))


# --- response ---------------------------------------------------------------------------------------------------


def answer(**fields: Any) -> bytes:
    return dumps({"id": "a", "choices": [{"index": 0, "message": {"content": "x"}}], **fields})


def test_an_answer_without_a_price_passes_as_it_came() -> None:
    """Bytes that nobody has to change are not written anew."""
    body = answer(usage=USAGE)
    decoded = WIRE.response(call(), body)
    assert decoded.body is body
    assert decoded.usage == Usage(input_tokens=10, output_tokens=5, source="provider")


def test_the_cost_is_written_into_the_usage_in_usd() -> None:
    """`usage.cost` is the billed price; the provider's own is kept apart."""
    decoded = WIRE.response(call(pricing=priced), answer(usage={**USAGE, "cost": 0.00012345}))
    assert orjson.loads(decoded.body)["usage"] == {**USAGE, "cost": 0.00002}
    assert decoded.usage.provider_cost == 123_450


def test_no_usage_is_invented() -> None:
    """An answer without usage stays without, and says so."""
    decoded = WIRE.response(call(pricing=priced), answer())
    assert decoded.usage == Usage(source="none")
    assert "usage" not in orjson.loads(decoded.body)


@pytest.mark.parametrize("body", [b"", b"<html>oops</html>", b"[]", b'"text"', b"{}", b'{"choices":null}', b'{"ch'])
def test_what_is_no_answer_is_broken(body: bytes) -> None:
    """A 200 alone is not an answer."""
    with pytest.raises(ProviderError) as caught:
        WIRE.response(call(), body)
    assert caught.value.kind is Kind.BROKEN


@pytest.mark.parametrize("beside", [{}, {"choices": []}])
def test_an_error_inside_a_200_is_an_error(beside: dict[str, Any]) -> None:
    """Some providers answer 200 before they know."""
    with pytest.raises(ProviderError) as caught:
        WIRE.response(call(), dumps({"error": {"message": "slow down", "code": 429}, **beside}))
    assert (caught.value.kind, caught.value.message) == (Kind.RATE_LIMITED, "slow down")


def test_json_that_is_not_quite_json_is_still_read() -> None:
    """NaN and half an emoji come from Python servers."""
    body = b'{"choices":[{"logprob":NaN,"text":"\\ud83d"}],"usage":{"prompt_tokens":1}}'
    assert WIRE.response(call(pricing=priced), body).usage.input_tokens == 1


# --- usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "counts", "source"),
    [
        ({"prompt_tokens": 10, "total_tokens": 15}, (10, 5), "provider"),
        ({"completion_tokens": 5, "total_tokens": 15}, (10, 5), "provider"),
        ({"prompt_tokens": 10, "completion_tokens": None, "total_tokens": 15}, (10, 5), "provider"),
        ({"prompt_tokens": 10}, (10, 0), "none"),
        ({"prompt_tokens": 10, "completion_tokens": None}, (10, 0), "none"),
        ({"prompt_tokens": 10, "completion_tokens": 0, "total_tokens": 10}, (10, 0), "none"),
        ({"prompt_tokens": 10, "total_tokens": 3}, (10, 0), "none"),
        ({"completion_tokens": 5}, (0, 5), "none"),
        ({"total_tokens": 15}, (0, 0), "none"),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (0, 0), "none"),
    ],
)
def test_half_a_usage_is_none(usage: dict[str, Any], counts: tuple[int, int], source: str) -> None:
    """The total may tell the half that is left out; what nobody tells is not free, but has to be estimated."""
    decoded = WIRE.response(call(pricing=priced), answer(usage={**usage, "cost": 0.1}))
    streamed = decode(delta(finish="stop", usage=usage), DONE)[1]
    for read in (decoded.usage, streamed):
        assert ((read.input_tokens, read.output_tokens), read.source) == (counts, source)
    assert ("cost" in orjson.loads(decoded.body)["usage"]) == (source == "provider")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 4}}, {"cache_read_tokens": 4}),
        ({"prompt_cache_hit_tokens": 4}, {"cache_read_tokens": 4}),
        ({"cached_tokens": 4}, {"cache_read_tokens": 4}),
        ({"num_cached_tokens": 4, "prompt_tokens_details": {"cached_tokens": 0}}, {"cache_read_tokens": 4}),
        ({"prompt_tokens_details": {"cache_write_tokens": 3}}, {"cache_write_tokens": 3}),
        ({"prompt_tokens_details": {"cache_creation_tokens": 3}}, {"cache_write_tokens": 3}),
        ({"prompt_tokens_details": {"cache_creation_input_tokens": 3}}, {"cache_write_tokens": 3}),
        ({"cache_creation_input_tokens": 3}, {"cache_write_tokens": 3}),
        ({"completion_tokens_details": {"reasoning_tokens": 2}}, {"reasoning_tokens": 2}),
        ({"prompt_tokens_details": {"audio_tokens": 2, "image_tokens": 1}}, {"audio_tokens": 2, "image_tokens": 1}),
        ({"cost": {"total_cost": 0.00504}}, {"provider_cost": 5_040_000}),
        ({"cost_in_usd_ticks": 1_330_500}, {"provider_cost": 133_050}),
    ],
)
def test_each_providers_word_has_one_meaning(usage: dict[str, Any], expected: dict[str, int]) -> None:
    """The classes of tokens mean the same whoever counted them."""
    read = WIRE.response(call(), answer(usage={**USAGE, **usage})).usage
    assert read == Usage(input_tokens=10, output_tokens=5, source="provider", **expected)


@pytest.mark.parametrize("told", [{}, {"completion_tokens": 0}, {"completion_tokens": 5}])
def test_reasoning_is_never_more_than_the_output(told: dict[str, int]) -> None:
    """What is more than the completion cannot be counted within it, and is not free."""
    usage = {"prompt_tokens": 10, **told, "completion_tokens_details": {"reasoning_tokens": 50}}
    read = WIRE.response(call(), answer(usage=usage)).usage
    assert (read.output_tokens, read.reasoning_tokens) == (50 + told.get("completion_tokens", 0), 50)


def test_a_total_that_tells_the_completion_hides_no_details() -> None:
    """They are read beside it."""
    usage = {"prompt_tokens": 10, "total_tokens": 60, "completion_tokens_details": {"reasoning_tokens": 50}}
    read = WIRE.response(call(), answer(usage=usage)).usage
    assert (read.output_tokens, read.reasoning_tokens, read.source) == (50, 50, "provider")


@pytest.mark.parametrize("later", [{"prompt_tokens": 0, "completion_tokens": 0}, {"completion_tokens": 60}])
def test_half_a_usage_overwrites_none(later: dict[str, int]) -> None:
    """A stream's later chunk that says less does not take back what was counted."""
    whole = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    read = decode(delta("a", usage=whole), delta(finish="stop", usage=later), DONE)[1]
    assert (read.input_tokens, read.output_tokens, read.source) == (100, 50, "provider")


def test_reasoning_that_was_counted_beside_the_completion_is_part_of_the_output() -> None:
    """xAI: the total tells that the reasoning is not in the completion."""
    usage = {
        "prompt_tokens": 291,
        "completion_tokens": 26,
        "total_tokens": 513,
        "completion_tokens_details": {"reasoning_tokens": 196},
    }
    assert WIRE.response(call(), answer(usage=usage)).usage.output_tokens == 222


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=3), st.just([]), st.just({})
)
FIELDS = ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "cost", "cached_tokens")


@CALM
@given(st.dictionaries(st.sampled_from(FIELDS), ODD))
def test_odd_counts_are_never_negative_and_never_an_exception(usage: dict[str, Any]) -> None:
    """A provider's slip must not lose an answer, nor pay the caller."""
    read = WIRE.response(call(pricing=priced), answer(usage=usage)).usage
    assert read.input_tokens >= 0
    assert read.output_tokens >= 0
    assert (read.provider_cost or 0) >= 0


@CALM
@given(st.fixed_dictionaries(dict.fromkeys(FIELDS[:3], ODD | st.integers(1, 9))))
def test_a_usage_that_says_no_more_than_its_counts_is_read_like_one_that_does(usage: dict[str, Any]) -> None:
    """Whatever stands for a number in it."""
    plain, fuller = (WIRE.response(call(), answer(usage=each)).usage for each in (usage, {**usage, "more": 1}))
    assert plain == fuller


# --- stream -----------------------------------------------------------------------------------------------------


def test_chunks_pass_as_the_bytes_that_came() -> None:
    """Nothing is written anew that has nothing to be changed."""
    decoder = WIRE.stream(call(stream=True))
    chunk = delta("a") + delta("b")
    assert decoder.feed(chunk) is chunk


def test_a_stream_ends_with_one_terminator_that_close_gives_out() -> None:
    """The provider's own is withheld, so that the last message is ours to send."""
    decoder = WIRE.stream(call(stream=True))
    out = decoder.feed(delta("a") + delta(finish="stop") + DONE + delta("late"))
    assert out == delta("a") + delta(finish="stop")
    assert decoder.ended
    assert decoder.feed(delta("later")) == b""
    assert (decoder.close(), decoder.close()) == (DONE, b"")


def test_a_finish_reason_is_an_end_without_a_terminator() -> None:
    """Perplexity sends no `[DONE]`."""
    assert decode(delta("a"), delta(finish="stop"))[0].endswith(DONE)


def test_a_terminator_is_an_end_without_a_finish_reason() -> None:
    """Snowflake sends no finish reason."""
    assert decode(delta("a"), DONE)[0].endswith(DONE)


@pytest.mark.parametrize(
    "cut", [b"", DONE, b": ping\n\n" + DONE, delta("a"), delta("a", finish=""), delta("a") + b'data: {"id']
)
def test_a_stream_without_an_end_is_truncated(cut: bytes) -> None:
    """A broken answer never looks whole."""
    with pytest.raises(ProviderError) as caught:
        decode(cut)
    assert caught.value.kind is Kind.BROKEN
    assert "truncated" in caught.value.message


def test_every_choice_that_was_begun_has_to_finish() -> None:
    """With `n`, one finished choice does not make the others whole."""
    made = call(document={**DOCUMENT, "n": 2}, stream=True)
    begun = delta("a", index=0) + delta("b", index=1) + delta(finish="stop", index=0)
    assert decode(begun, delta(finish="stop", index=1), made=made)[0].endswith(DONE)
    with pytest.raises(ProviderError):
        decode(begun, made=made)


@pytest.mark.parametrize(("prompt", "whole"), [(["a", "b"], False), ([[1], [2]], False), ([1, 2], True), ("a", True)])
def test_every_prompt_has_a_choice_that_has_to_finish(prompt: Any, whole: bool) -> None:
    """Several texts, or several lists of tokens; a list of tokens is one."""
    decoder = WIRE.stream(call(document={"prompt": prompt}, stream=True))
    for index, finish in ((0, None), (1, None), (0, "stop")):
        choice = {"index": index, "text": "x", "finish_reason": finish}
        decoder.feed(b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n")
    assert decoder.finished == whole


def test_a_last_event_without_its_blank_line_is_read() -> None:
    """Some servers close the connection in its place."""
    assert decode(delta("a"), delta(finish="stop"), b"data: [DONE]")[0].endswith(DONE)


def test_usage_is_read_and_taken_out_when_the_caller_did_not_ask() -> None:
    """We asked for it, so the caller does not see it."""
    out, usage = decode(delta("a"), delta(finish="stop"), USAGE_CHUNK, DONE)
    assert out == delta("a") + delta(finish="stop") + DONE
    assert usage == Usage(input_tokens=10, output_tokens=5, source="provider")


def test_usage_beside_choices_is_taken_out_and_the_choices_stay() -> None:
    """OpenRouter sends usage together with the finish reason."""
    out, usage = decode(delta(finish="stop", usage=USAGE), DONE)
    assert out == delta(finish="stop") + DONE
    assert usage.input_tokens == 10


@pytest.mark.parametrize("wants", [True, False])
def test_null_usage_goes_with_the_rest(wants: bool) -> None:
    """OpenAI writes `usage: null` into each chunk when usage was asked for."""
    out, _ = decode(delta("a", usage=None), DONE, made=call(stream=True, wants_usage=wants))
    assert out == delta("a", **({"usage": None} if wants else {})) + DONE


def test_a_caller_who_asked_gets_usage_with_its_cost() -> None:
    """The last chunk tells what the call costs."""
    made = call(stream=True, wants_usage=True, pricing=priced)
    out, _ = decode(delta(finish="stop"), USAGE_CHUNK, DONE, made=made)
    assert events(out)[-1]["usage"] == {**USAGE, "cost": 0.00002}


def test_the_last_of_several_usages_counts() -> None:
    """Perplexity's are cumulative."""
    later = {"prompt_tokens": 10, "completion_tokens": 50}
    assert decode(delta("a", usage=USAGE), delta(finish="stop", usage=later))[1].output_tokens == 50


@pytest.mark.parametrize(
    "chunk",
    [
        b"data: " + orjson.dumps({"choices": [{"index": 0, "finish_reason": "stop", "usage": USAGE}]}) + b"\n\n",
        delta(finish="stop", x_groq={"id": "r", "usage": USAGE}),
    ],
)
def test_usage_is_found_where_providers_hide_it(chunk: bytes) -> None:
    """Moonshot puts it into the choice, Groq into `x_groq`."""
    assert decode(chunk)[1].output_tokens == 5


def test_text_that_looks_like_a_key_is_text() -> None:
    """Words in an answer are never mistaken for the answer's own fields."""
    text = 'say ,"usage":null and "error":1 and "finish_reason":"stop" [DONE]'
    out, _ = decode(delta(text), DONE)
    assert events(out)[0]["choices"][0]["delta"]["content"] == text


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (b'data: {"error":{"message":"boom"}}\n\n', Kind.FAILED),
        (b'data: {"error":"boom"}\n\n', Kind.FAILED),
        (b'event: error\ndata: {"message":"boom","type":"overloaded_error"}\n\n', Kind.OVERLOADED),
        (b"event: error\ndata: boom\n\n", Kind.FAILED),
        (delta("", finish="error", error={"code": "server_error", "message": "boom"}), Kind.FAILED),
        (delta("", error={"code": 400, "message": "boom: Token limit reached"}), Kind.CONTEXT_LENGTH),
        (b'data: {"error":{"message":"boom","status_code":429}}\n\n', Kind.RATE_LIMITED),
    ],
)
def test_an_error_in_a_stream_is_raised_after_what_came_before_it(bad: bytes, kind: Kind) -> None:
    """The good bytes are given out, then the next call raises."""
    decoder = WIRE.stream(call(stream=True))
    assert decoder.feed(delta("a") + bad + delta("b")) == delta("a")
    with pytest.raises(ProviderError, match="boom") as caught:
        decoder.feed(b"")
    assert caught.value.kind is kind
    with pytest.raises(ProviderError, match="boom"):
        decoder.close()


@pytest.mark.parametrize("bad", [b"data: {broken}\n\ndata: x\n\n", b"data: 5\n\n", b"data: [1]\n\n"])
def test_an_event_that_is_no_json_object_is_broken(bad: bytes) -> None:
    """What cannot be understood is not passed on as if it were."""
    with pytest.raises(ProviderError) as caught:
        decode(bad + delta("a", finish="stop"))
    assert caught.value.kind is Kind.BROKEN


PIECES = st.lists(
    st.sampled_from(
        [
            delta("a"),
            delta("ü €\n"),
            delta("b", usage=None),
            delta("c", usage=USAGE),
            delta(finish="stop"),
            delta(finish=""),
            delta("second", index=1),
            USAGE_CHUNK,
            DONE,
            b": ping\n\n",
            b"\n",
            b'data:{"choices":[]}\r\n\r\n',
            b'event: x\ndata: {"choices":\ndata: []}\n\n',
            b'data: {"error":{"message":"boom"}}\n\n',
            b"data: \n\n",
            b"\xef\xbb\xbf",
        ]
    ),
    max_size=12,
)


def run(pieces: list[bytes], made: Call) -> tuple[bytes, str, Usage]:
    """All bytes that came out, the error at the end, and the usage."""
    decoder = WIRE.stream(made)
    out = b""
    try:
        for piece in pieces:
            out += decoder.feed(piece)
        out += decoder.close()
    except ProviderError as error:
        return out, error.message, decoder.usage
    return out, "", decoder.usage


@CALM
@given(PIECES, st.booleans(), st.sampled_from([1, 2]), st.data())
def test_chunking_never_changes_a_byte(parts: list[bytes], wants: bool, n: int, data: st.DataObject) -> None:
    """The same stream gives the same bytes, usage and error, wherever it is cut."""
    made = call(document={**DOCUMENT, "n": n}, stream=True, wants_usage=wants, pricing=priced)
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert run(pieces, made) == run([stream], made) == run(parts, made)


# --- error ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"error":{"message":"bad","param":"stop"}}', Kind.REJECTED),
        (422, b'{"object":"error","message":{"detail":[{"msg":"Extra inputs"}]}}', Kind.REJECTED),
        (413, b"", Kind.REJECTED),
        (400, b'{"error":{"message":"x","code":"context_length_exceeded"}}', Kind.CONTEXT_LENGTH),
        (400, b'{"error":{"message":"This model\'s maximum context length is 8"}}', Kind.CONTEXT_LENGTH),
        (400, b'{"error":{"message":"The total length of all messages is too long."}}', Kind.CONTEXT_LENGTH),
        (400, b'{"error":{"message":"m","type":"too_many_prompt_tokens"}}', Kind.CONTEXT_LENGTH),
        (400, b'{"code":"invalid","error":"Incorrect API key provided: x***y"}', Kind.CREDENTIALS),
        (401, b'{"detail":"Invalid API Key"}', Kind.CREDENTIALS),
        (402, b'{"error":{"message":"Insufficient Balance"}}', Kind.QUOTA),
        (403, b'{"error":{"message":"Forbidden"}}', Kind.CREDENTIALS),
        (403, b'{"error":{"message":"Your input was flagged","metadata":{"reasons":["x"]}}}', Kind.CONTENT_FILTERED),
        (404, b'{"error":"Specified model not found"}', Kind.NOT_FOUND),
        (408, b"", Kind.TIMEOUT),
        (409, b"", Kind.REJECTED),
        (429, b'{"error":{"code":"rate_limit_exceeded"}}', Kind.RATE_LIMITED),
        (429, b'{"error":{"code":"insufficient_quota"}}', Kind.QUOTA),
        (429, b'{"error":{"code":"1113","message":"Insufficient balance or no resource package."}}', Kind.QUOTA),
        (500, b"", Kind.FAILED),
        (502, b"<html><h1>Bad Gateway</h1></html>", Kind.FAILED),
        (503, b'[{"error":{"code":503,"message":"overloaded"}}]', Kind.OVERLOADED),
        (504, b"", Kind.TIMEOUT),
        (529, b'{"error":{"type":"overloaded_error"}}', Kind.OVERLOADED),
        (302, b"", Kind.BROKEN),
    ],
)
def test_each_refusal_has_its_meaning(status: int, body: bytes, kind: Kind) -> None:
    """Status first, then the type and code, then the words."""
    error = WIRE.error(status, {}, body)
    assert (error.kind, error.status) == (kind, status)


def test_a_throttle_that_is_worded_as_an_empty_account_is_a_throttle_where_the_row_says_so() -> None:
    """DashScope's per-minute limit is to be retried; OpenAI's empty account is not."""
    body = b'{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}'
    assert OpenAIWire(throttles_as_quota=True).error(429, {}, body).kind is Kind.RATE_LIMITED


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"m"}}', "m"),
        (b'{"error":"m"}', "m"),
        (b'{"message":"m"}', "m"),
        (b'{"detail":"m"}', "m"),
        (b'{"detail":[{"msg":"m"},{"msg":"n"}]}', "m; n"),
        (b'[{"error":{"message":"m"}}]', "m"),
        (b'{"object":"error","message":{"detail":[{"msg":"m"}]}}', "m"),
        (b"<html><style>a{}</style><body><h1>m</h1> &amp; n</body></html>", "m & n"),
        (b"plain  text\n", "plain text"),
        (b"", "The provider answered with status 400."),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'{"error":{"message":"' + b"x" * 9000 + b'"}}', "x" * 500),
    ],
)
def test_the_message_is_found_in_any_form(body: bytes, message: str) -> None:
    """Error bodies come as objects, lists, texts and pages."""
    assert WIRE.error(400, {}, body).message == message


def test_what_is_kept_of_an_error_is_bounded() -> None:
    """A page of megabytes does not travel into log lines."""
    error = WIRE.error(400, {}, b'{"error":{"message":"m","more":"' + b"x" * 100_000 + b'"}}')
    assert len(error.raw) <= 2000


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "999999999"}, 3600.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_the_time_to_wait_is_read_and_bounded(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds, and nothing that a provider could block us with."""
    assert WIRE.error(429, headers, b"").retry_after == seconds


def test_the_time_to_wait_may_be_a_date() -> None:
    """`Retry-After` may be an HTTP date."""
    waiting = WIRE.error(429, {"retry-after": formatdate(time.time() + 30, usegmt=True)}, b"").retry_after
    assert waiting is not None
    assert 25 < waiting <= 30
