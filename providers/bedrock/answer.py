"""Why: an answer is a list of blocks there, and a text with things beside it here; whole or streamed, told alike.

Reasoning is told as `reasoning_content`, and whole with its signature in `reasoning_details`, which a tool loop gives
back. Citations ride along as `citations`, those of web pages become annotations, too; pictures are `images`, as
OpenRouter has them. An answer whose blocks the canonical fields cannot be put together from again (signed reasoning
between texts or calls, citations, pictures, what the provider's own tools did) carries all of them in the message's
`bedrock.content`, but for what a request may not hold. An answer has no id there, and so none here.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_ResponseSyntax,
https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html (input tokens exclude the cached ones)
"""

from collections.abc import Mapping
from typing import Any

from providers.contract import Pricing, Usage
from providers.document import dumps
from providers.usage import write_cost

from .conversation import FORMAT
from .parts import Block

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "refusal": "content_filter",
}
_EXTRAS = ("trace", "additionalModelResponseFields", "performanceConfig", "serviceTier")
_USAGE_EXTRAS = {"serverToolUsage": "server_tool_use", "cacheDetails": "cache_details"}
_MOST = 10**15


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def blocks_of(value: Any) -> list[Block]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def message_of(blocks: list[Block], claude: bool) -> dict[str, Any]:
    """The assistant's message. `claude`: whether a Claude wrote it."""
    calls = [call for block in blocks if (call := call_of(block))]
    written = "".join(text_of(block) for block in blocks)
    message: dict[str, Any] = {"role": "assistant", "content": written or (None if calls else "")}
    if reasoning := "".join(reasoning_of(block) for block in blocks):
        message["reasoning_content"] = reasoning
    if details := [detail for block in blocks if (detail := reasoning_detail(block, claude))]:
        message["reasoning_details"] = [{**detail, "index": index} for index, detail in enumerate(details)]
    if calls:
        message["tool_calls"] = [tool_call(call, dumps(mapping(call.get("input"))).decode()) for call in calls]
    if citations := [each for block in blocks for each in citations_of(block)]:
        message["citations"] = citations
    if annotations := _annotations(blocks):
        message["annotations"] = annotations
    if images := [image for block in blocks if (image := image_of(block))]:
        message["images"] = images
    if carried := carried_of(blocks):
        message["bedrock"] = carried
    return message


def text_of(block: Mapping[str, Any]) -> str:
    """What it says to the user, where that is cited, too."""
    cited = blocks_of(mapping(block.get("citationsContent")).get("content"))
    return text(block.get("text")) + "".join(text(each.get("text")) for each in cited)


def citations_of(block: Mapping[str, Any]) -> list[Block]:
    return blocks_of(mapping(block.get("citationsContent")).get("citations"))


def annotations_of(block: Mapping[str, Any], start: int) -> list[dict[str, Any]]:
    """The web pages that a block cites. `start`: characters of text before it."""
    end = start + len(text_of(block))
    found = []
    for each in citations_of(block):
        if url := text(mapping(mapping(each.get("location")).get("web")).get("url")):
            cited = {"url": url, "title": text(each.get("title")), "start_index": start, "end_index": end}
            found.append({"type": "url_citation", "url_citation": cited})
    return found


def image_of(block: Mapping[str, Any]) -> Block | None:
    """A picture as OpenRouter tells it; None for any other block."""
    image = mapping(block.get("image"))
    if not (data := text(mapping(image.get("source")).get("bytes"))):
        return None
    return {"type": "image_url", "image_url": {"url": f"data:image/{text(image.get('format'))};base64,{data}"}}


def call_of(block: Mapping[str, Any]) -> Block | None:
    """The call of a caller's tool; one of the provider's own is none."""
    call = mapping(block.get("toolUse"))
    return call if call and call.get("type") != "server_tool_use" else None


def tool_call(call: Mapping[str, Any], arguments: str) -> dict[str, Any]:
    function = {"name": text(call.get("name")), "arguments": arguments}
    return {"id": text(call.get("toolUseId")), "type": "function", "function": function}


def reasoning_of(block: Mapping[str, Any]) -> str:
    return text(mapping(mapping(block.get("reasoningContent")).get("reasoningText")).get("text"))


def reasoning_detail(block: Mapping[str, Any], claude: bool) -> dict[str, Any] | None:
    """A block of reasoning to be given back, as OpenRouter tells it; None for any other, and for one not signed."""
    content = mapping(block.get("reasoningContent"))
    kind = {"format": FORMAT} if claude else {}
    if redacted := text(content.get("redactedContent")):
        return {"type": "reasoning.encrypted", "data": redacted, **kind}
    found = mapping(content.get("reasoningText"))
    if not (signature := text(found.get("signature"))):
        return None
    return {"type": "reasoning.text", "text": text(found.get("text")), "signature": signature, **kind}


def carried_of(blocks: list[Block]) -> dict[str, Any] | None:
    """All blocks, for a request to give back, where the canonical fields do not hold them."""
    kept = [block for block in blocks if not _is_refused(block)]
    last = 0
    for block in kept:
        this = 0 if "reasoningContent" in block else 1 if "text" in block else 2 if call_of(block) else -1
        if this < last:
            return {"content": kept}
        last = this
    return None


def extras_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a caller asked for that only Bedrock tells, under its name."""
    found = {name: document[name] for name in _EXTRAS if document.get(name)}
    return {"bedrock": found} if found else {}


def finish_of(reason: Any, has_calls: bool) -> str:
    """OpenAI's finish reason; a reason that is not known yet is an end like any other."""
    finish = _FINISH.get(text(reason), "stop")
    return "stop" if finish == "tool_calls" and not has_calls else finish


def read_usage(found: Mapping[str, Any], usage: Usage) -> None:
    """`inputTokens` is there what came neither from the cache nor went into it; how long was thought is not told."""
    usage.cache_read_tokens = _count(found, "cacheReadInputTokens")
    usage.cache_write_tokens = _count(found, "cacheWriteInputTokens")
    usage.input_tokens = _count(found, "inputTokens") + usage.cache_read_tokens + usage.cache_write_tokens
    usage.output_tokens = _count(found, "outputTokens")
    usage.source = "provider"


def usage_object(usage: Usage, extras: Mapping[str, Any], pricing: Pricing | None) -> dict[str, Any]:
    """OpenAI's usage; what `extras`, the provider's, says more than that rides along."""
    told: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
    }
    told.update({ours: extras[name] for name, ours in _USAGE_EXTRAS.items() if extras.get(name)})
    if pricing is not None:
        write_cost(told, usage, pricing)
    return told


def _is_refused(block: Mapping[str, Any]) -> bool:
    """Whether it cannot be given back: reasoning that nobody signed, and an empty text; some models end with one."""
    if "text" in block:
        return not text(block["text"]).strip()
    content = mapping(block.get("reasoningContent"))
    signed = content.get("redactedContent") or mapping(content.get("reasoningText")).get("signature")
    return "reasoningContent" in block and not signed


def _annotations(blocks: list[Block]) -> list[dict[str, Any]]:
    found, start = [], 0
    for block in blocks:
        found += annotations_of(block, start)
        start += len(text_of(block))
    return found


def _count(found: Mapping[str, Any], name: str) -> int:
    value = found.get(name)
    return value if type(value) is int and 0 <= value < _MOST else 0
