"""The README is the manual: what it must hold, it holds, and what it names, there is."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from aigate import cli, endpoints
from aigate.operations import PATHS
from aigate.settings import setting_fields, variable_of
from middleware.faults import Fault
from middleware.metrics import Instruments
from middleware.tally import Tally
from providers.catalog import ECHO, ENVIRONMENT, ROWS, Provider
from tests.running import RunningGateway

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = "\n".join(re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
ASKED = sorted(set(re.findall(r"curl -\S+ \"?http://127\.0\.0\.1:8000(/[^\s\"]*)", COMMANDS)))
ENDPOINTS = sorted(value for value in vars(endpoints).values() if isinstance(value, str) and value.startswith("/v1/"))


def faults(root: type[Fault] = Fault) -> list[type[Fault]]:
    """Every fault there is."""
    return [root, *(each for child in root.__subclasses__() for each in faults(child))]


def commands(parser: argparse.ArgumentParser, name: str = "aigate") -> Iterator[str]:
    """Every command that does something, such as `aigate keys create`."""
    nested = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if parser.get_default("run") or not nested:
        yield name
    for choices in nested:
        for word, each in choices.items():
            yield from commands(each, f"{name} {word}")


def metrics() -> list[str]:
    """The metric families' names as Prometheus shows them."""
    tally = Tally()
    Instruments(tally)
    return [family.name + ("_total" if family.type == "counter" else "") for family in tally.collect()]


@pytest.mark.parametrize("row", [*ROWS, ECHO], ids=lambda row: row.name)
def test_every_provider_stands_in_it(row: Provider) -> None:
    """With the variable that sets it up, and what a hang-up does."""
    (line,) = [line for line in README.splitlines() if line.startswith(f"| `{row.name}` |")]
    variable = f"{row.name.upper()}_{'API_KEY' if row.requires_key else 'BASE_URL'}"
    assert row is ECHO or f"`{variable}`" in line
    assert row.base_url or re.search(r"_(BASE_URL|ENDPOINT)`", line)
    assert line.endswith(f"| {row.on_disconnect} |")


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.code)
def test_every_error_code_stands_in_it(fault: type[Fault]) -> None:
    """With its status and what the SDKs do."""
    (line,) = [line for line in README.splitlines() if line.startswith(f"| `{fault.code}` |")]
    _, _, status, retry, _, _ = (cell.strip() for cell in line.split("|"))
    assert status in (str(fault.status), "4xx")
    by_status = fault.status in (408, 409, 429) or fault.status >= 500
    expected = by_status if fault.should_retry is None else fault.should_retry
    assert retry in ("yes" if expected else "no", "-")


def test_no_error_code_is_made_up() -> None:
    """Whoever searches for a code finds it in the code."""
    told = re.findall(r"^\| `((?:caller|policy|provider|gateway)_\w+)` \|", README, re.MULTILINE)
    assert sorted(told) == sorted({fault.code for fault in faults()})


def test_metrics_are_those_that_there_are() -> None:
    """By exact name, both ways."""
    assert sorted(set(re.findall(r"^\| `(aigate_\w+)`", README, re.MULTILINE))) == sorted(metrics())


@pytest.mark.parametrize("path", sorted(PATHS - {"/"}))
def test_operations_stand_in_it(path: str) -> None:
    """What a probe asks."""
    assert f"`{path}`" in README


@pytest.mark.parametrize("path", ENDPOINTS)
def test_endpoints_stand_in_it(path: str) -> None:
    """Each with a command that can be copied."""
    assert path in {asked.partition("?")[0] for asked in ASKED}


@pytest.mark.parametrize("command", [*commands(cli._parser())])
def test_commands_stand_in_it(command: str) -> None:
    """What an operator can do, the manual says."""
    assert re.search(rf"{command}\b", README)


def test_no_command_is_made_up() -> None:
    """Copied from here, none meets a usage message."""
    known = set(commands(cli._parser()))
    told = [match.split() for match in re.findall(r"^aigate [\w-]+(?: [\w-]+)?", COMMANDS, re.MULTILINE)]
    assert told
    assert [words for words in told if not {" ".join(words), " ".join(words[:2])} & known] == []


async def test_every_path_that_curl_asks_exists(gateway: RunningGateway) -> None:
    """Copied from here, no command meets a 404 or 405."""
    assert len(ASKED) == 11
    for path in ASKED:
        if "$" in path:  # names something of the reader's own
            continue
        method = "POST" if path.endswith(("/completions", "/embeddings")) else "GET"
        response = await gateway.client.request(method, path)
        assert response.status_code in (200, 400), path


def test_every_setting_named_exists() -> None:
    """In the README and nowhere else would be a lie."""
    known = {variable_of(item) for item in setting_fields()} | set(ENVIRONMENT) | {"AIGATE_API_KEY"}
    assert set(re.findall(r"\b(?:AIGATE_\w+|DATABASE_URL|REDIS_URL)\b", README)) <= known


def test_every_file_named_exists() -> None:
    """Links and commands lead somewhere."""
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    named = re.findall(r"\b((?:scripts|docker|middleware|tests)/[\w./-]*\w)", README)
    missing = [name for name in [*links, *named] if not (ROOT / name).exists() and name != "docker/.env"]
    assert missing == []
