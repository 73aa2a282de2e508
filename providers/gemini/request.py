"""Why: every field of OpenAI's request is either said in Gemini's words or refused by name, and the list stands here.

Requests that were written for Google's own OpenAI layer hold `extra_body.google`, which is understood, too.

Without meaning here, and so dropped: who the user is, OpenAI's own book-keeping and hints for a cache (Gemini's works
by itself). A false `parallel_tool_calls` and OpenAI's other promises that Gemini cannot keep are refused.

A strict tool makes the calls VALIDATED, the mode in which Gemini keeps to the schema. Effort becomes a level of
thinking, or before Gemini 3 the budget that Google's own OpenAI layer gives it, and asks for the thoughts' summaries.
None of it is a budget of 0 everywhere: a model that always thinks refuses that itself.

Sources: https://ai.google.dev/api/generate-content#generationconfig, https://ai.google.dev/gemini-api/docs/openai
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from providers.contract import Call
from providers.refusal import Tolerance, an_object, refused

from .conversation import Conversation
from .media import Media, names_bucket
from .models import has_levels
from .tools import choice_of, tools_of

ESCAPES = ("gemini", "vertex")
"""The fields whose content is merged into the request as it is."""

Document: TypeAlias = dict[str, Any]

_NAMES = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_completion_tokens": "maxOutputTokens",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "seed": "seed",
    "n": "candidateCount",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
"""Fields that only have another name there."""

_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "parallel_tool_calls": (True,),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "verbosity": ("medium",),
    "logit_bias": ({},),
    "tools": ([],),
    "stop": ([],),
}
"""Values that say no more than leaving the field away."""

_HARMLESS = {
    "model",
    "messages",
    "stream",
    "stream_options",
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "cache_control",
    "include_reasoning",
    *ESCAPES,
}

_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576}
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH"}


def translated(call: Call, *, buckets: bool = True) -> tuple[Document, dict[str, str]]:
    """The request's body, and the URLs still to be fetched for it with the field that each stands in.

    Raises `ProviderError` naming what cannot be expressed.
    """
    own = _own(call.document)
    tolerance = Tolerance(ESCAPES[0], own.pop("lenient", False) is True)
    media = Media(call.model, call.fetched or {}, buckets)
    talk = Conversation(call.model, tolerance, media)
    talk.read(call.document.get("messages"))
    body: Document = {"contents": talk.contents}
    if talk.system:
        body["systemInstruction"] = {"parts": talk.system}
    fields = _Fields(call.model, tolerance, body)
    for name, value in call.document.items():
        if value is not None and name not in _HARMLESS and value not in _DEFAULTS.get(name, ()):
            fields.take(name, value)
    _settle_thinking(_thinking_of(body), _thinking_of(own))
    body = _merged(body, own)
    if not buckets and names_bucket(body):
        raise refused(ESCAPES[1], "may not name a bucket: Google would read it as this gateway, not as you.")
    return body, media.missing


def _thinking_of(body: Mapping[str, Any]) -> Document:
    config = body.get("generationConfig")
    thinking = config.get("thinkingConfig") if isinstance(config, dict) else None
    return thinking if isinstance(thinking, dict) else {}


def _settle_thinking(config: Document, later: Mapping[str, Any]) -> None:
    """A level and a budget exclude each other there: what is said later counts."""
    for name, other in (("thinkingLevel", "thinkingBudget"), ("thinkingBudget", "thinkingLevel")):
        if name in later:
            config.pop(other, None)


def _own(document: Mapping[str, Any]) -> Document:
    found: Document = {}
    for name in ESCAPES:
        found = _merged(found, an_object(document.get(name) or {}, name))
    return found


def _merged(body: Document, own: Mapping[str, Any]) -> Document:
    """`own` over `body`: objects into objects, tools beside tools, anything else in its place."""
    merged = dict(body)
    for name, value in own.items():
        ours = merged.get(name)
        if isinstance(ours, dict) and isinstance(value, dict):
            merged[name] = _merged(ours, value)
        elif name == "tools" and isinstance(ours, list) and isinstance(value, list):
            merged[name] = [*ours, *value]
        else:
            merged[name] = value
    return merged


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(each.capitalize() for each in others)


class _Fields:
    """Puts each field of OpenAI's request where it belongs in Gemini's."""

    def __init__(self, model: str, tolerance: Tolerance, body: Document) -> None:
        self._model = model
        self._tolerance = tolerance
        self._body = body
        self._special: dict[str, Callable[[Any], None]] = {
            "stop": self._stop,
            "tools": self._tools,
            "tool_choice": self._tool_choice,
            "web_search_options": self._web_search,
            "response_format": self._response_format,
            "modalities": self._modalities,
            "service_tier": self._tier,
            "audio": self._audio,
            "reasoning_effort": self._effort,
            "reasoning": self._reasoning,
            "thinking": self._thinking,
            "extra_body": self._extra,
        }

    def take(self, name: str, value: Any) -> None:
        if name == "max_tokens":  # the older word: `max_completion_tokens` speaks where both are given
            self._body.setdefault("generationConfig", {}).setdefault("maxOutputTokens", value)
        elif name in _NAMES:
            self._configure(_NAMES[name], value)
        elif name in self._special:
            self._special[name](value)
        else:
            self._tolerance.cannot(name, "cannot be expressed in a request to Gemini.")

    def _configure(self, name: str, value: Any) -> None:
        self._body.setdefault("generationConfig", {})[name] = value

    def _stop(self, value: Any) -> None:
        self._configure("stopSequences", [value] if isinstance(value, str) else value)

    def _tools(self, value: Any) -> None:
        tools, strict = tools_of(value, self._tolerance)
        self._body["tools"] = [*self._body.get("tools", ()), *tools]
        if strict:
            mode = self._body.setdefault("toolConfig", {}).setdefault("functionCallingConfig", {})
            if mode.get("mode", "AUTO") == "AUTO":
                mode["mode"] = "VALIDATED"

    def _tool_choice(self, value: Any) -> None:
        chosen = choice_of(value)
        mode = self._body.setdefault("toolConfig", {}).setdefault("functionCallingConfig", {})
        strict = mode.get("mode") == "VALIDATED" and chosen["mode"] == "AUTO"
        mode.update({**chosen, "mode": "VALIDATED"} if strict else chosen)

    def _web_search(self, value: Any) -> None:
        if an_object(value, "web_search_options"):
            self._tolerance.cannot("web_search_options", "Google's search takes no options: send it empty.")
        self._body["tools"] = [*self._body.get("tools", ()), {"googleSearch": {}}]

    def _response_format(self, value: Any) -> None:
        kind = an_object(value, "response_format").get("type")
        if kind == "text":
            return
        if kind not in ("json_object", "json_schema"):
            raise refused("response_format.type", "must be text, json_object or json_schema.")
        self._configure("responseMimeType", "application/json")
        if kind == "json_schema":
            holder = an_object(value.get("json_schema"), "response_format.json_schema")
            schema = an_object(holder.get("schema") or {}, "response_format.json_schema.schema")
            if schema and holder.get("description"):
                schema = {"description": holder["description"], **schema}
            if schema:
                self._configure("responseJsonSchema", schema)

    def _modalities(self, value: Any) -> None:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise refused("modalities", "must be a list of strings.")
        self._configure("responseModalities", [each.upper() for each in value])

    def _tier(self, value: Any) -> None:
        if value in ("flex", "priority"):
            self._body["serviceTier"] = value
        else:
            self._tolerance.cannot("service_tier", "must be auto, default, flex or priority.")

    def _audio(self, value: Any) -> None:
        audio = an_object(value, "audio")
        if audio.get("format") not in (None, "pcm16"):
            self._tolerance.cannot("audio.format", "Gemini speaks pcm16 only.")
        voice = audio.get("voice")
        if isinstance(voice, str):
            self._configure("speechConfig", {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": voice}}})

    def _effort(self, value: Any, place: str = "reasoning_effort") -> None:
        if not isinstance(value, str) or value not in _BUDGETS:
            raise refused(place, f"must be one of {', '.join(_BUDGETS)}.")
        if value in _LEVELS and has_levels(self._model):
            self._think({"thinkingLevel": _LEVELS[value]}, visible=True)
        else:
            self._think({"thinkingBudget": _BUDGETS[value]}, visible=value != "none")

    def _reasoning(self, value: Any) -> None:
        """OpenRouter's object. Source: https://openrouter.ai/docs/use-cases/reasoning-tokens"""
        reasoning = an_object(value, "reasoning")
        for name in reasoning.keys() - {"effort", "max_tokens", "exclude", "enabled"}:
            self._tolerance.cannot(f"reasoning.{name}", "cannot be expressed in a request to Gemini.")
        if reasoning.get("effort") is not None:
            self._effort(reasoning["effort"], "reasoning.effort")
        elif type(reasoning.get("max_tokens")) is int:
            self._think({"thinkingBudget": reasoning["max_tokens"]}, visible=True)
        elif reasoning.get("enabled") is False:
            self._effort("none", "reasoning.enabled")
        elif reasoning.get("enabled") is True:
            self._think({}, visible=True)
        if reasoning.get("exclude") is True:
            self._think({}, visible=False)

    def _thinking(self, value: Any) -> None:
        """Anthropic's object, which many OpenAI clients send."""
        kind = an_object(value, "thinking").get("type")
        if kind == "disabled":
            self._effort("none", "thinking")
        elif kind == "adaptive":
            self._think({}, visible=True)
        elif kind == "enabled" and type(value.get("budget_tokens")) is int:
            self._think({"thinkingBudget": value["budget_tokens"]}, visible=True)
        else:
            raise refused("thinking", "must be enabled with budget_tokens, adaptive or disabled.")

    def _extra(self, value: Any) -> None:
        """What clients of Google's own OpenAI layer send."""
        for name in an_object(value, "extra_body").keys() - {"google"}:
            self._tolerance.cannot(f"extra_body.{name}", "cannot be expressed in a request to Gemini.")
        for name, each in an_object(value.get("google") or {}, "extra_body.google").items():
            place = f"extra_body.google.{name}"
            if name == "thinking_config":
                found = {_camel(key): held for key, held in an_object(each, place).items()}
                self._think(found, visible=found.get("includeThoughts") is True)
            elif name in ("cached_content", "safety_settings"):
                self._body[_camel(name)] = each
            else:
                self._tolerance.cannot(place, "cannot be expressed in a request to Gemini.")

    def _think(self, how: Document, *, visible: bool) -> None:
        config = self._body.setdefault("generationConfig", {}).setdefault("thinkingConfig", {})
        _settle_thinking(config, how)
        config.update(how)
        config.pop("includeThoughts", None)
        if visible:
            config["includeThoughts"] = True
