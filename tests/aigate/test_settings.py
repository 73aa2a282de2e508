"""The settings, and `.env.example`, which says the same to people."""

import re
from pathlib import Path

import pytest

from aigate.settings import Settings, SettingsError, setting_fields, variable_of
from providers.catalog import ENVIRONMENT, ROWS

EXAMPLE = (Path(__file__).resolve().parent.parent.parent / ".env.example").read_text()
SHOWN = dict(re.findall(r"^# ([A-Z][A-Z0-9_]*)=(.*)$", EXAMPLE, re.MULTILINE))
VARIABLES = {variable_of(item): item for item in setting_fields()}
OF_PROVIDERS = (
    {name for name in ENVIRONMENT if "<" not in name}
    | {f"{row.name.upper()}_{'API_KEY' if row.requires_key else 'BASE_URL'}" for row in ROWS}
    | {"VERTEX_BASE_URL"}
)


def read(**variables: str) -> Settings:
    """Settings of this environment alone."""
    return Settings.read(variables, file=None)


def test_example_and_settings_name_the_same_variables() -> None:
    """No setting is secret, none is made up."""
    assert set(SHOWN) == set(VARIABLES) | OF_PROVIDERS


@pytest.mark.parametrize("variable", VARIABLES)
def test_example_shows_the_default(variable: str) -> None:
    """What stands behind the # is what holds without it."""
    item = VARIABLES[variable]
    assert getattr(read(**{variable: SHOWN[variable]}), item.name) == getattr(read(), item.name)


@pytest.mark.parametrize("variable", VARIABLES)
def test_example_shows_a_value_wherever_there_is_one(variable: str) -> None:
    """An empty default in the example is an empty default in the code."""
    assert bool(SHOWN[variable]) == bool(getattr(read(), VARIABLES[variable].name))


def test_example_sets_nothing() -> None:
    """Copied as it is, it changes nothing."""
    assert [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")] == []


def test_providers_patterns_are_explained() -> None:
    """The variables that every provider has."""
    assert all(name in EXAMPLE for name in ENVIRONMENT)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AIGATE_PORT", "eighty"),
        ("AIGATE_PORT", "-1"),
        ("AIGATE_DATABASE_TIMEOUT", "nan"),
        ("AIGATE_DATABASE_TIMEOUT", "inf"),
        ("AIGATE_DATABASE_TIMEOUT", "10.1"),
        ("AIGATE_REDIS_TIMEOUT", "-0.5"),
        ("AIGATE_LOG_LEVEL", "LOUD"),
        ("AIGATE_UNPRICED", "maybe"),
        ("AIGATE_UPSTREAM_TRANSPORT", "pigeon"),
        ("AIGATE_MODEL_ALIASES", "gpt-4o"),
        ("AIGATE_MODEL_ALIASES", "=openai:gpt-4o"),
        ("AIGATE_READY_REQUIRES", "postgres,mysql"),
        ("DATABASE_URL", "mysql://user@host/db"),
        ("DATABASE_URL", "localhost"),
        ("REDIS_URL", "localhost:6379"),
    ],
)
def test_bad_value_is_named(variable: str, value: str) -> None:
    """The operator learns which variable it is."""
    with pytest.raises(SettingsError, match=f"^{variable}: "):
        read(**{variable: value})


@pytest.mark.parametrize("variable", ["DATABASE_URL", "REDIS_URL"])
def test_bad_secret_is_not_told(variable: str) -> None:
    """A mistyped URL holds a password all the same."""
    with pytest.raises(SettingsError) as raised:
        read(**{variable: "htp://user:hunter2@host/db"})
    assert "hunter2" not in str(raised.value)


def test_no_secret_in_the_representation() -> None:
    """Settings may stand in a log line or a traceback."""
    settings = read(
        DATABASE_URL="postgresql://user:hunter2@host/db",
        REDIS_URL="redis://:hunter2@host",
        AIGATE_METRICS_TOKEN="hunter2",
        OPENAI_API_KEY="hunter2",
    )
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg"])
def test_forms_of_the_database_url(scheme: str) -> None:
    """What other tools write works here."""
    settings = read(DATABASE_URL=f"{scheme}://user:a%40b@host:5433/db?sslmode=require")
    assert settings.database_url == "postgresql://user:a%40b@host:5433/db?sslmode=require"


@pytest.mark.parametrize("variable", VARIABLES)
def test_empty_counts_as_unset(variable: str) -> None:
    """A compose file passes empty variables on."""
    item = VARIABLES[variable]
    assert getattr(read(**{variable: ""}), item.name) == getattr(read(), item.name)


def test_environment_goes_before_the_file(tmp_path: Path) -> None:
    """A single call can be changed without editing a file."""
    file = tmp_path / ".env"
    file.write_text("AIGATE_PORT=1\nAIGATE_WORKERS=2\nOPENAI_API_KEY=of-the-file\n")
    settings = Settings.read({"AIGATE_PORT": "3"}, file)
    assert (settings.port, settings.workers) == (3, 2)
    assert settings.environment["OPENAI_API_KEY"] == "of-the-file"


def test_no_file_is_no_error(tmp_path: Path) -> None:
    """Containers have none."""
    assert Settings.read({}, tmp_path / ".env").port == 8000


def test_aliases_and_lists() -> None:
    """Spaces around names are not part of them; a target may hold what an alias may not."""
    settings = read(AIGATE_MODEL_ALIASES=" gpt-4o = openai:gpt-4o ,x=lab:a=b", AIGATE_READY_REQUIRES=" postgres ")
    assert settings.model_aliases == {"gpt-4o": "openai:gpt-4o", "x": "lab:a=b"}
    assert settings.ready_requires == ("postgres",)
