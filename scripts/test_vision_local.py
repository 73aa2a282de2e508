#!/usr/bin/env python3
"""Why: providers fetch images by URL only from the public internet; local ones go as data URLs, made here.

scripts/test_vision_local.py cat.png dog.jpg -p "What is the difference?" [--model qwen:qwen-vl-plus] [--stream]

Only the standard library, so that it also runs on a machine that has nothing of AIGate but this file.
"""

import argparse
import base64
import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGEST_IMAGES = 20 * 1024 * 1024
"""Bytes of all images: base64 makes them a third larger, and a gateway takes 32 MiB (AIGATE_BODY_BYTES)."""
PATIENCE = 300
"""Seconds without a byte of the answer."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ask a model about images of this machine.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMG", help="png, jpeg, gif or webp")
    parser.add_argument("-p", "--prompt", required=True)
    parser.add_argument("--model", default="qwen:qwen-vl-plus", help="default: %(default)s")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1", help="default: %(default)s")
    parser.add_argument("--key", help="default: AIGATE_API_KEY, else the key that scripts/dev keeps in .aigate")
    parser.add_argument("--stream", action="store_true", help="print the answer as it comes")
    return parser.parse_args()


def media_type(data: bytes) -> str | None:
    """What these bytes are, by their first ones: extensions lie, and providers refuse a wrong type.

    Source: https://mimesniff.spec.whatwg.org/#matching-an-image-type-pattern
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def read_images(paths: list[Path]) -> list[bytes]:
    """The files' contents. Ends the program if one is missing or all together are too large."""
    images: list[bytes] = []
    room = LARGEST_IMAGES
    for path in paths:
        try:
            with path.open("rb") as file:
                data = file.read(room + 1)
        except OSError as error:
            raise SystemExit(f"{path}: {error.strerror}") from None
        room -= len(data)
        if room < 0:
            raise SystemExit(
                f"{path}: the images are over {LARGEST_IMAGES // 2**20} MiB together; make them smaller."
            )
        images.append(data)
    return images


def image_part(path: Path, data: bytes) -> dict[str, object]:
    """An image as a part of a message. Ends the program if it is no image of a known form."""
    kind = media_type(data)
    if kind is None:
        raise SystemExit(f"{path}: neither png, jpeg, gif nor webp, by its content.")
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}}


def find_key(given: str | None) -> str:
    """The API key: the option, the environment, or what `scripts/dev` keeps."""
    kept = ROOT / ".aigate" / "dev-key"
    key = given or os.environ.get("AIGATE_API_KEY") or (kept.read_text() if kept.is_file() else "")
    key = key.strip()
    if not key.isascii() or not key.isprintable() or not key:
        raise SystemExit("No API key that could be one: set AIGATE_API_KEY, or give --key.")
    return key


def ask(options: argparse.Namespace, key: str) -> http.client.HTTPResponse:
    """The gateway's answer, begun. Ends the program with the gateway's own words if it refuses."""
    parts = [image_part(*each) for each in zip(options.images, read_images(options.images), strict=True)]
    message = {"role": "user", "content": [*parts, {"type": "text", "text": options.prompt}]}
    document = {"model": options.model, "stream": options.stream, "messages": [message]}
    if not options.base_url.startswith(("http://", "https://")):
        raise SystemExit(f"--base-url {options.base_url}: http://host:port/v1 is expected.")
    request = urllib.request.Request(
        f"{options.base_url.rstrip('/')}/chat/completions",
        data=json.dumps(document).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{error.code}: {refusal(error.read())}") from None
    return answer


def refusal(body: bytes) -> str:
    """What an error answer says, in one line."""
    try:
        error = json.loads(body)["error"]
        return f"{error['message']} ({error['code']})"
    except (ValueError, LookupError, TypeError):
        return body[:300].decode("utf-8", "replace") or "no explanation"


def events(answer: http.client.HTTPResponse) -> Iterator[str]:
    """The data of each event up to the terminator. Ends the program if the stream breaks off before."""
    for line in answer:
        if line.startswith(b"data:"):
            data = line.removeprefix(b"data:").strip().decode()
            if data == "[DONE]":
                return
            yield data
    raise SystemExit("\nThe stream broke off: this answer is not whole.")


def words(answer: http.client.HTTPResponse, stream: bool) -> Iterator[str]:
    """The text of the answer, piece by piece."""
    if not stream:
        yield json.load(answer)["choices"][0]["message"].get("content") or ""
        return
    for data in events(answer):
        document = json.loads(data)
        if "error" in document:
            raise SystemExit(f"\nThe stream broke off: {refusal(data.encode())}")
        for choice in document.get("choices") or []:
            yield (choice.get("delta") or {}).get("content") or ""


def main() -> None:
    options = arguments()
    key = find_key(options.key)
    try:
        with ask(options, key) as answer:
            for piece in words(answer, options.stream):
                print(piece, end="", flush=True)
        print()
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"{options.base_url} does not answer: {getattr(error, 'reason', None) or error!r}")
    except (ValueError, LookupError, TypeError, AttributeError):
        sys.exit(f"{options.base_url} answered with something that is no chat completion.")


if __name__ == "__main__":
    main()
