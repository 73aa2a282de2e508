"""The guarded fetch, against a real server, with a resolver that says what each test needs."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest

from providers.catalog import Provider
from providers.client import Client
from providers.contract import Call, Kind, ProviderError
from providers.fetch import Address, Fetcher, _Guard, _UnfitError, is_public
from providers.gemini import GeminiWire

PNG = b"\x89PNG\r\n\x1a\n"
HERE = "127.0.0.1"

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBlzCCAT6gAwIBAgIUfIf2Qi8Pgxv/1+oa/NMN9QfLzLkwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKZmlsZXMudGVzdDAgFw0yNjExMjMwOTA3MTNaGA8yMTI2MTAz
MDA5MDcxM1owFTETMBEGA1UEAwwKZmlsZXMudGVzdDBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABNWq3IRao7dGyF7VwnJaqDGXIjgxGKP2JxZ2mxLtkpkMIWPmw3np
tHBvVtdO+VqtqQhLIoewN1lb7If2Xy6J0VmjajBoMB0GA1UdDgQWBBS+k/tVjNz7
7Ky+NMQu32eyeROKADAfBgNVHSMEGDAWgBS+k/tVjNz77Ky+NMQu32eyeROKADAP
BgNVHRMBAf8EBTADAQH/MBUGA1UdEQQOMAyCCmZpbGVzLnRlc3QwCgYIKoZIzj0E
AwIDRwAwRAIgCm3JCUeovI0UfGkPYbiymNrESCHFzkFX5HDYpEkndvQCIA1s4ou/
9CxyWOJ1aqwtTZbyxPUCR7LFbwtGGb3dRImp
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgaPdNUu40+jiExcJc
3cOtkR81vPkHOFsbWL+qBFKlz1ihRANCAATVqtyEWqO3Rshe1cJyWqgxlyI4MRij
9icWdpsS7ZKZDCFj5sN56bRwb1bXTvlarakISyKHsDdZW+yH9l8uidFZ
-----END PRIVATE KEY-----
"""
"""For the name files.test, signed by itself; it protects nothing."""


class Server:
    """Answers each path with the bytes that are set for it, and keeps what was asked."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.connections = 0
        self.port = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head)
            writer.write(self.answers.get(head.split()[1], b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n"))
            await writer.drain()
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(answers: dict[str, bytes], tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(answers)
    listening = await asyncio.start_server(server, HERE, 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


def answer(body: bytes = PNG, kind: str = "image/png", more: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode() + body


def moved(where: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nlocation: {where}\r\ncontent-length: 0\r\n\r\n".encode()


class Names:
    """A resolver: each name's addresses, one answer after the other, the last one for good."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(each) for name, each in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.answers:
            raise OSError("no such host")
        found = self.answers[host]
        return found.pop(0) if len(found) > 1 else found[0]


def only_here(address: Address) -> bool:
    """Stands for public in these tests: the loopback, and nothing else of it than this one."""
    return str(address) == HERE


def fetcher(names: Names | None = None, permits: Callable[[Address], bool] = only_here, **options: object) -> Fetcher:
    return Fetcher(names or Names(files_test=[[HERE]]), permits, **options)  # type: ignore[arg-type]


async def refusal(fetching: Fetcher, url: str) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await fetching.fetch({url: "messages[0].content[1].image_url"})
    error = caught.value
    assert (error.kind, error.status, error.sent) == (Kind.REJECTED, 400, False)
    assert error.param == "messages[0].content[1].image_url"
    return error


async def test_a_file() -> None:
    """Its type and its bytes; nothing of ours goes along."""
    async with serving({"/a.png?x=1": answer(more="set-cookie: a=b\r\n")}) as server:
        url = f"http://files.test:{server.port}/a.png?x=1"
        assert await fetcher().fetch({url: "x"}) == {url: ("image/png", PNG)}
        head = server.asked[0].lower()
        assert f"host: files.test:{server.port}" in head
        assert "cookie" not in head
        assert "authorization" not in head


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.0.1",
        "198.18.0.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "fec0::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2001::1",
        "2001:db8::1",
        "100::1",
    ],
)
async def test_addresses_that_are_not_public(address: str) -> None:
    """Whoever names them, and in whatever disguise; no connection is tried."""
    assert not is_public(ip_address(address))
    names = Names(files_test=[["8.8.8.8", address]])
    error = await refusal(fetcher(names, is_public), "http://files.test/a.png")
    assert "not a public one" in error.message


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::", "64:ff9b::808:808"]
)
def test_addresses_that_are_public(address: str) -> None:
    """Also those of a network that reaches IPv4 through IPv6."""
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1", "localhost"]
)
async def test_the_loopback_by_any_spelling(host: str) -> None:
    """With the system's own resolver."""
    async with serving({"/a.png": answer()}) as server:
        await refusal(Fetcher(), f"http://{host}:{server.port}/a.png")
        assert server.connections == 0


async def test_a_name_is_resolved_once() -> None:
    """A second answer of DNS, with which a guard could be fooled, is never asked for."""
    names = Names(files_test=[[HERE], ["127.0.0.2"]])
    async with serving({"/a.png": answer()}) as server:
        await fetcher(names).fetch({f"http://files.test:{server.port}/a.png": "x"})
    assert names.asked == ["files.test"]


