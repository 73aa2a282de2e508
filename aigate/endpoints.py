"""The gateway's routes, as one BlackSheep application: the innermost of the chain.

BlackSheep routes and writes responses; it renders no error, because that is the errors layer's business: whatever a
handler raises passes through.
"""

from collections.abc import Mapping
from functools import partial

from blacksheep import Request, Response
from blacksheep.scribe import send_asgi_response
from blacksheep.server.application import Application
from blacksheep.server.routing import Router

from aigate.generation import Generation
from aigate.model_list import ModelList
from aigate.reports import Reports
from middleware.asgi import ASGIApp, Receive, Scope, Send
from middleware.exchange import Exchange, exchange_of
from middleware.faults import MethodNotAllowed, NotFound

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
MODELS = "/v1/models"
CALLS = "/v1/calls"
USAGE = "/v1/usage"


class Endpoints(Application):
    """A BlackSheep application that lets faults pass, and whose handlers find the body on the exchange.

    BlackSheep's own `__call__` and `handle` are two coroutines more, resumed for each chunk, and turn what a handler
    raises into an answer.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)  # type: ignore[no-untyped-call]
            return
        if not self.started:
            await self.start()  # type: ignore[no-untyped-call]
        method, path = scope["method"], _path_of(scope)
        request = Request.incoming(method, path, scope["query_string"], list(scope["headers"]))
        request.scope = scope  # type: ignore[assignment]  # it is the server's, which is a dict
        match = self.router.get_match_by_method_and_path(method, path)
        assert match is not None  # noqa: S101 - there is a fallback
        await send_asgi_response(await match.handler(request), send)


def endpoints(generations: Mapping[str, Generation], models: ModelList, reports: Reports) -> ASGIApp:
    """The routes as one ASGI application; `generations` by their paths."""

    async def list_models(request: Request) -> Response:
        return await models.all(_exchange(request))

    async def retrieve_model(request: Request) -> Response:
        return await models.one(_exchange(request), request.scope["path"].removeprefix(f"{MODELS}/"))

    async def list_calls(request: Request) -> Response:
        return await reports.calls(_exchange(request), request.query)

    async def retrieve_call(request: Request) -> Response:
        return await reports.call(_exchange(request), request.scope["path"].removeprefix(f"{CALLS}/"))

    async def sum_usage(request: Request) -> Response:
        return await reports.usage(_exchange(request), request.query)

    router: Router = Router()
    for path, generation in generations.items():
        router.add_post(path, partial(generation.answer))  # it marks its handlers, and a method cannot be marked
    router.add_get(MODELS, list_models)
    router.add_get(f"{MODELS}/*", retrieve_model)
    router.add_get(CALLS, list_calls)
    router.add_get(f"{CALLS}/*", retrieve_call)
    router.add_get(USAGE, sum_usage)
    router.fallback = partial(_nowhere, router)
    return Endpoints(router=router)


def _exchange(request: Request) -> Exchange:
    return exchange_of(request.scope)  # type: ignore[arg-type]  # it is the server's, which is a dict


async def _nowhere(router: Router, request: Request) -> Response:
    raw, method = _path_of(request.scope), request.scope["method"]  # type: ignore[arg-type]  # as above
    path, allowed = raw.decode("latin-1"), _method_of(router, raw)
    if allowed is not None:
        raise MethodNotAllowed(f"{method} is not for {path}: use {allowed}.", headers={"allow": allowed})
    hint = f" Did you mean /v1{path}? A base_url ends in /v1." if _method_of(router, b"/v1" + raw) else ""
    raise NotFound(f"There is nothing at {method} {path[:200]}.{hint}")


def _path_of(scope: Scope) -> bytes:
    """The path with its escapes, which the router goes by; ASGI lets a server leave it out."""
    return scope.get("raw_path") or scope["path"].encode()  # type: ignore[no-any-return]


def _method_of(router: Router, path: bytes) -> str | None:
    """With which method there is something at `path`. The router itself would remember what it was asked."""
    for method, routes in router.routes.items():
        if any(route.match_by_path(path) for route in routes):
            return method.decode()
    return None
