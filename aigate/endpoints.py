"""The gateway's routes, as one BlackSheep application: the innermost of the chain.

BlackSheep routes and writes responses; it renders no error, because that is the errors layer's business: whatever a
handler raises passes through.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from blacksheep import Request, Response, StreamedContent
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
    raises into an answer. Its router remembers whatever it was asked for, and callers can invent paths and methods.

    A stream is sent by a task of its own: each of its chunks would otherwise resume every layer that waits for it.
    """

    async def start(self) -> None:
        await super().start()  # type: ignore[no-untyped-call]
        self._plain = {
            (method.decode(), route.pattern): route.handler
            for method, routes in self.router.routes.items()
            for route in routes
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)  # type: ignore[no-untyped-call]
            return
        if not self.started:
            await self.start()
        method, path = scope["method"], _path_of(scope)
        handler = self._plain.get((method, path)) or self._look_up(method, path)
        request = Request.incoming(method, path, scope["query_string"], list(scope["headers"]))
        request.scope = scope  # type: ignore[assignment]  # it is the server's, which is a dict
        response = await handler(request)
        sending = send_asgi_response(response, send)
        await (asyncio.create_task(sending) if isinstance(response.content, StreamedContent) else sending)

    def _look_up(self, method: str, path: bytes) -> Any:
        """The handler of a path that is not spelled as its route, or has a name in it. Raises the `Fault` of none."""
        found = self._at(path)
        if method in found:
            return found[method]
        told = path[:200].decode("latin-1")
        if found:
            allowed = ", ".join(found)
            raise MethodNotAllowed(f"{method} is not for {told}: use {allowed}.", headers={"allow": allowed})
        hint = f" Did you mean /v1{told}? A base_url ends in /v1." if self._at(b"/v1" + path) else ""
        raise NotFound(f"There is nothing at {method} {told}.{hint}")

    def _at(self, path: bytes) -> dict[str, Any]:
        """The handlers at `path` by their methods."""
        found: dict[str, Any] = {}
        for method, routes in self.router.routes.items():
            for route in routes:
                if route.match_by_path(path):
                    found.setdefault(method.decode(), route.handler)
        return found


def endpoints(generations: Mapping[str, Generation], models: ModelList, reports: Reports) -> ASGIApp:
    """The routes as one ASGI application; `generations` by their paths."""

    async def list_models(request: Request) -> Response:
        return await models.all(_exchange(request))

    async def retrieve_model(request: Request) -> Response:
        return await models.one(_exchange(request), _name(request, MODELS))

    async def list_calls(request: Request) -> Response:
        return await reports.calls(_exchange(request), request.query)

    async def retrieve_call(request: Request) -> Response:
        return await reports.call(_exchange(request), _name(request, CALLS))

    async def sum_usage(request: Request) -> Response:
        return await reports.usage(_exchange(request), request.query)

    router: Router = Router()
    for path, generation in generations.items():
        router.add_post(path, partial(generation.answer))  # it marks its handlers, and a method cannot be marked
    router.add_get(MODELS, list_models)
    router.add_get(f"{MODELS}/<path:name>", retrieve_model)
    router.add_get(CALLS, list_calls)
    router.add_get(f"{CALLS}/<path:name>", retrieve_call)
    router.add_get(USAGE, sum_usage)
    return Endpoints(router=router)


def _exchange(request: Request) -> Exchange:
    return exchange_of(request.scope)  # type: ignore[arg-type]  # it is the server's, which is a dict


def _name(request: Request, path: str) -> str:
    """What stands behind `path`, in whichever case that was written."""
    return request.scope["path"][len(path) + 1 :]


def _path_of(scope: Scope) -> bytes:
    """The path with its escapes, which the router goes by; ASGI lets a server leave it out."""
    return scope.get("raw_path") or scope["path"].encode()  # type: ignore[no-any-return]
