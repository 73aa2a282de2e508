"""Plots that are drawn without a library."""

from xml.etree import ElementTree

import pytest

from scripts.benchmark.svg import HEIGHT, WIDTH, Axis, Chart, nice, sheet, short

CHART = Chart(
    "CPU <a call>", "in flight", "us", {"aigate": [(1, 100.0), (1024, 90.0)], "postgres": [(1, 9), (1024, 8)]}
)


def elements(picture: str, name: str) -> list[ElementTree.Element]:
    """All elements of this name."""
    return list(ElementTree.fromstring(picture).iter(f"{{http://www.w3.org/2000/svg}}{name}"))


def test_a_line_for_each_series() -> None:
    """Whatever they are called."""
    assert len(elements(sheet([CHART]), "polyline")) == 2


def test_words_are_escaped() -> None:
    """A title may hold what XML reserves."""
    assert any(element.text == "CPU <a call> (us)" for element in elements(sheet([CHART]), "text"))


def test_charts_stand_in_rows() -> None:
    """Three in two columns are two rows."""
    root = ElementTree.fromstring(sheet([CHART] * 3))
    assert root.attrib["viewBox"] == f"0 0 {2 * WIDTH} {2 * HEIGHT}"


def test_every_point_is_inside() -> None:
    """Nothing is drawn past the edges."""
    for circle in elements(sheet([CHART]), "circle"):
        assert 0 <= float(circle.attrib["cx"]) <= WIDTH
        assert 0 <= float(circle.attrib["cy"]) <= HEIGHT


def test_logarithmic_axis_takes_equal_factors_for_equal_steps() -> None:
    """1, 10 and 100 stand equally far apart."""
    axis = Axis(1, 100, 0, 200, log=True)
    assert [axis.at(value) for value in (1, 10, 100)] == pytest.approx([0, 100, 200])


def test_nothing_has_a_place_on_a_logarithmic_axis() -> None:
    """No rows at all is where the curve of rows begins."""
    assert Axis(0, 1000, 0, 300, log=True).at(0) == 0


def test_axis_of_one_value() -> None:
    """A single point is no division by zero."""
    assert Axis(5, 5, 10, 100, log=False).at(5) == 10


@pytest.mark.parametrize(("size", "expected"), [(0.0, 1.0), (0.7, 1.0), (1.2, 2.0), (21.0, 25.0), (300.0, 500.0)])
def test_ticks_are_round_numbers(size: float, expected: float) -> None:
    """As a person would choose them."""
    assert nice(size) == pytest.approx(expected)


@pytest.mark.parametrize(("value", "expected"), [(0, "0"), (1500, "1.5k"), (10_000_000, "10M"), (2e9, "2G")])
def test_numbers_are_short(value: float, expected: str) -> None:
    """Ten million is not written out."""
    assert short(value) == expected
