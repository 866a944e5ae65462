"""Tables, tests and figures of a study from rows whose figures are known."""

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from markdown_it import MarkdownIt

from tests.pictures import COLOURS, drawn, figures, words
from tnr_dist.evaluation.metrics import NAMES
from tnr_dist.evaluation.statistics import holm, paired_t_test
from tnr_dist.figures.drawing import Box, Dot, Label, Line
from tnr_dist.figures.tables import count
from tnr_dist.reproduce.figures import draw, drawings, marks
from tnr_dist.reproduce.paper import TABLE2
from tnr_dist.reproduce.results import RowResult, differences
from tnr_dist.reproduce.studies import STUDIES, study_of
from tnr_dist.reproduce.tables import latex, markdown, runs_csv, summary_csv
from tnr_dist.stages.methods import load_config

SEEDS = [0, 1, 2]


def fake_rows(study, seed: int = 0) -> dict[str, RowResult]:
    rng = np.random.default_rng(seed)
    rows = {}
    for number, row in enumerate(study.rows):
        impressions = {name: rng.uniform(0, 1, 50) for name in NAMES}
        impressions["auc"][3] = np.nan
        values = {name: list(0.5 + 0.01 * number + 0.001 * rng.standard_normal(len(SEEDS))) for name in NAMES}
        layers = row.layers or study.teacher_layers
        model = {"layers": layers, "parameters": 12_000_000 + 1_800_000 * layers}
        rows[row.name] = RowResult(
            row, SEEDS, [f"runs/{number}-{s}" for s in SEEDS], values, impressions, model, 1e3 / layers
        )
    return rows


@pytest.fixture
def study():
    return study_of("table2", load_config(None, []))


def test_the_paper_s_table_2_is_whole():
    for table in TABLE2.values():
        assert len(table) == 15
    assert TABLE2["mind"]["Tiny-NewsRec-4"] == {
        "auc": (70.40, 0.05), "mrr": (35.43, 0.08), "ndcg5": (38.76, 0.05), "ndcg10": (44.43, 0.04),
    }  # fmt: skip
    assert TABLE2["feeds"]["PLM-NR-12 (DP)"]["ndcg10"] == (45.83, 0.08)


def test_markdown_has_ours_and_the_paper_s(study):
    rows = fake_rows(study)
    text = markdown(study, rows, differences(study, rows), "mind")
    lines = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if "|" in line
    }
    cells = lines["PLM-NR-6 (DP)"]
    mean, deviation = np.mean(rows["PLM-NR-6 (DP)"].values["auc"]), np.std(rows["PLM-NR-6 (DP)"].values["auc"], ddof=1)
    assert cells[4].strip("*") == f"{100 * mean:.2f} ± {100 * deviation:.2f}"
    assert cells[8] == "70.20 ± 0.10"  # the paper's teacher has 12 layers
    assert cells[-1] == "3"
    # Later rows are better here, so the last of each size is marked.
    assert lines["Tiny-NewsRec-2"][4].startswith("**") and not lines["NewsBERT-2"][4].startswith("**")
    assert "Tiny-NewsRec-4 - TinyBERT-4" in lines


def test_csv_reads_back_exactly(study):
    rows = fake_rows(study)
    table = list(csv.DictReader(io.StringIO(summary_csv(study, rows, "feeds"))))
    assert [line["model"] for line in table] == list(rows)
    assert float(table[0]["auc"]) == rows[table[0]["model"]].mean("auc")
    assert table[-1]["paper_ndcg10_deviation"] == "0.0008"
    runs = list(csv.DictReader(io.StringIO(runs_csv(rows))))
    assert len(runs) == len(rows) * len(SEEDS)
    assert float(runs[4]["mrr"]) == rows[runs[4]["model"]].values["mrr"][1]


def test_latex_is_escaped(study):
    text = latex(study, fake_rows(study), "mind")
    assert text.count("\\\\\n") == 1 + 2 * len(study.rows)  # the paper's figures are lines of their own
    assert "±" not in text and "$\\pm$" in text and "\\textbf{" in text
    lines = [line for line in text.splitlines() if "&" in line]
    assert {line.count("&") for line in lines} == {8} and sum(line.startswith("\\quad paper ") for line in lines) == 15


