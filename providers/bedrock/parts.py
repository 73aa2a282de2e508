"""Why: both APIs make a message of parts; Converse takes every file as bytes with a format, and marks by a block.

A file named by an http(s) URL has to be fetched by whoever sends the call: `Files` says which, and takes them. What a
file is decides, not the part that it came in: clients send PDFs as `image_url`. A text of white space alone is
refused there, and so is left out. A mark `cache_control` on a part becomes a `cachePoint` after it.
`image_url.detail` is a hint for which there is no field, and dropped. A part that is named after a Converse block
passes as that block.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
"""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from providers.refusal import Tolerance, a_list, a_string, an_object, refused

Block: TypeAlias = dict[str, Any]

NATIVE = ("image", "document", "video", "audio", "guardContent", "searchResult", "cachePoint", "json")
"""Converse's own blocks; `json` is one of a tool's result."""

FILES = ("image_url", "video_url", "file")
"""The types of parts that may name a file by URL."""

_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_VIDEOS = {
    "video/x-matroska": "mkv",
    "video/quicktime": "mov",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/x-flv": "flv",
    "video/mpeg": "mpeg",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}
_AUDIOS = {
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/flac": "flac",
    "audio/aac": "aac",
    "audio/ogg": "ogg",
    "audio/opus": "opus",
    "audio/mp4": "m4a",
    "audio/webm": "webm",
}
_FORMATS = {"image": _IMAGES, "document": _DOCUMENTS, "video": _VIDEOS, "audio": _AUDIOS}
_TEXTS = ("application/json", "application/xml", "application/yaml", "application/x-yaml")
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9()\[\]-]+")


class _Data(NamedTuple):
    media_type: str
    data: str


@dataclass(slots=True)
class Files:
    """What the parts of one request are made with. `missing`: files to be fetched, each with the field it is in."""

    tolerance: Tolerance
    fetched: Mapping[str, tuple[str, bytes]]
    missing: dict[str, str] = field(default_factory=dict)

    def data(self, url: str, place: str) -> _Data | None:
        """What a URL holds; None if that has to be fetched. Source: https://www.rfc-editor.org/rfc/rfc2397"""
        if url[:8].lower().startswith(("http://", "https://")):
            if url in self.fetched:
                media_type, data = self.fetched[url]
                return _Data(media_type, base64.b64encode(data).decode())
            self.missing.setdefault(url, place)
            return None
        head, comma, written = url.partition(",")
        media_type, *options = head[5:].split(";")
        if head[:5].lower() != "data:" or not comma or not options or options[-1].strip().lower() != "base64":
            raise refused(place, "must be a data: URL with a media type and base64, or an http(s) URL.")
        return _Data(media_type.strip().lower(), written)


def blocks_of(content: Any, field: str, files: Files) -> list[Block]:
    """A message's content as blocks; an empty text is none, because it would be refused."""
    if content is None:
        return []
    if isinstance(content, str):
        return [{"text": content}] if content.strip() else []
    blocks: list[Block] = []
    for index, part in enumerate(a_list(content, field)):
        if isinstance(part, str):
            blocks += [{"text": part}] if part.strip() else []
        else:
            block = _block(an_object(part, f"{field}[{index}]"), f"{field}[{index}]", files)
            blocks += marked([block] if block else [], part)
    return blocks


def marked(blocks: list[Block], source: Mapping[str, Any]) -> list[Block]:
    """The blocks, and after them the cache mark that `source` carries, if it does."""
    mark = source.get("cache_control")
    if not mark or not blocks:
        return blocks
    ttl = mark.get("ttl") if isinstance(mark, dict) else None
    return [*blocks, {"cachePoint": {"type": "default", **({"ttl": ttl} if ttl else {})}}]


def _block(part: dict[str, Any], field: str, files: Files) -> Block | None:
    match part.get("type"):
        case "text" | "input_text" | "output_text":
            text = a_string(part.get("text"), f"{field}.text")
            return {"text": text} if text.strip() else None
        case "refusal":
            return {"text": a_string(part.get("refusal"), f"{field}.refusal")}
        case "image_url":
            return _by_url(part.get("image_url"), f"{field}.image_url", files)
        case "video_url":
            return _by_url(part.get("video_url"), f"{field}.video_url", files)
        case "input_audio":
            return {"audio": _audio(an_object(part.get("input_audio"), f"{field}.input_audio"), field)}
        case "file":
            return _file(an_object(part.get("file"), f"{field}.file"), f"{field}.file", files)
        case kind if kind in NATIVE and kind in part:
            return {kind: part[kind]}
    files.tolerance.cannot(
        field, f"a part of type {str(part.get('type'))[:40]!r} has no place in a Converse message."
    )
    return None


def _by_url(value: Any, field: str, files: Files) -> Block:
    url = value if isinstance(value, str) else a_string(an_object(value, field).get("url"), f"{field}.url")
    return _media(files.data(url, field), field, None)


def _media(found: _Data | None, field: str, filename: Any) -> Block:
    """A file as the block that its media type calls for; a stand-in for one that has to be fetched."""
    if found is None:
        return {"image": {}}
    source = {"source": {"bytes": found.data}}
    for kind, formats in _FORMATS.items():
        if found.media_type in formats:
            named = {"name": _name(filename)} if kind == "document" else {}
            return {kind: {"format": formats[found.media_type], **named, **source}}
    if found.media_type.startswith("text/") or found.media_type in _TEXTS:
        return {"document": {"format": "txt", "name": _name(filename), **source}}
    raise refused(field, f"{found.media_type[:80]!r} is no kind of file that is known there.")


def _audio(audio: Mapping[str, Any], field: str) -> Block:
    data = a_string(audio.get("data"), f"{field}.input_audio.data")
    return {"format": a_string(audio.get("format"), f"{field}.input_audio.format"), "source": {"bytes": data}}


def _file(file: Mapping[str, Any], field: str, files: Files) -> Block:
    if file.get("file_id"):
        raise refused(f"{field}.file_id", "no files are kept there; send file_data.")
    data = a_string(file.get("file_data") or file.get("file_url"), f"{field}.file_data")
    return _media(files.data(data, f"{field}.file_data"), field, file.get("filename"))


def _name(filename: Any) -> str:
    """A name as it may be written there: letters, digits, single spaces, hyphens, brackets; no extension."""
    name = filename.rpartition(".")[0] or filename if isinstance(filename, str) else ""
    return _NOT_IN_A_NAME.sub(" ", name).strip()[:190].strip() or "Document"


def distinct(turns: list[dict[str, Any]]) -> None:
    """Number the documents that have the same name: there a name must not come twice."""
    seen: dict[str, int] = {}
    for turn in turns:
        for block in _with_results(turn["content"]):
            document = block.get("document")
            if isinstance(document, dict) and isinstance(name := document.get("name"), str):
                seen[name] = seen.get(name, 0) + 1
                if seen[name] > 1:
                    block["document"] = {**document, "name": f"{name} ({seen[name]})"}


def _with_results(blocks: list[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        result = block.get("toolResult")
        inside = result.get("content") if isinstance(result, dict) else None
        yield from (each for each in inside if isinstance(each, dict)) if isinstance(inside, list) else ()
