"""Pictures of `tnr run`: what they show of runs and rows, and that the files show it."""

import numpy as np
import pytest

from tests.pictures import COLOURS, drawn, figures, words
from tnr_dist.figures import plots
from tnr_dist.figures.drawing import Dot, Label, Line, text_width
from tnr_dist.figures.plots import quality_vs_speed, training_curves
from tnr_dist.util.errors import InputError

ROWS = [
    {"model": "oracle", "auc": 0.99},
    {"model": "teacher [x]", "layers": 12, "parameters": 109_482_240, "auc": [0.70, 0.71, 0.69], "news_per_s": 1234.4},
    {"model": "a|b", "layers": 1, "parameters": 812_000, "auc": 0.7028, "mrr": None, "ndcg5": float("nan")},
]


@pytest.fixture
def written(monkeypatch):
    """The drawings and the legend of each picture that is written."""
    seen = []
    monkeypatch.setattr(plots, "write_picture", lambda path, title, charts, legend: seen.append((charts, legend)))
    return seen


def of(chart, kind):
    return [item for item in chart.items if isinstance(item, kind)]


def curves_of(chart):
    return [line for line in of(chart, Line) if isinstance(line.colour, int)]


def test_training_curves(written, tmp_path):
    records = [{"step": i, "samples": 32 * i, "train/loss": 2.0 / (i + 1)} for i in range(50)]
    runs = {
        "post-train": [*records, {"step": 49, "dev/auc": 0.6}],
        "finetune/seed-1": records,
        "finetune/seed-2": [{"step": 1, "train/loss": 1.0}, {"step": 2, "train/loss": float("nan")}],
        "evaluate": [{"dev/auc": 0.6}],
    }
    training_curves(runs, tmp_path / "a.png")
    (one, two), legend = written[0]
    assert (one.title, two.title) == ("post-train", "finetune")
    assert [len(line.points) for line in curves_of(one)] == [50] and "Lines over samples" in one.description
    # Seed 2 has no samples: the panel counts steps; its loss that is not finite is left out, its one value is a dot.
    assert "Lines over step" in two.description and len(curves_of(two)) == 1
    assert [(dot.name, dot.colour) for dot in of(two, Dot)] == [("seed-2", 2)]
    assert [(entry.name, entry.colour) for entry in legend] == [("seed-1", 1), ("seed-2", 2)]
    with pytest.raises(InputError, match="no finite 'train/loss' in the runs evaluate"):
        training_curves({"evaluate": runs["evaluate"]}, tmp_path / "b.png")


def test_the_files_show_it(tmp_path):
    records = [{"samples": n, "train/loss": 1.0 / n} for n in (1, 2)]
    training_curves({"stage1/seed-0": records, "stage1/seed-1": records[::-1]}, tmp_path / "a.png")
    assert drawn(tmp_path / "a.png", COLOURS[:3]) == set(COLOURS[:2])
    quality_vs_speed(ROWS, tmp_path / "q.png")
    assert drawn(tmp_path / "q.png", COLOURS[:2]) == {COLOURS[0]}
    with pytest.raises(InputError):
        quality_vs_speed([], tmp_path / "none.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "q.png"]


def test_moving_mean_is_a_mean_over_what_there_is():
    y = np.random.default_rng(0).random(400)
    smooth = plots._moving_mean(y)
    for place in (0, 3, 200, 399):
        assert smooth[place] == pytest.approx(y[max(place - 10, 0) : place + 11].mean())
    assert plots._moving_mean(y[:5]).tolist() == pytest.approx(y[:5].tolist())


def test_names_of_models_and_yardsticks_do_not_cover_each_other(written, tmp_path):
    rows = [{"model": f"Tiny-NewsRec-{i}", "auc": 0.7 + 0.004 * i, "news_per_s": 1000 * 2 ** (i % 3)} for i in range(6)]
    rows += [{"model": "random", "auc": 0.5}, {"model": "popular", "auc": 0.699}, {"model": "oracle", "auc": 0.95}]
    quality_vs_speed(rows, tmp_path / "q.png")
    ((chart,), _) = written[0]
    names = [label for label in of(chart, Label) if any(row["model"] in label.text for row in rows)]
    assert len(names) == 9
    assert {"\u2193 random 50.00", "popular 69.90", "\u2191 oracle 95.00"} <= {label.text for label in names}
    boxes = []
    for label in names:
        width = text_width(label.text)
        left = label.x - {"start": 0.0, "middle": width / 2, "end": width}[label.anchor]
        assert left >= 0 and left + width <= chart.width, label
        boxes.append((label.text, left, label.y - 9, left + width, label.y))
    for i, (name, x0, y0, x1, y1) in enumerate(boxes):
        for other, u0, v0, u1, v1 in boxes[i + 1 :]:
            assert not (x0 < u1 and u0 < x1 and y0 < v1 and v0 < y1), (name, other)
    assert {dot.colour for dot in of(chart, Dot)} == {0}, "sizes of one method share a colour"


@pytest.mark.parametrize("name", ["b$ $\\x", "a $x_{ b$ c"])
def test_dollars_in_a_name_are_no_formula(name, tmp_path):
    records = [{"samples": n, "train/loss": 1.0 / n} for n in (1, 2)]
    with figures() as made:
        quality_vs_speed(
            [{"model": name, "auc": 0.7, "news_per_s": 10.0}, {"model": f"2 {name}", "auc": 0.6}], tmp_path / "q"
        )
        training_curves({f"{name}/seed-0": records, f"{name}/seed-1": records}, tmp_path / "curves")
    assert {name, f"\u2193 2 {name} 60.00"} <= words(made[0]) and name in words(made[1])


def test_quality_vs_speed_of_little(written, tmp_path):
    quality_vs_speed(ROWS, tmp_path / "q.png")
    quality_vs_speed(ROWS[1:2], tmp_path / "q.png")
    texts = [{label.text for label in of(charts[0], Label)} for charts, _ in written]
    assert {"a|b 70.28", "\u2191 oracle 99.00", "teacher [x] (109 M)", "AUC (%)"} <= texts[0]
    assert "teacher [x] (109 M)" in texts[1] and not any("oracle" in text for text in texts[1])
    assert [len(of(charts[0], Dot)) for charts, _ in written] == [1, 1]
    for rows in ([{"model": "x"}], ROWS[:1]):
        with pytest.raises(InputError, match="no row has an 'auc' and a 'news_per_s'"):
            quality_vs_speed(rows, tmp_path / "none.png")
