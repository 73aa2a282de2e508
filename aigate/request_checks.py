"""What a request must be before money is spent on it.

Only the shape on which every provider agrees is checked here, so that a mistake costs nothing and names its field;
all else rides along unchanged, and the provider judges it.

Source: https://platform.openai.com/docs/api-reference
"""

from collections.abc import Mapping
from typing import Any

from middleware.faults import CallerFault

_ROLES = ("user", "assistant", "system", "developer", "tool")
"""Of whose message, if its content is a text, nothing more is to be checked."""


def check_chat(document: Mapping[str, Any]) -> None:
    """Raises `CallerFault`, with the field in `param`, if this is no chat completion request."""
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise CallerFault("'messages' must be a list with at least one message.", param="messages")
    for message in messages:
        content = isinstance(message, dict) and message.get("content")
        if not isinstance(content, str) or message.get("role") not in _ROLES:
            _check_messages(messages)
            break
    _check_stream(document)


def check_completion(document: Mapping[str, Any]) -> None:
    """The same for a completion of a prompt (the legacy `/v1/completions`)."""
    if not _is_text(document.get("prompt")):
        raise CallerFault("'prompt' must be a string or a list of strings or tokens.", param="prompt")
    _check_stream(document)


def check_embedding(document: Mapping[str, Any]) -> None:
    """The same for a request for embeddings, which are never streamed."""
    if not _is_text(document.get("input")):
        raise CallerFault("'input' must be a string or a list of strings or tokens, and not empty.", param="input")
    if document.get("encoding_format") not in (None, "float", "base64"):
        raise CallerFault("'encoding_format' must be 'float' or 'base64'.", param="encoding_format")
    if document.get("stream"):
        raise CallerFault("Embeddings are not streamed.", param="stream")


def wants_usage(document: Mapping[str, Any]) -> bool:
    """Whether the client asked for usage at the end of its stream."""
    options = document.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _check_stream(document: Mapping[str, Any]) -> None:
    stream = document.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise CallerFault("'stream' must be true or false.", param="stream")
    options = document.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise CallerFault("'stream_options' must be an object.", param="stream_options")


def _is_text(value: object) -> bool:
    """A text, texts, a text in tokens, or several such: what OpenAI takes as `prompt` and `input`."""
    if isinstance(value, str):
        return bool(value)
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(item, str) for item in value) or _is_tokens(value) or all(map(_is_tokens, value))


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)


def _check_messages(messages: list[Any]) -> None:
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")


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
    for number, part in enumerate(content):
        if not isinstance(part, str) and not (isinstance(part, dict) and isinstance(part.get("type"), str)):
            place = f"{place}.content[{number}]"
            raise CallerFault(f"'{place}' must be an object with a type.", param=place)
