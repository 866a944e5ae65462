"""A study's results as Markdown, LaTeX and CSV, with the paper's figures beside ours."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from tnr_dist.evaluation.metrics import NAMES
from tnr_dist.figures.tables import count, percent
from tnr_dist.reproduce.paper import TABLE2, Figure
from tnr_dist.reproduce.results import Difference, RowResult
from tnr_dist.reproduce.studies import Study
from tnr_dist.util import markup

METRIC_NAMES = {"auc": "AUC", "mrr": "MRR", "ndcg5": "nDCG@5", "ndcg10": "nDCG@10"}


def paper_figures(study: Study, row: RowResult, data: str) -> dict[str, Figure]:
    """The paper's figures for a row of Table 2, percent; empty where it prints none.

    A teacher of another number of layers than the paper's 12 stands beside the paper's teacher.
    """
    if study.kind != "table":
        return {}
    name = row.row.name
    if not row.row.layers:
        name = name.replace(f"PLM-NR-{study.teacher_layers} ", "PLM-NR-12 ")
    return TABLE2[data].get(name, {})


def markdown(study: Study, rows: dict[str, RowResult], found: Sequence[Difference], data: str) -> str:
    """The table and the comparisons."""
    header, lines = _cells(study, rows, data, markup.markdown, best=("**", "**"))
    parts = [markup.markdown_table([header, *lines])]
    if found:
        parts.append(
            "Paired t-tests. *Impressions*: over the impressions, each model's value averaged over its seeds, with the 95 % "
            "interval of the difference. *Seeds*: over the seeds' means. p-values after Holm's correction for the "
            "comparisons of this table by the same metric. Differences in percentage points.\n"
        )
        header = ["Compared", "Metric", "Difference", "95 % interval", "p (impressions)", "p (seeds)"]
        lines = [header, *map(_difference_cells, found)]
        parts.append(markup.markdown_table([[markup.markdown(cell) for cell in line] for line in lines]))
    return "\n".join(parts)


def latex(study: Study, rows: dict[str, RowResult], data: str) -> str:
    """The table for booktabs, no wider than a line: the paper's figures stand below ours, and what is too wide is scaled."""
    header, lines = _cells(study, rows, data, markup.latex, best=("\\textbf{", "}"))
    first = header.index(METRIC_NAMES["auc"])
    theirs = first + len(NAMES)  # from here the paper's, where it has any
    below = len(NAMES) if len(header) > theirs + 1 else 0
    body = []
    for line in lines:
        body.append([*line[:theirs], line[-1]])
        if below and any(cell != "-" for cell in line[theirs:-1]):
            body.append(["\\quad paper", *[""] * (first - 1), *line[theirs:-1], ""])
    header = [*header[:theirs], header[-1]]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs,graphicx}",
            "{\\footnotesize\\setlength{\\tabcolsep}{3pt}%",
            "\\setbox0=\\hbox{%",
            f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            "\\toprule",
            " & ".join(header) + " \\\\",
            "\\midrule",
            *(" & ".join(line) + " \\\\" for line in body),
            "\\bottomrule",
            "\\end{tabular}}%",
            "\\noindent\\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\usebox0}\\else\\usebox0\\fi}",
            "",
        ]
    )


def summary_csv(study: Study, rows: dict[str, RowResult], data: str) -> str:
    """One line a row: means and deviations as fractions, the paper's as fractions too."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    ours = [f"{name}{part}" for name in NAMES for part in ("", "_deviation")]
    theirs = [f"paper_{name}" for name in ours]
    writer.writerow(["model", "method", "layers", "parameters", "news_per_s", "seeds", *ours, *theirs])
    for name, row in rows.items():
        figures: list[object] = []
        for metric in NAMES:
            figures += [repr(float(row.mean(metric))), _number(row.deviation(metric))]
        paper = paper_figures(study, row, data)
        for metric in NAMES:
            figures += [_fraction(paper[metric][0]), _fraction(paper[metric][1])] if paper else ["", ""]
        model, speed = row.model, round(row.news_per_s, 1)
        size = [model["layers"], model["parameters"]]
        writer.writerow([name, row.row.method, *size, speed, len(row.seeds), *figures])
    return out.getvalue()


def runs_csv(rows: dict[str, RowResult]) -> str:
    """One line a row and seed, with the run's folder."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "seed", *NAMES, "run"])
    for name, row in rows.items():
        for place, seed in enumerate(row.seeds):
            figures = [repr(float(row.values[metric][place])) for metric in NAMES]
            writer.writerow([name, seed, *figures, row.runs[place]])
    return out.getvalue()


def _cells(
    study: Study, rows: dict[str, RowResult], data: str, escape: Callable[[str], str], best: tuple[str, str]
) -> tuple[list[str], list[list[str]]]:
    """Header and lines, escaped; the best of the models of one size is marked."""
    with_paper = any(paper_figures(study, row, data) for row in rows.values())
    header = ["Model", "Layers", "Parameters", "News/s", *METRIC_NAMES.values()]
    if with_paper:
        header += [f"paper {name}" for name in METRIC_NAMES.values()]
    header.append("Seeds")
    lines = []
    for name, row in rows.items():
        cells = [name, str(row.model["layers"]), count(row.model["parameters"]), f"{row.news_per_s:,.0f}"]
        marked: set[int] = set()
        for metric in NAMES:
            rivals = [one.mean(metric) for one in rows.values() if one.model["layers"] == row.model["layers"]]
            if len(rivals) > 1 and row.mean(metric) == max(rivals):
                marked.add(len(cells))
            cells.append(percent(row.values[metric]))
        if with_paper:
            paper = paper_figures(study, row, data)
            cells += [f"{paper[m][0]:.2f} ± {paper[m][1]:.2f}" if paper else "-" for m in NAMES]
        cells = [escape(cell) for cell in (*cells, str(len(row.seeds)))]
        lines.append([f"{best[0]}{cell}{best[1]}" if i in marked else cell for i, cell in enumerate(cells)])
    return [escape(name) for name in header], lines


def _difference_cells(one: Difference) -> list[str]:
    test = one.over_impressions
    return [
        f"{one.a} - {one.b}",
        METRIC_NAMES[one.metric],
        f"{100 * test.difference:+.2f}",
        f"{100 * test.low:+.2f} to {100 * test.high:+.2f}",
        p_text(one.p_impressions),
        "-" if one.p_seeds is None else p_text(one.p_seeds),
    ]


def p_text(p: float) -> str:
    """A p-value in a table."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _fraction(percentage: float) -> str:
    return f"{percentage / 100:.4f}"
