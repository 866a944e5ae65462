"""What the models were trained on, and on which impressions they are good or bad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tnr_dist.data.manifest import Manifest, manifest_hash, open_table, read_manifest
from tnr_dist.data.shards import read_index, read_shard
from tnr_dist.figures.charts import Series, column_chart, line_chart
from tnr_dist.figures.drawing import Drawing, Legend
from tnr_dist.figures.palette import SERIES
from tnr_dist.report.page import Block, Cell, Figure, Heading, Paragraph, Section, Table
from tnr_dist.report.read_runs import Run
from tnr_dist.report.results import Model
from tnr_dist.util.errors import InputError

_READ_BYTES = 256 << 20  # a split of more is not read for a report
_HISTORIES = ((0, 0), (1, 5), (6, 10), (11, 20), (21, 50), (51, None))
_CANDIDATES = ((1, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, None))
_FEW = 20  # impressions: a mean over fewer is noise
_SPLIT_ROWS = (
    ("impressions_kept", "Impressions", ""),
    ("users", "Users", ""),
    ("samples", "Training samples (clicks)", ""),
    ("candidates", "Candidates", ""),
    ("unknown_candidates", "Candidates of unknown news", "candidates"),
    ("clicks", "Clicks", ""),
    ("max_candidates", "Most candidates in an impression", ""),
    ("histories", "Histories", ""),
    ("empty_histories", "Empty histories", "histories"),
    ("max_history", "Longest history", ""),
)
_RATIOS = (
    ("Candidates an impression", "candidates", "impressions"),
    ("Clicks an impression", "clicks", "impressions"),
    ("News in a history", "history_items", "histories"),
)


@dataclass(frozen=True)
class Impressions:
    """Of every impression of a split [I]: line of the raw file, clicked news before it, candidates."""

    rows: np.ndarray
    history: np.ndarray
    candidates: np.ndarray


def data_section(runs: Sequence[Run]) -> Section | None:
    """Counts and lengths of every data set that the runs were made from."""
    blocks: list[Block] = []
    folders = _folders(runs)
    for number, (folder, ids) in enumerate(folders.items()):
        if len(folders) > 1:
            blocks.append(Heading(str(folder)))
        blocks += _data_set(folder, ids, f"data-{number}" if number else "data")
    return Section("data", "Data", blocks) if blocks else None


def impressions_section(models: Sequence[Model]) -> Section | None:
    """How the AUC of single impressions is spread, and how it depends on the history and on the candidates."""
    found = [(one, means) for one in models if (means := one.impressions) is not None]
    found = [(one, means) for one, means in found if np.isfinite(means[1]).any()]
    if not found:
        return None
    marks = [i / 100 for i in range(5, 100, 5)]
    spread = line_chart(
        "Share of impressions with a lower AUC",
        "AUC of an impression, %",
        [
            Series(
                one.name,
                [100 * edge for edge in (0.0, *marks, 1.0)],
                [float((100 * (_finite(means[1]) <= edge)).mean()) for edge in (0.0, *marks, 1.0)],
                i % SERIES,
                i // SERIES,
            )
            for i, (one, means) in enumerate(found)
        ],
        log=False,
    )
    panels = []
    facts = {key: read_impression_facts(*key) for key in {_source(one) for one, _ in found} if key is not None}
    for title, axis, name, bins in (
        ("AUC by length of the history, %", "clicked news before the impression", "history", _HISTORIES),
        ("AUC by number of candidates, %", "candidates of the impression", "candidates", _CANDIDATES),
    ):
        series, labels = [], [_bin_name(*one) for one in bins]
        for i, (one, means) in enumerate(found):
            source = _source(one)
            known = facts.get(source) if source is not None else None
            values = _by_bin(means, known, name, bins) if known is not None else None
            if values is not None:
                series.append(Series(one.name, list(range(len(bins))), values, i % SERIES, i // SERIES))
        panels.append(line_chart(title, axis, series, x_ticks=list(enumerate(labels)), log=False))
    legend = [Legend(one.name, i % SERIES, i // SERIES) for i, (one, _) in enumerate(found)]
    groups = [panel for panel in panels if panel is not None]
    shown = [spread, *groups] if spread is not None else groups
    caption = "AUC of single impressions, means over the seeds."
    if spread is not None:
        caption += f" {'In the first panel the' if groups else 'The'} lower line is the better model."
    if groups:
        caption += f" By history and candidates: groups of fewer than {_FEW} impressions are left out."
    return Section("impressions", "Impressions", [_quantiles(found), Figure("impressions", caption, shown, legend)])


def read_impression_facts(folder: Path, split: str) -> Impressions | None:
    """From a split's shards; None where they are not here or too large to be read for a report."""
    try:
        index = read_index(folder, split)
        if sum(shard.bytes for shard in index.shards) > _READ_BYTES:
            return None
        rows, history, candidates = [], [], []
        for shard in index.shards:
            for block in read_shard(folder / split / shard.name).values():
                rows.append(block["row"])
                history.append(np.diff(block["history_offsets"])[block["impression_history"]])
                candidates.append(np.diff(block["candidate_offsets"]))
    except InputError:
        return None
    if not rows:
        return None
    return Impressions(np.concatenate(rows), np.concatenate(history), np.concatenate(candidates))


