"""The log: one JSON object a line on stdout, ours, uvicorn's and the libraries' alike, so that Loki can query it.

orjson builds the line from loguru's record (8 us; loguru's own `serialize` takes 20). The line of a request, the
only one on the hot path, is written without a record. Tracebacks are written without the values of variables: a
prompt or a key that is in memory must not reach the log through an exception.
"""

import asyncio
import json
import logging
import sys
import traceback
from collections import deque
from contextlib import suppress
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from loguru import logger

from middleware.asgi import Scope, header
from middleware.exchange import Exchange, Usage

if TYPE_CHECKING:
    from loguru import Message

LONGEST_CORRELATION_ID = 128
REQUESTS = logging.getLogger("aigate.requests")
"""Says by its level whether the line of a request is wanted."""
_waiting: deque[bytes] = deque()
"""Lines of requests that ended in this turn of the event loop."""
_request_id: ContextVar[str] = ContextVar("request_id", default="")
QUIET = {"httpx": logging.WARNING, "asyncio": logging.WARNING, "yoyo": logging.WARNING}


def configure(level: str) -> None:
    """Send everything that is logged in this process to stdout as JSON lines, from `level` upwards."""
    logger.remove()
    logger.add(_write, level=level, format="{message}", backtrace=False, diagnose=False)
    logging.basicConfig(handlers=[_Forward()], level=level, force=True)
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(max(least, logging.getLevelName(level)))


class bind:
    """Puts the request id on every line that is logged inside the block."""

    __slots__ = ("_request_id", "_token")

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id

    def __enter__(self) -> None:
        self._token: Token[str] = _request_id.set(self._request_id)

    def __exit__(self, *_: object) -> None:
        _request_id.reset(self._token)


def report(exchange: Exchange, scope: Scope) -> None:
    """The one line of a finished exchange. Never a prompt, a key or a header of the caller's beside its own id."""
    if not REQUESTS.isEnabledFor(logging.INFO):
        return
    fields: dict[str, Any] = {
        "time": datetime.now(UTC),
        "level": "info",
        "event": "request",
        "logger": REQUESTS.name,
        "request_id": exchange.id,
        "method": scope["method"],
        "path": scope["path"][:256],
        "status": exchange.final_status,
        "duration_ms": _milliseconds(exchange.elapsed),
    }
    if exchange.first_byte is not None:
        fields["first_byte_ms"] = _milliseconds(exchange.first_byte)
    if exchange.caller is not None:
        fields["org"] = exchange.caller.org_name
        fields["key"] = exchange.caller.public_id
    if exchange.target is not None:
        fields["provider"], fields["model"], fields["stream"], _ = exchange.target
    if exchange.fault is not None:
        fields["code"] = exchange.fault.code
    if exchange.outcome is not None:
        fields["outcome"] = exchange.outcome
    fields["replayed"] = exchange.replayed
    if exchange.usage is not None and exchange.spent:
        _consumption(fields, exchange.usage, exchange.billed or 0)
    correlation = header(scope, b"x-request-id")
    if correlation is not None:
        fields["client_request_id"] = correlation[:LONGEST_CORRELATION_ID].decode("latin-1")
    _write_soon(fields)


def _milliseconds(seconds: float) -> float:
    """With three decimals; `round` takes a way through text."""
    return int(seconds * 1e6) / 1e3


def _consumption(fields: dict[str, Any], usage: Usage, billed: int) -> None:
    fields["input_tokens"] = usage.input_tokens
    fields["cache_read_tokens"] = usage.cache_read_tokens
    fields["output_tokens"] = usage.output_tokens
    fields["reasoning_tokens"] = usage.reasoning_tokens
    fields["usage_source"] = usage.source
    fields["cost_usd"] = billed / 1e9


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


def _write_soon(line: dict[str, Any]) -> None:
    """Write the line with all others of this turn of the event loop; at once where there is no loop."""
    _waiting.append(_json(line))
    if len(_waiting) == 1:
        try:
            asyncio.get_running_loop().call_soon(_flush)
        except RuntimeError:
            _flush()


def _flush() -> None:
    lines = []
    with suppress(IndexError):  # taken one by one: a thread may be logging at the same time
        while _waiting:
            lines.append(_waiting.popleft())
    sys.stdout.buffer.write(b"".join(lines))
    sys.stdout.buffer.flush()


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
