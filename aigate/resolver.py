"""From the name that a client sends to a provider and its model.

`provider:model` and `provider/model` are the same; the first separator counts, so models may contain both. A bare
name is looked up in the operator's aliases. Names go into upstream paths and logs, so they are bounded and plain.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from middleware.exchange import Caller, Target
from middleware.faults import CallerFault, ModelNotAllowed, ModelNotFound, ProviderNotConfigured
from providers.catalog import Provider

LONGEST_NAME = 256
REMEMBERED = 4096
"""Names that are not taken apart again."""
PLAIN = re.compile(r"[A-Za-z0-9._:/@+~#=, \-]+")
SEPARATOR = re.compile(r"[:/]")


@dataclass(frozen=True, slots=True)
class Route:
    """What a name means. `whole` and `streamed`: what a request for an answer of either kind asks for."""

    provider: Provider
    model: str
    whole: Target
    streamed: Target


class Resolver:
    """`providers` by name: `None` is one that is known but does not serve `what` is asked for here."""

    def __init__(
        self, providers: Mapping[str, Provider | None], aliases: Mapping[str, str], what: str = "chat completions"
    ) -> None:
        self._providers = providers
        self._aliases = aliases
        self._what = what
        self._routes: dict[str, Route] = {}

    def route(self, name: object) -> Route:
        """The way to what `name` means. Raises as `resolve` does."""
        if isinstance(name, str) and (known := self._routes.get(name)) is not None:
            return known
        provider, model = self.resolve(name)
        whole, streamed = (
            Target(provider.name, model, stream, provider.on_disconnect == "drain") for stream in (False, True)
        )
        if len(self._routes) >= REMEMBERED:
            self._routes.clear()
        self._routes[str(name)] = route = Route(provider, model, whole, streamed)
        return route

    def resolve(self, name: object) -> tuple[Provider, str]:
        """The configured provider and the model that `name` means.

        Raises `CallerFault` for what is no name, `ModelNotFound` for one that means nothing here, and
        `ProviderNotConfigured`.
        """
        model_name = _plain(name)
        model_name = self._aliases.get(model_name, model_name)
        found = SEPARATOR.search(model_name)
        if found is None:
            raise ModelNotFound(
                f"The model '{model_name}' names no provider: send 'provider:model'. GET /v1/models lists them.",
                param="model",
            )
        name_of_provider = model_name[: found.start()]
        provider = self._providers.get(name_of_provider)
        model = model_name[found.end() :]
        if provider is None and name_of_provider in self._providers:
            raise ModelNotFound(f"The provider '{name_of_provider}' serves no {self._what} here.", param="model")
        if provider is None or not model:
            raise ModelNotFound(f"There is no provider of the model '{model_name}' here.", param="model")
        if not provider.configured:
            raise ProviderNotConfigured(
                f"The provider '{provider.name}' is not set up here: its operator sets {_missing(provider)}.",
                param="model",
            )
        return provider, model


def _missing(provider: Provider) -> str:
    prefix = provider.name.upper().replace("-", "_")
    names = [f"{prefix}_BASE_URL"] if not provider.base_url else []
    if provider.requires_key and not provider.api_key:
        names.append(f"{prefix}_API_KEY")
    return " and ".join(names)


def _plain(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise CallerFault("'model' must be a string such as 'echo:echo'.", param="model")
    if len(name) > LONGEST_NAME:
        raise CallerFault(f"'model' is longer than {LONGEST_NAME} characters.", param="model")
    if not PLAIN.fullmatch(name) or ".." in name:
        raise CallerFault("'model' contains characters that no model name has.", param="model")
    return name


def may_use(caller: Caller, provider: str, model: str) -> bool:
    """Whether the key's allow-list, globs over `provider:model`, holds this model."""
    return caller.models is None or any(fnmatchcase(f"{provider}:{model}", glob) for glob in caller.models)


def require_use(caller: Caller | None, provider: str, model: str) -> None:
    """Raises `ModelNotAllowed` unless the caller may use the model."""
    if caller is not None and caller.models is not None and not may_use(caller, provider, model):
        raise ModelNotAllowed(f"This API key may not use the model '{provider}:{model}'.", param="model")
