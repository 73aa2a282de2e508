"""Bedrock's errors, signatures and addresses."""

import base64
import hashlib
import hmac
import subprocess
import sys
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.bedrock import BedrockWire, Keys, SigV4
from providers.catalog import Provider, catalog
from providers.client import Client
from providers.contract import Call, Kind, ProviderError

WIRE = BedrockWire()
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "sec/ret", "AWS_REGION": "eu-central-1"}


def call(model: str = CLAUDE, **fields: Any) -> Call:
    return Call(model, {"messages": [{"role": "user", "content": "hi"}]}, **fields)


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "name", "words", "kind"),
    [
        (400, "ValidationException", "The provided model identifier is invalid.", Kind.REJECTED),
        (400, "ValidationException", "prompt is too long: 210000 tokens > 200000 maximum", Kind.CONTEXT_LENGTH),
        (
            400,
            "ValidationException",
            "input length and `max_tokens` exceed context limit: 9 + 1 > 8",
            Kind.CONTEXT_LENGTH,
        ),
        (
            400,
            "ValidationException",
            "Input Tokens Exceeded: Number of input tokens exceeds maximum length.",
            Kind.CONTEXT_LENGTH,
        ),
        (400, "ExpiredTokenException", "The security token is expired", Kind.CREDENTIALS),
        (400, "ServiceQuotaExceededException", "Your request exceeds the quota", Kind.QUOTA),
        (403, "AccessDeniedException", "You don't have access to the model.", Kind.CREDENTIALS),
        (404, "ResourceNotFoundException", "The model has reached the end of its life.", Kind.NOT_FOUND),
        (408, "ModelTimeoutException", "too long", Kind.TIMEOUT),
        (424, "ModelErrorException", "The model failed", Kind.FAILED),
        (424, "", "The model failed", Kind.FAILED),
        (429, "ThrottlingException", "Too many tokens, please wait before trying again.", Kind.RATE_LIMITED),
        (429, "ModelNotReadyException", "The model is not ready", Kind.OVERLOADED),
        (500, "InternalServerException", "oops", Kind.FAILED),
        (503, "ServiceUnavailableException", "try later", Kind.OVERLOADED),
    ],
)
def test_each_exception_has_its_meaning(status: int, name: str, words: str, kind: Kind) -> None:
    """The header has a name with an address behind it."""
    headers = {"x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"} if name else {}
    error = WIRE.error(status, headers, orjson.dumps({"message": words}))
    assert (error.kind, error.message, error.status) == (kind, words, status)


@given(
    status=st.integers(300, 599),
    name=st.text(max_size=20) | st.sampled_from(["ThrottlingException", "AccessDeniedException"]),
    body=st.binary(max_size=60) | st.just(b'{"__type": 3, "message": [], "code": {}}') | st.just(b"[" * 100_000),
)
@settings(deadline=None)
def test_any_refusal_has_a_meaning(status: int, name: str, body: bytes) -> None:
    """A provider that is down, or a proxy before it, answers anything."""
    error = WIRE.error(status, {"x-amzn-errortype": name}, body)
    assert error.status == status
    assert error.message


def test_a_refused_signature_quotes_nothing() -> None:
    """AWS repeats what was to be signed, the session's token among it."""
    words = "The request signature does not match.\n\nx-amz-security-token:secret"
    error = WIRE.error(403, {"x-amzn-errortype": "InvalidSignatureException"}, orjson.dumps({"message": words}))
    assert error.message == "The request signature does not match."
    assert error.raw is None


# --- signatures -------------------------------------------------------------------------------------------------


def test_a_signature_is_the_one_of_aws() -> None:
    """Worked out by hand, with a colon in the path encoded twice, as AWS does it."""
    url = "https://bedrock-runtime.us-east-1.amazonaws.com/model/a.b-v1:0/converse"
    headers = dict(SigV4(Keys("AKIDEXAMPLE", "secret", "token"), "us-east-1")("POST", url, b"{}"))
    date = headers[b"x-amz-date"].decode()
    assert headers[b"x-amz-security-token"] == b"token"
    assert headers[b"authorization"] == by_hand("/model/a.b-v1%3A0/converse", date, b"{}").encode()


def by_hand(path: str, date: str, body: bytes) -> str:
    """The header that AWS expects. Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html"""
    host, signed = "bedrock-runtime.us-east-1.amazonaws.com", "host;x-amz-date;x-amz-security-token"
    heads = f"host:{host}\nx-amz-date:{date}\nx-amz-security-token:token\n"
    canonical = f"POST\n{path}\n\n{heads}\n{signed}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{date[:8]}/us-east-1/bedrock/aws4_request"
    key = b"AWS4secret"
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    told = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(key, told.encode(), "sha256").hex()
    return f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, SignedHeaders={signed}, Signature={signature}"


