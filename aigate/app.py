"""The gateway, composed: the chain of layers as one list, and everything that they need, opened and closed here.

This is the way of every request, outermost first; the reason for each place stands beside it. Nothing else in the
project decides an order.
"""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

from loguru import logger

from aigate import __version__, logs
from aigate.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, endpoints
from aigate.estimate import PATIENCE, Estimator
from aigate.generation import Generation
from aigate.model_list import ModelList
from aigate.operations import PATHS, Operations, Readiness, save_for_ever, shared_folder
from aigate.reports import Reports
from aigate.request_checks import check_chat, check_completion, check_embedding
from aigate.resolver import Resolver
from aigate.settings import Settings
from aigate.stores.database import Database
from aigate.stores.idempotency import PostgresIdempotency
from aigate.stores.journal import Journal
from aigate.stores.keys import KeyRing
from aigate.stores.ledger import PostgresLedger
from aigate.stores.limits import RedisLimiter
from aigate.stores.overdue import Overdue
from aigate.stores.prices import Prices
from aigate.stores.replica import Replica
from aigate.stores.tail import RedisTail
from middleware.asgi import ASGIApp, Receive, Scope, Send
from middleware.auth import Auth
from middleware.body import Body
from middleware.disconnect import Disconnect
from middleware.errors import Errors, openai_answer
from middleware.idempotency import Idempotency
from middleware.keep_alive import KeepAlive
from middleware.live_answer import LiveAnswers
from middleware.metering import Metering
from middleware.metrics import Instruments, Metrics
from middleware.rate_limit import RateLimit
from middleware.request_id import RequestId
from middleware.tally import Tally
from providers.catalog import catalog
from providers.client import Client, Timeouts
from providers.echo import EchoTransport
from providers.operations import for_completions, for_embeddings
from providers.transport import open_transport


