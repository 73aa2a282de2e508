"""Why: a client joins the pieces of a tool call by their number, and some providers give none, or the same to all.

`Calls` numbers the calls of one choice as they begin, from 0. A new id at a number that is taken is a new call; a
piece without a number goes to the call of its id, or to the last one. Where all is well, nothing is changed.

`needs_care` tells from the bytes of a chunk whether it has to be parsed for any of this: nearly none has.
"""

from .contract import Kind, ProviderError
from .message import Document, complete, objects, text_arguments

MAX_CALLS = 1000

_TEXT = b'"delta":{"content":"'
_BACKSLASH = 0x5C
_SEVERAL = b"\n\ndata:"


class Calls:
    """The tool calls of one choice so far. `astray`: the provider's numbers are not ours."""

    __slots__ = ("_last", "_names", "_numbers", "_taken", "astray")

    def __init__(self) -> None:
        self.astray = False
        self._numbers: dict[int, int] = {}
        self._names: dict[str, int] = {}
        self._taken: dict[int, str] = {}
        self._last = 0

    def settle(self, delta: Document, seed: str) -> bool:
        """Number the pieces of calls in a delta; whether anything had to be changed."""
        changed = False
        for piece in objects(delta.get("tool_calls")):
            changed = self._piece(piece, seed) or changed
        return changed

    def _piece(self, piece: Document, seed: str) -> bool:
        given = piece.get("index")
        number = given if type(given) is int and given >= 0 else None
        identifier = piece["id"] if isinstance(piece.get("id"), str) else ""
        begins = self._begins(number, identifier, bool(_name(piece)))
        if begins:
            self._last = self._begun(number, identifier)
        elif identifier in self._names:
            self._last = self._names[identifier]
        elif number is not None:
            self._last = self._numbers.get(number, number)
        changed = complete(piece, f"{seed}/{self._last}") if begins else text_arguments(piece)
        if identifier and not begins and identifier not in self._names:  # older vLLM: another id with each piece
            del piece["id"]
            changed = True
        if given != self._last:
            piece["index"] = self._last
            self.astray = changed = True
        return changed

    def _begins(self, number: int | None, identifier: str, named: bool) -> bool:
        if not named or identifier in self._names:
            return False
        taken = self._numbers.get(number) if number is not None else None
        if taken is None:
            return True
        return self._taken[taken] != identifier if identifier else not self._taken[taken]

    def _begun(self, number: int | None, identifier: str) -> int:
        if len(self._taken) >= MAX_CALLS:
            raise ProviderError(Kind.BROKEN, "The provider's answer has too many tool calls.")
        ours = len(self._taken)
        if number is not None:
            self._numbers[number] = ours
        if identifier:
            self._names[identifier] = ours
        self._taken[ours] = identifier
        return ours


def needs_care(data: bytes, astray: bool) -> bool:
    """Whether JSON, one event's or many, may hold what `message.settle` or `Calls` would change.

    Inside a JSON string each quotation mark is escaped, so these bytes can only be keys. A provider that puts spaces
    between them is parsed for its finish reasons already.
    """
    start = data.find(_TEXT)
    if start >= 0:  # one event whose delta is a text and nothing else, as nearly all are
        end = data.find(b'"', start + len(_TEXT))
        alone = data.find(b"\n") in (-1, len(data) - 2)
        if alone and data[end : end + 2] == b'"}' and data[end - 1] != _BACKSLASH:
            return False
    return (
        b'"content":[' in data
        or (b'"reasoning' in data and _unnamed(data))
        or (b'"tool_calls"' in data and _uncounted(data, astray))
    )


def _unnamed(data: bytes) -> bool:
    """Whether there may be reasoning that is called something else only."""
    others = data.count(b'"reasoning":') + data.count(b'"reasoning_text":') + data.count(b'"reasoning_details":')
    if not others or others == data.count(b'"reasoning":null') + data.count(b'"reasoning_details":[]'):
        return False
    return b'"reasoning_content":"' not in data or b'"reasoning_content":""' in data or _SEVERAL in data


def _uncounted(data: bytes, astray: bool) -> bool:
    """Whether a call may begin here, or a piece of one have no number or another id."""
    if (
        data.count(b'"index"') > 1
        and data.count(b'"id"') < 2
        and not (astray or b'"name"' in data or b'"arguments":{' in data or _SEVERAL in data)
    ):
        return False
    return data.count(b'"tool_calls"') != data.count(b'"tool_calls":null') + data.count(b'"tool_calls":[]')


def _name(piece: Document) -> str:
    """The name of the function, or of OpenAI's custom tool."""
    for kind in ("function", "custom"):
        held = piece.get(kind)
        if isinstance(held, dict) and isinstance(name := held.get("name"), str):
            return name
    return ""
