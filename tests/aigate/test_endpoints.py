"""The gateway's routes, behind a server that says of a request only what ASGI asks for."""

from typing import Any, cast

import pytest

from aigate.endpoints import endpoints
from middleware.exchange import Exchange
from middleware.faults import NotFound
from tests.middleware.driving import Peer, scope_of

UNUSED = cast(Any, None)


async def test_a_server_need_not_tell_the_raw_path() -> None:
    """`raw_path` is optional in ASGI: without it a request is routed all the same."""
    scope, peer = {**scope_of(Exchange(), path="/nowhere"), "query_string": b""}, Peer()
    with pytest.raises(NotFound):
        await endpoints({}, UNUSED, UNUSED)(scope, peer.receive, peer.send)
