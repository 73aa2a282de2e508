"""Why: both APIs make a message of parts, and hardly one part has the same shape in both.

Images and PDFs go by URL or as base64, text files as text; audio has no place. What a file is decides, not the part
that it came in: clients send PDFs as `image_url`. `image_url.detail` is a hint for which there is no field, and
dropped. A text of white space alone is refused there, and so is left out. Parts that are the provider's own blocks
already (`image`, `document`, `search_result`, `container_upload`) pass as they are. A mark `cache_control` is passed
on with its part.

Sources: https://platform.claude.com/docs/en/build-with-claude/vision, .../pdf-support, .../prompt-caching
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from providers.refusal import Tolerance, a_list, a_string, an_object, refused

Block: TypeAlias = dict[str, Any]

_NATIVE = ("image", "document", "search_result", "container_upload")
_PDF = "application/pdf"


class _Data(NamedTuple):
    media_type: str
    data: str


def blocks_of(content: Any, field: str, tolerance: Tolerance) -> list[Block]:
    """A message's content as blocks; an empty text is none, because it would be refused."""
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    blocks = []
    for index, part in enumerate(a_list(content, field)):
        block = _block(part, f"{field}[{index}]", tolerance)
        if block is not None:
            blocks.append(block)
    return blocks


def mark(block: Block, source: Mapping[str, Any]) -> Block:
    """The block with the cache mark that `source` carries, if it does."""
    return {**block, "cache_control": source["cache_control"]} if source.get("cache_control") else block


def _block(part: Any, field: str, tolerance: Tolerance) -> Block | None:
    if isinstance(part, str):
        return {"type": "text", "text": part} if part.strip() else None
    kind = an_object(part, field).get("type")
    if kind in _NATIVE:
        return dict(part)
    match kind:
        case "text" | "input_text" | "output_text":
            text = a_string(part.get("text"), f"{field}.text")
            return mark({"type": "text", "text": text}, part) if text.strip() else None
        case "refusal":
            return {"type": "text", "text": a_string(part.get("refusal"), f"{field}.refusal")}
        case "image_url":
            return mark(_image(part.get("image_url"), f"{field}.image_url"), part)
        case "file":
            return mark(_document(an_object(part.get("file"), f"{field}.file"), f"{field}.file"), part)
    tolerance.cannot(field, f"a part of type {str(kind)[:40]!r} has no place in a Claude message.")
    return None


def _image(value: Any, field: str) -> Block:
    url = value if isinstance(value, str) else a_string(an_object(value, field).get("url"), f"{field}.url")
    if found := _data(url, field):
        kind = "document" if found.media_type == _PDF else "image"
        return {"type": kind, "source": {"type": "base64", "media_type": found.media_type, "data": found.data}}
    return {"type": "image", "source": _by_url(url, field)}


def _document(file: Mapping[str, Any], field: str) -> Block:
    title = {"title": file["filename"]} if isinstance(file.get("filename"), str) and file["filename"] else {}
    if file.get("file_id"):
        return {"type": "document", "source": {"type": "file", "file_id": file["file_id"]}, **title}
    data = a_string(file.get("file_data") or file.get("file_url"), f"{field}.file_data")
    if data[:11].lower() == "data:image/" or (_is_remote(data) and _is_picture(data)):
        return _image(data, f"{field}.file_data")
    if _is_remote(data):
        return {"type": "document", "source": _by_url(data, field), **title}
    found = _data(data, field) or _Data(_PDF, data)
    if found.media_type == _PDF:
        return {"type": "document", "source": {"type": "base64", "media_type": _PDF, "data": found.data}, **title}
    if found.media_type.startswith("text/") or found.media_type == "application/json":
        text = {"type": "text", "media_type": "text/plain", "data": _decoded(found.data, field)}
        return {"type": "document", "source": text, **title}
    raise refused(f"{field}.file_data", f"{found.media_type!r} is neither a PDF nor text.")


def _by_url(url: str, field: str) -> Block:
    if not _is_remote(url):
        raise refused(field, "must be a data: URL with base64, or an http(s) URL.")
    return {"type": "url", "url": url}


def _is_remote(url: str) -> bool:
    return url[:8].lower().startswith(("http://", "https://"))


def _is_picture(url: str) -> bool:
    return url.partition("?")[0].lower().endswith((".png", ".jpg", ".jpeg", ".gif", ".webp"))


def _data(url: str, field: str) -> _Data | None:
    """What a `data:` URL holds; None for any other. Source: https://www.rfc-editor.org/rfc/rfc2397"""
    if url[:5].lower() != "data:":
        return None
    head, comma, data = url[5:].partition(",")
    media_type, *options = head.split(";")
    if not comma or not media_type or not options or options[-1].strip().lower() != "base64":
        raise refused(field, "must be a data: URL with a media type and base64, or an http(s) URL.")
    media_type = media_type.strip().lower()
    return _Data("image/jpeg" if media_type == "image/jpg" else media_type, data)


def _decoded(data: str, field: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError):
        raise refused(f"{field}.file_data", "is not UTF-8 in base64.") from None
