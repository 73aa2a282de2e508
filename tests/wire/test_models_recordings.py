"""Every recorded list of models: what our own list is made of."""

import json

import httpx
import pytest

from providers.catalog import Provider, catalog
from providers.client import Client
from providers.contract import Kind, ProviderError
from tests.wire.recordings import Case, unread

CASES = unread("models")
KEYS = {"DASHSCOPE_API_KEY": "k"} | {
    f"{name}_API_KEY": "k" for name in ("ANTHROPIC", "DEEPSEEK", "GEMINI", "GROQ", "MISTRAL", "OPENAI", "OPENROUTER")
}


def each(*, ok: bool) -> pytest.MarkDecorator:
    cases = [case for case in CASES if case.ok == ok]
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])


async def listed(case: Case) -> list[dict[str, object]]:
    row: Provider = catalog(KEYS)[case.row]
    transport = httpx.MockTransport(lambda _: httpx.Response(case.status, content=case.body))
    return await Client(transport).models(row, 5.0)


@each(ok=True)
async def test_models(case: Case) -> None:
    """Each model by the name that it is asked for by."""
    document = json.loads(case.body)
    names = [
        row.get("id") or row["name"].removeprefix("models/") for row in document.get("data") or document["models"]
    ]
    assert [row["id"] for row in await listed(case)] == names


@each(ok=False)
async def test_refusal(case: Case) -> None:
    """A list that is refused is an error."""
    with pytest.raises(ProviderError) as caught:
        await listed(case)
    assert caught.value.kind is Kind.CREDENTIALS