def _folders(runs: Sequence[Run]) -> dict[Path, set[str]]:
    """The runs' data sets, each with the identities that the runs know it by."""
    out: dict[Path, set[str]] = {}
    for run in runs:
        if run.data is not None:
            out.setdefault(run.data, set()).add(str(run.made_from["inputs"].get("data", "")))
    return out


def _data_set(folder: Path, ids: set[str], name: str) -> list[Block]:
    try:
        manifest, identity = read_manifest(folder), manifest_hash(folder)
    except InputError:
        return [Paragraph(f"{folder}: the prepared data set is not there any more, so it is not described.")]
    blocks: list[Block] = []
    if ids - {identity, ""}:
        blocks.append(Paragraph(f"{folder} was prepared again since some of the runs were made from it."))
    counts = manifest["counts"]
    splits: dict[str, dict[str, int]] = counts.get("splits", {})
    if splits:
        rows: list[list[Cell | str]] = []
        for key, label, whole in _SPLIT_ROWS:
            rows.append([label, *(_count(split, key, whole) for split in splits.values())])
        for label, part, whole in _RATIOS:
            rows.append([label, *(f"{s[part] / s[whole]:.1f}" if s.get(whole) else "-" for s in splits.values())])
        for key, label in (("first_time", "First impression"), ("last_time", "Last impression")):
            rows.append([label, *(_time(s[key]) if s.get("impressions_kept") else "-" for s in splits.values())])
        blocks.append(Table(f"Impressions of {folder}.", ["", *splits], rows))
    blocks.append(_texts(manifest))
    panels = [_title_lengths(folder)]
    split = "train" if "train" in splits else next(iter(splits), "")
    facts = read_impression_facts(folder, split) if split else None
    if facts is None and "dev" in splits:
        split, facts = "dev", read_impression_facts(folder, "dev")
    if facts is not None:
        history = _distribution(facts.history, _HISTORIES)
        candidates = _distribution(facts.candidates, _CANDIDATES)
        panels.append(
            column_chart(f"History, % of {split} impressions", "clicked news before the impression", history, 1)
        )
        panels.append(
            column_chart(f"Candidates, % of {split} impressions", "candidates of the impression", candidates, 2)
        )
    shown = [panel for panel in panels if panel is not None]
    if shown:
        blocks.append(Figure(name, "Lengths of titles, histories and impressions.", shown))
    return blocks


