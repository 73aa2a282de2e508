"""Samples of the gateway's stack are charged to the layers of the chain."""

import pytest

from scripts.benchmark.layers import LAYERS, LOOP, OF_PLACE, in_order, layer_of
from scripts.benchmark.profile import LOOP as LOOP_FRAME
from scripts.benchmark.profile import Profile, budget


@pytest.mark.parametrize(
    ("places", "layer"),
    [
        (["uvicorn", "middleware/request_id", "middleware/auth", "aigate/stores/keys"], "auth"),
        (["uvicorn", "middleware/request_id", "middleware/asgi"], "request id"),
        (["middleware/request_id", "uvicorn"], "server (uvicorn)"),
        (["providers/client", "providers/transport", "httpx_aiohttp", "aiohttp"], "client, transport"),
        (["aigate/stores/batch", "aigate/stores/ledger", "aigate/stores/database", "asyncpg"], "metering + ledger"),
        (["aigate/stores/batch"], "store connections"),
        (["asyncpg"], "store connections"),
        (["aigate/stores/limits", "redis", "python: socket.py"], "rate limit"),
        (["middleware/new_layer", "orjson"], "middleware/new_layer"),
        (["python: asyncio"], LOOP),
        ([], LOOP),
    ],
)
def test_the_innermost_that_belongs_to_somebody_decides(places: list[str], layer: str) -> None:
    """Outermost first."""
    assert layer_of(places) == layer


def test_no_place_is_in_two_layers() -> None:
    """The second would never be charged."""
    assert len(OF_PLACE) == sum(map(len, LAYERS.values()))


def test_layers_stand_in_the_order_of_the_chain() -> None:
    """What is not of the chain comes last."""
    assert in_order(["x", LOOP, "log", "auth", "request id"]) == ["request id", "auth", "log", LOOP, "x"]


def test_what_started_the_loop_is_charged_with_nothing() -> None:
    """uvicorn stands under every sample."""
    stack = (("uvicorn", "run"), (LOOP_FRAME, ""), ("middleware/auth.py", "__call__"))
    idle = (("uvicorn", "run"), (LOOP_FRAME, ""))
    assert Profile("a call", 100.0, {stack: 3, idle: 1}).layers() == {"auth": 3, LOOP: 1}


def test_budget_divides_the_cpu_of_a_call() -> None:
    """By the share of the samples."""
    profile = Profile("a call", 100.0, {(("middleware/auth.py", "__call__"),): 3, (("python: x", "f"),): 1})
    assert budget([profile]) == [
        ["layer", "a call, us", "%"],
        ["auth", "75.0", "75.0"],
        [LOOP, "25.0", "25.0"],
        ["all", "100.0", "100.0"],
    ]
