"""Why: sources of a search are worth showing where they belong, and Gemini counts the places in bytes of UTF-8.

Of a long text only the beginning is kept for that; sources of what lies behind are not told.

Source: https://ai.google.dev/gemini-api/docs/google-search#attributing_sources_with_inline_citations
"""

from typing import Any

MAX_BYTES = 256 * 1024
MAX_CITATIONS = 1000


class Text:
    """A candidate's text as far as it has come, for places in it."""

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, text: str) -> None:
        if self._size < MAX_BYTES:
            self._parts.append(text.encode("utf-8", "replace"))
            self._size += len(self._parts[-1])

    def annotations(self, grounding: Any) -> list[dict[str, Any]]:
        """OpenAI's `url_citation`s out of a `groundingMetadata`; none out of anything else."""
        if not isinstance(grounding, dict):
            return []
        text = b"".join(self._parts)
        chunks = [_web(each) for each in _list(grounding.get("groundingChunks"))]
        found: list[dict[str, Any]] = []
        for support in _list(grounding.get("groundingSupports"))[:MAX_CITATIONS]:
            place = _place(support.get("segment"), text) if isinstance(support, dict) else None
            if place is not None:
                indices = _list(support.get("groundingChunkIndices"))[:MAX_CITATIONS]
                sources = (chunks[index] for index in indices if type(index) is int and 0 <= index < len(chunks))
                found += [{"type": "url_citation", "url_citation": {**web, **place}} for web in sources if web]
        return found[:MAX_CITATIONS]

    def quoted(self, citations: Any) -> list[dict[str, Any]]:
        """The same out of a `citationMetadata`: where the answer repeats what stands elsewhere."""
        if not isinstance(citations, dict):
            return []
        rows = _list(citations.get("citationSources")) or _list(citations.get("citations"))
        text = b"".join(self._parts) if rows else b""
        found = ((_source(row), _place(row, text)) for row in rows[:MAX_CITATIONS])
        return [
            {"type": "url_citation", "url_citation": {**source, **place}}
            for source, place in found
            if source is not None and place is not None
        ]


def _place(segment: Any, text: bytes) -> dict[str, int] | None:
    if not isinstance(segment, dict):
        return None
    start, end = segment.get("startIndex", 0), segment.get("endIndex")
    if type(start) is not int or type(end) is not int or not 0 <= start <= end <= len(text):
        return None
    return {"start_index": _characters(text[:start]), "end_index": _characters(text[:end])}


def _web(chunk: Any) -> dict[str, str] | None:
    """The page, the document or the place that a chunk is of."""
    for kind in ("web", "retrievedContext", "maps"):
        if isinstance(chunk, dict) and chunk.get(kind):
            return _source(chunk[kind])
    return None


def _source(holder: Any) -> dict[str, str] | None:
    if not isinstance(holder, dict) or not isinstance(holder.get("uri"), str):
        return None
    title = holder.get("title")
    return {"url": holder["uri"], "title": title if isinstance(title, str) else ""}


def _characters(text: bytes) -> int:
    return len(text.decode("utf-8", "replace"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