def _texts(manifest: Manifest) -> Table:
    counts = manifest["counts"]
    news = counts.get("news", 0)
    rows: list[list[Cell | str]] = []
    if news:
        rows.append(["News", f"{news:,}"])
        rows.append(["Tokens a title, mean", f"{counts.get('title_tokens', 0) / news:.1f}"])
        rows.append(["News without an abstract", _share(counts.get("empty_abstracts", 0), news)])
    corpus = counts.get("corpus")
    if corpus:
        kept = max(corpus["kept"], 1)
        rows.append(["Articles of the matching task", f"{corpus['kept']:,}"])
        rows.append(["Tokens a body, mean", f"{corpus['body_tokens'] / kept:.1f}"])
    rows.append(["Tokenizer", str(manifest["tokenizer"]["name"])])
    rows.append(["Longest title and body kept, tokens", ", ".join(str(n) for n in manifest["max_lengths"].values())])
    return Table("Texts.", ["", "Value"], rows, words=2)


def _title_lengths(folder: Path) -> Drawing | None:
    try:
        lengths = np.diff(open_table(folder, "title").offsets)
    except (InputError, OSError):
        return None
    if not len(lengths):
        return None
    counted = np.bincount(lengths)
    first = int(np.flatnonzero(counted)[0])
    columns = [(str(first + i), float(n) / len(lengths)) for i, n in enumerate(counted[first:])]
    return column_chart("Titles, % of the news", "tokens, [CLS] and [SEP] included", columns)


def _distribution(values: np.ndarray, bins: Sequence[tuple[int, int | None]]) -> list[tuple[str, float]]:
    return [(_bin_name(low, high), float(_within(values, low, high).mean())) for low, high in bins]


def _within(values: np.ndarray, low: int, high: int | None) -> np.ndarray:
    inside: np.ndarray = (values >= low) & (values <= (high if high is not None else values.max(initial=0)))
    return inside


def _bin_name(low: int, high: int | None) -> str:
    return f"{low}+" if high is None else str(low) if low == high else f"{low}–{high}"


def _source(model: Model) -> tuple[Path, str] | None:
    place = model.group.first.data
    return (place, model.split) if place is not None else None


def _by_bin(
    means: tuple[np.ndarray, np.ndarray], facts: Impressions, name: str, bins: Sequence[tuple[int, int | None]]
) -> list[float | None] | None:
    """Mean AUC in percent of the impressions of each bin; None where the split is not the one that was scored."""
    rows, auc = means
    order = np.argsort(facts.rows, kind="stable")
    at = np.searchsorted(facts.rows[order], rows)
    if (at >= len(order)).any() or not np.array_equal(facts.rows[order][at], rows):
        return None
    sizes = getattr(facts, name)[order][at]
    out: list[float | None] = []
    for low, high in bins:
        chosen = _finite(auc[_within(sizes, low, high)])
        out.append(100 * float(chosen.mean()) if len(chosen) >= _FEW else None)
    return out


def _quantiles(found: Sequence[tuple[Model, tuple[np.ndarray, np.ndarray]]]) -> Table:
    marks = (0.1, 0.25, 0.5, 0.75, 0.9)
    rows: list[list[Cell | str]] = []
    for one, (_, auc) in found:
        values = _finite(auc)
        cells = [f"{100 * value:.1f}" for value in np.quantile(values, marks)]
        rows.append([one.name, f"{len(values):,}", *cells, f"{100 * float((values < 0.5).mean()):.1f}"])
    columns = ["Model", "Impressions", *(f"{100 * mark:.0f} %" for mark in marks), "Worse than chance, %"]
    return Table("Quantiles of the impressions' AUC, percent.", columns, rows)


def _finite(values: np.ndarray) -> np.ndarray:
    finite: np.ndarray = values[np.isfinite(values)]
    return finite


def _count(split: dict[str, int], key: str, whole: str) -> Cell:
    value = split.get(key)
    if value is None:
        return Cell("-", quiet=True)
    return Cell(f"{value:,}" if not whole else _share(value, split.get(whole, 0)))


def _share(value: int, whole: int) -> str:
    return f"{value:,} ({100 * value / whole:.1f} %)" if whole else f"{value:,}"


def _time(seconds: int) -> str:
    return str(np.datetime64(seconds, "s")).replace("T", " ")
