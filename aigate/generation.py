"""What every endpoint that calls a model does: check, resolve, admit, call, forward. The rest is done by layers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from blacksheep import Request, Response

from aigate.estimate import Estimator
from aigate.relay import UNKNOWN, Relay, whole
from aigate.request_checks import wants_usage
from aigate.resolver import Resolver, require_use
from middleware.exchange import exchange_of
from providers.client import Client
from providers.contract import Call


@dataclass(frozen=True, slots=True)
class Generation:
    """One endpoint. `check` refuses what is no request of its kind; `resolver` knows the providers of that kind.

    A stream begins after `patience` seconds at the latest.
    """

    resolver: Resolver
    check: Callable[[Mapping[str, Any]], None]
    client: Client
    estimator: Estimator
    patience: float

    async def answer(self, request: Request) -> Response:
        """Answer this request. Raises the `Fault` that keeps it from an answer."""
        exchange = exchange_of(request.scope)  # type: ignore[arg-type]  # it is the server's, which is a dict
        document = exchange.document
        self.check(document)
        route = self.resolver.route(document.get("model"))
        provider, model = route.provider, route.model
        require_use(exchange.caller, provider.name, model)
        stream = document.get("stream") is True
        await exchange.admit(route.streamed if stream else route.whole)
        call = Call(model, document, stream, stream and wants_usage(document), exchange.pricing)
        exchange.usage = UNKNOWN
        exchange.spent = True
        if stream:
            return await Relay(exchange, self.client, self.estimator, provider, call).begin_within(self.patience)
        return await whole(exchange, self.client, self.estimator, provider, call)
