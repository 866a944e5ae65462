"""Tables and figures: what a reader sees for each kind of value."""

import io
import re

import numpy as np
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from tests.pictures import drawn, figures, lines, words
from tnr_dist.figures import plots
from tnr_dist.figures.plots import COLOURS, quality_vs_speed, training_curves
from tnr_dist.figures.tables import count, percent, results_markdown, results_table
from tnr_dist.util.errors import InputError

ROWS = [
    {"model": "oracle", "auc": 0.99},
    {"model": "teacher [x]", "layers": 12, "parameters": 109_482_240, "auc": [0.70, 0.71, 0.69], "news_per_s": 1234.4},
    {"model": "a|b", "layers": 1, "parameters": 812_000, "auc": 0.7028, "mrr": None, "ndcg5": float("nan")},
]


def cells(markdown):
    return [[cell.strip() for cell in line.replace("\\|", "!").strip("|").split("|")] for line in markdown.splitlines()]


def test_markdown():
    header, rule, oracle, teacher, small = cells(results_markdown(ROWS))
    assert header == ["Model", "Layers", "Parameters", "AUC", "MRR", "nDCG@5", "nDCG@10", "News/s"]
    assert all(set(cell) <= set("-:") for cell in rule)
    assert oracle == ["oracle", "-", "-", "99.00", "-", "-", "-", "-"]
    assert teacher == ["teacher \\[x\\]", "12", "109 M", "70.00 ± 1.00", "-", "-", "-", "1,234"]
    # A baseline is never the best model.
    assert small == ["a!b", "1", "812 k", "**70.28**", "-", "-", "-", "-"]
    assert len({len(line) for line in results_markdown(ROWS).splitlines()}) == 1


def test_names_in_markdown_are_only_text():
    name = "<img src=x>|[a](javascript:b) **c**\n`d`"
    page = MarkdownIt("gfm-like", {"linkify": False}).render(results_markdown([{"model": name, "auc": 0.5}, ROWS[1]]))
    assert "<td>&lt;img src=x&gt;|[a](javascript:b) **c** `d`</td>" in page
    assert page.count("<td") == 2 * 8


def test_table_shows_every_cell():
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(results_table(ROWS, title="dev"))
    text = console.export_text()
    for cell in ("dev", "oracle", "teacher [x]", "109 M", "70.00 ± 1.00", "1,234", "70.28", "812 k"):
        assert cell in text


def test_figures_of_numbers():
    assert percent(0.70204) == "70.20" and percent(None) == percent([]) == percent(float("nan")) == "-"
    assert percent([0.5]) == "50.00" and percent([0.5, None, 0.6]) == "55.00 ± 7.07"
    assert [count(n) for n in (None, 0, 950, 1500, 22_713_216, 109e6, 2.5e9)] == [
        "-", "0", "950", "1.5 k", "22.7 M", "109 M", "2.5 G",
    ]  # fmt: skip


def test_a_baseline_that_no_model_beats_is_the_best():
    rows = [
        {"model": "most popular", "auc": 0.6386, "mrr": 0.2},
        {"model": "a", "auc": 0.61, "mrr": 0.3},
        {"model": "b", "auc": 0.62, "mrr": 0.25},
        {"model": "oracle", "auc": 0.8, "mrr": 0.8},
    ]
    lines = results_markdown(rows).splitlines()[2:]
    assert [re.findall(r"\*\*(.*?)\*\*", line) for line in lines] == [["63.86"], ["30.00"], [], []]
    bold = [cell.spans for column in list(results_table(rows).columns)[3:5] for cell in column.cells]
    assert [bool(spans) for spans in bold] == [True, False, False, False, False, True, False, False]


