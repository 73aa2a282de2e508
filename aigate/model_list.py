"""`GET /v1/models`: what the caller's key may use, asked of every configured provider at once.

A provider that does not answer in time, or with an error, is listed by the operator's allow-list (`<NAME>_MODELS`)
instead; the list as a whole never fails. What was found is kept for a while, for all callers; one refresh runs at a
time, and each caller sees of it what its key may use.

Source: https://platform.openai.com/docs/api-reference/models/list
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import orjson
from blacksheep import Content, Response
from loguru import logger

from aigate.resolver import Resolver, may_use
from middleware.exchange import Exchange
from middleware.faults import ModelNotFound
from providers.catalog import Provider
from providers.client import Client
from providers.contract import ProviderError

MOST_MODELS = 5000
"""Models that are listed of one provider."""


class ModelList:
    """`timeout` in seconds for each provider, `kept` in seconds for the list."""

    def __init__(
        self, providers: Mapping[str, Provider], resolver: Resolver, client: Client, *, timeout: float, kept: float
    ) -> None:
        self._providers = [provider for provider in providers.values() if provider.configured]
        self._resolver = resolver
        self._client = client
        self._timeout = timeout
        self._kept = kept
        self._models: list[dict[str, Any]] = []
        self._fresh_until = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None

    async def all(self, exchange: Exchange) -> Response:
        """Every model that the key may use."""
        usable = [model for model in await self._current() if _usable(exchange, model["id"])]
        return _json({"object": "list", "data": usable})

    async def one(self, exchange: Exchange, asked: str) -> Response:
        """One model, by its id, which may contain colons and slashes, or by an alias. Raises `ModelNotFound`."""
        provider, model = self._resolver.resolve(asked)
        name = f"{provider.name}:{model}"
        for known in await self._current():
            if known["id"] == name and _usable(exchange, name):
                return _json(known)
        raise ModelNotFound(f"There is no model '{name}' here that this key may use.", param="model")

    async def _current(self) -> list[dict[str, Any]]:
        if time.monotonic() > self._fresh_until:
            if self._refreshing is None:
                self._refreshing = asyncio.create_task(self._refresh())
            await asyncio.shield(self._refreshing)
        return self._models

    async def _refresh(self) -> None:
        try:
            lists = await asyncio.gather(*(self._of(provider) for provider in self._providers))
            self._models = [model for models in lists for model in models]
            self._fresh_until = time.monotonic() + self._kept
        finally:
            self._refreshing = None

    async def _of(self, provider: Provider) -> list[dict[str, Any]]:
        try:
            listed = await self._client.models(provider, self._timeout)
        except ProviderError as error:
            logger.warning("{} does not list its models ({}), its allow-list stands in", provider.name, error.kind)
            listed = [{"id": model} for model in provider.models]
        return [_entry(provider, model) for model in listed[:MOST_MODELS] if isinstance(model.get("id"), str)]


def _entry(provider: Provider, model: dict[str, Any]) -> dict[str, Any]:
    created = model.get("created")
    return {
        "id": f"{provider.name}:{model['id']}",
        "object": "model",
        "created": created if isinstance(created, int) else 0,
        "owned_by": provider.name,
    }


def _usable(exchange: Exchange, name: str) -> bool:
    provider, _, model = name.partition(":")
    return exchange.caller is None or may_use(exchange.caller, provider, model)


def _json(document: object) -> Response:
    return Response(200, content=Content(b"application/json", orjson.dumps(document)))
