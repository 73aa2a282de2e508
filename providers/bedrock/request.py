"""Why: each field of OpenAI's request has its place, its equal, a stated harmlessness, or a refusal by name.

Harmless, and dropped: hints that change no answer (`user`, `safety_identifier`, `prediction`, `prompt_cache_key`,
`prompt_cache_retention`) and what the gateway sees to itself (`stream_options`). `metadata` becomes
`requestMetadata`, by which AWS filters its logs. A schema's objects are closed, as they must be there; `json_object`
is asked for in words. `top_k`, penalties and `seed` go to the houses that have them, under the names they have there.

A caller's own object in S3 (`s3Location`) is refused unless the wire is told otherwise: Bedrock would read it with
the gateway's AWS identity, and not the caller's.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html, .../model-parameters.html
"""

from collections.abc import Iterator, Mapping
from typing import Any

from providers.canonical import check, closed, most_tokens
from providers.contract import Call
from providers.document import dumps
from providers.refusal import Tolerance, a_list, a_string, an_object, refused

from .answer import call_of
from .conversation import conversation
from .models import Model, model_of
from .parts import FILES, Block, Files
from .thinking import thinking_of
from .tools import tool_config

NAME = "bedrock"

_FIELDS = {
    "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "temperature",
    "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty", "tools", "tool_choice", "parallel_tool_calls",
    "response_format", "reasoning_effort", "reasoning", "thinking", "metadata", "service_tier", NAME,
    "user", "safety_identifier", "prediction", "prompt_cache_key", "prompt_cache_retention",
}  # fmt: skip
_DEFAULTS: dict[str, Any] = {
    "n": 1,
    "logprobs": False,
    "top_logprobs": 0,
    "store": False,
    "modalities": ["text"],
    "verbosity": "medium",
    "function_call": "auto",
}
"""Values that ask for nothing."""

_ELSEWHERE = {
    "cohere": {"top_k": "k", "seed": "seed", "presence_penalty": "presence_penalty",
               "frequency_penalty": "frequency_penalty"},
    "ai21": {"presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty"},
    "openai": {},
    "meta": {},
}  # fmt: skip
"""What these houses call what Converse has no field for; of all others only `top_k` is known."""

_TIERS = ("default", "flex", "priority", "reserved")
_MERGED = {"inferenceConfig", "additionalModelRequestFields", "toolConfig", "outputConfig", "requestMetadata"}
_IN_WORDS = {"text": "Answer with one JSON object and nothing else: no prose, no code fence."}


def body_of(call: Call, s3: bool) -> tuple[dict[str, Any], Mapping[str, str]]:
    """The request's body, and the URLs it needs the files of, each with its field.

    Raises `ProviderError` naming what cannot be expressed. `s3`: whether objects in S3 may be named.
    """
    document = call.document
    own, tolerance = _own(document)
    check(document, _FIELDS, _DEFAULTS, tolerance)
    model = model_of(call.model)
    files = Files(tolerance, call.fetched or {})
    system, turns = conversation(document.get("messages"), model, files)
    body: dict[str, Any] = {"messages": turns}
    body.update(_inference(document, tolerance))
    body.update(_shape(document, model, system, _called(turns), tolerance))
    body.update(_account(document, tolerance))
    body = _merged(body, own)
    if not s3 and any("s3Location" in source for source in _sources(body.get("messages"))):
        raise refused("messages", "objects in S3 may not be named here; send the bytes.")
    return body, files.missing


def holds_files(document: Mapping[str, Any]) -> bool:
    """Whether a request may need files at all; nearly none does."""
    messages = document.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") in FILES:
                return True
    return False


def _own(document: Mapping[str, Any]) -> tuple[dict[str, Any], Tolerance]:
    own = dict(an_object(document.get(NAME) or {}, NAME))
    if "modelId" in own:
        raise refused(f"{NAME}.modelId", "is what the call is routed, limited and billed by: set it outside.")
    return own, Tolerance(NAME, own.pop("lenient", False) is True)