def test_training_curves(tmp_path):
    records = [{"step": i, "samples": 32 * i, "train/loss": 2.0 / (i + 1)} for i in range(50)]
    runs = {
        "post-train": [*records, {"step": 49, "dev/auc": 0.6}],
        "finetune/seed-1": records,
        "finetune/seed-2": [{"step": 1, "train/loss": 1.0}, {"step": 2, "train/loss": float("nan")}],
        "evaluate": [{"dev/auc": 0.6}],
    }
    with figures() as made:
        training_curves(runs, tmp_path / "a.png")
    one, two = made[0].axes
    losses = [2.0 / (i + 1) for i in range(50)]
    assert (one.get_title(loc="left"), two.get_title(loc="left")) == ("post-train", "finetune")
    raw, smooth = lines(one)
    assert raw == ([32 * i for i in range(50)], losses) and one.get_xlabel() == "samples"
    assert smooth[1] == pytest.approx([np.mean(losses[max(i - 1, 0) : i + 2]) for i in range(50)])
    # Seed 2 has no samples: the panel counts steps; its loss that is not finite is left out.
    assert two.get_xlabel() == "step" and lines(two)[0][0] == list(range(50)) and lines(two)[2] == ([1.0], [1.0])
    assert [text.get_text() for text in two.get_legend().get_texts()] == ["seed-1", "seed-2"]
    assert drawn(tmp_path / "a.png", COLOURS[:-1]) == set(COLOURS[:2])
    with pytest.raises(InputError, match="no finite 'train/loss' in the runs evaluate"):
        training_curves({"evaluate": runs["evaluate"]}, tmp_path / "b.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_moving_mean_is_a_mean_over_what_there_is():
    y = np.random.default_rng(0).random(400)
    smooth = plots._moving_mean(y)
    for place in (0, 3, 200, 399):
        assert smooth[place] == pytest.approx(y[max(place - 10, 0) : place + 11].mean())
    assert plots._moving_mean(y[:5]).tolist() == pytest.approx(y[:5].tolist())


def test_labels_of_crowded_models_do_not_overlap(tmp_path, monkeypatch):
    """Twelve models, some almost on one spot, and three baselines: every text stays off every other and in the figure."""
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation, Text

    rows = [
        {"model": f"Tiny-NewsRec-{i}", "auc": 0.7 + 0.002 * (i // 3), "news_per_s": 1000 * 2 ** (i % 3)}
        for i in range(12)
    ]
    rows += [{"model": "random", "auc": 0.5}, {"model": "popular", "auc": 0.699}, {"model": "oracle", "auc": 0.95}]
    seen = []
    save = Figure.savefig

    def look(figure, *arguments, **options):
        save(figure, *arguments, **options)
        renderer = figure.canvas.get_renderer()
        axes = figure.axes[0]
        for text in axes.texts:
            assert isinstance(text, Annotation)
            seen.append((text.get_text(), Text.get_window_extent(text, renderer)))
        frame = axes.get_window_extent(renderer)
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for _, box in seen)

    monkeypatch.setattr(Figure, "savefig", look)
    quality_vs_speed(rows, tmp_path / "q.png")
    assert len(seen) == 15
    for i, (name, box) in enumerate(seen):
        for other_name, other in seen[i + 1 :]:
            assert not (box.x0 < other.x1 and other.x0 < box.x1 and box.y0 < other.y1 and other.y0 < box.y1), (
                name,
                other_name,
            )


@pytest.mark.parametrize("name", ["b$ $\\x", "a $x_{ b$ c"])
def test_dollars_in_a_name_are_no_formula(name, tmp_path):
    records = [{"samples": n, "train/loss": 1.0 / n} for n in (1, 2)]
    with figures() as made:
        quality_vs_speed(
            [{"model": name, "auc": 0.7, "news_per_s": 10.0}, {"model": f"2 {name}", "auc": 0.6}], tmp_path / "q"
        )
        training_curves({f"{name}/seed-0": records, f"{name}/seed-1": records}, tmp_path / "curves")
    assert {name, f"\u2193 2 {name} 60.00"} <= words(made[0]) and name in words(made[1])
    assert drawn(tmp_path / "q", COLOURS[:1]) and drawn(tmp_path / "curves", COLOURS[:1])


def test_quality_vs_speed_of_little(tmp_path):
    notes, points = [], []
    for number, rows in enumerate((ROWS, ROWS[:1], ROWS[1:2])):
        with figures() as made:
            quality_vs_speed(rows, tmp_path / f"{number}.png")
        (axes,) = made[0].axes
        assert axes.get_xscale() == "log" and axes.get_ylabel() == "AUC (%)"
        notes.append([text.get_text() for text in axes.texts])
        points.append([line for line in lines(axes) if len(line[0]) == 1])
        assert bool(drawn(tmp_path / f"{number}.png", COLOURS[:1])) is bool(points[-1])
    teacher = ([1234.4], [pytest.approx(70.0)])
    assert points == [[teacher], [], [teacher]]
    assert notes == [
        ["a|b 70.28", "\u2191 oracle 99.00", "teacher [x] (109 M)"],
        ["oracle 99.00"],
        ["teacher [x] (109 M)"],
    ]
    with pytest.raises(InputError, match="no row has an 'auc'"):
        quality_vs_speed([{"model": "x"}], tmp_path / "none.png")
