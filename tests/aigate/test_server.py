"""One connection, told byte by byte, in front of a small application: what is written, when, and when it ends."""

import asyncio
import gc
import json
import weakref
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from aigate import server
from aigate.server import BoundedProtocol
from middleware.asgi import ASGIApp, Message, Receive, Scope, Send

SHORT = 0.06
"""Seconds, of a time-out that a test waits for."""
GET = b"GET /a%20b?c=%20 HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"


class Transport(asyncio.Transport):
    """Remembers each write; what a loop's transport does besides is done by hand."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False
        self.aborted = False
        self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("1.2.3.4", 5), "sockname": ("5.6.7.8", 80)}.get(name, default)

    def write(self, data: Any) -> None:
        assert not self.closed
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Client:
    """The other end of a connection to `app`."""

    def __init__(self, app: ASGIApp, protocol: type[BoundedProtocol] = BoundedProtocol, **options: Any) -> None:
        config = Config(app, log_config=None, timeout_keep_alive=options.pop("keep_alive", 60))
        config.load()
        config.loaded_app = app
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"today")]
        self.transport = Transport()
        self.connection = protocol(config, self.state, options)
        self.connection.connection_made(self.transport)

    async def sends(self, *pieces: bytes) -> bytes:
        """Everything that is written until nothing moves any more."""
        before = len(self.transport.writes)
        for piece in pieces:
            self.connection.data_received(piece)
        await settled()
        return b"".join(self.transport.writes[before:])

    async def leaves(self) -> None:
        self.transport.closed = True
        self.connection.connection_lost(None)
        await settled()

    @property
    def writes(self) -> list[bytes]:
        return self.transport.writes

    @property
    def cut_off(self) -> bool:
        return self.transport.closed


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def answering(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def length(number: int) -> tuple[bytes, bytes]:
    return (b"content-length", b"%d" % number)


HELLO = answering(start(length(5)), body(b"hello"))


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body, read to its end."""
    read, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        read, more = read + message["body"], message["more_body"]
    await answering(start(length(len(read))), body(read))(scope, receive, send)


class Waiting:
    """An application that begins to stream and goes on when it is told to."""

    def __init__(self, *begin: Message) -> None:
        self.begin = begin
        self.go_on = asyncio.Event()
        self.told: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for message in self.begin:
            await send(message)
        await self.go_on.wait()
        if not self.begin:
            await send(start())
        await send(body(b"end"))


# --- the request ----------------------------------------------------------------------------------------------


async def scope_of(request: bytes) -> Scope:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await HELLO(scope, receive, send)

    await Client(app, greeting="hi").sends(request)
    return scopes[0]


async def test_scope() -> None:
    """As ASGI says."""
    assert await scope_of(GET) == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"c=%20",
        "root_path": "",
        "headers": [(b"host", b"x")],
        "client": ("1.2.3.4", 5),
        "server": ("5.6.7.8", 80),
        "state": {"greeting": "hi"},
    }


