"""Drawings: what is drawn lies where it belongs, escapes what it says, and is seen by day and by night."""

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from tests.pictures import drawn, figures, lines, words
from tnr_dist.figures.charts import Point, Series, bar_chart, column_chart, line_chart, point_chart, thinned
from tnr_dist.figures.drawing import Dot, Label, Legend, Line, text_width
from tnr_dist.figures.frame import figure
from tnr_dist.figures.palette import DARK, LIGHT, SERIES
from tnr_dist.figures.picture import write_picture

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def test_a_line_goes_through_its_points():
    chart = line_chart("t", "samples", [Series("a", [0, 5, 10], [1.0, 3.0, 2.0])], log=False)
    assert chart is not None
    (line,) = [item for item in chart.items if isinstance(item, Line) and item.name == "a"]
    (x0, y0), (x1, y1), (x2, y2) = line.points
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert (y0 - y2) == pytest.approx((y0 - y1) / 2)  # 2 is half way from 1 to 3; y goes down on a screen
    assert all(0 <= x <= chart.width and 0 <= y <= chart.height for x, y in line.points)
    assert "a: 1 to 2" in chart.description


def test_tick_labels_stand_at_their_values():
    chart = line_chart("t", "samples", [Series("a", [0, 2000], [0.0, 0.4])], log=False)
    assert chart is not None
    texts = {item.text: item for item in chart.items if isinstance(item, Label)}
    assert {"0", "0.1", "0.2", "0.3", "0.4", "1.0k", "2.0k"} <= set(texts)
    assert texts["0.4"].y < texts["0.1"].y
    spacing = [texts[f"0.{i}"].y - texts[f"0.{i + 1}"].y for i in (1, 2, 3)]
    assert spacing == pytest.approx([spacing[0]] * 3)


def test_values_over_decades_are_drawn_on_a_log_scale():
    chart = line_chart("t", "samples", [Series("a", [0, 1, 2], [1.0, 0.1, 0.01])])
    assert chart is not None and "Log scale" in chart.description
    (line,) = [item for item in chart.items if isinstance(item, Line) and item.name == "a"]
    ys = [y for _, y in line.points]
    assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1])


def test_what_is_not_finite_is_left_out():
    assert line_chart("t", "x", [Series("a", [0, 1], [None, math.nan])]) is None
    assert line_chart("t", "x", []) is None
    chart = line_chart("t", "x", [Series("a", [0, 1, 2], [1.0, math.inf, 2.0])])
    assert chart is not None
    assert all(len(item.points) == 2 for item in chart.items if isinstance(item, Line) and item.name == "a")
    assert point_chart("t", "x", "y", [Point(0.0, 1.0, "no size")]) is None
    assert bar_chart("t", []) is None and column_chart("t", "x", [("a", 0.0)]) is None


@pytest.mark.parametrize("value", [0.0, 1e-12, 5e-5, 1.0, 123456.0, -3.0])
def test_a_constant_has_a_frame(value):
    chart = line_chart("t", "x", [Series("a", [7.0], [value])])
    assert chart is not None
    assert [item for item in chart.items if isinstance(item, Dot)]


def test_long_lines_are_thinned_to_means():
    assert thinned([(float(i), float(i % 2)) for i in range(1000)], 100) == [(10 * i + 4.5, 0.5) for i in range(100)]
    chart = line_chart("t", "x", [Series("a", list(range(5000)), [1.0 + i for i in range(5000)])])
    assert chart is not None and len(chart.svg("x")) < 10_000


def test_names_of_points_do_not_cover_each_other():
    points = [Point(100.0 + i, 60.0 + 0.01 * i, f"Tiny-NewsRec-{i}") for i in range(5)]
    chart = point_chart("t", "news a second", "AUC, %", points, [(60.02, "random")])
    assert chart is not None
    boxes = []
    for item in chart.items:
        if isinstance(item, Label) and item.text.startswith("Tiny"):
            width = 0.55 * item.size * len(item.text)
            left = item.x - {"start": 0.0, "middle": width / 2, "end": width}[item.anchor]
            assert left >= -1 and left + width <= chart.width + 1
            boxes.append((left, item.y, width))
    assert len(boxes) == 5
    for number, (left, y, width) in enumerate(boxes):
        for other_left, other_y, other_width in boxes[:number]:
            apart = left + width <= other_left or other_left + other_width <= left
            assert apart or abs(y - other_y) >= 11


