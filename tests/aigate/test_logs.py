"""The log, read from the outside: another process writes it."""

import json
import subprocess
import sys
from datetime import datetime
from typing import Any

PREPARED = """
import logging
from loguru import logger
from aigate import logs
logs.configure("INFO")
"""
REPORTING = """
from middleware.exchange import Caller, Exchange, Outcome, Target
from middleware.faults import ProviderTimeout
from tests.middleware.driving import Tokens

def report(headers=(), path="/v1/chat/completions", **fields):
    exchange = Exchange(id="call", **fields)
    logs.report(exchange, {"type": "http", "method": "POST", "path": path, "headers": list(headers)})
"""


def written(script: str) -> list[dict[str, Any]]:
    """The lines that a process logs, each of which must be one JSON object; nothing goes to stderr."""
    done = subprocess.run([sys.executable, "-c", PREPARED + script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_line_is_one_json_object() -> None:
    """Time, level and event, whatever characters are in it."""
    (line,) = written(r"""logger.warning("two\nlines and {braces} ü \x00")""")
    assert line["event"] == "two\nlines and {braces} ü \x00"
    assert line["level"] == "warning"
    assert datetime.fromisoformat(line["time"]).tzinfo is not None
    assert line["time"][10] == "T"


def test_fields_stand_beside_the_event() -> None:
    """What is bound or given by name is a field."""
    (line,) = written("""logger.bind(a=1).info("said", b=[1.5, None])""")
    assert (line["a"], line["b"]) == (1, [1.5, None])


def test_a_value_that_json_does_not_know() -> None:
    """It is written as text: a line is never lost."""
    (line,) = written("""logger.info("said", where=__import__("pathlib").Path("/x"))""")
    assert line["where"] == "/x"


def test_below_the_level() -> None:
    """Nothing is written, from neither library."""
    assert written("""logger.debug("x"); logging.getLogger("y").debug("z")""") == []


def test_the_id_of_the_request_is_on_every_line() -> None:
    """Inside its binding, and not after."""
    inside, forwarded, after = written(
        """
token = logs.bind("call")
logger.info("inside")
logging.getLogger("library").warning("forwarded")
token.var.reset(token)
logger.info("after")
"""
    )
    assert inside["request_id"] == forwarded["request_id"] == "call"
    assert "request_id" not in after


def test_an_exception_tells_no_values() -> None:
    """The traceback has the way, and no variable's content."""
    (line,) = written(
        """
def fail(prompt):
    key = prompt + "-key"
    raise ValueError("it failed")

try:
    fail("my-" + "secret")
except ValueError:
    logger.exception("the gateway failed")
"""
    )
    assert "ValueError: it failed" in line["exception"]
    assert "in fail" in line["exception"]
    assert "my-secret" not in json.dumps(line)


def test_the_causes_of_an_exception() -> None:
    """What an exception came from is part of the line."""
    (line,) = written(
        """
try:
    try:
        raise OSError("refused")
    except OSError as error:
        raise RuntimeError("away") from error
except RuntimeError:
    logger.exception("x")
"""
    )
    assert line["exception"].index("OSError: refused") < line["exception"].index("RuntimeError: away")


def test_the_standard_library_is_forwarded() -> None:
    """uvicorn and other libraries log as we do, under their own name."""
    (line,) = written("""logging.getLogger("uvicorn.error").warning("%s {is} 100%%", "this")""")
    assert (line["event"], line["logger"], line["level"]) == ("this {is} 100%", "uvicorn.error", "warning")


def test_an_exception_of_the_standard_library() -> None:
    """Its traceback comes along."""
    (line,) = written("""
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("library").exception("broken")
""")
    assert "ZeroDivisionError" in line["exception"]


def test_an_unusual_level_of_the_standard_library() -> None:
    """A level without a name is forwarded too."""
    (line,) = written("""logging.getLogger("library").log(35, "x")""")
    assert line["event"] == "x"


def test_chatty_libraries_are_quiet() -> None:
    """What httpx says of every request is no line."""
    assert written("""logging.getLogger("httpx").info("HTTP Request: ...")""") == []


def test_the_line_of_a_request() -> None:
    """Who, what, how it ended and what it cost."""
    (line,) = written(
        REPORTING
        + """
report(caller=Caller(1, "acme", 2, "abc"), target=Target("openai", "gpt-4o", True), usage=Tokens(), spent=True,
    billed=80_000, status=200, first_byte=0.25, outcome=Outcome.OK, headers=[(b"x-request-id", b"theirs" * 100)])
"""
    )
    assert line["event"] == "request"
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (line["org"], line["key"]) == ("acme", "abc")
    assert (line["provider"], line["model"], line["stream"]) == ("openai", "gpt-4o", True)
    assert (line["input_tokens"], line["output_tokens"], line["cost_usd"]) == (12, 5, 8e-5)
    assert (line["outcome"], line["first_byte_ms"], line["replayed"]) == ("ok", 250.0, False)
    assert line["client_request_id"] == ("theirs" * 100)[:128]


def test_the_line_of_a_refusal() -> None:
    """The code is the one of the answer; nothing is said of tokens."""
    (line,) = written(REPORTING + """report(fault=ProviderTimeout("x"), usage=Tokens())""")
    assert (line["status"], line["code"]) == (504, "provider_timeout")
    assert "input_tokens" not in line


def test_nothing_of_the_callers_headers() -> None:
    """Neither a key nor anything else that was sent."""
    (line,) = written(REPORTING + """report(headers=[(b"authorization", b"Bearer aig_a_secret")], body=b"prompt")""")
    assert "secret" not in json.dumps(line)
    assert "prompt" not in json.dumps(line)


def test_a_path_has_a_bound() -> None:
    """A client cannot fill the log with one request."""
    (line,) = written(REPORTING + """report(path="/" + "x" * 10_000)""")
    assert len(line["path"]) == 256


def test_no_line_is_lost_for_what_it_says() -> None:
    """Text that is no UTF-8 and numbers beyond 64 bits are written somehow."""
    lines = written(
        r"""logger.info("\ud800"); logger.info("said", number=10**30); logger.info("said", **{"a": {1: 2}})"""
    )
    assert len(lines) == 3