@pytest.mark.parametrize(
    ("url", "path", "query"),
    [
        (b"/", "/", b""),
        (b"/?", "/", b""),
        (b"/a?b?c", "/a", b"b?c"),
        (b"//a/b", "//a/b", b""),
        (b"/a#b", "/a", b""),
        (b"http://h:1/a?b", "/a", b"b"),
    ],
)
async def test_url(url: bytes, path: str, query: bytes) -> None:
    """The forms that a client may ask in."""
    scope = await scope_of(b"GET " + url + b" HTTP/1.1\r\n\r\n")
    assert (scope["path"], scope["query_string"]) == (path, query)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_request_in_pieces(size: int) -> None:
    """However the bytes are cut, the request is the same."""
    client = Client(echo)
    for request in (POST + b"abc", CHUNKED + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"):
        pieces = [request[at : at + size] for at in range(0, len(request), size)]
        assert (await client.sends(*pieces)).endswith(b"content-length: 3\r\n\r\nabc")


async def test_body_as_it_comes() -> None:
    """Who asks early gets what there is, and then the rest."""
    client = Client(echo)
    assert await client.sends(POST, b"a") == b""
    assert await client.sends(b"b") == b""
    assert (await client.sends(b"c")).endswith(b"abc")


async def test_much_body_waits() -> None:
    """A client is not read while much of its body waits for an application that does not ask."""
    app = Waiting()
    client = Client(app)
    await client.sends(b"POST / HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n", b" " * 60_000)
    assert not client.transport.paused
    await client.sends(b" " * 60_000)
    assert client.transport.paused


async def test_body_is_read_on() -> None:
    """It goes on as soon as the application asks."""
    client = Client(echo)
    for piece in (b"POST / HTTP/1.1\r\ncontent-length: 300000\r\n\r\n", *[b" " * 100_000] * 3):
        await client.sends(piece)
        assert not client.transport.paused
    assert client.writes[-1].endswith(b" " * 300_000)


async def test_trailers_are_no_headers() -> None:
    """What comes behind a body changes nothing of what stood before it."""
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    await Client(app).sends(CHUNKED, b"1\r\na\r\n0\r\nauthorization: other\r\n\r\n")
    assert scopes[0]["headers"] == [(b"transfer-encoding", b"chunked")]


async def test_endless_trailer() -> None:
    """Nor does it fill the memory."""
    client = Client(echo)
    await client.sends(CHUNKED, b"1\r\na\r\n0\r\nx: ")
    for _ in range(4):
        if not client.cut_off:
            await client.sends(b"a" * 30_000)
    assert client.writes[-1].startswith(b"HTTP/1.1 431 ")


async def test_disconnect_is_told() -> None:
    """To all who wait for it, and to who asks later."""
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in await asyncio.gather(receive(), receive()):
            told.append(message["type"])
        told.append((await receive())["type"])
        await send(start())  # dropped

    client = Client(app)
    await client.sends(GET)
    assert told == []
    await client.leaves()
    assert told == ["http.disconnect"] * 3
    assert client.writes == []
    assert not client.state.tasks


@pytest.mark.parametrize("begin", [(), (start(length(5)),), (start(), body(b"a", more=True))])
async def test_failure_behind_a_client_that_left(begin: tuple[Message, ...]) -> None:
    """There is nobody to be told, and nothing is left behind."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in begin:
            await send(message)
        await receive()
        await receive()
        raise OSError

    client = Client(app)
    written = await client.sends(GET)
    await client.leaves()
    assert b"".join(client.writes) == written
    assert not client.state.tasks


async def test_a_whole_body_keeps_nobody_from_noticing() -> None:
    """That its client leaves: reading goes on once a large body has been taken."""
    paused: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        paused.append(client.transport.paused)
        await receive()
        paused.append(client.transport.paused)

    client = Client(app)
    await client.sends(b"POST / HTTP/1.1\r\ncontent-length: 100000\r\n\r\n" + b" " * 100_000)
    assert paused == [True, False]


async def test_end_is_told() -> None:
    """Nobody waits for a client whose answer is complete."""
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        waiting = asyncio.create_task(receive())  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await HELLO(scope, receive, send)
        told.append((await waiting)["type"])

    await Client(app).sends(GET)
    assert told == ["http.disconnect"]


async def test_expect() -> None:
    """A client that asks is told to go on when its body is wanted, once, and not when it has come already."""
    asking = POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-Continue\r\n\r\n")
    client = Client(echo)
    assert await client.sends(asking) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert await client.sends(b"a") == b""
    assert (await client.sends(b"bc")).startswith(b"HTTP/1.1 200 OK")
    assert (await client.sends(asking + b"abc")).startswith(b"HTTP/1.1 200 OK")
    assert (await Client(HELLO).sends(asking)).startswith(b"HTTP/1.1 200 OK")


# --- the answer -----------------------------------------------------------------------------------------------


async def test_answer_in_one_piece() -> None:
    """Head and body leave in one write."""
    client = Client(answering(start((b"X-Name", b"v"), length(5), status=404), body(b"hello")))
    await client.sends(GET)
    assert client.writes == [b"HTTP/1.1 404 Not Found\r\ndate: today\r\nx-name: v\r\ncontent-length: 5\r\n\r\nhello"]
    assert not client.cut_off


async def test_stream() -> None:
    """The head leaves at once, and each chunk is one write."""
    client = Client(answering(start(), body(b"one", more=True), body(more=True), body(b"x" * 16)))
    await client.sends(GET)
    assert client.writes == [
        b"HTTP/1.1 200 OK\r\ndate: today\r\ntransfer-encoding: chunked\r\n\r\n",
        b"3\r\none\r\n",
        b"10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
    ]


async def test_own_transfer_encoding() -> None:
    """An application that names it itself does not make it stand there twice."""
    answer = await Client(answering(start((b"Transfer-Encoding", b"chunked")), body(b"a"))).sends(GET)
    assert answer.endswith(b"\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
    assert answer.lower().count(b"transfer-encoding") == 1


@pytest.mark.parametrize("headers", [(), (length(5),), ((b"transfer-encoding", b"chunked"),)])
async def test_head_has_no_body(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """The head is GET's, as far as it is known without a body."""
    client = Client(answering(start(*headers), body(b"he", more=True), body(b"llo")))
    answer = await client.sends(GET.replace(b"GET", b"HEAD"))
    assert answer.partition(b"\r\n\r\n")[2] == b""
    assert b"hello" not in answer
    assert not client.cut_off


@pytest.mark.parametrize("status", [204, 304])
async def test_no_content(status: int) -> None:
    """These have no body, and do not say how long it is."""
    answer = await Client(answering(start(status=status), body())).sends(GET)
    assert answer.endswith(b"\r\ndate: today\r\n\r\n")


@pytest.mark.parametrize("status", [299, 599])
async def test_unknown_status(status: int) -> None:
    """A status without a name has none."""
    answer = await Client(answering(start(length(0), status=status), body())).sends(GET)
    assert answer.startswith(b"HTTP/1.1 %d \r\n" % status)


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x", b"a\nb"),
        (b"x", b"a\rb"),
        (b"x", b"a\0b"),
        (b"x y", b""),
        (b"x:", b""),
        (b"x\r\ny", b""),
        (b"", b""),
    ],
)
@pytest.mark.parametrize("framing", [(length(5),), ()])
async def test_header_that_is_none(header: tuple[bytes, bytes], framing: tuple[tuple[bytes, bytes], ...]) -> None:
    """A header that would be another one is never written."""
    client = Client(answering(start(header, *framing), body(b"hello")))
    answer = await client.sends(GET)
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert answer.endswith(b"\r\n\r\nInternal Server Error")
    assert b"cookie" not in answer
    assert client.cut_off


