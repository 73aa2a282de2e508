"""The files of `docker/`: what can be said of them without a Docker engine."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from aigate import __version__
from tests.aigate.test_readme import metrics

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
YAML_FILES = sorted([*DOCKER.rglob("*.yml")])


def load(name: str) -> Any:
    """A YAML file of `docker/`."""
    return yaml.safe_load((DOCKER / name).read_text())


def test_is_no_package() -> None:
    """With an `__init__.py`, `import docker` would find this folder before Docker's SDK."""
    assert not list(DOCKER.rglob("*.py"))


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda file: file.name)
def test_yaml_can_be_read(file: Path) -> None:
    """It parses, and is not empty."""
    assert yaml.safe_load(file.read_text())


def test_no_store_is_published() -> None:
    """Only nginx and Grafana have ports, and on loopback unless the operator says otherwise."""
    services = load("compose.yml")["services"] | load("compose.monitoring.yml")["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {
        "proxy": ["${AIGATE_PUBLISH:-127.0.0.1:8000}:8000"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_mounted_files_exist() -> None:
    """A missing one becomes an empty folder in the container."""
    services = load("compose.yml")["services"] | load("compose.monitoring.yml")["services"]
    mounts = [mount for service in services.values() for mount in service.get("volumes", ())]
    sources = [mount.partition(":")[0] for mount in mounts if mount.startswith("./")]
    assert sources
    assert all((DOCKER / source).exists() for source in sources)


def test_image_has_this_version() -> None:
    """The tag in the Compose file follows the package."""
    assert load("compose.yml")["services"]["gateway"]["image"] == f"aigate:{__version__}"


def test_compose_has_what_it_asks_for() -> None:
    """Each variable of the Compose files stands in the example of docker/.env."""
    text = "".join((DOCKER / name).read_text() for name in ("compose.yml", "compose.monitoring.yml"))
    example = (DOCKER / "compose.env.example").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == set(re.findall(r"^(\w+)=", example, re.MULTILINE))


def test_what_the_image_copies_exists() -> None:
    """And is let through by the list of what Docker is sent."""
    dockerfile = (DOCKER / "Dockerfile").read_text()
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    let_through = re.findall(r"^!(.+)$", (DOCKER / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert sorted(copied) == sorted(let_through)
    assert all((ROOT / source).exists() for source in copied)


def test_runtime_lock_is_part_of_the_lock() -> None:
    """The image holds the same versions that the tests ran with."""
    pins = [
        set(re.findall(r"^([\w.-]+==\S+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("docker/requirements.lock", "requirements.lock")
    ]
    assert pins[0] < pins[1]


def test_dashboard_and_alerts_ask_for_metrics_that_there_are() -> None:
    """A renamed metric leaves an empty panel behind, which nobody notices."""
    dashboard = json.loads((DOCKER / "grafana/dashboards/aigate.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [rule["expr"] for rule in load("alerts.yml")["groups"][0]["rules"]]
    asked = {name for text in expressions for name in re.findall(r"\baigate_\w+", text)}
    assert {name.removesuffix("_bucket") for name in asked} <= set(metrics())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
