"""What a request claims: the right to be the one that runs under its idempotency key.

Source: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

import hashlib
from enum import Enum
from typing import NamedTuple, TypeAlias

from middleware.asgi import Scope, header
from middleware.exchange import Exchange
from middleware.faults import CallerFault

LONGEST_KEY = 255
AUTOMATIC = "auto:"
"""Begins the key of a request that carries none; a caller cannot send it, and the ledger's row shows it."""
AUTOMATIC_KEPT = 600.0
"""Seconds for which the retry of a request without a key finds its answer."""


class Claim(NamedTuple):
    """A request's wish to run under a key.

    `keep`: seconds for which the answer is kept, if not as long as the store keeps answers. `fresh`: an answer that
    is already finished does not bind this request.
    """

    org_id: int
    key: str
    fingerprint: bytes
    request_id: str
    keep: float | None = None
    fresh: bool = False
    join_within: float | None = None
    """For a key that the caller did not send: join a request that has run for at most so many seconds."""

    def joins(self, age: float) -> bool:
        """Whether this request is answered by one that has run for `age` seconds already."""
        return not self.fresh or self.join_within is None or age <= self.join_within


class Taken(Enum):
    """Why a claim was not granted, other than by the answer itself."""

    OTHER_REQUEST = "other request"


class Running(NamedTuple):
    """The key is held by a request that runs, on this replica or another, for `age` seconds."""

    request_id: str
    replica_id: str
    age: float


Held: TypeAlias = None
"""The claim was granted: the request runs, and its key is held until it ends."""


def claim_of(scope: Scope, exchange: Exchange) -> Claim | None:
    """The claim of this request: by the key that it carries, or by itself where its caller has that switched on.

    The official SDKs send no key and retry twice. For such a caller the same key of ours with the same body counts
    as the same request while the first still runs, for `join_duplicates` seconds, or when it says that it is a retry.
    Raises `CallerFault` for a malformed key.
    """
    caller = exchange.caller
    if caller is None or scope["method"] != "POST":
        return None
    field = header(scope, b"idempotency-key")
    if field is None and caller.join_duplicates is None:
        return None
    fingerprint = fingerprint_of(scope, exchange)
    if field is not None:
        return Claim(caller.org_id, parse_key(field), fingerprint, exchange.id)
    key = AUTOMATIC + hashlib.sha256(caller.public_id.encode() + fingerprint).hexdigest()
    fresh = header(scope, b"x-stainless-retry-count") in (None, b"0")
    return Claim(caller.org_id, key, fingerprint, exchange.id, AUTOMATIC_KEPT, fresh, caller.join_duplicates)


def fingerprint_of(scope: Scope, exchange: Exchange) -> bytes:
    """What binds a key to its request: method, path and body."""
    return hashlib.sha256(b"%s\0%s\0%s" % (scope["method"].encode(), scope["path"].encode(), exchange.body)).digest()


def parse_key(field: bytes) -> str:
    """The key in the header: a quoted string, as the IETF draft has it, or bare, as most clients send it.

    Raises `CallerFault` (400) for one that is empty, longer than 255 characters or not printable ASCII.
    """
    text = field.decode("latin-1").strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    plain = text.isascii() and text.isprintable() and not text.startswith(AUTOMATIC)
    if not text or len(text) > LONGEST_KEY or not plain:
        raise CallerFault(
            f"An Idempotency-Key has 1 to {LONGEST_KEY} printable ASCII characters.", param="Idempotency-Key"
        )
    return text
