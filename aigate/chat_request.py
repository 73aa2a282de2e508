"""What a chat completion request must be before money is spent on it.

Only the shape on which every provider agrees is checked here, so that a mistake costs nothing and names its field;
all else rides along unchanged, and the provider judges it.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from collections.abc import Mapping
from typing import Any

from middleware.faults import CallerFault


def check(document: Mapping[str, Any]) -> None:
    """Raises `CallerFault`, with the field in `param`, if this is no chat completion request."""
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise CallerFault("'messages' must be a list with at least one message.", param="messages")
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")
    if not isinstance(document.get("stream"), bool | None):
        raise CallerFault("'stream' must be true or false.", param="stream")
    options = document.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise CallerFault("'stream_options' must be an object.", param="stream_options")


def wants_usage(document: Mapping[str, Any]) -> bool:
    """Whether the client asked for usage at the end of its stream."""
    options = document.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _check_message(message: object, place: str) -> None:
    if not isinstance(message, dict):
        raise CallerFault(f"'{place}' must be an object with a role and content.", param=place)
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise CallerFault(f"'{place}.role' must be a string such as 'user'.", param=f"{place}.role")
    if content is None or isinstance(content, str):
        if content is None and role in ("user", "system", "developer"):
            raise CallerFault(f"'{place}.content' is missing.", param=f"{place}.content")
        return
    if not isinstance(content, list):
        raise CallerFault(f"'{place}.content' must be a string or a list of parts.", param=f"{place}.content")
    for index, part in enumerate(content):
        if not isinstance(part, str) and not (isinstance(part, dict) and isinstance(part.get("type"), str)):
            raise CallerFault(
                f"'{place}.content[{index}]' must be an object with a type.", param=f"{place}.content[{index}]"
            )
