"""Tables and figures: what a reader sees for each kind of value."""

import io
import re

from markdown_it import MarkdownIt
from rich.console import Console

from tnr_dist.figures.tables import count, percent, results_markdown, results_table

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
