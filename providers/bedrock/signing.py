"""Why: AWS wants each request signed, its path, its body and the minute among what is signed.

botocore does it, with keys that stand still: nothing is fetched from a metadata service or refreshed.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

from dataclasses import dataclass, field
from typing import Any

SERVICE = "bedrock"


@dataclass(frozen=True, slots=True)
class Keys:
    """What AWS knows somebody by. `token` belongs to temporary keys."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


class SigV4:
    """Signs requests to one region. Raises `ImportError`, at once, where botocore is not installed."""

    def __init__(self, keys: Keys, region: str) -> None:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        self._auth: Any = SigV4Auth(keys, SERVICE, region)
        self._request: Any = AWSRequest

    def __call__(self, method: str, url: str, body: bytes) -> tuple[tuple[bytes, bytes], ...]:
        """The headers that make this very request one of ours; `url` as it is sent, byte by byte."""
        request = self._request(method=method, url=url, data=body)
        self._auth.add_auth(request)
        return tuple((name.lower().encode(), value.encode()) for name, value in request.headers.items())
