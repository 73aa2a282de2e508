"""`scripts/test_vision_local.py`: images of this machine, to any model, through the gateway."""

import base64
import os
from pathlib import Path

import pytest

from tests.running import RunningGateway
from tests.scripts.running import SCRIPTS, Ended, run
from tests.upstream import FakeProvider, answer, answer_json, sse, stream, words

SCRIPT = "test_vision_local.py"
IMAGES = {
    "image/png": b"\x89PNG\r\n\x1a\n rest",
    "image/jpeg": b"\xff\xd8\xff\xe0 rest",
    "image/gif": b"GIF89a rest",
    "image/webp": b"RIFF\x04\x00\x00\x00WEBP rest",
}


async def ask(gateway: RunningGateway, folder: Path, *arguments: str, **variables: str) -> Ended:
    """Run the script against this gateway with its key."""
    options = ("--base-url", f"{gateway.url}/v1", "--model", "openai:gpt-4o", "-p", "What is on it?")
    return await run(SCRIPT, *arguments, *options, folder=folder, **{"AIGATE_API_KEY": gateway.key, **variables})


def picture(folder: Path, data: bytes = IMAGES["image/png"], name: str = "cat.png") -> str:
    """A file with these bytes."""
    (folder / name).write_bytes(data)
    return str(folder / name)


def test_can_be_executed() -> None:
    """It is called by its name."""
    assert os.access(SCRIPTS / SCRIPT, os.X_OK)


@pytest.mark.parametrize("kind", IMAGES)
async def test_media_type_is_told_by_the_content(
    gateway: RunningGateway, provider: FakeProvider, tmp_path: Path, kind: str
) -> None:
    """A jpeg that somebody called .png arrives as a jpeg."""
    ended = await ask(gateway, tmp_path, picture(tmp_path, IMAGES[kind]))
    assert (ended.status, ended.out, ended.err) == (0, "Hello there\n", "")
    url = f"data:{kind};base64,{base64.b64encode(IMAGES[kind]).decode()}"
    assert provider.calls[0].document["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": "What is on it?"},
            ],
        }
    ]


async def test_several_images(gateway: RunningGateway, provider: FakeProvider, tmp_path: Path) -> None:
    """All go in one message, in their order."""
    files = [picture(tmp_path, data, str(number)) for number, data in enumerate(IMAGES.values())]
    assert (await ask(gateway, tmp_path, *files)).status == 0
    parts = provider.calls[0].document["messages"][0]["content"][:-1]
    assert [part["image_url"]["url"].partition(";")[0] for part in parts] == [f"data:{kind}" for kind in IMAGES]


async def test_stream(gateway: RunningGateway, provider: FakeProvider, tmp_path: Path) -> None:
    """The words come as they are said."""
    provider.default = stream(*sse(*words("A ", "cat")))
    ended = await ask(gateway, tmp_path, picture(tmp_path), "--stream")
    assert (ended.status, ended.out, ended.err) == (0, "A cat\n", "")


async def test_broken_stream(gateway: RunningGateway, provider: FakeProvider, tmp_path: Path) -> None:
    """A broken answer does not look whole."""
    provider.default = stream(*sse(*words("A ")[:2], done=False), end=False)
    ended = await ask(gateway, tmp_path, picture(tmp_path), "--stream")
    assert (ended.status, ended.out) == (1, "A ")
    assert "broke off" in ended.err


async def test_refusal_in_the_gateways_words(gateway: RunningGateway, tmp_path: Path) -> None:
    """Message and code are told, and no traceback."""
    ended = await ask(gateway, tmp_path, picture(tmp_path), AIGATE_API_KEY="aig_x_y")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("401: ")
    assert "caller_invalid_api_key" in ended.err


async def test_key_as_an_option(gateway: RunningGateway, tmp_path: Path) -> None:
    """`--key` goes before the environment."""
    ended = await ask(gateway, tmp_path, picture(tmp_path), "--key", gateway.key, AIGATE_API_KEY="aig_x_y")
    assert ended.status == 0


async def test_no_chat_completion(gateway: RunningGateway, provider: FakeProvider, tmp_path: Path) -> None:
    """Whatever stands at the address, the answer is one clear line."""
    base_url = provider.base_url
    for behaviour in (answer(200, b"<html>", "text/html"), answer_json({"choices": []}), answer_json([])):
        provider.default = behaviour
        ended = await run(
            SCRIPT, picture(tmp_path), "-p", "x", "--base-url", base_url, "--key", "aig_x_y", folder=tmp_path
        )
        assert (ended.status, ended.out) == (1, "")
        assert "no chat completion" in ended.err


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"<svg/>", "neither png, jpeg, gif nor webp"),
        (b"", "neither png, jpeg, gif nor webp"),
        (IMAGES["image/png"] + bytes(20 * 1024 * 1024), "20 MiB"),
    ],
)
async def test_what_cannot_be_sent(
    gateway: RunningGateway, provider: FakeProvider, tmp_path: Path, data: bytes, told: str
) -> None:
    """It is refused before anything is sent, with the file's name."""
    ended = await ask(gateway, tmp_path, picture(tmp_path, data))
    assert (ended.status, ended.out, provider.calls) == (1, "", [])
    assert told in ended.err
    assert "cat.png" in ended.err


async def test_missing_file(gateway: RunningGateway, tmp_path: Path) -> None:
    """A wrong name is told, not a traceback."""
    ended = await ask(gateway, tmp_path, "nowhere.png")
    assert (ended.status, ended.err) == (1, "nowhere.png: No such file or directory\n")


async def test_no_gateway(tmp_path: Path) -> None:
    """Nobody listens there."""
    options = ("-p", "x", "--base-url", "http://127.0.0.1:1/v1", "--key", "aig_x_y")
    ended = await run(SCRIPT, picture(tmp_path), *options, folder=tmp_path)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("http://127.0.0.1:1/v1 does not answer")
