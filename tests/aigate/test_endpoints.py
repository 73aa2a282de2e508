"""The gateway's routes, behind a server that says of a request only what ASGI asks for."""

from typing import Any, cast
from urllib.parse import unquote

import pytest
from blacksheep import Response
from blacksheep.server.routing import Router

from aigate.endpoints import CHAT, Endpoints, endpoints
from middleware.exchange import Exchange
from middleware.faults import MethodNotAllowed, NotFound
from tests.middleware.driving import Peer, scope_of

UNUSED = cast(Any, None)


async def test_a_server_need_not_tell_the_raw_path() -> None:
    """`raw_path` is optional in ASGI: without it a request is routed all the same."""
    scope, peer = {**scope_of(Exchange(), path="/nowhere"), "query_string": b""}, Peer()
    with pytest.raises(NotFound):
        await endpoints({}, UNUSED, UNUSED)(scope, peer.receive, peer.send)


class Handlers:
    """All that is behind the routes; keeps what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def all(self, exchange: Exchange) -> Response:
        self.asked.append("models")
        return Response(200)

    async def one(self, exchange: Exchange, name: str) -> Response:
        self.asked.append(("model", name))
        return Response(200)

    async def call(self, exchange: Exchange, name: str) -> Response:
        self.asked.append(("call", name))
        return Response(200)

    async def answer(self, request: object) -> Response:
        self.asked.append("answer")
        return Response(200)


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
def app(handlers: Handlers) -> Endpoints:
    behind = cast(Any, handlers)
    return cast(Endpoints, endpoints({CHAT: behind}, behind, behind))


async def ask(app: Endpoints, method: str, path: str) -> None:
    scope, peer = scope_of(Exchange(), path=unquote(path)), Peer()
    await app({**scope, "method": method, "raw_path": path.encode(), "query_string": b""}, peer.receive, peer.send)


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("POST", "/v1/chat/completions", "answer"),
        ("POST", "/v1/chat/completions/", "answer"),
        ("POST", "/V1/Chat/Completions", "answer"),
        ("GET", "/v1/models", "models"),
        ("GET", "/v1/models/", "models"),
        ("GET", "/v1/models/gpt-4o", ("model", "gpt-4o")),
        ("GET", "/V1/Models/gpt-4o", ("model", "gpt-4o")),
        ("GET", "/v1/models/openai:ft/a%2Fb", ("model", "openai:ft/a/b")),
        ("GET", "/v1/calls/abc", ("call", "abc")),
    ],
)
async def test_what_is_at_a_path(app: Endpoints, handlers: Handlers, method: str, path: str, asked: Any) -> None:
    """A path is found in any case and with a slash behind it; what follows it is a name as it was meant."""
    await ask(app, method, path)
    assert handlers.asked == [asked]


@pytest.mark.parametrize("path", ["/v1/modelsx", "/v1/callsx", "/v1/models.json", "/v1/chat/completionsx"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_only_begins_like_a_path(app: Endpoints, handlers: Handlers, method: str, path: str) -> None:
    """`/v1/modelsx` is nowhere, and no model of the name `x`."""
    with pytest.raises(NotFound, match="There is nothing at"):
        await ask(app, method, path)
    assert handlers.asked == []


async def test_the_router_does_not_remember_what_callers_invent(app: Endpoints) -> None:
    """Neither paths, each of which may have 64 kB, nor methods."""
    await ask(app, "GET", "/v1/models")
    remembered = Router.get_match_by_method_and_path.cache_info().currsize, set(app.router.routes)
    for number in range(20):
        await ask(app, "GET", f"/v1/models/{number}")
        with pytest.raises(NotFound):
            await ask(app, "GET", f"/{number}")
        with pytest.raises(MethodNotAllowed):
            await ask(app, f"M{number}", "/v1/models")
    assert (Router.get_match_by_method_and_path.cache_info().currsize, set(app.router.routes)) == remembered


async def test_a_refusal_does_not_repeat_all_of_a_long_path(app: Endpoints) -> None:
    """It goes into the answer and into the log."""
    for refused in (app, "POST", f"/v1/models/{'x' * 60_000}"), (app, "GET", f"/{'x' * 60_000}"):
        with pytest.raises((MethodNotAllowed, NotFound)) as found:
            await ask(*refused)
        assert len(found.value.message) < 500