def test_svg_is_well_formed_and_says_what_it_shows():
    name = '<script>alert("1")</script> & $x$'
    for chart in (
        line_chart(name, name, [Series(name, [0, 1], [1.0, 2.0])], references=[(1.5, name)]),
        point_chart(name, name, name, [Point(1.0, 2.0, name)], [(2.1, name)]),
        bar_chart(name, [(name, 1.0, name)]),
        column_chart(name, name, [(name, 0.4)]),
    ):
        assert chart is not None
        svg = chart.svg("an-id")
        assert "<script" not in svg
        root = parsed(svg)
        assert root.attrib["role"] == "img"
        title, description = (root.find(f"{SVG}{tag}") for tag in ("title", "desc"))
        assert title is not None and title.text == name
        assert description is not None and description.text and name in description.text
        assert root.attrib["aria-labelledby"].split() == [title.attrib["id"], description.attrib["id"]]


def test_png_is_the_same_each_time(tmp_path: Path):
    chart = line_chart("$loss_", "samples", [Series("a$b", [0, 1, 2], [1.0, 3.0, 2.0], dash=1)])
    assert chart is not None
    legend = [Legend("a$b", 0, 1), Legend("x" * 90, 1)]
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / name, "A title " * 30, [chart] * 4, legend * 3)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_png_shows_the_lines_the_texts_and_the_legend(tmp_path: Path):
    chart = line_chart("$loss_", "samples", [Series("a$b", [0, 1, 2], [1.0, 3.0, 2.0])])
    assert chart is not None
    with figures() as made:
        write_picture(tmp_path / "two.png", "A title", [chart, chart], [Legend("a$b", 0)])
    (of_chart,) = [item.points for item in chart.items if isinstance(item, Line) and item.name == "a$b"]
    shapes = [np.array(line) for line in lines(made[0].axes[0]) if len(line[0]) == 3]
    moved = [np.ptp(shape - np.transpose(of_chart), axis=1) for shape in shapes]
    assert len(shapes) == 2 and np.abs(moved).max() < 1e-9  # each the chart's line, moved to its place
    assert {"A title", "$loss_", "a$b"} <= words(made[0])
    assert drawn(tmp_path / "two.png", (LIGHT["c0"], LIGHT["c1"])) == {LIGHT["c0"]}


def test_long_names_in_a_png_stay_within_it_and_apart(tmp_path: Path):
    long = "a name that goes on and on and on " * 8
    charts = [line_chart(f"{long}{i}", "samples", [Series("a", [0, 1], [1.0, 3.0])]) for i in range(3)]
    with figures() as made:
        write_picture(tmp_path / "long.png", "A title", charts, [Legend(f"{long}{i}", i) for i in range(3)])
    texts = [text for text in made[0].axes[0].texts if text.get_text().startswith("a na")]
    assert len(texts) == 6 and {text.get_text()[-1] for text in texts} == {"0", "1", "2"}
    right = made[0].axes[0].get_xlim()[1]
    ends = [text.get_position()[0] + text_width(text.get_text(), 12) for text in texts[:3]]  # the panels' titles
    starts = [text.get_position()[0] for text in texts[:3]]
    assert all(end <= start for end, start in zip(ends, [*starts[1:], right], strict=True))
    assert all(text.get_position()[0] + text_width(text.get_text()) <= right for text in texts[3:])


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (3e-5, "3e-05"), (0.5, "0.5"), (999.0, "999"), (2500.0, "2.5k"), (1.5e6, "1.5M")]
)
def test_figures_in_words(value, text):
    assert figure(value) == text


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """WCAG 2.2's contrast ratio."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


# From linear RGB to the cube of OKLab's cone responses and on, Ottosson 2020; the colour vision deficiencies (red, green,
# blue blindness) as Machado et al. 2009 simulate them.
TO_CONES = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.63]]
TO_LAB = [[0.2105, 0.7936, -0.0041], [1.978, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
VISION = {
    "full": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.052]],
    "deuteranopia": [[0.3673, 0.8606, -0.228], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_series_are_told_apart(colours, vision):
    parts = np.array([[int(colours[f"c{n}"][i : i + 2], 16) / 255 for i in (1, 3, 5)] for n in range(SERIES)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(VISION[vision]), 0, 1)
    lab = np.cbrt(seen @ np.transpose(TO_CONES)) @ np.transpose(TO_LAB)
    for a, b in itertools.combinations(range(SERIES), 2):
        assert np.linalg.norm(lab[a] - lab[b]) > (0.15 if vision == "full" else 0.08), (a, b)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_is_enough(colours):
    assert set(colours) == set(LIGHT) and all(re.fullmatch("#[0-9a-f]{6}", one) for one in colours.values())
    for text in ("text", "muted", "link"):
        for ground in ("page", "panel"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["text"], colours["mark"]) >= 4.5
    for mark in (*(f"c{i}" for i in range(SERIES)), "axis", "reference"):
        assert contrast(colours[mark], colours["page"]) >= 3, mark
