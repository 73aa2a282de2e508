"""Which layer of the chain a sample of the gateway's stack belongs to: a budget by the names that the README uses.

From the innermost frame outwards, the first that belongs to somebody decides: a file of ours to its layer, so that a
library is charged to who asked for it; the libraries that stand between our layers to the layer that they are. What
is nobody's is the loop's. A file of ours that has no place here is a row of its own: a layer that was added is seen.
"""

from collections.abc import Iterable, Sequence

LAYERS = {
    "request id": ("middleware/request_id",),
    "metrics": ("middleware/metrics", "middleware/tally", "aigate/operations"),
    "errors": ("middleware/errors", "middleware/faults", "aigate/provider_faults"),
    "keep-alive": ("middleware/keep_alive",),
    "auth": ("middleware/auth", "aigate/stores/keys"),
    "rate limit": ("middleware/rate_limit", "aigate/stores/limits", "aigate/stores/redis_line"),
    "body": ("middleware/body",),
    "idempotency": (
        "middleware/idempotency",
        "middleware/claims",
        "middleware/live_answer",
        "aigate/stores/idempotency",
        "aigate/stores/tail",
    ),
    "metering + ledger": (
        "middleware/metering",
        "aigate/stores/ledger",
        "aigate/stores/journal",
        "aigate/stores/prices",
        "aigate/stores/replica",
        "aigate/stores/overdue",
        "aigate/pricing",
        "aigate/estimate",
    ),
    "disconnect": ("middleware/disconnect",),
    "handler, relay": (
        "aigate/generation",
        "aigate/relay",
        "aigate/endpoints",
        "aigate/resolver",
        "aigate/request_checks",
        "aigate/model_list",
        "blacksheep",
    ),
    "wire": (
        "providers/openai",
        "providers/document",
        "providers/usage",
        "providers/sse",
        "providers/errors",
        "providers/operations",
        "providers/contract",
        "providers/refusal",
        "providers/alike",
        "providers/deltas",
        "providers/gathered",
        "providers/message",
        "providers/streaming",
        "providers/vectors",
    ),
    "client, transport": (
        "providers/client",
        "providers/transport",
        "providers/http1/pool",
        "providers/http1/connection",
        "providers/http1/messages",
        "providers/deadline",
        "providers/inflate",
        "httpx",
    ),
    "server (uvicorn)": ("aigate/server", "aigate/cycle", "aigate/serve", "aigate/app", "uvicorn"),
    "store connections": ("aigate/stores/batch", "aigate/stores/database", "asyncpg", "redis"),
    "log": ("aigate/logs", "loguru"),
    "timers": ("aigate/loop",),
}
LOOP = "loop and sockets"
STORES = "store connections"
SHARED = ("middleware/asgi", "middleware/exchange")
"""What every layer uses: who called it is charged."""
OURS = ("aigate/", "middleware/", "providers/")
OF_PLACE = {place: layer for layer, places in LAYERS.items() for place in places}


def layer_of(places: Sequence[str]) -> str:
    """The layer of one sample: files of ours without their ending, and libraries, outermost first."""
    found = LOOP
    for place in reversed(places):
        layer = OF_PLACE.get(place, place if place.startswith(OURS) and place not in SHARED else None)
        if layer == STORES:
            found = layer  # unless somebody further out asked for it
        elif layer is not None:
            return layer
    return found


def in_order(names: Iterable[str]) -> list[str]:
    """As a request passes them; what has no place in the chain comes last."""
    order = [*LAYERS, LOOP]
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))
