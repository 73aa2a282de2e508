"""From the name that a client sends to a provider and its model."""

from dataclasses import replace

import pytest

from aigate.resolver import LONGEST_NAME, Resolver, may_use, require_use
from middleware.exchange import Caller, Target
from middleware.faults import CallerFault, Fault, ModelNotAllowed, ModelNotFound, ProviderNotConfigured
from providers.catalog import Provider

OPENAI = Provider("openai", "https://api.openai.example/v1", api_key="sk")
LAB = Provider("my-lab", "", requires_key=False)
KEYLESS = Provider("groq", "https://api.groq.example/v1")
RESOLVER = Resolver(
    {"openai": OPENAI, "my-lab": LAB, "groq": KEYLESS}, {"fast": "openai:gpt-4o-mini", "gpt:4": "openai/gpt-4"}
)
CALLER = Caller(1, "acme", 1, "abc")


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openai:gpt-4o", "gpt-4o"),
        ("openai/gpt-4o", "gpt-4o"),
        ("openai:org/model:tag", "org/model:tag"),
        ("openai/org:model/tag", "org:model/tag"),
        ("fast", "gpt-4o-mini"),
        ("gpt:4", "gpt-4"),
    ],
)
def test_a_name_that_means_something(name: str, model: str) -> None:
    """The first separator counts, and an alias goes before everything."""
    assert RESOLVER.resolve(name) == (OPENAI, model)


@pytest.mark.parametrize("name", ["gpt-4o", "nobody:gpt-4o", "openai:", ":gpt-4o", "/", "OpenAI:gpt-4o", "fast:x"])
def test_a_name_that_means_nothing(name: str) -> None:
    """It is a 404 that names the field."""
    with pytest.raises(ModelNotFound) as refused:
        RESOLVER.resolve(name)
    assert refused.value.param == "model"


@pytest.mark.parametrize(
    "name",
    [None, 1, True, [], {}, "", "x" * (LONGEST_NAME + 1), "openai:../admin", "openai:a\nb", "openai:a?b", "openai:ü"],
    ids=lambda name: repr(name)[:20],
)
def test_what_is_no_name(name: object) -> None:
    """It is the caller's mistake: names go into upstream paths and logs."""
    with pytest.raises(CallerFault) as refused:
        RESOLVER.resolve(name)
    assert (refused.value.status, refused.value.param) == (400, "model")


@pytest.mark.parametrize(("name", "variable"), [("my-lab:x", "MY_LAB_BASE_URL"), ("groq:x", "GROQ_API_KEY")])
def test_a_provider_that_is_not_set_up(name: str, variable: str) -> None:
    """The operator learns which variable is missing."""
    with pytest.raises(ProviderNotConfigured, match=variable):
        RESOLVER.resolve(name)


@pytest.mark.parametrize("on_disconnect", ["cancel", "drain"])
def test_a_route_has_a_target_for_each_kind_of_answer(on_disconnect: str) -> None:
    """Both say what becomes of the answer when the client leaves; a name is taken apart once."""
    provider = replace(OPENAI, on_disconnect=on_disconnect)
    resolver, drain = Resolver({"openai": provider}, {}), on_disconnect == "drain"
    route = resolver.route("openai:gpt-4o")
    assert (route.provider, route.model) == (provider, "gpt-4o")
    assert route.whole == Target("openai", "gpt-4o", stream=False, drain=drain)
    assert route.streamed == Target("openai", "gpt-4o", stream=True, drain=drain)
    assert resolver.route("openai:gpt-4o") is route


@pytest.mark.parametrize("name", [None, [], "nobody:gpt-4o"], ids=repr)
def test_no_route(name: object) -> None:
    """A name that means nothing is refused each time it is asked for."""
    for _ in range(2):
        with pytest.raises(Fault):
            RESOLVER.route(name)


@pytest.mark.parametrize(
    ("globs", "allowed"),
    [
        (None, True),
        ((), False),
        (("openai:*",), True),
        (("openai:gpt-4o",), True),
        (("openai:gpt-3*", "*:gpt-4?"), True),
        (("OPENAI:*",), False),
        (("openai:gpt-4",), False),
    ],
    ids=repr,
)
def test_what_a_key_may_use(globs: tuple[str, ...] | None, allowed: bool) -> None:
    """Its globs over `provider:model`; none at all is everything."""
    assert may_use(replace(CALLER, models=globs), "openai", "gpt-4o") is allowed


def test_a_model_that_the_key_may_not_use() -> None:
    """It is refused by its name."""
    with pytest.raises(ModelNotAllowed, match="openai:gpt-4o"):
        require_use(replace(CALLER, models=()), "openai", "gpt-4o")


def test_a_model_that_the_key_may_use() -> None:
    """It passes, as does everything without a caller."""
    require_use(CALLER, "openai", "gpt-4o")
    require_use(None, "openai", "gpt-4o")
