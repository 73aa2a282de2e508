"""Tables for people."""

from scripts.benchmark.long_runs import LongRun
from scripts.benchmark.measures import Readings
from scripts.benchmark.table import aligned, markdown, number, summary, table
from scripts.benchmark.targets import DIRECT, GATEWAY, NGINX

JSON = LongRun("json-32", "json", "JSON, 32 in flight")


def readings() -> Readings:
    """Two rounds of two targets."""
    found = Readings()
    for nginx, ours in ((20.0, 200.0), (30.0, 300.0)):
        found.add(JSON.name, NGINX, {"itself_us_a_call": nginx})
        found.add(JSON.name, GATEWAY, {"itself_us_a_call": ours})
    return found


def test_medians_with_their_range() -> None:
    """What the rounds differed by is told."""
    assert "250 (200..300)" in table(JSON, readings())


def test_ratio_to_nginx() -> None:
    """The floor beside."""
    assert table(JSON, readings()).splitlines()[-1].endswith("10.0")


def test_empty_columns_are_left_out() -> None:
    """Nobody reads what was not measured."""
    assert "postgres" not in table(JSON, readings())


def test_columns_are_aligned() -> None:
    """Names to the left, numbers to the right."""
    assert aligned([["", "us"], ["nginx", "9"], ["us", "1,000"]]) == "            us\n  nginx      9\n  us     1,000"


def test_summary_has_a_column_for_each_target() -> None:
    """Also for one that only has a few values."""
    head, *body = summary(readings())
    assert (head, body) == (["", NGINX, GATEWAY], [["CPU us a JSON call, 32 in flight", "25.0", "250"]])


def test_markdown() -> None:
    """As GitHub reads it."""
    assert markdown([["", "us"], ["a|b", "1"]]) == "|  | us |\n| --- | --: |\n| a/b | 1 |"


def test_what_a_peer_did_not_stand_has_no_values() -> None:
    """Half of the rounds are no median."""
    found = readings()
    found.fail(JSON.name, NGINX, "too slow")
    assert found.targets(JSON.name) == [GATEWAY]


def test_numbers_have_three_digits() -> None:
    """More would be noise."""
    assert [number(value) for value in (1234.5, 12.34, 0.1234)] == ["1,234", "12.3", "0.12"]


def test_what_is_added_to_the_direct_way() -> None:
    """Round by round, in milliseconds."""
    found = Readings()
    for direct, ours in ((1.0, 3.0), (2.0, 5.0)):
        found.add(JSON.name, DIRECT, {"p50_ms": direct})
        found.add(JSON.name, GATEWAY, {"p50_ms": ours})
    found.add_differences([JSON.name])
    assert found.values[JSON.name, GATEWAY, "added_p50_ms"] == [2.0, 3.0]
