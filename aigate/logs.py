"""The log: one JSON object a line on stdout, ours, uvicorn's and the libraries' alike, so that Loki can query it.

orjson builds the line from loguru's record (8 us; loguru's own `serialize` takes 20). The line of a request, the
only one on the hot path, is written without a record, and only half of it is new: the other half is remembered.
Tracebacks are written without the values of variables: a prompt or a key that is in memory must not reach the log
through an exception.
"""

import asyncio
import json
import logging
import sys
import traceback
from collections import deque
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson
from loguru import logger

from middleware.asgi import Scope, header
from middleware.exchange import Exchange, Outcome, Target

if TYPE_CHECKING:
    from loguru import Message

LONGEST_CORRELATION_ID = 128
LONGEST_PATH = 256
REQUESTS = logging.getLogger("aigate.requests")
"""Says by its level whether the line of a request is wanted."""
_waiting: deque[bytes] = deque()
"""Lines of requests that ended in this turn of the event loop."""
_request_id: ContextVar[str] = ContextVar("request_id", default="")
bind = _request_id.set
"""Puts a request id on every line that is logged from then on, until the token that it gives is used to reset it."""
QUIET = {"httpx": logging.WARNING, "asyncio": logging.WARNING, "yoyo": logging.WARNING}


def configure(level: str) -> None:
    """Send everything that is logged in this process to stdout as JSON lines, from `level` upwards."""
    logger.remove()
    logger.add(_write, level=level, format="{message}", backtrace=False, diagnose=False)
    logging.basicConfig(handlers=[_Forward()], level=level, force=True)
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(max(least, logging.getLevelName(level)))


def report(exchange: Exchange, scope: Scope) -> None:
    """The one line of a finished exchange. Never a prompt, a key or a header of the caller's beside its own id."""
    if not REQUESTS.isEnabledFor(logging.INFO):
        return
    own = _own(exchange)
    if exchange.first_byte is not None:
        own["first_byte_ms"] = _milliseconds(exchange.first_byte)
    correlation = header(scope, b"x-request-id")
    if correlation is not None:
        own["client_request_id"] = correlation[:LONGEST_CORRELATION_ID].decode("latin-1")
    caller, path = exchange.caller, scope["path"]
    alike = _alike(
        scope["method"],
        path if len(path) <= LONGEST_PATH else path[:LONGEST_PATH],
        exchange.status or exchange.final_status,
        None if caller is None else (caller.org_name, caller.public_id),
        exchange.target,
        None if exchange.fault is None else exchange.fault.code,
        exchange.outcome,
        exchange.replayed,
    )
    _write_soon(_json(own)[:-2] + alike)


def _own(exchange: Exchange) -> dict[str, Any]:
    """The beginning of a line: what it says of this call alone."""
    now, duration, usage = datetime.now(UTC), _milliseconds(perf_counter() - exchange.started), exchange.usage
    if usage is None or not exchange.spent:
        return {"time": now, "request_id": exchange.id, "duration_ms": duration}
    return {
        "time": now,
        "request_id": exchange.id,
        "duration_ms": duration,
        "input_tokens": usage.input_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "usage_source": usage.source,
        "cost_usd": (exchange.billed or 0) / 1e9,
    }


def _milliseconds(seconds: float) -> float:
    """With three decimals; `round` takes a way through text."""
    return seconds * 1e6 // 1 / 1e3


@lru_cache(maxsize=1024)
def _alike(
    method: str,
    path: str,
    status: int,
    key: tuple[str, str] | None,
    target: Target | None,
    code: str | None,
    outcome: Outcome | None,
    replayed: bool,
) -> bytes:
    """The rest of a line: what it says of this call as of many others."""
    fields: dict[str, Any] = {
        "level": "info",
        "event": "request",
        "logger": REQUESTS.name,
        "method": method,
        "path": path,
        "status": status,
    }
    if key is not None:
        fields["org"], fields["key"] = key
    if target is not None:
        fields["provider"], fields["model"], fields["stream"], _ = target
    if code is not None:
        fields["code"] = code
    if outcome is not None:
        fields["outcome"] = outcome
    fields["replayed"] = replayed
    return b"," + _json(fields)[1:]


def _write(message: "Message") -> None:
    record = message.record
    line: dict[str, Any] = {
        "time": record["time"].isoformat(),
        "level": record["level"].name.lower(),
        "event": record["message"],
    }
    if record["name"]:
        line["logger"] = record["extra"].pop("logger", record["name"])
    if request_id := _request_id.get():
        line["request_id"] = request_id
    line |= record["extra"]
    if record["exception"] is not None:
        line["exception"] = "".join(traceback.format_exception(record["exception"].value))
    _waiting.append(_json(line))
    _flush()


def _write_soon(line: bytes) -> None:
    """Write the line with all others of this turn of the event loop; at once where there is no loop."""
    _waiting.append(line)
    if len(_waiting) == 1:
        try:
            asyncio.get_running_loop().call_soon(_flush)
        except RuntimeError:
            _flush()


def _flush() -> None:
    lines = []
    try:
        while _waiting:
            lines.append(_waiting.popleft())
    except IndexError:  # another thread, which is logging at the same time, took the last
        pass
    output = sys.stdout.buffer
    output.write(b"".join(lines))
    output.flush()


def _json(line: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a lone surrogate, or a number beyond 64 bits: no line is lost for it
        return json.dumps(line, default=str).encode() + b"\n"


class _Forward(logging.Handler):
    """Hands the standard library's records to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        logger.bind(logger=record.name).opt(exception=record.exc_info).log(level, "{}", record.getMessage())
