"""Why: a file comes as a URL, a `data:` URL or bare base64, and Gemini wants its media type with it in any case.

What Google can read by itself goes as `fileData`: its own storage (`gs://`, the Files API), YouTube, and any public
HTTPS URL whose media type is known, from the part (`format`, as LiteLLM has it) or from the path's ending. All else
has to be fetched by whoever sends the call, and goes as `inlineData`: `remote` lists it, `Call.fetched` holds it.

Sources: https://ai.google.dev/gemini-api/docs/file-input-methods, .../image-understanding, .../audio, .../documents
"""

import base64
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit

from providers.refusal import a_string, an_object, refused

from .models import fetches_urls

Part: TypeAlias = dict[str, Any]

KINDS = ("image_url", "file", "input_audio", "video_url")
"""The types of content parts that are media."""

_GOOGLE = ("gs://", "https://generativelanguage.googleapis.com/")
_YOUTUBE = ("https://www.youtube.com/watch", "https://youtube.com/watch", "https://youtu.be/")
_AUDIO = {"mp3": "audio/mpeg", "wav": "audio/wav", "pcm16": "audio/pcm", "m4a": "audio/mp4"}
_SAME = {"image/jpg": "image/jpeg", "audio/x-wav": "audio/wav", "audio/mp3": "audio/mpeg"}
_FETCHABLE = ("image/", "audio/", "video/", "text/", "application/pdf", "application/json")
_PDF = "application/pdf"


@dataclass(slots=True)
class Media:
    """Makes parts of files, for one request.

    `buckets`: `gs://` URIs may be passed on. `missing`: what had to be fetched and was not, and its field.
    """

    model: str
    fetched: Mapping[str, tuple[str, bytes]]
    buckets: bool = True
    missing: dict[str, str] = field(default_factory=dict)

    def part(self, source: Mapping[str, Any], place: str) -> Part:
        """One media part. Raises `ProviderError` naming what is wrong with it."""
        kind = source["type"]
        value = source.get(kind)
        if kind == "input_audio":
            return _audio(an_object(value, f"{place}.input_audio"), f"{place}.input_audio")
        if kind == "file":
            return self._file(an_object(value, f"{place}.file"), f"{place}.file")
        holder = {"url": value} if isinstance(value, str) else an_object(value, f"{place}.{kind}")
        url = a_string(holder.get("url"), f"{place}.{kind}.url")
        default = "video/mp4" if kind == "video_url" else ""
        return self.by_url(url, f"{place}.{kind}", _stated(holder), default)

    def by_url(self, url: str, place: str, stated: str = "", default: str = "") -> Part:
        """A file by its URL of whatever kind; `stated` is its media type as the caller says."""
        if url[:5].lower() == "data:":
            return _embedded(url, place)
        known = stated or _guessed(_path(url))
        if url.startswith("gs://") and not self.buckets:
            raise refused(place, "may not name a bucket: Google would read it as this gateway, not as you.")
        if url.startswith(_GOOGLE):
            return _file_data(url, known or default)
        if url.startswith(_YOUTUBE):
            return _file_data(url, stated or "video/mp4")
        if not url[:8].lower().startswith(("http://", "https://")):
            raise refused(place, "must be a data: URL, an http(s) URL or a gs:// URI.")
        if url.startswith("https://") and fetches_urls(self.model) and (known or default).startswith(_FETCHABLE):
            return _file_data(url, known or default)
        return self._by_bytes(url, place)

    def _by_bytes(self, url: str, place: str) -> Part:
        if url not in self.fetched:
            self.missing.setdefault(url, place)
            return {}
        media_type, data = self.fetched[url]
        return _inline(media_type, base64.b64encode(data).decode())

    def _file(self, file: Mapping[str, Any], place: str) -> Part:
        name = file.get("filename") if isinstance(file.get("filename"), str) else ""
        stated = _stated(file) or _guessed(name or "")
        if file.get("file_id"):
            return self._stored(a_string(file["file_id"], f"{place}.file_id"), f"{place}.file_id", stated)
        data = a_string(file.get("file_data"), f"{place}.file_data")
        if data[:8].lower().startswith(("data:", "http://", "https://", "gs://")):
            return self.by_url(data, f"{place}.file_data", stated)
        return _inline(stated or _PDF, data)

    def _stored(self, identifier: str, place: str, stated: str) -> Part:
        if not identifier.startswith((*_GOOGLE, *_YOUTUBE)):
            raise refused(place, "must be the URI of a file that Google stores.")
        return self.by_url(identifier, place, stated)


def holds_media(document: Mapping[str, Any]) -> bool:
    """Whether a request may need files at all; nearly none does."""
    messages = document.get("messages")
    for message in messages if isinstance(messages, list) else ():
        for name in ("content", "images"):
            parts = message.get(name) if isinstance(message, dict) else None
            if isinstance(parts, list) and any(
                isinstance(each, dict) and each.get("type") in KINDS for each in parts
            ):
                return True
    return False


def names_bucket(value: Any) -> bool:
    """Whether a file of Google's storage is named anywhere in a request, in whichever words."""
    if isinstance(value, dict):
        uris = (value.get(name) for name in ("fileUri", "file_uri"))
        return any(isinstance(uri, str) and uri.strip().lower().startswith("gs:") for uri in uris) or any(
            names_bucket(each) for each in value.values()
        )
    return isinstance(value, list) and any(names_bucket(each) for each in value)


def _path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def _audio(audio: Mapping[str, Any], place: str) -> Part:
    data = a_string(audio.get("data"), f"{place}.data")
    if data[:5].lower() == "data:":
        return _embedded(data, f"{place}.data")
    name = a_string(audio.get("format"), f"{place}.format").lower()
    return _inline(_AUDIO.get(name, f"audio/{name}"), data)


def _embedded(url: str, place: str) -> Part:
    """A `data:` URL. Source: https://www.rfc-editor.org/rfc/rfc2397"""
    head, comma, data = url[5:].partition(",")
    media_type, *options = (each.strip().lower() for each in head.split(";"))
    if not comma or not media_type:
        raise refused(place, "must be a data: URL with a media type.")
    if "base64" not in options:
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    return _inline(media_type, data)


def _inline(media_type: str, data: str) -> Part:
    return {"inlineData": {"mimeType": _SAME.get(media_type, media_type), "data": data}}


def _file_data(uri: str, media_type: str) -> Part:
    return {"fileData": {"fileUri": uri, **({"mimeType": _SAME.get(media_type, media_type)} if media_type else {})}}


def _stated(holder: Mapping[str, Any]) -> str:
    for name in ("format", "mime_type", "media_type"):
        value = holder.get(name)
        if isinstance(value, str) and "/" in value:
            return value.strip().lower()
    return ""


def _guessed(path: str) -> str:
    return mimetypes.guess_type(path, strict=False)[0] or "" if "." in path else ""
