"""The load generator: exact in what it counts, and loud where an answer is not what was asked for."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from scripts.benchmark.load import Work, run
from scripts.benchmark.system import BenchmarkError, free_port

REQUEST = (b"POST /v1/chat/completions HTTP/1.1\r\n", b"content-length: 0\r\n\r\n")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
SSE = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata: \r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


@contextlib.contextmanager
def server(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Gives each request on each connection the same answer; its port, and the requests."""
    seen: list[bytes] = []
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        connection.settimeout(10)
        with connection, contextlib.suppress(TimeoutError):
            while data := connection.recv(65536):
                seen.append(data)
                connection.sendall(answer)

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept, args=(listener,))
        accepting.start()
        try:
            yield listener.getsockname()[1], seen
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join()


def test_ends_after_as_many_calls_as_were_asked_for() -> None:
    """None is cut, and none is too many."""
    with server(OK) as (port, seen):
        result = run(Work([port], REQUEST, in_flight=3, seconds=10, most=20))
    assert (result.calls, len(seen), len(result.latencies)) == (20, 20, 20)


def test_header_of_each_request() -> None:
    """Its number, between the two parts."""
    with server(OK) as (port, seen):
        run(Work([port], REQUEST, in_flight=1, seconds=10, most=2, header=lambda number: b"x: %d\r\n" % number))
    assert [data.splitlines()[1] for data in seen] == [b"x: 1", b"x: 2"]


def test_connections_are_dealt_out_to_the_ports() -> None:
    """In turn."""
    with server(OK) as (first, at_first), server(OK) as (second, at_second):
        run(Work([first, second], REQUEST, in_flight=2, seconds=10, most=2))
    assert (len(at_first), len(at_second)) == (1, 1)


def test_streams_are_spread_over_the_ramp() -> None:
    """The last begins when the others have long begun; all are counted."""
    with server(SSE) as (port, seen):
        result = run(Work([port], REQUEST, in_flight=4, seconds=10, stream=True, most=4, ramp=0.1))
    assert (result.calls, len(seen), len(result.first_bytes)) == (4, 4, 4)
    assert result.elapsed >= 0.07  # three quarters of the ramp; uvloop rounds each delay to a millisecond


def test_another_status_is_an_error() -> None:
    """A fast refusal is no measurement."""
    refused = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\nno"
    with server(refused) as (port, _), pytest.raises(BenchmarkError, match="429"):
        run(Work([port], REQUEST, in_flight=1, seconds=10, most=1))


def test_nobody_there() -> None:
    """A peer that died is told as such."""
    with pytest.raises(BenchmarkError, match="no connection"):
        run(Work([free_port()], REQUEST, in_flight=1, seconds=1))