def _merged(body: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The objects of which OpenAI's fields make a part are merged, and all else is replaced."""
    body = {**body}
    for name, value in own.items():
        if name in _MERGED and isinstance(value, dict) and isinstance(body.get(name), dict):
            body[name] = {**body[name], **value}
        else:
            body[name] = value
    return body


def _inference(document: Mapping[str, Any], tolerance: Tolerance) -> Block:
    temperature = document.get("temperature")
    if isinstance(temperature, int | float) and temperature > 1:
        tolerance.cannot("temperature", "goes from 0 to 1 there.")
        temperature = 1
    stop = document.get("stop") or None
    found = {
        "maxTokens": most_tokens(document),
        "temperature": temperature,
        "topP": document.get("top_p"),
        "stopSequences": [stop] if isinstance(stop, str) else stop and a_list(stop, "stop"),
    }
    config = {name: value for name, value in found.items() if value is not None}
    return {"inferenceConfig": config} if config else {}


def _shape(
    document: Mapping[str, Any], model: Model, system: list[Block], used: list[str], tolerance: Tolerance
) -> Block:
    """What the answer is to be like: thinking, format, tools, and the system text."""
    fields, effort = thinking_of(document, model, most_tokens(document), tolerance)
    fields = {**_sampling(document, model, tolerance), **fields}
    tools, choice = tool_config(document, model, used, tolerance)
    if choice:
        fields["tool_choice"] = choice
    text_format, in_words = _format(document.get("response_format"), tolerance)
    config = {"textFormat": text_format, "effort": effort}
    found = {
        "system": [*system, _IN_WORDS] if in_words else system,
        "toolConfig": tools,
        "outputConfig": {name: value for name, value in config.items() if value},
        "additionalModelRequestFields": fields,
    }
    return {name: value for name, value in found.items() if value}


def _sampling(document: Mapping[str, Any], model: Model, tolerance: Tolerance) -> Block:
    names = _ELSEWHERE.get(model.house, {"top_k": "top_k"})
    found: Block = {}
    for name in ("top_k", "seed", "presence_penalty", "frequency_penalty"):
        value = document.get(name)
        if value is None or (value == 0 and name.endswith("_penalty")):
            continue
        if name == "top_k" and model.house == "amazon":
            found["inferenceConfig"] = {"topK": value}
        elif name in names:
            found[names[name]] = value
        else:
            tolerance.cannot(name, "has no place in a request to this model.")
    return found


def _format(asked: Any, tolerance: Tolerance) -> tuple[Block | None, bool]:
    """`outputConfig.textFormat`, and whether JSON is to be asked for in words."""
    if asked is None:
        return None, False
    match an_object(asked, "response_format").get("type"):
        case "text":
            return None, False
        case "json_object":
            return None, True
        case "json_schema":
            return _schema(an_object(asked.get("json_schema"), "response_format.json_schema")), False
    tolerance.cannot("response_format", "must be text, json_object or json_schema.")
    return None, False


def _schema(asked: Mapping[str, Any]) -> Block:
    schema = closed(an_object(asked.get("schema"), "response_format.json_schema.schema"))
    described = {name: asked[name] for name in ("name", "description") if isinstance(asked.get(name), str)}
    structure = {"jsonSchema": {"schema": dumps(schema).decode(), **described}}
    return {"type": "json_schema", "structure": structure}


def _account(document: Mapping[str, Any], tolerance: Tolerance) -> Block:
    found: Block = {}
    if metadata := document.get("metadata"):
        values = an_object(metadata, "metadata").items()
        found["requestMetadata"] = {name: a_string(value, f"metadata.{name}") for name, value in values}
    tier = document.get("service_tier")
    if tier in _TIERS:
        found["serviceTier"] = {"type": tier}
    elif tier not in (None, "auto"):
        tolerance.cannot("service_tier", f"must be auto, {', '.join(_TIERS)}.")
    return found


def _called(turns: list[dict[str, Any]]) -> list[str]:
    """The names of the caller's tools that were called, each once."""
    uses = [call_of(block) for turn in turns for block in turn["content"]]
    return list(dict.fromkeys(use["name"] for use in uses if use and isinstance(use.get("name"), str)))


def _sources(messages: Any) -> Iterator[Mapping[str, Any]]:
    """Where the files of all messages come from, those within the results of tools among them."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for block in content if isinstance(content, list) else ():
            yield from _of_block(block)
            result = block.get("toolResult") if isinstance(block, dict) else None
            inside = result.get("content") if isinstance(result, dict) else None
            for each in inside if isinstance(inside, list) else ():
                yield from _of_block(each)


def _of_block(block: Any) -> Iterator[Mapping[str, Any]]:
    for value in block.values() if isinstance(block, dict) else ():
        if isinstance(value, dict) and isinstance(source := value.get("source"), dict):
            yield source
