"""What the stores should do, in a few lines of Python: the model that the real ones are held against."""

from dataclasses import dataclass, field

INPUT, OUTPUT = 2_500, 10_000
"""Prices of one token, in 1e-9 USD."""


@dataclass
class Request:
    """One request: who runs it, under which key, and what its row in the ledger should say."""

    id: str
    replica: str
    key: str | None
    body: int
    state: str | None = None
    outcome: str | None = None
    billed: int = 0


@dataclass
class Key:
    """Who holds a key or has answered under it."""

    holder: Request
    body: int
    finished: bool = False
    expired: bool = False
    old: bool = False
    """Claimed over a minute ago."""


@dataclass
class Model:
    """All that is durable: requests, keys, and which replicas have a lease."""

    requests: dict[str, Request] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    leased: set[str] = field(default_factory=set)

    def claim(self, request: Request) -> str:
        """`held`, `answer of N`, `running at N` or `taken`."""
        assert request.key is not None
        key = self.keys.get(request.key)
        if key is None or (key.finished and key.expired) or self._is_orphan(key, request.body):
            self.keys[request.key] = Key(request, request.body)
            return "held"
        if key.body != request.body:
            return "taken"
        return f"answer of {key.holder.id}" if key.finished else f"running at {key.holder.id}"

    def open(self, request: Request) -> None:
        request.state = "open"

    def settle(self, request: Request, tokens: int) -> None:
        """Billed if it still holds its key, or has none; a row that the sweep has closed is adjusted."""
        holds = request.key is None or self._held(request)
        if request.state == "open":
            request.state, request.outcome = "settled", "ok" if holds else "superseded"
        request.billed += (tokens * (INPUT + OUTPUT)) if holds else 0
        if holds and request.key is not None:
            self.keys[request.key].finished = True

    def void(self, request: Request) -> None:
        """Nothing was spent: the key is free again."""
        if request.state == "open":
            request.state, request.outcome = "void", "upstream_error"
        if request.key is not None and self._held(request):
            del self.keys[request.key]

    def sweep(self) -> None:
        """What the dead have left open is closed."""
        for request in self.requests.values():
            if request.state == "open" and request.replica not in self.leased:
                request.state, request.outcome = "settled", "interrupted"

    def rows(self) -> dict[str, tuple[str, str | None, int]]:
        return {
            request.id: (request.state, request.outcome, request.billed)
            for request in self.requests.values()
            if request.state is not None
        }

    def held(self) -> dict[str, tuple[str, bool]]:
        return {name: (key.holder.id, key.finished) for name, key in self.keys.items()}

    def _held(self, request: Request) -> bool:
        assert request.key is not None
        key = self.keys.get(request.key)
        return key is not None and key.holder is request and not key.finished

    def _is_orphan(self, key: Key, body: int) -> bool:
        behind = key.holder.replica in self.leased and not (key.old and key.holder.state is None)
        return not key.finished and key.body == body and not behind