@pytest.mark.parametrize("parts", [(b"hell",), (b"hello!",), (b"hello", b"!"), ()])
async def test_wrong_length(parts: tuple[bytes, ...]) -> None:
    """An answer that is not as long as it said does not look whole."""
    client = Client(answering(start(length(5)), *[body(part, more=True) for part in parts], body()))
    answer = await client.sends(GET)
    assert answer.partition(b"\r\n\r\n")[2] in (b"", b"hell", b"hello")
    assert client.cut_off


@pytest.mark.parametrize(
    ("messages", "written"),
    [
        ((), b"HTTP/1.1 500 Internal Server Error"),
        ((body(b"a"),), b"HTTP/1.1 500 Internal Server Error"),
        ((start(length(5)),), b"HTTP/1.1 200 OK"),
        ((start(), body(b"a", more=True)), b"HTTP/1.1 200 OK"),
        ((start(), start()), b"HTTP/1.1 200 OK"),
    ],
)
async def test_application_that_does_not_answer(messages: tuple[Message, ...], written: bytes) -> None:
    """The client learns that something is wrong, and waits for nothing."""
    client = Client(answering(*messages))
    answer = await client.sends(GET)
    assert answer.startswith(written)
    assert not answer.endswith(b"0\r\n\r\n")
    assert client.cut_off
    assert not client.state.tasks


