"""The helpers that every layer needs."""

import pytest

from middleware.asgi import BODY, START, header, is_last
from tests.middleware.driving import scope_of


def test_header_is_the_first_of_its_name() -> None:
    """Of several headers of one name the first counts."""
    scope = scope_of(headers=[(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])
    assert header(scope, b"a") == b"1"


def test_header_that_is_missing() -> None:
    """A header that was not sent is `None`, not empty."""
    assert header(scope_of(), b"a") is None


@pytest.mark.parametrize(
    ("message", "last"),
    [
        ({"type": START, "status": 200}, False),
        ({"type": BODY, "body": b"", "more_body": True}, False),
        ({"type": BODY, "body": b"", "more_body": False}, True),
        ({"type": BODY}, True),
    ],
)
def test_is_last(message: dict[str, object], last: bool) -> None:
    """The message that ends an answer is a body message without more to come, said or not."""
    assert is_last(message) is last
