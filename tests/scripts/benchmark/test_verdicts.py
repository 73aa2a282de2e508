"""What a run reached of what we set out to reach."""

from scripts.benchmark.measures import Readings
from scripts.benchmark.targets import GATEWAY, LITELLM, NGINX, PORTKEY
from scripts.benchmark.verdicts import GOALS, Verdict, rows, verdicts


def readings(**json_call: float) -> Readings:
    """CPU of a JSON call at 32 in flight, by target."""
    found = Readings()
    for target, microseconds in json_call.items():
        found.add("json-32", target, {"itself_us_a_call": microseconds})
    return found


def verdict(what: str, found: Readings, unit: str = "") -> Verdict:
    """The one on this goal."""
    return next(each for each in verdicts(found) if each.goal.what == what and unit in each.goal.unit)


CALL = "CPU a JSON call, 32 in flight"


def test_at_most_is_met_at_the_bound() -> None:
    """150 us are not more than 150 us."""
    assert verdict(CALL, readings(**{GATEWAY: 150.0})).met is True


def test_more_than_at_most_is_missed() -> None:
    """However little it is."""
    assert verdict(CALL, readings(**{GATEWAY: 150.1})).row()[-1] == "MISSED"


def test_what_was_not_measured_has_no_verdict() -> None:
    """Neither met nor missed."""
    assert {each.row()[-1] for each in verdicts(Readings())} == {"not measured"}


def test_scaled_by_nginx() -> None:
    """Where nginx takes twice the time, we would take half elsewhere."""
    assert verdict(CALL, readings(**{GATEWAY: 300.0, NGINX: 36.0})).normalised == "150 us at 18 us nginx"


def test_the_verdict_is_on_what_was_measured() -> None:
    """The normalisation decides nothing."""
    assert verdict(CALL, readings(**{GATEWAY: 300.0, NGINX: 36.0})).met is False


def test_calls_a_cpu_second_against_a_peer() -> None:
    """The peer's CPU over ours."""
    found = readings(**{GATEWAY: 100.0, LITELLM: 9000.0, PORTKEY: 499.0})
    assert [verdict("calls a CPU second, 32 in flight", found, peer).met for peer in ("LiteLLM", "Portkey")] == [
        True,
        False,
    ]


def test_the_median_of_the_rounds_counts() -> None:
    """One bad second of the machine is no verdict."""
    found = Readings()
    for value in (140.0, 149.0, 900.0):
        found.add("json-32", GATEWAY, {"itself_us_a_call": value})
    assert verdict(CALL, found).measured == 149.0


def test_any_error_of_money_is_missed() -> None:
    """It must be 0."""
    found = Readings()
    found.add("process", GATEWAY, {"money_error": 1})
    assert verdict("money error", found).met is False


def test_a_row_for_each_goal() -> None:
    """None is left out of the table."""
    assert len(rows(verdicts(Readings()))) == len(GOALS) + 1


def test_verdicts_can_be_written_as_json() -> None:
    """Programs read what people read."""
    document = verdict(CALL, readings(**{GATEWAY: 120.0})).document()
    assert (document["measured"], document["verdict"], document["target"]) == (120.0, "met", "at most 150 us")