async def test_what_a_failed_application_left_running_completes_nothing() -> None:
    """A transport takes more as long as something waits in it, and a broken answer must not look whole."""
    left: list[asyncio.Task[None]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(start(), body(b"half", more=True))(scope, receive, send)
        left.append(asyncio.ensure_future(answering(body())(scope, receive, send)))
        raise KeyError

    client = Client(app)
    assert (await client.sends(GET)).endswith(b"half\r\n")
    assert client.cut_off
    await left[0]


async def test_application_that_goes_on_too_long() -> None:
    """What comes after the end is its error, not the client's."""
    client = Client(answering(start(length(0)), body(), body(b"a")))
    assert (await client.sends(GET)).endswith(b"\r\n\r\n")
    assert not client.cut_off


async def test_slow_reader_holds_the_application() -> None:
    """Until it reads again."""
    app = Waiting(start())
    client = Client(app)
    await client.sends(GET)
    client.connection.pause_writing()
    app.go_on.set()
    await settled()
    assert len(client.writes) == 1
    client.connection.resume_writing()
    await settled()
    assert client.writes[-1] == b"3\r\nend\r\n0\r\n\r\n"


async def test_who_does_not_read_is_cut_off() -> None:
    """Not at once, but soon."""
    client = Client(Waiting(start()), write_timeout=SHORT)
    await client.sends(GET)
    client.connection.pause_writing()
    await asyncio.sleep(2 * SHORT)
    assert client.cut_off


@pytest.mark.parametrize("request_", [GET, GET.replace(b"Host: x", b"Connection: close"), b"nonsense\r\n\r\n", b""])
async def test_who_does_not_read_the_end_is_cut_off(request_: bytes) -> None:
    """What is to be closed when all is read is closed in any case."""
    client = Client(HELLO, keep_alive=SHORT, header_timeout=SHORT, write_timeout=SHORT)
    await client.sends(request_)
    assert not client.transport.aborted
    await asyncio.sleep(4 * SHORT)
    assert client.transport.aborted


async def test_who_ends_and_does_not_read_is_cut_off() -> None:
    """While something is answered, too."""
    client = Client(Waiting(start()), write_timeout=SHORT)
    await client.sends(GET)
    client.connection.eof_received()
    assert not client.transport.aborted
    await asyncio.sleep(2 * SHORT)
    assert client.transport.aborted


# --- the connection -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "ends"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
async def test_client_says_whether_it_stays(request_: bytes, ends: bool) -> None:
    """And is told so."""
    client = Client(HELLO)
    answer = await client.sends(request_)
    assert answer.endswith(b"hello")
    assert answer.count(b"connection: close") == ends
    assert client.cut_off == ends


@pytest.mark.parametrize("value", [b"close", b"Close", b"x, close"])
async def test_application_ends_the_connection(value: bytes) -> None:
    """By the header, which stands there once."""
    client = Client(answering(start((b"connection", value), length(0)), body()))
    answer = await client.sends(GET)
    assert answer.count(b"connection") == 1
    assert client.cut_off


async def test_one_after_the_other() -> None:
    """A connection is used again, and requests sent together are answered in their order."""
    client = Client(echo)
    for _ in range(3):
        assert (await client.sends(POST + b"abc")).endswith(b"abc")
    answers = await client.sends(POST + b"abc" + POST + b"def" + POST + b"g", b"hi")
    assert [each[-3:] for each in answers.split(b"HTTP/1.1 200 OK")[1:]] == [b"abc", b"def", b"ghi"]
    assert client.state.total_requests == 6
    assert not client.transport.paused


@pytest.mark.parametrize(("waiting", "ends"), [(server.MOST_WAITING, False), (server.MOST_WAITING + 1, True)])
async def test_many_at_once(waiting: int, ends: bool) -> None:
    """Some may wait for their turn; who sends more than that is cut off."""
    client = Client(Waiting())
    await client.sends(GET * (1 + waiting))
    assert client.cut_off == ends


async def test_nothing_behind_the_last() -> None:
    """A request behind one that ended the connection is not answered."""
    client = Client(HELLO)
    answers = await client.sends(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n" + GET)
    assert answers.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("then", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000])
async def test_refusal_is_not_written_into_an_answer(then: bytes) -> None:
    """A stream that runs is broken off by what its client sends behind its request, and says nothing wrong."""
    client = Client(Waiting(start(), body(b"one", more=True)))
    await client.sends(GET)
    assert await client.sends(then) == b""
    assert client.cut_off


async def test_nothing_behind_a_refusal() -> None:
    """An application whose place was taken by it says nothing any more, however long the connection stays."""
    client = Client(app := Waiting())
    await client.sends(GET, b"nonsense\r\n\r\n")
    assert await refused(client) == 400
    client.transport.closed = False  # to writing, while something waits to be read
    app.go_on.set()
    await settled()
    assert len(client.writes) == 1


async def test_upgrade_is_ignored() -> None:
    """There is no other protocol."""
    client = Client(HELLO)
    for name in (b"websocket", b"h2c"):
        upgrade = b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: " + name + b"\r\n\r\n"
        assert (await client.sends(upgrade)).endswith(b"hello")


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("request_", [POST + b"GET", CHUNKED + b"3\r\nGET\r\n0\r\n\r\n"], ids=["length", "chunked"])
async def test_body_behind_a_wish_to_upgrade(request_: bytes, size: int) -> None:
    """It is this request's, and not the next request; what follows it is answered, too."""
    client = Client(echo)
    wish = request_.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n")
    sent = wish + wish + POST + b"end"
    answers = await client.sends(*(sent[i : i + size] for i in range(0, len(sent), size)))
    assert [each[-3:] for each in answers.split(b"HTTP/1.1 200 OK")[1:]] == [b"GET", b"GET", b"end"]


async def test_nobody_is_connected() -> None:
    """This is no proxy, whatever else is wished for."""
    client = Client(HELLO)
    await client.sends(b"CONNECT a:1 HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
    assert await refused(client) == 400


async def test_shutdown_ends_idle_connections() -> None:
    """At once, and those that answer afterwards."""
    idle, running, app = Client(HELLO), Client(app := Waiting()), app
    await idle.sends(GET)
    await running.sends(GET)
    idle.connection.shutdown()
    running.connection.shutdown()
    assert (idle.cut_off, running.cut_off) == (True, False)
    app.go_on.set()
    await settled()
    assert b"connection: close" in running.writes[0]
    assert running.cut_off


# --- time and size --------------------------------------------------------------------------------------------


async def refused(client: Client) -> int:
    status = int(client.writes[-1].split()[1])
    assert json.loads(client.writes[-1].partition(b"\r\n\r\n")[2])["error"]["code"] == "caller_invalid_request"
    assert client.cut_off
    return status


@pytest.mark.parametrize("sent", [(), (b"G",), (GET[:-2],), (GET, GET[:1]), (GET, GET[:-2]), (GET + GET[:-2],)])
async def test_head_is_late(sent: tuple[bytes, ...]) -> None:
    """The first and any other: who has begun one has little time."""
    client = Client(HELLO, header_timeout=SHORT)
    await client.sends(*sent)
    assert not client.cut_off
    await asyncio.sleep(3 * SHORT)
    assert await refused(client) == 408


async def test_time_does_not_begin_again() -> None:
    """With each byte of a head."""
    client = Client(HELLO, header_timeout=SHORT)
    for byte in range(6):
        if not client.cut_off:
            await client.sends(GET[byte : byte + 1])
            await asyncio.sleep(SHORT / 2)
    assert await refused(client) == 408


async def test_time_of_a_head_behind_another_request_does_not_begin_again() -> None:
    """Whose first bytes came in one read with that."""
    client = Client(HELLO, header_timeout=4 * SHORT)
    await client.sends(GET + GET[:1])
    await asyncio.sleep(3 * SHORT)
    await client.sends(GET[1:2])
    await asyncio.sleep(3 * SHORT)
    assert await refused(client) == 408


async def test_refused_body_is_late() -> None:
    """What is still to come of a body that nobody wants has little time, too; a whole one is the end of that."""
    late, whole = Client(HELLO, header_timeout=SHORT), Client(HELLO, header_timeout=SHORT)
    for client in (late, whole):
        assert (await client.sends(POST)).endswith(b"hello")
    await whole.sends(b"abc")
    await asyncio.sleep(3 * SHORT)
    assert (late.cut_off, whole.cut_off) == (True, False)
    assert (await whole.sends(GET)).endswith(b"hello")


async def test_refused_body_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is much of it read."""
    monkeypatch.setattr(server, "LARGEST_IGNORED", 1000)
    client = Client(HELLO)
    await client.sends(b"POST / HTTP/1.1\r\ncontent-length: 5000\r\n\r\n")
    await client.sends(b" " * 1000)
    assert not client.cut_off
    await client.sends(b" ")
    assert client.cut_off


async def test_idle_connection_ends() -> None:
    """In silence, and not because of an earlier, shorter deadline."""
    client = Client(HELLO, header_timeout=SHORT, keep_alive=1)
    await client.sends(GET)
    await asyncio.sleep(3 * SHORT)
    assert not client.cut_off
    await asyncio.sleep(1)
    assert client.cut_off
    assert len(client.writes) == 1


async def test_a_time_out_of_nothing_keeps_nobody_busy() -> None:
    """A deadline is looked at now and then, however short another one is."""
    looks = 0

    class Counting(BoundedProtocol):
        def _look(self) -> None:
            nonlocal looks
            looks += 1
            super()._look()

    client = Client(HELLO, Counting, write_timeout=0)
    await client.sends(GET)
    await asyncio.sleep(2 * SHORT)
    assert looks < 4


async def test_an_answer_has_its_time() -> None:
    """No deadline of the connection ends it, whatever the client sends meanwhile."""
    app = Waiting(start())
    client = Client(app, header_timeout=SHORT, keep_alive=SHORT)
    await client.sends(GET + GET[:-2])
    await asyncio.sleep(3 * SHORT)
    assert not client.cut_off
    app.go_on.set()
    assert (await client.sends(b"\r\n")).count(b"end") == 2


async def test_a_lost_connection_is_gone() -> None:
    """At once: the garbage collector does not have to look for it."""
    client = Client(HELLO)
    await client.sends(GET)
    await client.leaves()
    connection = weakref.ref(client.connection)
    gc.disable()
    try:
        del client.connection
        assert connection() is None
    finally:
        gc.enable()


async def test_a_lost_connection_has_no_deadline() -> None:
    """Nothing is written to it, nor kept of it."""
    client = Client(HELLO, header_timeout=SHORT)
    await client.leaves()
    await asyncio.sleep(2 * SHORT)
    assert client.writes == []


@pytest.mark.parametrize("size", [1000, 100_000])
@pytest.mark.parametrize(
    "part", [b"/%s HTTP/1.1\r\n\r\n", b"/ HTTP/1.1\r\nx: %s\r\n\r\n", b"/ HTTP/1.1\r\n%s: x\r\n\r\n"]
)
async def test_size_of_the_head(part: bytes, size: int) -> None:
    """Bounded, whole or in pieces."""
    for cut in (1000, 1_000_000):
        client, request = Client(HELLO), b"GET " + part % (b"a" * size)
        for at in range(0, len(request), cut):
            if not client.cut_off:
                await client.sends(request[at : at + cut])
        if size > server.LARGEST_HEAD:
            assert await refused(client) == 431
        else:
            assert client.writes[-1].endswith(b"hello")


async def test_many_headers() -> None:
    """What stands around a header counts."""
    client = Client(HELLO)
    await client.sends(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 20_000 + b"\r\n")
    assert await refused(client) == 431


async def test_a_large_body_is_no_head() -> None:
    """In the same bytes, or before those of the next request."""
    client = Client(echo)
    post = b"POST / HTTP/1.1\r\ncontent-length: 200000\r\n\r\n" + b" " * 200_000
    assert (await client.sends(post)).startswith(b"HTTP/1.1 200 OK")
    assert (await client.sends(post + GET[:-2], b"\r\n")).count(b"HTTP/1.1 200 OK") == 2
