"""Whether Anthropic's own SDK knows a request: its parameter types, made to reject what they do not name.

The last that knows all of API version 2023-06-01 is `anthropic<1`: later ones have no sampling parameters.
"""

from typing import Any

import anthropic.types as types
from anthropic.types import message_create_params
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError
from typing_extensions import is_typeddict


def _adapter() -> TypeAdapter[Any]:
    for module in (types, message_create_params):
        for name in dir(module):
            found = getattr(module, name)
            if is_typeddict(found):
                found.__pydantic_config__ = {"extra": "forbid", "arbitrary_types_allowed": True}
    return TypeAdapter(types.MessageCreateParams)


_ADAPTER = _adapter()


def is_valid(body: Any) -> bool:
    """Whether the SDK's types hold all of it. They are lazy lists: only what is read out again has been looked at."""
    try:
        _ADAPTER.dump_python(_ADAPTER.validate_python(body), mode="json", warnings="error")
    except (ValidationError, PydanticSerializationError):
        return False
    return True
