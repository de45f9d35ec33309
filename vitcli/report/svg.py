"""Charts as inline SVG, from numbers alone: curves, reliability, intervals, shares.

Colors are classes of report.css, so that a chart follows the light and the dark page. A chart's text keeps the size of
the page's text: charts are 360 units wide, and a page shows them about that wide.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitcli.report.markup import Html, many, tag

WIDTH, HEIGHT = 360, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 46, 12, 26
#: points of a line that are drawn; more cannot be seen
_MOST_POINTS = 240
#: points from which on a moving average says more than the points
LEAST_SMOOTHED = 24
#: classes series-1 … in report.css
NUM_COLORS = 8
#: between the labels of two lines
_LABEL_SPACE = 13


@dataclass(frozen=True)
class Line:
    """One curve. xs, ys: of equal length; values that are not finite are gaps."""

    xs: Sequence[float]
    ys: Sequence[float]
    label: str = ""  #: at its end; empty: its last value
    color: int = 0
    smooth: bool = False  #: draw the values thinly, and their moving average over them


@dataclass(frozen=True)
class Axis:
    """From values to units of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def line_chart(lines: Sequence[Line], *, description: str, from_zero: bool = False, unit: str = "") -> Html:
    """Curves over epochs with their labels at their ends; `description` is what a reader hears who sees no picture."""
    lines = [line for line in map(_finite, lines) if line.xs]
    if not lines:
        return tag("p", "No values.", class_="quiet")
    all_x, all_y = ([value for line in lines for value in values(line)] for values in (_xs, _ys))
    y_ticks = ticks(0.0 if from_zero else min(all_y), max(all_y))
    first, last = min(0.0, *all_x), max(all_x)
    x_axis = Axis(first, last if last - first > 1e-9 else first + 1, _LEFT, WIDTH - _RIGHT)
    y_axis = Axis(y_ticks[0], y_ticks[-1], HEIGHT - _BOTTOM, _TOP)
    parts = [
        *_y_grid(y_ticks, y_axis, unit),
        *_x_ticks(x_axis),
        *(_curve(line, x_axis, y_axis) for line in lines),
        *_end_labels(lines, x_axis, y_axis, unit),
    ]
    return drawing(WIDTH, HEIGHT, description, parts)


def drawing(width: int, height: int, description: str, parts: Sequence[Html]) -> Html:
    """An SVG that a screen reader takes for one picture."""
    return tag("svg", *parts, viewBox=f"0 0 {width} {height}", role="img", aria_label=description, class_="chart")


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """2 to `most` round numbers with equal steps, from at most `low` to at least `high`."""
    largest = max(abs(low), abs(high))
    if high - low <= 1e-6 * largest or largest < 1e-30:  # nothing that could be told apart
        spread = 1.0 if largest < 1e-30 else 0.05 * largest
        low, high = (max(0.0, low - spread) if low >= 0 else low - spread), high + spread
    step = 10.0 ** math.floor(math.log10((high - low) / (most - 1)))
    for factor in (1, 2, 2.5, 5, 10, 20):
        first, last = math.floor(low / (step * factor) + 1e-9), math.ceil(high / (step * factor) - 1e-9)
        if last - first < most:
            return [float(f"{number * step * factor:.12g}") for number in range(first, last + 1)]
    raise AssertionError("a step of 20 is larger than the span")


def short_number(value: float) -> str:
    """1,500 / 12k / 12.5 / 0.03 / 2e-5: as many digits as an axis needs."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if 1e4 <= abs(value) < 1e6:
        return f"{value / 1000:.4g}k"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def _xs(line: Line) -> Sequence[float]:
    return line.xs


def _ys(line: Line) -> Sequence[float]:
    return line.ys


def _finite(line: Line) -> Line:
    """The line without its gaps."""
    kept = [(x, y) for x, y in zip(line.xs, line.ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
    xs, ys = zip(*kept, strict=True) if kept else ((), ())
    return Line(xs, ys, line.label, line.color, line.smooth)


def _y_grid(values: Sequence[float], axis: Axis, unit: str) -> list[Html]:
    parts = []
    for value in values:
        y = axis.at(value)
        parts.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        label = short_number(value) + (unit if value == values[-1] else "")
        parts.append(tag("text", label, x=_LEFT - 7, y=y + 3.5, class_="tick end"))
    return parts


def _x_ticks(axis: Axis, title: str = "epoch") -> list[Html]:
    """Whole epochs, of which there may be few."""
    values = [value for value in ticks(axis.low, axis.high) if axis.low <= value <= axis.high + 1e-9]
    whole = [value for value in values if value == round(value)] or values
    parts = [tag("text", short_number(value), x=axis.at(value), y=HEIGHT - 9, class_="tick middle") for value in whole]
    return [*parts, tag("text", title, x=WIDTH, y=HEIGHT - 9, class_="tick end")]


def _curve(line: Line, x_axis: Axis, y_axis: Axis) -> Html:
    color = f"series-{line.color % NUM_COLORS + 1}"
    xs, ys = thinned(np.asarray(line.xs, float), np.asarray(line.ys, float))
    if len(xs) == 1:
        return tag("circle", cx=x_axis.at(xs[0]), cy=y_axis.at(ys[0]), r=3, class_=f"dot {color}")
    if not line.smooth or len(xs) < LEAST_SMOOTHED:
        dots = [tag("circle", cx=x_axis.at(x), cy=y_axis.at(y), r=2.2, class_=f"dot {color}")
                for x, y in zip(xs, ys, strict=True)] if len(xs) <= 12 else []  # fmt: skip
        return many([_path(xs, ys, x_axis, y_axis, f"line {color}"), *dots])
    thin = _path(xs, ys, x_axis, y_axis, f"line thin {color}")
    return many([thin, _path(xs, smoothed(ys), x_axis, y_axis, f"line {color}")])


def _path(xs: np.ndarray, ys: np.ndarray, x_axis: Axis, y_axis: Axis, kind: str) -> Html:
    points = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in zip(xs, ys, strict=True))
    return tag("polyline", points=points, class_=kind)


def thinned(xs: np.ndarray, ys: np.ndarray, most: int = _MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` points: means over neighbors, and the last point as it is."""
    if len(xs) <= most:
        return xs, ys
    parts = np.array_split(np.arange(len(xs) - 1), most - 1)
    mean_x, mean_y = ([values[part].mean() for part in parts] for values in (xs, ys))
    return np.array([*mean_x, xs[-1]]), np.array([*mean_y, ys[-1]])


