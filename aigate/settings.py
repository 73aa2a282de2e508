"""The settings: one frozen object, read once from the environment and `.env`; the environment goes before the file.

Every field states its variable, default, unit and reason here; `.env.example` says the same to people, and a test
keeps the two in step. Providers have variables of their own (`providers.catalog`), which need no field.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from dotenv import dotenv_values


class SettingsError(ValueError):
    """A variable has a value that cannot be used; the message names the variable."""


def _text(value: str) -> str:
    return value


def _number(value: str) -> float:
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError("a number that is not negative is expected")
    return number


def _up_to(most: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        number = _number(value)
        if number > most:
            raise ValueError(f"at most {most:g} is expected")
        return number

    return parse


def _count(value: str) -> int:
    number = int(value)
    if number < 0:
        raise ValueError("a whole number that is not negative is expected")
    return number


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)} is expected")
        return value

    return parse


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _stores(value: str) -> tuple[str, ...]:
    names = _names(value)
    if not set(names) <= {"postgres", "redis"}:
        raise ValueError("a list of postgres and redis is expected")
    return names


def _aliases(value: str) -> Mapping[str, str]:
    aliases = {}
    for pair in _names(value):
        alias, equals, target = pair.partition("=")
        if not (alias.strip() and equals and target.strip()):
            raise ValueError("a list of alias=provider:model is expected")
        aliases[alias.strip()] = target.strip()
    return aliases


def _database_url(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if not separator or scheme not in ("postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg"):
        raise ValueError("a URL postgresql://user:password@host:port/database is expected")
    return f"postgresql://{rest}"


def _redis_url(value: str) -> str:
    if not value.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("a URL redis://host:port/number is expected")
    return value


def _setting(variable: str, parse: Callable[[str], Any], default: Any, *, secret: bool = False) -> Any:
    metadata = {"variable": variable, "parse": parse, "default": default}
    return field(default_factory=lambda: default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the operator decides. Times in seconds, sizes in bytes."""

    database_url: str = _setting("DATABASE_URL", _database_url, "", secret=True)
    redis_url: str = _setting("REDIS_URL", _redis_url, "", secret=True)
    database_connections: int = _setting("AIGATE_DATABASE_CONNECTIONS", _count, 10)
    database_timeout: float = _setting("AIGATE_DATABASE_TIMEOUT", _up_to(10.0), 5.0)
    redis_timeout: float = _setting("AIGATE_REDIS_TIMEOUT", _number, 0.25)
    ready_requires: tuple[str, ...] = _setting("AIGATE_READY_REQUIRES", _stores, ("postgres", "redis"))

    host: str = _setting("AIGATE_HOST", _text, "127.0.0.1")
    port: int = _setting("AIGATE_PORT", _count, 8000)
    workers: int = _setting("AIGATE_WORKERS", _count, 1)
    shutdown_timeout: float = _setting("AIGATE_SHUTDOWN_TIMEOUT", _number, 30.0)
    log_level: str = _setting("AIGATE_LOG_LEVEL", _one_of("DEBUG", "INFO", "WARNING", "ERROR"), "INFO")
    metrics_token: str = _setting("AIGATE_METRICS_TOKEN", _text, "", secret=True)

    header_timeout: float = _setting("AIGATE_HEADER_TIMEOUT", _number, 10.0)
    write_timeout: float = _setting("AIGATE_WRITE_TIMEOUT", _number, 60.0)
    body_timeout: float = _setting("AIGATE_BODY_TIMEOUT", _number, 60.0)
    body_bytes: int = _setting("AIGATE_BODY_BYTES", _count, 32 * 1024 * 1024)
    key_cache_seconds: float = _setting("AIGATE_KEY_CACHE_SECONDS", _number, 5.0)
    requests_per_minute: int = _setting("AIGATE_REQUESTS_PER_MINUTE", _count, 600)
    model_aliases: Mapping[str, str] = _setting("AIGATE_MODEL_ALIASES", _aliases, {})
    models_timeout: float = _setting("AIGATE_MODELS_TIMEOUT", _number, 3.0)
    models_cache_seconds: float = _setting("AIGATE_MODELS_CACHE_SECONDS", _number, 60.0)

    unpriced: str = _setting("AIGATE_UNPRICED", _one_of("refuse", "free"), "refuse")
    price_cache_seconds: float = _setting("AIGATE_PRICE_CACHE_SECONDS", _number, 10.0)
    lease_seconds: float = _setting("AIGATE_LEASE_SECONDS", _number, 30.0)
    idempotency_seconds: float = _setting("AIGATE_IDEMPOTENCY_SECONDS", _number, 24 * 3600.0)
    idempotency_answer_bytes: int = _setting("AIGATE_IDEMPOTENCY_ANSWER_BYTES", _count, 8 * 1024 * 1024)
    idempotency_followers: int = _setting("AIGATE_IDEMPOTENCY_FOLLOWERS", _count, 100)

    upstream_transport: Literal["http1", "httpx"] = _setting(
        "AIGATE_UPSTREAM_TRANSPORT", _one_of("http1", "httpx"), "http1"
    )
    upstream_connect_timeout: float = _setting("AIGATE_UPSTREAM_CONNECT_TIMEOUT", _number, 5.0)
    upstream_first_byte_timeout: float = _setting("AIGATE_UPSTREAM_FIRST_BYTE_TIMEOUT", _number, 300.0)
    upstream_idle_timeout: float = _setting("AIGATE_UPSTREAM_IDLE_TIMEOUT", _number, 120.0)
    upstream_total_timeout: float = _setting("AIGATE_UPSTREAM_TOTAL_TIMEOUT", _number, 1800.0)
    upstream_answer_bytes: int = _setting("AIGATE_UPSTREAM_ANSWER_BYTES", _count, 64 * 1024 * 1024)
    stream_keep_alive: float = _setting("AIGATE_STREAM_KEEP_ALIVE", _number, 15.0)
    drain_timeout: float = _setting("AIGATE_DRAIN_TIMEOUT", _number, 60.0)

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Everything that was read, for the providers' variables."""

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ, file: Path | None = Path(".env")) -> Self:
        """The settings of this process. Raises `SettingsError` naming the first variable that cannot be used."""
        in_file = dotenv_values(file) if file is not None and file.is_file() else {}
        merged = {**{name: value for name, value in in_file.items() if value is not None}, **environment}
        values = {item.name: _value(item, merged) for item in setting_fields() if merged.get(variable_of(item))}
        return cls(**values, environment=merged)


def setting_fields() -> tuple["Field[Any]", ...]:
    """The fields that a variable sets."""
    return tuple(item for item in fields(Settings) if "variable" in item.metadata)


def variable_of(item: "Field[Any]") -> str:
    """The environment variable of a field."""
    return str(item.metadata["variable"])


def _value(item: "Field[Any]", merged: Mapping[str, str]) -> Any:
    try:
        return item.metadata["parse"](merged[variable_of(item)].strip())
    except ValueError as error:
        raise SettingsError(f"{variable_of(item)}: {error}") from None