@pytest.mark.parametrize("columns", ["onecolumn", "twocolumn"])
@pytest.mark.parametrize("name", ["table2", "fig4"])
def test_the_table_fits_a_page(name, columns, tmp_path):
    study = study_of(name, load_config(None, []))
    rows = fake_rows(study)
    if name == "table2":
        rows |= {f"{EVIL} of a long name that goes on and on {i}": row for i, row in enumerate(list(rows.values())[:2])}
    if shutil.which("pdflatex") is None:
        pytest.skip("there is no pdflatex (Debian: apt-get install texlive-latex-recommended)")
    page = "\\documentclass[%s]{article}\\usepackage{booktabs,graphicx}\\begin{document}\n%s\\end{document}\n"
    (tmp_path / "page.tex").write_text(page % (columns, latex(study, rows, "mind")), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "page.log").read_text(errors="replace")
    assert "Overfull" not in log and "Undefined" not in log and "(1 page" in log


EVIL = "[2cm]|\\input{x} & <b>$x$_50%#\n`c`"


def test_names_of_rows_are_only_text(study):
    rows = {EVIL if name == "Tiny-NewsRec-1" else name: row for name, row in fake_rows(study).items()}
    study = replace(study, pairs=[(EVIL, "Tiny-NewsRec-2")])
    table = latex(study, rows, "mind").splitlines()
    (line,) = [line for line in table if "2cm" in line]
    shown = r"{[}2cm{]}\textbar{}\textbackslash{}input\{x\} \& \textless{}b\textgreater{}\$x\$\_50\%\# `c` & 1 & "
    assert line.startswith(shown) and line.count(r"\textbf{") == 4
    page = MarkdownIt("gfm-like", {"linkify": False}).render(markdown(study, rows, differences(study, rows), "mind"))
    name = "[2cm]|\\input{x} &amp; &lt;b&gt;$x$_50%# `c`"
    assert f">{name}</td>" in page and f">{name} - Tiny-NewsRec-2</td>" in page
    assert page.count("<table>") == 2 and not re.search(r"<(b|code|a)>", page)
    assert len({row.count("<td") for row in page.partition("</table>")[0].split("<tr>")[2:]}) == 1


def test_differences_are_paired_and_corrected(study):
    rows = fake_rows(study)
    found = [one for one in differences(study, rows) if one.metric == "auc"]
    assert [(one.a, one.b) for one in found] == study.pairs
    first = found[0]
    a, b = rows[first.a], rows[first.b]
    keep = np.arange(50) != 3
    plain = [
        paired_t_test(rows[x.a].impressions["auc"][keep], rows[x.b].impressions["auc"][keep]).p_value for x in found
    ]
    assert first.p_impressions == pytest.approx(holm(plain)[0])
    assert first.over_seeds.difference == pytest.approx(a.mean("auc") - b.mean("auc"))


def test_one_seed_has_no_test_over_seeds(study):
    rows = {
        name: RowResult(r.row, [0], r.runs[:1], {k: v[:1] for k, v in r.values.items()}, r.impressions, r.model, 1.0)
        for name, r in fake_rows(study).items()
    }
    assert all(one.p_seeds is None and one.over_seeds is None for one in differences(study, rows))
    assert " - |" in markdown(study, rows, differences(study, rows), "mind")


def test_rows_of_other_seeds_are_not_compared(study):
    rows = fake_rows(study)
    last = rows["Tiny-NewsRec-1"]
    rows["Tiny-NewsRec-1"] = RowResult(last.row, [0], last.runs, last.values, last.impressions, last.model)
    assert not [one for one in differences(study, rows) if "Tiny-NewsRec-1" in (one.a, one.b)]


def test_rows_with_one_seed_in_common_stand_beside_rows_with_more(study):
    rows = fake_rows(study)
    for name in study.pairs[0]:  # the further seeds of two rows failed
        row = rows[name]
        values = {metric: values[:1] for metric, values in row.values.items()}
        rows[name] = RowResult(row.row, [0], row.runs[:1], values, row.impressions, row.model, 1.0)
    found = [one for one in differences(study, rows) if one.metric == "auc"]
    assert [one.p_seeds is None for one in found] == [True] + [False] * (len(found) - 1)
    assert [one.p_seeds for one in found[1:]] == holm([one.over_seeds.p_value for one in found[1:]])


@pytest.mark.parametrize("p", [[0.01, 0.04, 0.03], [0.5], [], [0.9, 0.8]])
def test_holm(p):
    order = np.argsort(p)
    expected, highest = [0.0] * len(p), 0.0
    for k, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - k) * p[i]))
        expected[i] = highest
    assert holm(p) == expected
    if p == [0.01, 0.04, 0.03]:
        assert holm(p) == pytest.approx([0.03, 0.06, 0.06])


def items_of(study, rows, kind):
    return [item for drawing in drawings(study, rows) for item in drawing.items if isinstance(item, kind)]


