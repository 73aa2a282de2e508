"""Why: functions are declared and chosen in almost the same words, and an old Claude knows no other way to a schema.

Tools of the provider (`{"type": "web_search_20250305", "name": "web_search"}`, or any with an `input_schema`) pass as
they are. Where a model cannot be held to a schema, it is made to call `JSON_TOOL`, whose arguments are the answer.

Sources: https://platform.claude.com/docs/en/agents-and-tools/tool-use/define-tools, .../strict-tool-use,
.../web-search-tool
"""

from collections.abc import Mapping
from typing import Any

from providers.canonical import check_tool
from providers.refusal import Tolerance, a_list, a_string, an_object, refused

from .parts import Block, mark

JSON_TOOL = "answer_in_json"

_NO_ARGUMENTS = {"type": "object", "properties": {}}
_FIELDS = {"name", "description", "parameters", "strict", "cache_control"}
_OWN = ("defer_loading", "allowed_callers", "input_examples", "eager_input_streaming")
"""What Claude may be told of a function beside OpenAI's fields; clients write it within the function or beside it."""

_AROUND = {"type", "function", "cache_control", *_OWN}
_SEARCH = {"type": "web_search_20250305", "name": "web_search"}
_CHOICES = {"auto": "auto", "none": "none", "required": "any", "any": "any"}


def tools_of(value: Any, tolerance: Tolerance) -> list[Block]:
    """The declarations of tools. Raises `ProviderError` naming what cannot be expressed."""
    tools = []
    for index, tool in enumerate(a_list(value or [], "tools")):
        field = f"tools[{index}]"
        kind = an_object(tool, field).get("type")
        if kind == "custom" and "input_schema" not in tool:
            tolerance.cannot(field, "a custom tool without a JSON schema has no place there; use a function.")
        elif kind == "function" or "function" in tool:
            tools.append(_function(tool, field, tolerance))
        else:
            tools.append(dict(tool))
    return tools


def web_search_of(document: Mapping[str, Any], tolerance: Tolerance) -> list[Block]:
    """OpenAI's `web_search_options` as the provider's own tool; how much is read cannot be said there."""
    if (asked := document.get("web_search_options")) is None:
        return []
    options = an_object(asked, "web_search_options")
    for name, value in options.items():
        if name != "user_location" and value not in (None, "medium"):
            tolerance.cannot(f"web_search_options.{name}", "has no place in a search there.")
    field = "web_search_options.user_location"
    location = an_object(options.get("user_location") or {}, field)
    place = {"type": "approximate", **an_object(location.get("approximate") or {}, f"{field}.approximate")}
    return [{**_SEARCH, "user_location": place} if len(place) > 1 else _SEARCH]


def choice_of(document: Mapping[str, Any], tools: list[Block], tolerance: Tolerance) -> Block | None:
    """`tool_choice` with `parallel_tool_calls` in it; None where the default is meant."""
    choice = _choice(document.get("tool_choice"), tolerance)
    parallel = document.get("parallel_tool_calls")
    if not tools and (choice is None or choice["type"] in ("auto", "none")):
        return None
    if parallel is False and (choice is None or choice["type"] != "none"):
        return {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    return choice


def with_json_tool(tools: list[Block], choice: Block | None, schema: Any) -> tuple[list[Block], Block]:
    """The tools and the choice with which a model must answer in JSON, or call one of the caller's tools."""
    description = "Give your answer by calling this tool: its arguments are the answer."
    answer = {"name": JSON_TOOL, "description": description, "input_schema": schema}
    if tools and (choice is None or choice["type"] in ("auto", "any")):
        return [*tools, answer], {**(choice or {}), "type": "any"}
    if tools and choice and choice["type"] == "tool":
        return [*tools, answer], choice
    return [*tools, answer], {"type": "tool", "name": JSON_TOOL}


def _function(tool: Mapping[str, Any], field: str, tolerance: Tolerance) -> Block:
    function = an_object(tool.get("function"), f"{field}.function")
    check_tool(function, f"{field}.function", {*_FIELDS, *_OWN}, tolerance)
    check_tool(tool, field, _AROUND, tolerance)
    parameters = function.get("parameters")
    block: Block = {
        "name": a_string(function.get("name"), f"{field}.function.name"),
        "input_schema": _NO_ARGUMENTS if parameters in (None, {}) else parameters,
    }
    if function.get("description") is not None:
        block["description"] = a_string(function["description"], f"{field}.function.description")
    if function.get("strict"):
        block["strict"] = True
    block.update({name: each[name] for each in (tool, function) for name in _OWN if each.get(name) is not None})
    return mark(mark(block, function), tool)


def _choice(value: Any, tolerance: Tolerance) -> Block | None:
    if value is None:
        return None
    if isinstance(value, str):
        if value not in _CHOICES:
            raise refused("tool_choice", "must be auto, none, required or a function.")
        return {"type": _CHOICES[value]}
    kind = an_object(value, "tool_choice").get("type")
    if kind == "function":
        function = an_object(value.get("function"), "tool_choice.function")
        return {"type": "tool", "name": a_string(function.get("name"), "tool_choice.function.name")}
    if kind in ("auto", "any", "tool", "none"):
        return dict(value)
    tolerance.cannot("tool_choice", f"a choice of type {str(kind)[:40]!r} has no place there.")
    return None
