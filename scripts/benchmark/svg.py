"""Plots as SVG, drawn here: a few lines and words need no library of 30 MB, and a plot in the README is a small file.

Colours are told apart by the colour-blind too (Okabe and Ito), and the background is white in dark themes as well.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 34, 64
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
INK, FAINT = "#333333", "#dddddd"
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
MOST_TICKS = 6
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale of numbers on so many pixels from `start`; 0 stands at 1 on a logarithmic one."""

    low: float
    high: float
    start: float
    length: float
    log: bool

    def at(self, value: float) -> float:
        low, high, here = (self._place(each) for each in (self.low, self.high, value))
        return self.start + (here - low) / (high - low or 1.0) * self.length

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.floor(self._place(self.low)), math.ceil(self._place(self.high))
            step = max(1, math.ceil((last - first) / MOST_TICKS))
            found = [10.0**power for power in range(first, last + 1, step)]
        else:
            step_size = nice((self.high - self.low) / MOST_TICKS)
            count = math.floor(self.high / step_size + 1e-9)
            found = [number * step_size for number in range(math.ceil(self.low / step_size - 1e-9), count + 1)]
        return [tick for tick in found if self.low <= tick <= self.high]

    def _place(self, value: float) -> float:
        return math.log10(max(value, 1.0)) if self.log else value


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines through points, by name. A linear y axis begins at 0."""

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Points]
    log_x: bool = True
    log_y: bool = False

    def drawn(self) -> Iterator[str]:
        """The elements of the plot, from the left upper corner."""
        xs = [x for points in self.series.values() for x, _ in points]
        ys = [y for points in self.series.values() for _, y in points]
        across = Axis(min(xs), max(xs), LEFT, WIDTH - LEFT - RIGHT, self.log_x)
        low, high = (min(ys), max(ys)) if self.log_y else (0.0, max(*ys, 1e-9) * 1.05)
        up = Axis(low, high, HEIGHT - BOTTOM, TOP + BOTTOM - HEIGHT, self.log_y)
        yield text(LEFT, 20, f"{self.title} ({self.y_label})", weight="bold")
        yield from self._grid(across, up)
        for number, (name, points) in enumerate(self.series.items()):
            colour = COLOURS[number % len(COLOURS)]
            places = [(across.at(x), up.at(y)) for x, y in points]
            way = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            yield f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>'
            if len(places) <= 20:
                yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
            yield text(LEFT + 110 * number, HEIGHT - 8, name, colour=colour, weight="bold")

    def _grid(self, across: Axis, up: Axis) -> Iterator[str]:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        for tick in up.ticks():
            y = up.at(tick)
            yield f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{FAINT}"/>'
            yield text(LEFT - 6, y + 4, short(tick), anchor="end")
        for tick in across.ticks():
            x = across.at(tick)
            yield f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="{FAINT}"/>'
            yield text(x, bottom + 16, short(tick), anchor="middle")
        yield text((LEFT + right) / 2, bottom + 34, self.x_label, anchor="middle")


def sheet(charts: Sequence[Chart], columns: int = 2) -> str:
    """A picture of all of them, in rows."""
    columns = min(columns, len(charts))
    width, height = WIDTH * columns, HEIGHT * math.ceil(len(charts) / columns)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, chart in enumerate(charts):
        x, y = WIDTH * (number % columns), HEIGHT * (number // columns)
        lines += [f'<g transform="translate({x} {y})">', *chart.drawn(), "</g>"]
    return "\n".join([*lines, "</svg>", ""])


def text(x: float, y: float, words: str, *, anchor: str = "start", colour: str = INK, weight: str = "normal") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" font-weight="{weight}">{escape(words)}</text>'


def nice(size: float) -> float:
    """The next round number: 1, 2, 2.5 or 5 times a power of ten."""
    if size <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(size))
    return next(step * power for step in STEPS if step * power >= size * (1 - 1e-9))


def short(value: float) -> str:
    """A number as short as it can be read: 10k, 2.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
