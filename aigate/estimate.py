"""What was consumed where the provider does not say: after a disconnect, after a break, or because it never does.

Only what reached us is counted: nothing delivered, nothing estimated. Of a long answer a sample is kept and the rest
counted in proportion to its bytes, so an open stream holds a bounded amount. Tokens are counted by a real tokenizer
(OpenAI's o200k, which stands in for every model; others split text 10 to 20 % differently) in a process of its own:
it takes 150 MB and seconds for a long prompt, and the event loop must not feel either. Where it is not installed or
does not answer in time, four bytes of UTF-8 are one token. The ledger's row says `estimated` in both cases.
"""

import asyncio
import math
import os
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any

import orjson
from loguru import logger

from middleware.exchange import Exchange, Usage
from providers.contract import Usage as TokenUsage

SAMPLE = 16 * 1024
"""Bytes of a delivered answer that are kept to be counted."""
LONGEST_TEXT = 1024 * 1024
"""Characters that are counted by the tokenizer; the rest in proportion."""
PATIENCE = 5.0
"""Seconds that the tokenizer may take, its start included."""
BYTES_PER_TOKEN = 4
LONGEST_PROMPT = 1_000_000
"""Tokens that a prompt is expected to have at most: the bytes of an image are no text."""
BOUNDS = ("max_tokens", "max_completion_tokens")
"""Fields that bound an answer's tokens; the last one counts."""
USUAL_ANSWER = 1000
"""Tokens that are expected of an answer whose length the request does not bound."""


class Delivered:
    """What of an answer has been passed on: all of its size, and its beginning."""

    __slots__ = ("_sample", "_sampled", "size")

    def __init__(self, *data: bytes) -> None:
        self.size = 0
        self._sampled = 0
        self._sample: list[bytes] = []
        for part in data:
            self.note(part)

    def note(self, data: bytes) -> None:
        self.size += len(data)
        if self._sampled < SAMPLE:
            self._sample.append(data)
            self._sampled += len(data)

    def text(self) -> str:
        """What the model wrote in the sample: content, reasoning and tool calls."""
        parts: list[str] = []
        sample = b"".join(self._sample)
        for line in [sample] if sample.lstrip().startswith(b"{") else sample.split(b"\n"):
            data = line.removeprefix(b"data: ")
            if data.startswith(b"{"):
                _collect(data, parts)
        return "".join(parts)

    @property
    def proportion(self) -> float:
        """By how much the whole is larger than the sample."""
        return self.size / self._sampled if self._sampled else 0.0


class Estimator:
    """Fills in a usage by what was sent and delivered. The tokenizer's process starts when it is first needed."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._broken = False

    async def fill(self, usage: Usage, document: Mapping[str, Any], delivered: Delivered) -> None:
        """Estimate `usage`, first by the rule of thumb and then, if it answers in time, by the tokenizer.

        What the provider said of the prompt is kept; what it said of the answer is the least that there was.
        """
        if not delivered.size:
            return
        prompt, answer = prompt_text(document), delivered.text()
        usage.source, told = "estimated", (usage.input_tokens, usage.output_tokens)
        _write(usage, told, [rule_of_thumb(prompt), rule_of_thumb(answer)], delivered)
        counts = await self._count([prompt, answer])
        if counts is not None:
            _write(usage, told, counts, delivered)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _count(self, texts: list[str]) -> list[int] | None:
        if self._broken:
            return None
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_end_with_parent)
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.get_running_loop().run_in_executor(self._pool, count_tokens, texts)
        except TimeoutError:
            logger.warning("the tokenizer takes longer than {} s; the rule of thumb stands in", PATIENCE)
        except (ImportError, AttributeError, BrokenExecutor) as error:
            self._broken = True
            logger.warning("there is no tokenizer, the rule of thumb stands in: {!r}", error)
        return None


def _end_with_parent() -> None:
    """A gateway that is killed tells nobody: its tokenizer would wait for work for ever."""
    Thread(target=_exit_after_parent, name="end with parent", daemon=True).start()


def _exit_after_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _write(usage: Usage, told: tuple[int, int], counts: list[int], delivered: Delivered) -> None:
    usage.input_tokens = told[0] or counts[0]
    usage.output_tokens = max(told[1], math.ceil(counts[1] * delivered.proportion))


def count_tokens(texts: list[str]) -> list[int]:
    """The tokens of each text, the end of a very long one in proportion. Raises `ImportError` without tokenizer."""
    from bpe_openai import get_encoding

    encoding = get_encoding("o200k_base")
    counts = []
    for text in texts:
        part = text[:LONGEST_TEXT]
        pieces = (part[start : start + SAMPLE] for start in range(0, len(part), SAMPLE))
        count = sum(len(encoding.encode(piece, disallowed_special=())) for piece in pieces)
        counts.append(math.ceil(count * len(text) / len(part)) if part else 0)
    return counts


def expected_usage(exchange: Exchange) -> Usage:
    """What a request is likely to use, before it runs: its bytes by the rule of thumb, and the answer it allows."""
    document, prompt = exchange.document, len(exchange.body) // BYTES_PER_TOKEN
    if prompt > LONGEST_PROMPT:
        prompt = LONGEST_PROMPT
    allowed = USUAL_ANSWER
    for name in BOUNDS:
        if name in document and isinstance(bound := document[name], int) and bound > 0:
            allowed = bound
    return TokenUsage(prompt, 0, 0, allowed, 0, 0, 0, "estimated")


def rule_of_thumb(text: str) -> int:
    """Four bytes of UTF-8 are one token, and no text is none."""
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def prompt_text(document: Mapping[str, Any]) -> str:
    """The text of a request: its messages and tools, without images and other data."""
    parts: list[str] = []
    for message in document.get("messages") or ():
        _collect_message(message, parts)
    for name in ("prompt", "input"):
        texts = document.get(name) or ()
        parts += [text for text in ([texts] if isinstance(texts, str) else texts) if isinstance(text, str)]
    tools = document.get("tools")
    if tools:
        parts.append(orjson.dumps(tools).decode())
    return "\n".join(parts)


def _collect(data: bytes, parts: list[str]) -> None:
    """The words of one chunk or answer; of what cannot be read as one, all of it."""
    try:
        for choice in orjson.loads(data).get("choices") or ():
            _collect_message(choice.get("delta") or choice.get("message") or {"content": choice.get("text")}, parts)
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        parts.append(data.decode("utf-8", "replace"))


def _collect_message(message: Mapping[str, Any], parts: list[str]) -> None:
    content = message.get("content")
    if isinstance(content, str):
        parts.append(content)
    elif isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        parts += [text for text in texts if isinstance(text, str)]
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str):
            parts.append(message[name])
            break
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            parts += [text for key in ("name", "arguments") if isinstance(text := function.get(key), str)]
