"""The closed vocabulary of what can go wrong."""

import pytest

from middleware import faults
from middleware.faults import Fault, StoreUnavailable, Unauthenticated


def _all(kind: type[Fault] = Fault) -> list[type[Fault]]:
    return [kind, *(each for child in kind.__subclasses__() for each in _all(child))]


KINDS = [kind for kind in _all() if kind.__module__ == faults.__name__]
PARTIES = {
    faults.CallerFault: "caller_",
    faults.PolicyFault: "policy_",
    faults.ProviderFault: "provider_",
    faults.GatewayFault: "gateway_",
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_code_says_whose_fault_it_is(kind: type[Fault]) -> None:
    """The first word of the code is that of the family."""
    prefix = next((word for family, word in PARTIES.items() if issubclass(kind, family)), "gateway_")
    assert kind.code.startswith(prefix)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_fault_says_what_it_is(kind: type[Fault]) -> None:
    """Each is an error's status, a word of its own and a docstring."""
    assert 400 <= kind.status < 600
    assert kind.__doc__


def test_no_two_faults_share_a_code() -> None:
    """One word means one thing, in the answer, the log and the metric; a family's base shares it with nobody else."""
    own = [kind.code for kind in KINDS if "code" in vars(kind)]
    assert len(own) == len(set(own))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if issubclass(kind, faults.PolicyFault)])
def test_retries_that_cannot_help(kind: type[Fault]) -> None:
    """What the operator does not allow is not to be retried, except a rate that is over."""
    assert kind.should_retry is (None if kind is faults.RateLimited else False)


def test_body_is_openai_shaped() -> None:
    """The error object has exactly OpenAI's four fields."""
    assert Fault("no", param="model").body() == {
        "error": {"message": "no", "type": "server_error", "param": "model", "code": "gateway_internal_error"}
    }


def test_metadata_stands_in_the_error() -> None:
    """A provider's own words are reported beside ours."""
    assert Fault("no", metadata={"raw": "x"}).body()["error"]["metadata"] == {"raw": "x"}


def test_a_stranger_is_told_how_to_authenticate() -> None:
    """RFC 9110 asks for this header on every 401."""
    assert "www-authenticate" in Unauthenticated("who?").headers


def test_a_store_that_is_away_says_when_to_come_back() -> None:
    """503 without a time would be retried at once."""
    assert StoreUnavailable("away").retry_after == 2.0
