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


def _place(segment: Any, text: bytes) -> dict[str, int] | None:
    if not isinstance(segment, dict):
        return None
    start, end = segment.get("startIndex", 0), segment.get("endIndex")
    if type(start) is not int or type(end) is not int or not 0 <= start <= end <= len(text):
        return None
    return {"start_index": _characters(text[:start]), "end_index": _characters(text[:end])}


def _web(chunk: Any) -> dict[str, str] | None:
    web = chunk.get("web") if isinstance(chunk, dict) else None
    if not isinstance(web, dict) or not isinstance(web.get("uri"), str):
        return None
    title = web.get("title")
    return {"url": web["uri"], "title": title if isinstance(title, str) else ""}


def _characters(text: bytes) -> int:
    return len(text.decode("utf-8", "replace"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
