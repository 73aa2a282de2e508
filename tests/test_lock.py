"""requirements.lock: what a fresh machine installs, on whatever day that is."""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path(__file__).parents[1] / "requirements.lock"
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[([^]]*)])?==", re.MULTILINE)


def _pins() -> dict[str, set[str]]:
    found = PIN.findall(LOCK.read_text())
    return {canonicalize_name(name): {each.strip() for each in extras.split(",") if each} for name, extras in found}


def test_every_extra_that_a_locked_package_asks_for_is_locked_by_that_name() -> None:
    """pip takes `name[extra]` for another requirement than `name`: unpinned, it would be today's newest version."""
    pins = _pins()
    missing = []
    for name in pins:
        try:
            wanted = distribution(name).requires or []
        except PackageNotFoundError:  # for another platform
            continue
        for requirement in map(Requirement, wanted):
            needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            locked = pins.get(canonicalize_name(requirement.name), set())
            if needed and not requirement.extras <= locked:
                missing.append(f"{name} needs {requirement.name}{sorted(requirement.extras)}")
    assert not missing


def test_the_lock_names_no_host() -> None:
    """Whoever installs uses the registry of their own choice."""
    assert "://" not in LOCK.read_text()
