"""Other gateways: how they are set up, without installing or starting them."""

import json
from pathlib import Path

import pytest

from scripts.benchmark import cache
from scripts.benchmark.peers import ALL, PEER_KEY, LiteLLM, Peer, Portkey, environment
from scripts.benchmark.system import BenchmarkError
from scripts.benchmark.upstream import CUSTOMER

UPSTREAM = "http://127.0.0.1:1234/v1"
ROOT = Path(__file__).resolve().parents[3]


def test_litellm_is_as_lean_as_it_goes(tmp_path: Path) -> None:
    """One worker, no database, no log of spending, in front of the mock."""
    command = LiteLLM().command(tmp_path, 4321, UPSTREAM)
    configuration = json.loads((tmp_path / "litellm.yaml").read_text())
    assert command[command.index("--num_workers") + 1] == "1"
    assert configuration["model_list"][0]["litellm_params"]["api_base"] == UPSTREAM
    assert configuration["general_settings"]["disable_spend_logs"] is True
    assert "database_url" not in configuration["general_settings"]


def test_litellm_is_asked_with_its_master_key() -> None:
    """Without one it does not start."""
    key = LiteLLM().configuration(UPSTREAM)["general_settings"]["master_key"]  # type: ignore[index]
    assert LiteLLM().headers(UPSTREAM) == b"authorization: Bearer %s\r\n" % str(key).encode()


def test_portkey_is_told_where_the_provider_is() -> None:
    """By headers of each request."""
    assert Portkey().headers(UPSTREAM).split(b"\r\n") == [
        b"x-portkey-provider: openai",
        b"x-portkey-custom-host: http://127.0.0.1:1234/v1",
        b"authorization: Bearer %s" % PEER_KEY.encode(),
        b"",
    ]


def test_portkey_listens_on_loopback_only(tmp_path: Path) -> None:
    """It would take every interface, and has no option for that."""
    command = Portkey().command(tmp_path, 4321, UPSTREAM)
    assert '"127.0.0.1"' in Path(command[command.index("--require") + 1]).read_text()


@pytest.mark.parametrize("peer", ALL, ids=lambda peer: peer.name)
def test_peers_are_pinned(peer: Peer) -> None:
    """A newer one is another measurement."""
    version = peer.package.replace("==", "@").rpartition("@")[2]
    assert version[0].isdigit()
    assert peer.place.name.endswith(version)


@pytest.mark.parametrize("peer", ALL, ids=lambda peer: peer.name)
def test_peers_are_installed_outside_the_repository(peer: Peer) -> None:
    """Nothing of theirs is ours."""
    assert ROOT not in peer.place.parents


def test_peers_do_not_find_the_callers_stores() -> None:
    """Theirs are off, whatever the environment says."""
    callers = {"PATH": "/bin", "DATABASE_URL": "postgresql://x", "REDIS_HOST": "x"}
    assert environment(LiteLLM(), callers) == {"PATH": "/bin", **LiteLLM.environment}


def test_calls_by_a_peer_are_on_nobodys_bill() -> None:
    """The mock finds its customer's key anywhere in the head."""
    assert CUSTOMER.decode() not in PEER_KEY


def test_what_broke_off_is_installed_anew(tmp_path: Path) -> None:
    """A folder without its mark is half of something."""
    folder = tmp_path / "tool"
    folder.mkdir()
    (folder / "half").touch()
    cache.installed(folder, lambda place: (place / "whole").touch())
    assert sorted(path.name for path in folder.iterdir()) == [cache.MARK, "whole"]


def test_installed_once(tmp_path: Path) -> None:
    """The second run finds it."""
    times: list[Path] = []
    for _ in range(2):
        cache.installed(tmp_path / "tool", times.append)
    assert times == [tmp_path / "tool"]


def test_failed_installation_says_why(tmp_path: Path) -> None:
    """And leaves no mark."""
    with pytest.raises(BenchmarkError, match="no such thing"):
        cache.command(["sh", "-c", "echo no such thing >&2; exit 1"], tmp_path)
