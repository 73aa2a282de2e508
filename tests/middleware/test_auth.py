"""Who may pass, by the headers alone."""

import pytest

from middleware.asgi import Receive, Scope, Send
from middleware.auth import LONGEST_TOKEN, Auth
from middleware.exchange import exchange_of
from middleware.faults import StoreUnavailable, Unauthenticated
from tests.contracts.fakes import MemoryKeys
from tests.middleware.driving import ACME, Peer, answering, drive

TOKEN = "aig_abc_secret"


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", f"Bearer {TOKEN}".encode()),
        (b"authorization", f"bearer  {TOKEN} ".encode()),
        (b"x-api-key", TOKEN.encode()),
    ],
    ids=repr,
)
async def test_a_known_key_passes(header: tuple[bytes, bytes]) -> None:
    """Both forms that the SDKs send are taken, and the caller is on the exchange."""
    callers = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        callers.append(exchange_of(scope).caller)

    await drive(Auth(app, MemoryKeys({TOKEN: ACME})), headers=[header])
    assert callers == [ACME]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer  ")],
        [(b"authorization", TOKEN.encode())],
        [(b"authorization", f"Basic {TOKEN}".encode())],
        [(b"authorization", b"Bearer aig_abc_other")],
        [(b"authorization", b"Bearer " + b"x" * (LONGEST_TOKEN + 1))],
        [(b"authorization", "Bearer aig_äbc_secret".encode())],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"x-api-key", b"unknown")],
        [(b"authorization", b"Basic x"), (b"x-api-key", TOKEN.encode())],
    ],
    ids=repr,
)
async def test_a_stranger_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    """Without a known key nothing further in is reached and no body is read."""
    peer = Peer(b"{}")
    with pytest.raises(Unauthenticated):
        await drive(Auth(answering(b"secret"), MemoryKeys({TOKEN: ACME})), peer, headers=headers)
    assert peer.sent == []
    assert peer.asked == 0


async def test_a_refusal_never_repeats_the_key() -> None:
    """The message goes to logs and screens; what was sent as a key stays out of it."""
    with pytest.raises(Unauthenticated) as refused:
        await drive(Auth(answering(), MemoryKeys({})), headers=[(b"x-api-key", b"aig_abc_private")])
    assert "private" not in refused.value.message


async def test_keys_that_cannot_be_told() -> None:
    """A store that is away is the gateway's fault, not the caller's."""
    with pytest.raises(StoreUnavailable):
        await drive(Auth(answering(), MemoryKeys({}, away=True)), headers=[(b"x-api-key", TOKEN.encode())])
