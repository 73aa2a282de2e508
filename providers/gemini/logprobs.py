"""Why: both APIs tell the same logprobs, in two lists beside each other here, in one there.

Source: https://ai.google.dev/api/generate-content#logprobsresult
"""

from typing import Any


def logprobs_of(result: Any) -> dict[str, Any] | None:
    """OpenAI's `logprobs` of a choice; None where there are none."""
    if not isinstance(result, dict):
        return None
    chosen, top = _list(result.get("chosenCandidates")), _list(result.get("topCandidates"))
    content = []
    for index, each in enumerate(chosen):
        others = top[index].get("candidates") if index < len(top) and isinstance(top[index], dict) else None
        content.append({**_token(each), "top_logprobs": [_token(other) for other in _list(others)]})
    return {"content": content} if content else None


def _token(each: Any) -> dict[str, Any]:
    found = each if isinstance(each, dict) else {}
    token, number = found.get("token"), found.get("logProbability")
    text = token if isinstance(token, str) else ""
    return {
        "token": text,
        "logprob": number if isinstance(number, int | float) else 0.0,
        "bytes": list(text.encode("utf-8", "replace")),
    }


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
