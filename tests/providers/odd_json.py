"""A document that a provider might bring broken: well-formed JSON, wrong anywhere inside."""

from typing import Any

from hypothesis import strategies as st

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(allow_nan=False), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
    max_leaves=3,
)


def mutated(document: Any, data: st.DataObject) -> Any:
    """The document with some of its values replaced by anything."""
    if data.draw(st.integers(0, 9)) == 0:
        return data.draw(JSON)
    if isinstance(document, dict):
        return {name: mutated(value, data) for name, value in document.items()}
    if isinstance(document, list):
        return [mutated(value, data) for value in document]
    return document