class Middleware(Protocol):
    """An instance that is an ASGI application."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]: ...


Layer: TypeAlias = Callable[[ASGIApp], Middleware]


@dataclass(frozen=True, slots=True)
class Stores:
    """What is opened with the gateway and closed with it."""

    database: Database
    replica: Replica
    prices: Prices
    overdue: Overdue
    ledger: PostgresLedger
    answers: PostgresIdempotency
    live: LiveAnswers
    tail: RedisTail
    limiter: RedisLimiter
    client: Client
    estimator: Estimator


class Gateway:
    """The ASGI application: operations before the chain, everything else through it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.stores = _stores(settings)
        self._readiness = Readiness(
            {"postgres": self.stores.database.check, "redis": self.stores.limiter.ping}, settings.ready_requires
        )
        self._tally = Tally(shared_folder())
        self._operations = Operations(self._readiness, self._tally, settings.metrics_token)
        self._instruments = Instruments(self._tally, self.stores.prices.priced)
        self._chain = _chain(settings, self.stores, self._instruments)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] in PATHS:
            await self._operations(scope, receive, send)
        else:
            await self._chain(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        state = scope.get("state", {})
        state["header_timeout"] = self._settings.header_timeout
        state["write_timeout"] = self._settings.write_timeout
        self.stores.replica.start()
        self.stores.tail.start()
        self._reaper = asyncio.create_task(self.stores.answers.reap_for_ever())
        self._saver = asyncio.create_task(save_for_ever(self._tally))
        ready, states = await self._readiness.look()
        logger.info("aigate {} serves, {}", __version__, "ready" if ready else f"not ready: {states}")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _close(self) -> None:
        """Let what was cancelled settle, write what is unwritten, then close everything."""
        stores = self.stores
        deadline = time.monotonic() + self._settings.database_timeout + PATIENCE
        while self._instruments.in_flight[0] and time.monotonic() < deadline:  # noqa: ASYNC110 - once in a process' life
            await asyncio.sleep(0.01)
        await stores.ledger.stop()
        await stores.overdue.stop(self._settings.database_timeout)
        self._reaper.cancel()
        self._saver.cancel()
        self._tally.save()
        await stores.tail.stop()
        await stores.client.aclose()
        stores.estimator.close()
        await stores.limiter.close()
        await stores.prices.close()
        await stores.replica.stop()
        await stores.database.close()


def create() -> Gateway:
    """The gateway of this process' environment: the factory that each uvicorn worker calls."""
    settings = Settings.read()
    logs.configure(settings.log_level)
    gateway = Gateway(settings)
    _spare_the_collector()
    return gateway


def _spare_the_collector() -> None:
    """Python's garbage collector looks at all that is alive, over and over: a fifth of the CPU of a call.

    What stands at the start stays, and a call leaves few cycles behind: so the one is never looked at again, and the
    other less often, but in small portions, for thousands of open streams are many objects.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 100)


def compose(layers: list[Layer], app: ASGIApp) -> ASGIApp:
    """`app` behind the layers, the first of them outermost; a bound method is called for less than an instance."""
    for layer in reversed(layers):
        app = layer(app).__call__
    return app


def _stores(settings: Settings) -> Stores:
    database = Database(
        settings.database_url, connections=settings.database_connections, timeout=settings.database_timeout
    )
    replica = Replica(database, name=f"{settings.host}:{settings.port}", lease=settings.lease_seconds)
    prices = Prices(database, kept=settings.price_cache_seconds)
    overdue = Overdue()
    answers = PostgresIdempotency(database, replica, overdue, retention=settings.idempotency_seconds)
    live = LiveAnswers(settings.idempotency_answer_bytes)
    timeouts = Timeouts(
        connect=settings.upstream_connect_timeout,
        first_byte=settings.upstream_first_byte_timeout,
        idle=settings.upstream_idle_timeout,
        total=settings.upstream_total_timeout,
    )
    return Stores(
        database=database,
        replica=replica,
        prices=prices,
        overdue=overdue,
        ledger=PostgresLedger(Journal(database, replica), prices, overdue, free_unpriced=settings.unpriced == "free"),
        answers=answers,
        live=live,
        tail=RedisTail(
            settings.redis_url,
            replica.id.hex,
            live,
            answers,
            timeout=settings.redis_timeout,
            longest=settings.upstream_total_timeout,
        ),
        limiter=RedisLimiter(settings.redis_url, timeout=settings.redis_timeout),
        client=Client(
            open_transport(settings.upstream_transport),
            timeouts,
            local={"echo": EchoTransport()},
            max_answer_bytes=settings.upstream_answer_bytes,
        ),
        estimator=Estimator(),
    )


def _chain(settings: Settings, stores: Stores, instruments: Instruments) -> ASGIApp:
    providers = catalog(settings.environment)
    resolver = Resolver(providers, settings.model_aliases)
    models = ModelList(
        providers,
        resolver,
        stores.client,
        timeout=settings.models_timeout,
        kept=settings.models_cache_seconds,
    )
    generations = {
        CHAT: (resolver, check_chat),
        COMPLETIONS: (Resolver(for_completions(providers), settings.model_aliases, "completions"), check_completion),
        EMBEDDINGS: (Resolver(for_embeddings(providers), settings.model_aliases, "embeddings"), check_embedding),
    }
    keys = KeyRing(stores.database, cache_seconds=settings.key_cache_seconds)
    return compose(
        [
            # opens the exchange, names it, closes what it owns, writes the one line of the access log
            partial(RequestId, bind=logs.bind, report=logs.report),
            # sees every answer, also 401, 413, 429 and 500
            partial(Metrics, instruments=instruments),
            # renders every refusal and failure once, in the caller's format
            Errors,
            # outside idempotency: its comments are no part of an answer and never recorded
            partial(KeepAlive, interval=settings.stream_keep_alive),
            # headers only: a stranger never makes us read a body
            partial(Auth, keys=keys),
            # needs the caller, and refuses before the body is read
            partial(RateLimit, limiter=stores.limiter, requests_per_minute=settings.requests_per_minute),
            # reads once, bounded; afterwards receive only says that the client has gone
            partial(Body, limit=settings.body_bytes, timeout=settings.body_timeout),
            # outside metering: a replay is never billed; outside disconnect: a held key outlives its client
            partial(
                Idempotency,
                store=stores.answers,
                tail=stores.tail,
                live=stores.live,
                render=openai_answer,
                most_followers=settings.idempotency_followers,
            ),
            # reserves just before money can be spent, settles at every end
            partial(Metering, ledger=stores.ledger),
            # innermost: what it cancels is exactly the upstream call
            partial(Disconnect, drain_timeout=settings.drain_timeout),
        ],
        endpoints(
            {
                path: Generation(resolver, check, stores.client, stores.estimator, settings.stream_keep_alive)
                for path, (resolver, check) in generations.items()
            },
            models,
            Reports(stores.database),
        ),
    )