def smoothed(values: np.ndarray, share: float = 0.06) -> np.ndarray:
    """Mean over a window of `share` of all values around each; at the ends the window is as long as fits."""
    half = max(1, round(len(values) * share / 2))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    reach = np.minimum(half, np.minimum(np.arange(len(values)), np.arange(len(values))[::-1]))
    index = np.arange(len(values))
    return (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)


def _end_labels(lines: Sequence[Line], x_axis: Axis, y_axis: Axis, unit: str) -> list[Html]:
    """Next to the last point of each line, moved apart where they would cover each other."""
    wanted = [y_axis.at(line.ys[-1]) + 3.5 for line in lines]
    parts = []
    for line, y in zip(lines, spread_out(wanted, _LABEL_SPACE, _TOP + 4, HEIGHT - _BOTTOM + 3), strict=True):
        label = line.label or short_number(float(f"{line.ys[-1]:.4g}")) + unit
        color = f"series-{line.color % NUM_COLORS + 1}"
        parts.append(tag("text", label, x=x_axis.at(line.xs[-1]) + 6, y=y, class_=f"label {color}"))
    return parts


def spread_out(wanted: Sequence[float], space: float, low: float, high: float) -> list[float]:
    """Places near those that are wanted, `space` apart and from `low` to `high` where there is room for all."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    space = min(space, (high - low) / max(1, len(wanted) - 1))
    places = [0.0] * len(wanted)
    before = low - space
    for index in order:
        places[index] = before = max(wanted[index], before + space)
    after = high + space
    for index in reversed(order):
        places[index] = after = min(places[index], after - space)
    return places


def interval(low: float, value: float, high: float, color: int = 0) -> Html:
    """A dot and its interval, all from 0 to 1, as wide as its place; for a cell of a table that has the numbers."""
    kind = f"series-{color % NUM_COLORS + 1}"
    return tag(
        "svg",
        tag("line", x1="0%", x2="100%", y1=9, y2=9, class_="grid"),
        tag("line", x1=_percent(low), x2=_percent(high), y1=9, y2=9, class_=f"whisker {kind}"),
        tag("circle", cx=_percent(value), cy=9, r=3.6, class_=f"dot {kind}"),
        class_="strip",
        aria_hidden="true",
    )


def bar(share: float, color: int = 0) -> Html:
    """A bar of `share` (0 to 1) of the width of its place; for a cell of a table that has the numbers."""
    kind = f"series-{color % NUM_COLORS + 1}"
    rect = tag("rect", x=0, y=4, width=_percent(share), height=10, class_=f"bar {kind}")
    return tag("svg", rect, class_="strip", aria_hidden="true")


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def reliability_chart(
    confidence: Sequence[float], accuracy: Sequence[float], counts: Sequence[int], *, description: str
) -> Html:
    """Accuracy over confidence for each bin that has images, its distance to the diagonal, and how many there are.

    The area of a dot is proportional to its share of the images.
    """
    side, left, top = 250, 46, 12
    x_axis, y_axis = Axis(0, 1, left, left + side), Axis(0, 1, top + side, top)
    parts = [tag("line", x1=x_axis.start, y1=y_axis.start, x2=x_axis.end, y2=y_axis.end, class_="diagonal")]
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        y, x = y_axis.at(value), x_axis.at(value)
        parts.append(tag("line", x1=left, x2=left + side, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", f"{100 * value:g}" + " %" * (value == 1), x=left - 7, y=y + 3.5, class_="tick end"))
        parts.append(tag("text", f"{100 * value:g}", x=x, y=top + side + 17, class_="tick middle"))
    total = max(1, sum(counts))
    for sure, right, count in zip(confidence, accuracy, counts, strict=True):
        if not count:
            continue
        x = x_axis.at(sure)
        said = f"{count:,} images: {100 * sure:.1f} % sure, {100 * right:.1f} % correct"
        parts.append(tag("line", x1=x, x2=x, y1=y_axis.at(sure), y2=y_axis.at(right), class_="gap"))
        radius = 2.5 + 15 * math.sqrt(count / total)
        parts.append(
            tag("circle", tag("title", said), cx=x, cy=y_axis.at(right), r=radius, class_="dot bubble series-1")
        )
    parts.append(tag("text", "mean probability, %", x=left + side, y=top + side + 34, class_="tick end"))
    return drawing(left + side + 24, top + side + 42, description, parts)
