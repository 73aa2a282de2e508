"""Recorded answers of real providers, and the project's own golden files: what was said, and how it is to be read.

The recordings are no part of the project. `AIGATE_WIRE` names their folder; without it they are looked for beside
the checkout, and where there are none, no test over them exists: the golden files prove the same.
"""

import base64
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from tests.providers import bedrock_frames

Document: TypeAlias = dict[str, Any]

BESIDE = Path(__file__).parents[3] / "shared" / "wire"
GOLDEN = Path(__file__).parent / "golden"
ROWS = {"dashscope": "qwen", "vllm-local": "vllm"}
"""Providers that the catalog knows by another name."""
FRAMES = "application/vnd.amazon.eventstream"
KINDS = {".sse": "text/event-stream", ".frames": FRAMES, ".body": "application/json"}
"""What a golden answer is, by the end of its file's name."""
HOP_BY_HOP = {"content-length", "transfer-encoding", "content-encoding", "connection", "date", "server"}


@dataclass(frozen=True, slots=True)
class Case:
    """One answer of a provider, the request that led to it where that was recorded, and how it is to be read."""

    id: str
    provider: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    request: Document | None
    expected: Document
    golden: bool = False
    named: str = ""

    @property
    def model(self) -> str:
        """The model that is asked for: where it need not be a certain one, the case's own name."""
        return self.named or self.id

    @property
    def row(self) -> str:
        """The provider's name in the catalog."""
        return ROWS.get(self.provider, self.provider)

    @property
    def ok(self) -> bool:
        return bool(self.expected["ok"])

    @property
    def streamed(self) -> bool:
        """Whether the provider answered with events."""
        kind = self.headers.get("content-type", "")
        return self.status == 200 and ("event-stream" in kind or kind == FRAMES or self.body.startswith(b"data:"))

    @property
    def hides_words(self) -> bool:
        """Whether the oracle, the plain SDK, misses some: content that is a list, reasoning in its details alone."""
        if re.search(rb'"type": ?"thinking"', self.body):
            return True
        return b'"reasoning.text"' in self.body and not re.search(rb'"reasoning(_content)?": ?"', self.body)

    @property
    def asked_for_stream(self) -> bool:
        if self.request is None:
            return bool(self.expected["stream"])
        return self.request.get("stream") is True

    def answer_headers(self) -> dict[str, str]:
        """The headers to be sent again, without those that belong to the recorded connection."""
        headers = {
            name.lower(): value.replace("\r", "").replace("\n", " ")
            for name, value in self.headers.items()
            if name.lower() not in HOP_BY_HOP
        }
        headers.setdefault("content-type", "text/event-stream" if self.streamed else "application/json")
        return headers


def folder() -> Path:
    return Path(os.environ.get("AIGATE_WIRE") or BESIDE)


def available() -> bool:
    """Whether there are recordings here."""
    return (folder() / "ORACLE.jsonl").is_file()


@cache
def recorded(wire: str = "openai-chat") -> tuple[Case, ...]:
    """Every recording of a wire that the oracle has read."""
    lines = (folder() / "ORACLE.jsonl").read_text(encoding="utf-8").splitlines()
    readings = [json.loads(line) for line in lines if line.strip()]
    return tuple(_recorded(reading) for reading in readings if reading["wire"] == wire)


@cache
def unread(wire: str) -> tuple[Case, ...]:
    """Every recording of a wire that the oracle has not read; none without recordings."""
    return tuple(_unread(path) for path in sorted(folder().glob(f"*/{wire}__*.json"))) if available() else ()


@cache
def golden() -> tuple[Case, ...]:
    """The project's own: `<name>.sse` or `<name>.body` as it comes over the wire, `<name>.json` says the rest.

    Those of a provider with a wire of its own stand in a folder of its name. AWS's frames are binary: they are made
    of `<name>.frames`, which holds a line for each.
    """
    return tuple(_golden(path) for path in sorted(GOLDEN.rglob("*.json")))


def _recorded(reading: Document) -> Case:
    document = json.loads((folder() / reading["file"]).read_text(encoding="utf-8"))
    request, response = document["request"] or {}, document["response"]
    return Case(
        id=reading["file"].removesuffix(".json"),
        provider=reading["provider"],
        status=response["status"],
        headers=response["headers"],
        body=base64.b64decode(response.get("body_base64") or "") or (response.get("body_text") or "").encode(),
        request=request.get("body"),
        expected=reading,
    )


def _unread(path: Path) -> Case:
    document = json.loads(path.read_text(encoding="utf-8"))
    request, response = document["request"] or {}, document["response"]
    kind = str(response["headers"].get("content-type"))
    return Case(
        id=str(path.relative_to(folder()).with_suffix("")),
        provider=document["provider"],
        status=response["status"],
        headers=response["headers"],
        body=(response["body_text"] or "").encode(),
        request=request.get("body"),
        expected={"ok": response["status"] == 200, "stream": "event-stream" in kind, "path": request.get("path")},
    )


def _golden(path: Path) -> Case:
    document = json.loads(path.read_text(encoding="utf-8"))
    (body,) = (each for each in path.parent.glob(f"{path.stem}.*") if each.suffix in KINDS)
    name = str(path.relative_to(GOLDEN).with_suffix(""))
    status = document.get("status", 200)
    return Case(
        id=f"golden/{name}",
        provider=document.get("provider") or name.rpartition("/")[0] or "acme",
        status=status,
        headers={"content-type": KINDS[body.suffix], **document.get("headers", {})},
        body=_framed(body.read_text(encoding="utf-8")) if body.suffix == ".frames" else body.read_bytes(),
        request=document["request"],
        expected={"ok": True, "status": status, "stream": body.suffix != ".body", **document["expected"]},
        golden=True,
        named=document.get("model", ""),
    )


def _framed(lines: str) -> bytes:
    """Frames of AWS: each line says `event` or `exception`, which one, and its payload."""
    made = {"event": bedrock_frames.frame, "exception": bedrock_frames.exception}
    parts = [line.split(" ", 2) for line in lines.splitlines()]
    return b"".join(made[kind](name, json.loads(payload)) for kind, name, payload in parts)
