"""Charts of means over seeds: rows, lines, and what of them can be read without the picture."""

import pytest

from tnr_dist.figures.drawing import Dot, Label, Line
from tnr_dist.figures.spreads import Spread, spread_line, spread_rows


def of(chart, kind):
    return [item for item in chart.items if isinstance(item, kind)]


def spread(name, mean, deviation=0.5, colour=0):
    return Spread(name, mean, deviation, (mean - 0.4, mean + 0.4), colour)


def test_nothing_to_draw():
    assert spread_rows("t", []) is None and spread_rows("t", [[]]) is None and spread_line("t", "x", []) is None


def test_groups_stand_apart():
    chart = spread_rows("AUC (%)", [[spread("a", 60.0), spread("b", 61.0)], [spread("c", 62.0)]])
    one, two, three = (dot.y for dot in of(chart, Dot))
    assert three - two == pytest.approx(1.5 * (two - one))
    assert {"a", "b", "c"} <= {label.text for label in of(chart, Label)}
    assert chart.description == "Means. a: 60.00 ± 0.50; b: 61.00 ± 0.50; c: 62.00 ± 0.50."


@pytest.mark.parametrize("width", [360.0, 640.0])
def test_all_of_it_lies_within_the_drawing(width):
    name = "Tiny-NewsRec of four layers and a very long name of its own"
    rows = [spread(f"{name} {number}", 60.0 + number) for number in range(5)]
    chart = spread_rows("t", [rows], width)
    assert chart.width == width
    shown = [label.text for label in of(chart, Label) if "…" in label.text]
    assert len(set(shown)) == 5
    for line in of(chart, Line):
        assert all(0 <= x <= chart.width and 0 <= y <= chart.height for x, y in line.points)


def test_a_single_value_has_no_caps():
    several, single = (spread_line("t", "M", [spread("1", 60.0, by), spread("2", 61.0, by)]) for by in (0.5, None))
    assert len(of(several, Line)) == len(of(single, Line)) + 2 * 3  # a bar and two caps each
    assert [dot.name for dot in of(single, Dot)] == ["1: 60.00", "2: 61.00"]
    assert single.description.startswith("Means over M. 1: 60.00;")
