"""Why: Converse knows three ways to choose a tool; a fourth, and one call at a time, only a Claude can be told.

`tool_choice: "none"` is said by offering no tools, as long as no earlier call needs their declaration; otherwise, and
for `parallel_tool_calls: false`, a Claude's own `tool_choice` goes beside Converse's fields. It must not say the same
as Converse's: then both are refused (https://github.com/BerriAI/litellm/issues/36536). A talk with calls in it, but
without tools, is Claude's to go on with in the same way: those tools are declared, and not to be called.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolConfiguration.html,
https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use
"""

from collections.abc import Mapping
from typing import Any

from providers.canonical import check_tool
from providers.refusal import Tolerance, a_list, a_string, an_object, refused

from .models import Model
from .parts import Block, marked

_NO_ARGUMENTS = {"type": "object", "properties": {}}
_FIELDS = {"name", "description", "parameters", "strict", "cache_control"}
_CHOICES = {"auto": "auto", "none": "none", "required": "any", "any": "any"}
_NATIVE = {"toolSpec", "systemTool", "cachePoint"}


def tool_config(
    document: Mapping[str, Any], model: Model, used: list[str], tolerance: Tolerance
) -> tuple[Block | None, Block | None]:
    """`toolConfig`, and a Claude's own `tool_choice`; None where nothing is said. `used`: tools called before."""
    tools = _tools(document.get("tools"), tolerance)
    choice = _choice(document.get("tool_choice"))
    claude = model.house == "anthropic"
    if not tools:
        if choice and choice not in ({"auto": {}}, {"none": {}}):
            raise refused("tool_choice", "there are no tools to choose from.")
        return ({"tools": [_declared(name) for name in used]}, {"type": "none"}) if used and claude else (None, None)
    if choice == {"none": {}}:
        return _none(tools, claude, bool(used), tolerance)
    config: Block = {"tools": tools, **({"toolChoice": choice} if choice else {})}
    if document.get("parallel_tool_calls") is not False:
        return config, None
    if not claude:
        tolerance.cannot("parallel_tool_calls", "only a Claude can be held to one call at a time there.")
        return config, None
    if choice in (None, {"auto": {}}):
        return {"tools": tools}, {"type": "auto", "disable_parallel_tool_use": True}
    return config, {"disable_parallel_tool_use": True}


def _none(tools: list[Block], claude: bool, used: bool, tolerance: Tolerance) -> tuple[Block | None, Block | None]:
    if not used:
        return None, None
    if not claude:
        tolerance.cannot("tool_choice", "'none' cannot be said there once a tool has been called.")
    return {"tools": tools}, {"type": "none"} if claude else None


def _declared(name: str) -> Block:
    return {"toolSpec": {"name": name, "inputSchema": {"json": _NO_ARGUMENTS}}}


def _tools(value: Any, tolerance: Tolerance) -> list[Block]:
    tools: list[Block] = []
    for index, tool in enumerate(a_list(value or [], "tools")):
        field = f"tools[{index}]"
        if set(an_object(tool, field)) & _NATIVE:
            tools.append(dict(tool))
        elif tool.get("type", "function") == "function" and "function" in tool:
            tools += _function(tool, field, tolerance)
        else:
            tolerance.cannot(field, f"a tool of type {str(tool.get('type'))[:40]!r} has no place there.")
    return tools


def _function(tool: Mapping[str, Any], field: str, tolerance: Tolerance) -> list[Block]:
    function = an_object(tool.get("function"), f"{field}.function")
    check_tool(function, f"{field}.function", _FIELDS, tolerance)
    check_tool(tool, field, ("type", "function", "cache_control"), tolerance)
    parameters = function.get("parameters")
    spec: Block = {
        "name": a_string(function.get("name"), f"{field}.function.name"),
        "inputSchema": {"json": _NO_ARGUMENTS if parameters in (None, {}) else parameters},
    }
    if description := function.get("description"):
        spec["description"] = a_string(description, f"{field}.function.description")
    if function.get("strict"):
        spec["strict"] = True
    return marked([{"toolSpec": spec}], tool if tool.get("cache_control") else function)


def _choice(value: Any) -> Block | None:
    if value is None:
        return None
    if isinstance(value, str):
        if value not in _CHOICES:
            raise refused("tool_choice", "must be auto, none, required or a function.")
        return {_CHOICES[value]: {}}
    function = an_object(an_object(value, "tool_choice").get("function"), "tool_choice.function")
    return {"tool": {"name": a_string(function.get("name"), "tool_choice.function.name")}}