def test_no_socket_is_opened_to_another_address() -> None:
    """Whatever the connector has made of the name: the last look is at the address itself."""
    guard = _Guard([ip_address("8.8.8.8")])
    info = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    with pytest.raises(_UnfitError):
        guard.socket((*info, ("8.8.4.4", 443)))
    guard.socket((*info, ("8.8.8.8", 443))).close()


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://files.test/a",
        "gopher://files.test/",
        "http://u:p@files.test/a.png",
        "http:///a",
        "x",
    ],
)
async def test_urls_that_are_not_fetched(url: str) -> None:
    """Only http and https, and without credentials."""
    names = Names(files_test=[[HERE]])
    await refusal(fetcher(names), url)
    assert names.asked == []


async def test_a_redirect_is_checked_like_the_first() -> None:
    """What it names has to be public, too."""
    names = Names(files_test=[[HERE]], inside_test=[["10.0.0.1"]])
    async with serving({}) as server:
        at = f"http://files.test:{server.port}"
        server.answers = {
            "/ok": moved("/a.png"),
            "/a.png": answer(),
            "/name": moved("http://inside.test/a.png"),
            "/literal": moved("http://169.254.169.254/latest/meta-data"),
            "/file": moved("file:///etc/passwd"),
            "/again": moved("/again"),
        }
        assert (await fetcher(names).fetch({f"{at}/ok": "x"}))[f"{at}/ok"] == ("image/png", PNG)
        for path in ("name", "literal", "file"):
            await refusal(fetcher(names), f"{at}/{path}")
        server.asked.clear()
        assert "more than 3 redirects" in (await refusal(fetcher(names), f"{at}/again")).message
        assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (answer(kind="text/html"), "not an image"),
        (answer(kind="application/octet-stream"), "not an image"),
        (answer(more="content-encoding: gzip\r\n"), "compressed"),
        (answer(b"x" * 101), "too large"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n\r\n" + b"x" * 200, "too large"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 9\r\n\r\nx", "within 0.3 s"),
        (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "status 500"),
        (b"nonsense\r\n\r\n", "cannot be fetched"),
        (b"", "within 0.3 s"),
    ],
)
async def test_bounds(told: bytes, words: str) -> None:
    """Of type, size and time."""
    async with serving({"/a": told}) as server:
        error = await refusal(fetcher(max_bytes=100, seconds=0.3), f"http://files.test:{server.port}/a")
    assert words in error.message


async def test_the_files_of_a_request_share_their_bounds() -> None:
    """Of size and of number."""
    async with serving({"/a.png": answer(b"x" * 60), "/b.png": answer(b"x" * 60)}) as server:
        at = f"http://files.test:{server.port}"
        with pytest.raises(ProviderError) as caught:
            await fetcher(max_bytes=100).fetch({f"{at}/a.png": "a", f"{at}/b.png": "b"})
        assert caught.value.param == "b"
        with pytest.raises(ProviderError):
            await fetcher().fetch({f"{at}/{number}": "x" for number in range(21)})


async def test_a_vague_type_goes_by_the_name() -> None:
    """Stores of objects call everything a stream of octets."""
    async with serving({"/a.pdf": answer(kind="binary/octet-stream")}) as server:
        url = f"http://files.test:{server.port}/a.pdf"
        assert (await fetcher().fetch({url: "x"}))[url][0] == "application/pdf"


async def test_a_name_that_does_not_exist() -> None:
    """It is the caller's mistake."""
    await refusal(fetcher(), "http://nowhere.test/a.png")


async def test_tls_verifies_the_name(tmp_path: Path) -> None:
    """Of the URL, though the connection goes to a checked address."""
    pem = tmp_path / "files.pem"
    pem.write_text(CERTIFICATE)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(pem)
    trusting = ssl.create_default_context(cafile=str(pem))
    names = Names(files_test=[[HERE]], other_test=[[HERE]])
    async with serving({"/a.png": answer()}, ours) as server:
        url = f"https://files.test:{server.port}/a.png"
        assert (await fetcher(names, tls=trusting).fetch({url: "x"}))[url][1] == PNG
        await refusal(fetcher(names, tls=trusting), f"https://other.test:{server.port}/a.png")
        await refusal(fetcher(names), url)


async def test_the_client_fetches_what_the_wire_needs() -> None:
    """And sends it along; the call itself is left as it was."""
    sent: list[bytes] = []

    def answering(request: httpx.Request) -> httpx.Response:
        sent.append(request.content)
        return httpx.Response(200, json={"candidates": []})

    gemini = Provider("gemini", "http://gemini.test", GeminiWire(), requires_key=False)
    async with serving({"/a": answer()}) as server:
        url = f"http://files.test:{server.port}/a"
        content = [{"type": "image_url", "image_url": {"url": url}}]
        call = Call("gemini-2.5-flash", {"messages": [{"role": "user", "content": content}]})
        client = Client(httpx.MockTransport(answering), fetcher=fetcher())
        upstream = await client.open(gemini, call)
        await upstream.aclose()
        assert b'{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}' in sent[0]
        assert call == replace(call, fetched=None)
        with pytest.raises(ProviderError) as caught:
            await Client(httpx.MockTransport(answering)).open(gemini, call)
        assert caught.value.param == "messages[0].content[0].image_url"
        assert len(sent) == 1
