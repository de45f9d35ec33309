"""Charts put numbers where they belong, and survive any numbers."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitcli.report.svg import (
    Line,
    bar,
    interval,
    line_chart,
    reliability_chart,
    short_number,
    smoothed,
    spread_out,
    thinned,
    ticks,
)

FINITE = st.floats(-1e12, 1e12, allow_nan=False)


@given(FINITE, FINITE)
def test_ticks_span_the_values_in_equal_round_steps(one: float, other: float):
    low, high = sorted((one, other))
    found = ticks(low, high)
    assert 2 <= len(found) <= 5
    slack = 1e-6 * (found[-1] - found[0])
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    steps = np.diff(found)
    assert steps.min() > 0
    assert np.allclose(steps, steps[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (13, 37, [10, 20, 30, 40]), (0, 0.006, [0, 0.002, 0.004, 0.006]),
     (100, 100, [95, 97.5, 100, 102.5, 105]), (0, 0, [0, 0.25, 0.5, 0.75, 1])],
)  # fmt: skip
def test_ticks_by_hand(low: float, high: float, expected: list[float]):
    assert ticks(low, high) == pytest.approx(expected)


def test_short_numbers():
    shown = [short_number(value) for value in (0, 1234.5, 12345, 0.03, 0.00002, 25, 1e7, 2.5, 1000)]
    assert shown == ["0", "1,234", "12.35k", "0.03", "2e-5", "25", "1e7", "2.5", "1,000"]


def points_of(chart: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'points="([^"]*)"', chart)
    return [[tuple(map(float, pair.split(","))) for pair in one.split()] for one in found]  # pyright: ignore


def test_a_curve_by_hand():
    (points,) = points_of(line_chart([Line([0, 1, 2], [0, 5, 10])], description="d"))
    assert points == [(46, 174), (180, 93), (314, 12)], "the frame of the chart: left and bottom, middle, right and top"


def test_what_is_not_finite_is_a_gap():
    chart = line_chart([Line([0, 1, 2, 3], [0, math.nan, math.inf, 10])], description="d")
    assert [len(points) for points in points_of(chart)] == [2]
    assert "nan" not in chart


@given(st.lists(st.tuples(FINITE, FINITE), max_size=5), st.lists(st.tuples(FINITE, FINITE), max_size=40))
def test_any_numbers_are_drawn_inside_the_chart(one: list, other: list):
    lines = [Line([x for x, _ in some], [y for _, y in some], smooth=True) for some in (one, other)]
    chart = line_chart(lines, description='<"&')
    ElementTree.fromstring(chart)
    for points in points_of(chart):
        for x, y in points:
            assert 45 <= x <= 315
            assert 11 <= y <= 175


def test_many_points_are_averaged_and_the_last_stays():
    xs = np.arange(10_001.0)
    thin_x, thin_y = thinned(xs, 2 * xs, most=101)
    assert len(thin_x) == 101
    assert (thin_x[-1], thin_y[-1]) == (10_000, 20_000)
    assert thin_x[:2].tolist() == [49.5, 149.5]
    assert np.allclose(thin_y, 2 * thin_x)


def test_a_moving_average_keeps_straight_lines():
    values = np.linspace(3, 7, 200)
    assert np.allclose(smoothed(values), values)
    noisy = values + np.random.default_rng(0).normal(size=200)
    assert np.std(np.diff(smoothed(noisy))) < 0.3 * np.std(np.diff(noisy))


def test_labels_do_not_cover_each_other():
    assert spread_out([50, 10], 10, 0, 100) == [50, 10]
    assert spread_out([50, 50, 51], 10, 0, 100) == [50, 60, 70]
    assert spread_out([99, 99], 10, 0, 100) == [90, 100]
    places = spread_out([5.0] * 30, 10, 0, 100)
    assert min(places) >= -1e-9
    assert max(places) <= 100 + 1e-9


def test_strips():
    assert 'x1="25.00%"' in interval(0.25, 0.5, 0.75)
    assert 'cx="50.00%"' in interval(0.25, 0.5, 0.75)
    assert 'width="100.00%"' in bar(1.7)


def test_reliability_by_hand():
    chart = reliability_chart([0.5, 0.9, 0.0], [0.25, 0.9, 0.0], [3, 1, 0], description="d")
    root = ElementTree.fromstring(chart)
    dots = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in root.iter("circle")]
    assert dots == [(46 + 125, 12 + 250 * 0.75), (46 + 225, pytest.approx(12 + 25))]
    areas = [(float(dot.get("r", "")) - 2.5) ** 2 for dot in root.iter("circle")]
    assert areas[0] == pytest.approx(3 * areas[1], rel=0.01)
