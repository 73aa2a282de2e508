"""Renders every refusal and failure once, in the caller's format.

Layers and handler raise; here alone an exception becomes an answer. What is not one of our faults is a defect of
the gateway: it is logged with its traceback and the caller learns nothing but the request id. Once the head has
left nothing can be rendered any more: the connection is left unfinished, which the server turns into a cut
connection, so that the broken answer does not look whole.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import orjson
from loguru import logger

from middleware.asgi import BODY, START, ASGIApp, RawHeaders, Receive, Scope, Send
from middleware.exchange import Answer, exchange_of
from middleware.faults import ClientDisconnected, Fault


def openai_answer(fault: Fault) -> Answer:
    """The fault as OpenAI's error object, with the headers that the official SDKs obey.

    Sources: https://platform.openai.com/docs/guides/error-codes and openai-python `_base_client.py`
    (`x-should-retry`, `retry-after`).
    """
    body = orjson.dumps(fault.body())
    headers: RawHeaders = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in fault.headers.items()]
    if fault.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if fault.should_retry else b"false"))
    if fault.retry_after is not None:
        headers.append((b"retry-after", str(math.ceil(fault.retry_after)).encode()))
    return Answer(fault.status, tuple(headers), body)


@dataclass(frozen=True, slots=True)
class Errors:
    app: ASGIApp
    render: Callable[[Fault], Answer] = openai_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        send = exchange.observe(send)
        try:
            await self.app(scope, receive, send)
        except Fault as fault:
            exchange.fault = fault
        except Exception:
            logger.exception("the gateway failed")
            exchange.fault = Fault("The gateway failed on this request; its operator finds why under the request id.")
        else:
            return
        if not exchange.status and not isinstance(exchange.fault, ClientDisconnected):
            await self._refuse(exchange.fault, send)

    async def _refuse(self, fault: Fault, send: Send) -> None:
        answer = self.render(fault)
        await send({"type": START, "status": answer.status, "headers": list(answer.headers)})
        await send({"type": BODY, "body": answer.body, "more_body": False})
