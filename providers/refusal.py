"""Why: a field that silently does nothing is found out in production; one that is refused by name, at once."""

from dataclasses import dataclass
from typing import Any

from .contract import Kind, ProviderError


def refused(field: str, why: str) -> ProviderError:
    """The error of a request that cannot be translated, and so was never sent."""
    return ProviderError(Kind.REJECTED, f"'{field}': {why}", status=400, param=field, sent=False)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Whether the caller would rather lose a field than the answer; `escape` is the field in which to say so."""

    escape: str
    lenient: bool = False

    def cannot(self, field: str, why: str) -> None:
        """Raises `ProviderError`, unless the caller asked to drop what cannot be expressed."""
        if not self.lenient:
            raise refused(field, f"{why} ('{self.escape}': {{'lenient': true}} drops such fields.)")


def a_count(value: Any, field: str) -> int:
    if type(value) is not int or value < 0:
        raise refused(field, "must be a number of tokens.")
    return value


def a_string(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise refused(field, "must be a string.")
    return value


def an_object(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise refused(field, "must be an object.")
    return value


def a_list(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise refused(field, "must be a list.")
    return value
