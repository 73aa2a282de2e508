"""Why: functions are declared alike in both APIs; how a call is forced, and Google's own tools, are not.

Schemas go as JSON schema (`parametersJsonSchema`), so that nothing in them has to be translated. A tool without a
`type` that is named as one of Google's own (`{"googleSearch": {}}`) passes as it is.

Source: https://ai.google.dev/gemini-api/docs/function-calling
"""

from typing import Any

from providers.refusal import Tolerance, a_list, a_string, an_object, refused

_MODES = {"none": "NONE", "auto": "AUTO", "required": "ANY"}


def tools_of(value: Any, tolerance: Tolerance) -> tuple[list[dict[str, Any]], bool]:
    """Gemini's `tools`, and whether a function of them is strict."""
    declared: list[dict[str, Any]] = []
    own: list[dict[str, Any]] = []
    strict = False
    for index, tool in enumerate(a_list(value, "tools")):
        place = f"tools[{index}]"
        kind = an_object(tool, place).get("type")
        if kind == "function":
            function = an_object(tool.get("function"), f"{place}.function")
            declared.append(_declaration(function, f"{place}.function"))
            strict = strict or function.get("strict") is True
        elif kind is None and tool:
            own.append({name: each for name, each in tool.items() if name != "cache_control"})
        else:
            tolerance.cannot(place, f"a tool of type {str(kind)[:40]!r} cannot be expressed in a request to Gemini.")
    return [*own, *([{"functionDeclarations": declared}] if declared else ())], strict


def choice_of(value: Any) -> dict[str, Any]:
    """`tool_choice` as Gemini's `functionCallingConfig`."""
    if isinstance(value, str):
        if value not in _MODES:
            raise refused("tool_choice", f"must be an object or one of {', '.join(_MODES)}.")
        return {"mode": _MODES[value]}
    kind = an_object(value, "tool_choice").get("type")
    if kind == "function":
        return {"mode": "ANY", "allowedFunctionNames": [_name(value, "tool_choice")]}
    if kind != "allowed_tools":
        raise refused("tool_choice.type", "must be function or allowed_tools.")
    place = "tool_choice.allowed_tools"
    allowed = an_object(value.get("allowed_tools"), place)
    names = [_name(each, f"{place}.tools") for each in a_list(allowed.get("tools"), f"{place}.tools")]
    return {"mode": "ANY" if allowed.get("mode") == "required" else "VALIDATED", "allowedFunctionNames": names}


def _declaration(function: dict[str, Any], place: str) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": a_string(function.get("name"), f"{place}.name")}
    if function.get("description"):
        declared["description"] = a_string(function["description"], f"{place}.description")
    if parameters := function.get("parameters"):
        declared["parametersJsonSchema"] = an_object(parameters, f"{place}.parameters")
    return declared


def _name(tool: Any, place: str) -> str:
    function = an_object(an_object(tool, place).get("function"), f"{place}.function")
    return a_string(function.get("name"), f"{place}.function.name")
