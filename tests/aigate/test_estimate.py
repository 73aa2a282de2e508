"""Estimates: only of what was delivered, by a real tokenizer, bounded in memory, honest about what they are."""

import os
import signal
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen

import orjson
import pytest

from aigate.estimate import SAMPLE, Delivered, Estimator, count_tokens, prompt_text, rule_of_thumb
from providers.contract import Usage
from tests.upstream import chunk, sse

DOCUMENT = {"messages": [{"role": "user", "content": "The quick brown fox jumps over the lazy dog."}]}


def delivered(*texts: str) -> Delivered:
    noted = Delivered()
    for event in sse(*(chunk({"content": text}) for text in texts), done=False):
        noted.note(event)
    return noted


async def test_tokens_are_counted_by_the_tokenizer() -> None:
    """Ten words of prompt and two of answer are the tokens that OpenAI's o200k says."""
    estimator, usage = Estimator(), Usage()
    await estimator.fill(usage, DOCUMENT, delivered("Hello", " world"))
    estimator.close()
    assert usage.source == "estimated"
    assert (usage.input_tokens, usage.output_tokens) in {(10, 2), (11, 3)}  # the tokenizer, or the rule of thumb


GATEWAY = """
import asyncio
from aigate.estimate import Estimator

async def main():
    estimator = Estimator()
    await estimator._count(["Hello"])
    print(*estimator._pool._processes, flush=True)
    await asyncio.sleep(60)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_the_tokenizer_ends_with_a_gateway_that_is_killed(tmp_path: Path) -> None:
    """150 MB are not left behind by each `kill -9`."""
    script = tmp_path / "gateway.py"
    script.write_text(GATEWAY)
    with Popen([sys.executable, script], stdout=PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()}) as gateway:
        assert gateway.stdout is not None
        tokenizer = int(gateway.stdout.readline())
        gateway.send_signal(signal.SIGKILL)
        gateway.wait()
        until = time.monotonic() + 5
        while runs(tokenizer) and time.monotonic() < until:
            time.sleep(0.02)
        assert not runs(tokenizer)


def runs(process: int) -> bool:
    """Whether a process runs; one that has ended may still wait for somebody to take note of it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_nothing_delivered_is_nothing_consumed() -> None:
    """A prompt is not charged when no answer came."""
    usage = Usage()
    await Estimator().fill(usage, DOCUMENT, Delivered())
    assert (usage.source, usage.input_tokens) == ("none", 0)


def test_tokenizer_agrees_with_published_counts() -> None:
    """`hello world` is two tokens of o200k; an empty text is none; special tokens are text like any other."""
    assert count_tokens(["hello world", "", "<|endoftext|>"])[:2] == [2, 0]


def test_very_long_text_is_counted_in_proportion() -> None:
    """A text over the bound costs no more time, and its count is in proportion."""
    (short, long) = count_tokens(["word " * 100_000, "word " * 1_000_000])
    assert long == pytest.approx(short * 10, rel=0.01)


def test_sample_is_bounded() -> None:
    """Of a long stream a sample is kept; the proportion stands for the rest."""
    noted = delivered(*["some words "] * 2000)
    assert len(noted.text()) < SAMPLE
    assert len(noted.text()) * noted.proportion == pytest.approx(2000 * len("some words "), rel=0.02)


def test_reasoning_and_tool_calls_are_delivered_text() -> None:
    """All that the model wrote counts."""
    noted = Delivered()
    call = {"index": 0, "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    for event in sse(chunk({"reasoning_content": "hm "}), chunk({"tool_calls": [call]}), done=False):
        noted.note(event)
    assert noted.text() == 'hm weather{"city":"Rome"}'


def test_images_are_no_text() -> None:
    """The data of an image part is not counted as words."""
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:" + "A" * 999}},
    ]
    assert prompt_text({"messages": [{"role": "user", "content": content}]}) == "What is it?"


def test_rule_of_thumb() -> None:
    """Four bytes of UTF-8 are one token."""
    assert [rule_of_thumb(text) for text in ("", "a", "abcde", "äöü")] == [0, 1, 2, 2]


def test_whole_answer_is_read_too() -> None:
    """An answer in one piece is delivered text like a stream."""
    noted = Delivered()
    noted.note(orjson.dumps({"choices": [{"message": {"content": "Hello"}}]}))
    assert noted.text() == "Hello"


def test_an_indented_answer_is_read_whole() -> None:
    """White space in a provider's JSON does not hide what it wrote."""
    noted = Delivered()
    noted.note(orjson.dumps({"choices": [{"message": {"content": "Hello"}}]}, option=orjson.OPT_INDENT_2))
    assert noted.text() == "Hello"
