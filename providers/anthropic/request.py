"""Why: each field of OpenAI's request has its place, its equal, a stated harmlessness, or a refusal by name.

Harmless, and dropped: hints that change no answer (`prediction`, `prompt_cache_key`, `prompt_cache_retention`,
`metadata` but its `user_id`, a schema's name) and what the gateway sees to itself (`stream_options`). A temperature
over 1 does not exist there. `max_tokens` must be said there: without one it is the model's own limit.
`response_format` is held to its schema where the model can be; `json_object` is asked for in words on models that
cannot be forced to call a tool.

Sources: https://platform.claude.com/docs/en/api/messages/create, .../build-with-claude/structured-outputs
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from providers.canonical import check, closed, most_tokens
from providers.contract import Call
from providers.refusal import Tolerance, a_list, a_string, an_object, refused

from .conversation import conversation
from .models import Model, model_of
from .parts import Block
from .thinking import thinking_of
from .tools import choice_of, tools_of, web_search_of, with_json_tool

NAME = "anthropic"

_FIELDS = {
    "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "temperature",
    "top_p", "top_k", "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort",
    "reasoning", "thinking", "user", "safety_identifier", "metadata", "service_tier", "cache_control", NAME,
    "prediction", "prompt_cache_key", "prompt_cache_retention", "web_search_options",
}  # fmt: skip
_DEFAULTS: dict[str, Any] = {
    "n": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logprobs": False,
    "top_logprobs": 0,
    "store": False,
    "modalities": ["text"],
    "verbosity": "medium",
    "function_call": "auto",
}
"""Values that ask for nothing."""

_BETA = re.compile(r"[A-Za-z0-9._-]{1,100}")
_TIERS = {"auto": None, "default": "standard_only", "standard_only": "standard_only"}
_ANY_OBJECT = {"type": "object", "additionalProperties": True}
_IN_WORDS = {"type": "text", "text": "Answer with one JSON object and nothing else: no prose, no code fence."}


@dataclass(frozen=True, slots=True)
class _Format:
    """How the answer is to be held to JSON: by `output_config`, by a tool that must be called, or by words."""

    schema: Any = None
    native: bool = False
    in_words: bool = False
    by_tool: bool = False


def body_of(call: Call) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The request's body, and the betas it needs. Raises `ProviderError` naming what cannot be expressed."""
    own, tolerance = _own(call.document)
    betas = [_beta(each) for each in a_list(own.pop("betas", None) or [], "anthropic.betas")]
    check(call.document, _FIELDS, _DEFAULTS, tolerance)
    model = model_of(call.model)
    system, turns = conversation(call.document.get("messages"), tolerance, midway=model.midway)
    body: dict[str, Any] = {"model": call.model, "max_tokens": _most(call.document, model), "messages": turns}
    body.update(_sampling(call.document, tolerance))
    body.update(_account(call.document, tolerance))
    body.update(_shape(call, model, body["max_tokens"], system, tolerance))
    if call.stream:
        body["stream"] = True
    return _merged(body, own), tuple(betas)


def answers_by_tool(call: Call) -> bool:
    """Whether this call's answer comes as arguments of `JSON_TOOL`."""
    return _format(call.document, model_of(call.model), Tolerance(NAME, lenient=True)).by_tool


def _own(document: Mapping[str, Any]) -> tuple[dict[str, Any], Tolerance]:
    own = dict(an_object(document.get(NAME) or {}, NAME))
    for name in ("model", "stream"):
        if name in own:
            raise refused(f"{NAME}.{name}", "is what the call is routed, limited and billed by: set it outside.")
    return own, Tolerance(NAME, own.pop("lenient", False) is True)


def _beta(name: Any) -> str:
    """One beta's name; it becomes part of a header."""
    if not _BETA.fullmatch(a_string(name, "anthropic.betas")):
        raise refused("anthropic.betas", "must be names of betas.")
    return str(name)