def test_botocore_is_imported_only_when_used() -> None:
    """A gateway without Bedrock does not carry it."""
    script = "import sys, providers.catalog as c; c.catalog({}); sys.exit('botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


async def test_the_client_signs_what_it_sends() -> None:
    """Each request anew; the secret never leaves."""
    sent: list[httpx.Request] = []

    def answering(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, content=b'{"output":{"message":{"content":[{"text":"x"}]}}}')

    client = Client(httpx.MockTransport(answering))
    row = catalog(ENVIRONMENT)["bedrock"]
    for _ in range(2):
        await (await client.open(row, call())).read()
    await client.aclose()
    assert str(sent[0].url).endswith(f"eu-central-1.amazonaws.com/model/{CLAUDE}/converse")
    assert sent[0].headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "x-amz-date" in sent[1].headers
    assert "sec/ret" not in str(sent[0].headers) + repr(row)


# --- the catalog's row ------------------------------------------------------------------------------------------


def row_of(**environment: str) -> Provider:
    return catalog(environment)["bedrock"]


def test_keys_of_aws_configure_it() -> None:
    """In the region that they are said to be for."""
    row = row_of(**ENVIRONMENT)
    assert row.configured
    assert row.signer is not None
    assert row.authentication() == ()
    assert row.base_url == "https://bedrock-runtime.eu-central-1.amazonaws.com"


def test_half_a_pair_of_keys_does_not() -> None:
    """And nothing is said: they may be there for another reason."""
    assert not row_of(AWS_ACCESS_KEY_ID="AKIDEXAMPLE").configured


@pytest.mark.parametrize("name", ["AWS_BEARER_TOKEN_BEDROCK", "BEDROCK_API_KEY"])
def test_a_bearer_token_goes_before_keys(name: str) -> None:
    """As AWS's own SDKs have it."""
    row = row_of(**{**ENVIRONMENT, name: "bearer"})
    assert row.signer is None
    assert row.authentication() == ((b"authorization", b"Bearer bearer"),)


def test_the_address_can_be_overridden() -> None:
    """A VPC endpoint, or a test; the region is still signed for. China has a domain of its own."""
    row = row_of(**ENVIRONMENT, BEDROCK_BASE_URL="https://vpce.example")
    assert row.base_url == "https://vpce.example"
    assert row_of(**{**ENVIRONMENT, "AWS_REGION": "cn-north-1"}).base_url.endswith("cn-north-1.amazonaws.com.cn")


def test_a_region_is_a_name() -> None:
    """It becomes part of an address."""
    with pytest.raises(ValueError, match="AWS_REGION"):
        row_of(AWS_REGION="evil.example/#")


async def test_it_lists_no_models() -> None:
    """Its list is at another address, with other rights; the allow-list stands in."""
    client = Client(httpx.MockTransport(lambda request: pytest.fail(f"asked for {request.url}")))
    with pytest.raises(ProviderError) as caught:
        await client.models(row_of(**ENVIRONMENT), 1)
    assert caught.value.kind is Kind.NOT_FOUND
    await client.aclose()


# --- the path ---------------------------------------------------------------------------------------------------


def test_an_arn_is_one_segment_of_the_path() -> None:
    """Its slashes are part of the name; its colons stand as they are, for transports would put them so."""
    arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0"
    path = WIRE.request(call(arn, stream=True)).path
    assert path == f"/model/{arn.replace('/', '%2F')}/converse-stream"
    assert httpx.URL(f"https://h{path}").raw_path == path.encode()


@pytest.mark.parametrize("model", ["", ".", "..", "a b", "a?b", "a#b", "a%2e", "x" * 3000])
def test_no_name_leads_elsewhere(model: str) -> None:
    """Nothing in it changes where the call goes."""
    with pytest.raises(ProviderError) as caught:
        WIRE.request(call(model))
    assert (caught.value.param, caught.value.sent) == ("model", False)


def test_a_picture_by_url_is_fetched_first() -> None:
    """Its bytes are what is sent."""
    content = [{"type": "image_url", "image_url": {"url": "https://h/p.png"}}]
    made = Call(CLAUDE, {"messages": [{"role": "user", "content": content}]})
    assert WIRE.remote(made) == {"https://h/p.png": "messages[0].content[0].image_url"}
    with pytest.raises(ProviderError, match="not been fetched"):
        WIRE.request(made)
    fetched = Call(CLAUDE, made.document, fetched={"https://h/p.png": ("image/png", b"png")})
    (block,) = orjson.loads(WIRE.request(fetched).body)["messages"][0]["content"]
    assert block == {"image": {"format": "png", "source": {"bytes": base64.b64encode(b"png").decode()}}}
    assert WIRE.remote(call()) == {}
