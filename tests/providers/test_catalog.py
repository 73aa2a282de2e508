"""The rows of providers, and what the environment makes of them."""

from dataclasses import replace

import pytest

from providers.catalog import ENVIRONMENT, QWEN_REGIONS, ROWS, Provider, catalog


def test_nothing_but_the_echo_is_configured_without_an_environment() -> None:
    """An operator sets up each provider on purpose."""
    assert [name for name, row in catalog({}).items() if row.configured] == ["echo"]


def test_each_row_has_a_secure_address_or_none() -> None:
    """Hosted providers are called over TLS; self-hosted ones, and an account's own, where the operator says."""
    nowhere = {row.name for row in ROWS if not row.base_url}
    assert nowhere == {row.name for row in ROWS if row.local} | {"azure", "vertex"}
    assert all(row.base_url.startswith("https://") for row in ROWS if row.base_url)


def test_a_key_configures_a_provider() -> None:
    """`<NAME>_API_KEY` is enough for a known one."""
    openai = catalog({"OPENAI_API_KEY": "sk-1"})["openai"]
    assert openai.configured
    assert openai.authentication() == ((b"authorization", b"Bearer sk-1"),)


def test_a_key_is_never_shown() -> None:
    """A row may stand in a log line."""
    assert "sk-1" not in repr(catalog({"OPENAI_API_KEY": "sk-1"})["openai"])


def test_each_field_can_be_overridden() -> None:
    """Address, models and what a hang-up means."""
    row = catalog(
        {
            "GROQ_API_KEY": " key\n",
            "GROQ_BASE_URL": "http://proxy:8080/v1/",
            "GROQ_MODELS": "a, b,,c ",
            "GROQ_ON_DISCONNECT": "Cancel",
        }
    )["groq"]
    assert (row.api_key, row.base_url) == ("key", "http://proxy:8080/v1")
    assert (row.models, row.on_disconnect) == (("a", "b", "c"), "cancel")


def test_an_empty_value_counts_as_unset() -> None:
    """A compose file passes empty variables on."""
    empty = {"OPENAI_API_KEY": " ", "OPENAI_BASE_URL": "", "OPENAI_MODELS": "", "OPENAI_ON_DISCONNECT": ""}
    assert catalog({**empty, "QWEN_REGION": "", "AIGATE_PROVIDERS": ""}) == catalog({})


@pytest.mark.parametrize("name", ["ollama", "vllm", "llamacpp", "lmstudio"])
def test_a_self_hosted_provider_needs_an_address_and_no_key(name: str) -> None:
    """It is free unless a price rule says otherwise."""
    assert not catalog({})[name].configured
    row = catalog({f"{name.upper()}_BASE_URL": "http://127.0.0.1:1/v1"})[name]
    assert row.configured
    assert row.local
    assert row.authentication() == ()


@pytest.mark.parametrize("region", QWEN_REGIONS)
def test_the_region_chooses_the_address_of_qwen(region: str) -> None:
    """Keys are valid in one region only."""
    assert catalog({"QWEN_REGION": region})["qwen"].base_url == QWEN_REGIONS[region]


def test_the_key_of_qwen_may_have_dashscopes_name() -> None:
    """Alibaba's own documentation calls it so; ours goes first."""
    assert catalog({"DASHSCOPE_API_KEY": "d"})["qwen"].api_key == "d"
    assert catalog({"DASHSCOPE_API_KEY": "d", "QWEN_API_KEY": "q"})["qwen"].api_key == "q"


def test_a_provider_may_stand_in_the_environment_alone() -> None:
    """A new compatible provider touches no code."""
    environment = {
        "AIGATE_PROVIDERS": "acme, my-lab",
        "ACME_BASE_URL": "https://acme.example/v1",
        "ACME_API_KEY": "k",
        "MY_LAB_BASE_URL": "http://lab:8000/v1",
        "MY_LAB_MODELS": "m",
    }
    rows = catalog(environment)
    assert rows["acme"].authentication() == ((b"authorization", b"Bearer k"),)
    assert rows["my-lab"].configured
    assert rows["my-lab"].models == ("m",)
    assert rows["my-lab"].on_disconnect == "drain"


@pytest.mark.parametrize(
    ("environment", "variable"),
    [
        ({"OPENAI_BASE_URL": "api.openai.com/v1"}, "OPENAI_BASE_URL"),
        ({"OPENAI_BASE_URL": "ftp://host/v1"}, "OPENAI_BASE_URL"),
        ({"OPENAI_BASE_URL": "https:///v1"}, "OPENAI_BASE_URL"),
        ({"OPENAI_BASE_URL": "https://host/v1?key=1"}, "OPENAI_BASE_URL"),
        ({"OPENAI_BASE_URL": "https://host/v1#x"}, "OPENAI_BASE_URL"),
        ({"OPENAI_BASE_URL": "https://user:secret@host/v1"}, "OPENAI_BASE_URL"),
        ({"OPENAI_BASE_URL": "https://host:99999/v1"}, "OPENAI_BASE_URL"),
        ({"OPENAI_BASE_URL": "https://ho st/v1"}, "OPENAI_BASE_URL"),
        ({"OPENAI_ON_DISCONNECT": "maybe"}, "OPENAI_ON_DISCONNECT"),
        ({"OPENAI_API_KEY": "secret\nx: y"}, "OPENAI_API_KEY"),
        ({"DASHSCOPE_API_KEY": "secret\x00"}, "DASHSCOPE_API_KEY"),
        ({"QWEN_REGION": "moon"}, "QWEN_REGION"),
        ({"AIGATE_PROVIDERS": "Acme"}, "AIGATE_PROVIDERS"),
        ({"AIGATE_PROVIDERS": "acme:1"}, "AIGATE_PROVIDERS"),
        ({"AIGATE_PROVIDERS": "openai"}, "AIGATE_PROVIDERS"),
        ({"AIGATE_PROVIDERS": "acme"}, "ACME_BASE_URL"),
        (
            {"AIGATE_PROVIDERS": "a-b,a_b", "A_B_BASE_URL": "http://x"},
            "AIGATE_PROVIDERS",
        ),
    ],
)
def test_a_bad_value_is_refused_with_the_name_of_its_variable(environment: dict[str, str], variable: str) -> None:
    """A start that fails says where to look, and shows no secret."""
    with pytest.raises(ValueError) as caught:
        catalog(environment)
    assert variable in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_key_may_go_into_another_header_with_others_beside_it() -> None:
    """Not everybody wants a bearer."""
    row = replace(
        Provider("acme", "https://acme.example", api_key="k"),
        auth_header="x-api-key",
        auth_scheme="",
        headers=(("X-Title", "AIGate"),),
    )
    assert row.authentication() == ((b"x-title", b"AIGate"), (b"x-api-key", b"k"))


def test_the_variables_are_listed() -> None:
    """Documentation and tests can name them all."""
    assert "<NAME>_API_KEY" in ENVIRONMENT