@pytest.mark.parametrize("name", STUDIES)
def test_figures_show_every_row_and_its_values(name, tmp_path):
    study = study_of(name, load_config(None, []))
    rows = fake_rows(study)
    with figures() as made:
        files = draw(study, rows, tmp_path)
    assert [path.name for path in files] == [f"{name}.png", f"{name}.pdf"]
    assert files[1].read_bytes()[:5] == b"%PDF-" and len(made) == 2
    assert drawn(files[0], COLOURS[:1])
    if study.kind == "table":
        labels = list(rows)
    elif study.kind == "speed":  # sizes at the ends of the bars, the students' with their ratio to the teacher
        texts = {text.partition(",")[0] for text in words(made[0])}
        assert {count(row.model["parameters"]) for row in rows.values()} <= texts
        labels = list(rows)
    else:
        labels = [label for panel in study.panels for label, _ in panel.rows]
    shown = words(made[0])
    assert {study.title, *labels} <= shown
    # What the marks mean stands in the picture.
    explained = [text for text in shown if "standard deviation over the seeds" in text and "single seed" in text]
    assert bool(explained) is (study.kind != "speed") and explained in ([], [marks(study, rows)])


@pytest.mark.parametrize("name", ["table2", "fig3", "fig4"])
def test_points_stand_where_their_values_are(name):
    study = study_of(name, load_config(None, []))
    rows = fake_rows(study)
    (panel, *_) = drawings(study, rows)
    across = study.kind != "values"
    dots = [item for item in panel.items if isinstance(item, Dot)]
    lines = [item for item in panel.items if isinstance(item, Line) and isinstance(item.colour, int)]
    place = {dot.name.partition(":")[0]: dot.x if across else -dot.y for dot in dots}
    names = {row: row for row in rows} if not study.panels else {row: label for label, row in study.panels[0].rows}
    means = {names[row]: 100 * rows[row].mean("auc") for row in rows}
    assert set(place) == set(means)
    (low, high) = min(means, key=means.get), max(means, key=means.get)
    scale = (place[high] - place[low]) / (means[high] - means[low])
    for row in rows.values():
        name = names[row.row.name]
        assert place[name] - place[low] == pytest.approx(scale * (means[name] - means[low]))
        # Caps at mean ± deviation and a stroke at each seed, as far from the dot as their values are from the mean.
        far = [100 * row.deviation("auc"), -100 * row.deviation("auc")]
        far += [100 * (value - row.mean("auc")) for value in row.values["auc"]]
        ends = [one.points[0][0] if across else -one.points[0][1] for one in lines if len(one.points) == 2]
        for value in far:
            assert min(abs(end - place[name] - scale * value) for end in ends) < 1e-9


def test_bars_are_as_long_as_their_values():
    study = study_of("fig5", load_config(None, []))
    rows = fake_rows(study)
    bars = [[item for item in drawing.items if isinstance(item, Box)] for drawing in drawings(study, rows)]
    for boxes, values in zip(
        bars,
        ([row.model["parameters"] for row in rows.values()], [row.news_per_s for row in rows.values()]),
        strict=True,
    ):
        assert [box.width / max(one.width for one in boxes) for box in boxes] == pytest.approx(
            [value / max(values) for value in values]
        )
        assert [box.colour for box in boxes] == [1] + [0] * (len(boxes) - 1)  # the teacher
    texts = {label.text for label in items_of(study, rows, Label)}
    assert "1,000, 6.0 x" in texts


def test_one_seed_has_no_deviation_to_draw():
    study = study_of("fig3", load_config(None, []))
    rows = {
        name: replace(row, seeds=[0], values={key: one[:1] for key, one in row.values.items()})
        for name, row in fake_rows(study).items()
    }
    own = [line for line in items_of(study, rows, Line) if isinstance(line.colour, int)]
    assert len(own) == len(drawings(study, rows)) * (1 + len(rows))  # the line that joins the means, a stroke each
    assert marks(study, rows) == "Point: mean; orange: the reference."


def test_a_figure_of_an_unfinished_study_has_what_is_there(tmp_path):
    study = study_of("fig6", load_config(None, []))
    rows = dict(list(fake_rows(study).items())[:5])
    assert drawn(draw(study, rows, tmp_path)[0], COLOURS[:1])
    shown = [label for panel in study.panels for label, row in panel.rows if row in rows]
    names = [
        dot.name.partition(":")[0]
        for drawing in drawings(study, rows)[::2]
        for dot in drawing.items
        if isinstance(dot, Dot)
    ]
    assert names == shown and len(shown) >= 5
    assert set(shown) <= {label.text for label in items_of(study, rows, Label)}
    assert drawings(study_of("fig3", load_config(None, [])), {}) == []