def _merged(body: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`output_config` holds an effort and a format, each with a field of OpenAI: it is merged, not replaced."""
    if isinstance(theirs := own.get("output_config"), dict) and "output_config" in body:
        own = {**own, "output_config": {**body["output_config"], **theirs}}
    return {**body, **own}


def _most(document: Mapping[str, Any], model: Model) -> int:
    if (most := most_tokens(document)) is not None:
        return most
    thinking = document.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    return max(model.max_tokens, budget + 4096 if type(budget) is int and model.max_tokens <= budget else 0)


def _sampling(document: Mapping[str, Any], tolerance: Tolerance) -> Block:
    found = {name: document[name] for name in ("top_p", "top_k") if document.get(name) is not None}
    temperature = document.get("temperature")
    if isinstance(temperature, int | float) and temperature > 1:
        tolerance.cannot("temperature", "goes from 0 to 1 there.")
        temperature = 1
    if temperature is not None:
        found["temperature"] = temperature
    stop = document.get("stop")
    if stop:
        found["stop_sequences"] = [stop] if isinstance(stop, str) else a_list(stop, "stop")
    return found


def _account(document: Mapping[str, Any], tolerance: Tolerance) -> Block:
    """Who asks, at which tier, and what of it is to be cached."""
    found: Block = {}
    metadata = document.get("metadata")
    user = document.get("safety_identifier") or document.get("user")
    user = user or (metadata.get("user_id") if isinstance(metadata, dict) else None)
    if user:
        found["metadata"] = {"user_id": user}
    if (tier := document.get("service_tier")) is not None:
        if not isinstance(tier, str) or tier not in _TIERS:
            tolerance.cannot("service_tier", "must be auto or default.")
        elif _TIERS[tier]:
            found["service_tier"] = _TIERS[tier]
    if document.get("cache_control"):
        found["cache_control"] = document["cache_control"]
    return found


def _shape(call: Call, model: Model, most: int, system: list[Block], tolerance: Tolerance) -> Block:
    """What the answer is to be like: thinking, format, tools, and the system text."""
    document = call.document
    thinking, effort = thinking_of(document, model, most, tolerance)
    asked = _format(document, model, tolerance)
    tools = [*tools_of(document.get("tools"), tolerance), *web_search_of(document, tolerance)]
    choice = choice_of(document, tools, tolerance)
    if asked.by_tool:
        tools, choice = with_json_tool(tools, choice, asked.schema)
    if asked.in_words:
        system = [*system, _IN_WORDS]
    config = {
        "effort": effort,
        "format": {"type": "json_schema", "schema": asked.schema} if asked.native else None,
    }
    found = {
        "system": system,
        "thinking": thinking,
        "tools": tools,
        "tool_choice": choice,
        "output_config": {name: value for name, value in config.items() if value},
    }
    return {name: value for name, value in found.items() if value}


def _format(document: Mapping[str, Any], model: Model, tolerance: Tolerance) -> _Format:
    asked = document.get("response_format")
    if asked is None:
        return _Format()
    kind = an_object(asked, "response_format").get("type")
    if kind == "json_schema":
        schema = _schema(an_object(asked.get("json_schema"), "response_format.json_schema"))
        return _Format(schema, native=model.schemas, by_tool=not model.schemas)
    if kind == "json_object":
        in_words = model.adaptive or document.get("reasoning_effort") or document.get("thinking")
        return _Format(in_words=True) if in_words else _Format(_ANY_OBJECT, by_tool=True)
    if kind != "text":
        tolerance.cannot("response_format", "must be text, json_object or json_schema.")
    return _Format()


def _schema(asked: Mapping[str, Any]) -> Any:
    """The schema, with the format's description where it has none. Objects must be closed there, so they are.

    An answer that has no further fields fits the caller's schema all the same.
    """
    schema = closed(an_object(asked.get("schema"), "response_format.json_schema.schema"))
    if isinstance(asked.get("description"), str) and "description" not in schema:
        schema["description"] = asked["description"]
    return schema
