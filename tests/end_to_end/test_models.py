"""`GET /v1/models` with providers that hang, fail and lie, over real sockets: the list as a whole never fails."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from aigate.stores.keys import create_key
from tests.running import RunningGateway, run_gateway, settings_of
from tests.upstream import Behaviour, FakeProvider, answer, answer_json, raw, silent, stream

TIMEOUT = 1.0
LISTED = answer_json({"object": "list", "data": [{"id": "gpt-4o", "created": 17}, {"id": "org/model:tag@1"}]})


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    postgres_url: str, template: str, redis_url: str
) -> AsyncIterator[tuple[RunningGateway, FakeProvider, FakeProvider]]:
    """A gateway that remembers no list, with two providers that have allow-lists, for all tests of this file."""
    maker = await asyncpg.connect(postgres_url)
    await maker.execute(f'create database "models" template "{template}"')
    await maker.close()
    async with FakeProvider() as first, FakeProvider() as second:
        settings = settings_of(
            postgres_url.replace("/aigate?", "/models?"),
            redis_url,
            first.base_url,
            OPENAI_MODELS="gpt-allowed,gpt-4o",
            VLLM_BASE_URL=second.base_url,
            VLLM_MODELS="llama-allowed",
            AIGATE_MODELS_TIMEOUT=str(TIMEOUT),
            AIGATE_MODELS_CACHE_SECONDS="0",
            AIGATE_MODEL_ALIASES="best=openai:gpt-4o",
        )
        async with run_gateway(settings) as running:
            yield running, first, second


@pytest.fixture
def provider(shared: tuple[RunningGateway, FakeProvider, FakeProvider]) -> FakeProvider:
    """The provider `openai`."""
    return shared[1]


@pytest.fixture
def second(shared: tuple[RunningGateway, FakeProvider, FakeProvider]) -> FakeProvider:
    """Another provider, `vllm`."""
    return shared[2]


@pytest.fixture
def gateway(shared: tuple[RunningGateway, FakeProvider, FakeProvider]) -> RunningGateway:
    for fake in shared[1:]:
        fake.default = LISTED
        fake.asked.clear()
    return shared[0]


async def listed(gateway: RunningGateway, **headers: str) -> list[str]:
    response = await gateway.client.get("/v1/models", headers=headers)
    assert response.status_code == 200
    document = response.json()
    assert document["object"] == "list"
    for model in document["data"]:
        assert set(model) >= {"id", "object", "created", "owned_by"}
        assert (model["object"], model["owned_by"]) == ("model", model["id"].split(":")[0])
        assert isinstance(model["created"], int)
    return [model["id"] for model in document["data"]]


async def test_every_provider(gateway: RunningGateway, provider: FakeProvider, second: FakeProvider) -> None:
    """Each configured provider is asked, with its key, and its models are named `provider:model`."""
    assert set(await listed(gateway)) == {
        "openai:gpt-4o",
        "openai:org/model:tag@1",
        "vllm:gpt-4o",
        "vllm:org/model:tag@1",
        "echo:echo",
    }
    assert [asked.path for asked in provider.asked + second.asked] == ["/v1/models"] * 2
    assert provider.asked[0].headers["authorization"] == "Bearer sk-provider-secret"
    assert "authorization" not in second.asked[0].headers


@pytest.mark.parametrize(
    "behaviour",
    [
        silent(),
        answer_json({"error": "x"}, 500),
        answer_json({}, 401),
        answer_json({}, 404),
        answer(302, b"", "text/html", "location: http://127.0.0.1:1/"),
        answer(200, b"<html>", "text/html"),
        answer(200, b"", "application/json"),
        answer_json({"data": "x"}),
        answer_json([[[]]], 418),
        answer_json({"data": [[], None, 17, {"id": 17}, {"id": "llama-allowed"}]}),
        raw(b"", close=True),
        stream(b"data: {}\n\n", then=60),
    ],
    ids=["silent", "500", "401", "404", "302", "html", "empty", "no-list", "418", "mixed", "hangs-up", "endless"],
)
async def test_failing_provider(gateway: RunningGateway, second: FakeProvider, behaviour: Behaviour) -> None:
    """A provider that does not answer properly is listed by its allow-list, in time, and the others as ever."""
    second.default = behaviour
    started = time.perf_counter()
    found = await listed(gateway)
    assert time.perf_counter() - started < TIMEOUT + 3
    assert [name for name in found if name.startswith("vllm:")] == ["vllm:llama-allowed"]
    assert "openai:gpt-4o" in found


async def test_all_at_once(gateway: RunningGateway, provider: FakeProvider, second: FakeProvider) -> None:
    """Two that hang cost the time of one."""
    provider.default = second.default = silent()
    started = time.perf_counter()
    assert set(await listed(gateway)) == {"openai:gpt-allowed", "openai:gpt-4o", "vllm:llama-allowed", "echo:echo"}
    assert time.perf_counter() - started < TIMEOUT * 1.9


async def test_list_is_kept(database_url: str, redis_url: str) -> None:
    """Callers that come together, or soon after, share one question to the provider."""
    async with FakeProvider(default=LISTED) as fake:
        settings = settings_of(database_url, redis_url, fake.base_url, VLLM_BASE_URL="")
        async with run_gateway(settings) as gateway:
            await asyncio.gather(*(listed(gateway) for _ in range(20)))
            await listed(gateway)
            assert len(fake.asked) == 1


async def test_first_asker_leaves(gateway: RunningGateway, provider: FakeProvider) -> None:
    """A client that leaves while the list is made takes it from nobody."""
    provider.default = silent()
    leaving = asyncio.create_task(listed(gateway))
    await asyncio.sleep(TIMEOUT / 3)
    waiting = asyncio.create_task(listed(gateway))
    await asyncio.sleep(TIMEOUT / 6)
    leaving.cancel()
    assert "openai:gpt-allowed" in await waiting


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("openai:gpt-4o", "openai:gpt-4o"),
        ("openai/gpt-4o", "openai:gpt-4o"),
        ("openai%3Agpt-4o", "openai:gpt-4o"),
        ("openai%2Fgpt-4o", "openai:gpt-4o"),
        ("openai:org/model:tag@1", "openai:org/model:tag@1"),
        ("openai%3Aorg%2Fmodel%3Atag%401", "openai:org/model:tag@1"),
        ("openai/org/model:tag@1", "openai:org/model:tag@1"),
        ("best", "openai:gpt-4o"),
        ("echo:echo", "echo:echo"),
    ],
)
async def test_one_model(gateway: RunningGateway, path: str, name: str) -> None:
    """A model is found by its id, colons and slashes plain or encoded, and by its alias."""
    response = await gateway.client.get(f"/v1/models/{path}")
    assert response.status_code == 200
    assert (response.json()["id"], response.json()["object"]) == (name, "model")


@pytest.mark.parametrize(
    "path", ["openai:nothing", "nowhere:gpt-4o", "gpt-4o", "qwen:qwen-max", "openai:", "openai", "openai:GPT-4O"]
)
async def test_unknown_model(gateway: RunningGateway, path: str) -> None:
    """A model that nobody has is not found."""
    response = await gateway.client.get(f"/v1/models/{path}")
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("path", ["openai:%00", "openai:..%2F..%2Fkeys", "x" * 5000, "openai:%0d%0ax", "openai:%ff"])
async def test_no_name(gateway: RunningGateway, provider: FakeProvider, path: str) -> None:
    """What cannot be a name is refused, and asked of nobody."""
    response = await gateway.client.get(f"/v1/models/{path}")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "model"
    assert provider.asked == []


async def test_only_what_the_key_may_use(gateway: RunningGateway) -> None:
    """A key sees what its list names, and nothing else exists for it."""
    key = await create_key(gateway.database, "acme", models=["openai:org/*", "echo:*"])
    bearer = {"authorization": f"Bearer {key}"}
    assert set(await listed(gateway, **bearer)) == {"openai:org/model:tag@1", "echo:echo"}
    assert (await gateway.client.get("/v1/models/openai:gpt-4o", headers=bearer)).status_code == 404
    assert (await gateway.client.get("/v1/models/echo:echo", headers=bearer)).status_code == 200
    assert "openai:gpt-4o" in await listed(gateway)


async def test_a_key_with_an_empty_list(gateway: RunningGateway) -> None:
    """A list that names nothing allows nothing."""
    key = await create_key(gateway.database, "acme", models=[])
    assert await listed(gateway, authorization=f"Bearer {key}") == []


async def test_very_many_models(gateway: RunningGateway, second: FakeProvider) -> None:
    """A provider that lists without end is cut short."""
    many: list[dict[str, Any]] = [{"id": f"m{number}"} for number in range(20_000)]
    second.default = answer_json({"data": many})
    found = await listed(gateway)
    assert 1000 < len(found) < 10_000
