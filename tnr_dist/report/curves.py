"""How the trainings went: losses, accuracy, rates, the teachers' weights, and what a second of them did."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from tnr_dist.evaluation.statistics import mean_and_deviation
from tnr_dist.figures.charts import Series, line_chart
from tnr_dist.figures.drawing import Legend
from tnr_dist.figures.frame import figure
from tnr_dist.figures.palette import SERIES
from tnr_dist.report.group_by_seed import STAGES, Group
from tnr_dist.report.page import Block, Cell, Figure, Heading, Section, Table
from tnr_dist.report.read_runs import Run, number

_NAMES = {
    "train/loss": "Loss",
    "train/loss_distill": "Distillation loss",
    "train/loss_emb": "Embedding loss",
    "train/loss_emb_news": "Embedding loss, news",
    "train/loss_emb_user": "Embedding loss, user",
    "train/loss_target": "Target loss",
    "train/loss_embedding": "Loss of the embeddings",
    "train/loss_hidden": "Loss of the hidden states",
    "train/loss_attention": "Loss of the attention scores",
    "train/loss_pooled": "Loss of the pooled vectors",
    "train/loss_teacher": "Teacher's click loss",
    "train/accuracy": "Matching accuracy",
    "optim/lr": "Learning rate",
    "optim/grad_norm": "Gradient norm",
    "perf/samples_per_s": "Samples a second",
    "perf/news_per_s": "News encoded a second",
    "perf/tokens_per_s": "Tokens a second",
    "perf/mfu": "Model FLOPs utilisation",
    "perf/ms_per_step": "Milliseconds a step",
    "perf/data_wait_pct": "Waiting for data, %",
    "perf/dedupe_ratio": "Texts encoded over text slots",
    "memory/max_gib": "Peak memory, GiB",
}
_SHORT = {
    "perf/samples_per_s": "Samples/s",
    "perf/news_per_s": "News/s",
    "perf/tokens_per_s": "Tokens/s",
    "perf/mfu": "MFU",
    "perf/ms_per_step": "ms/step",
    "perf/data_wait_pct": "Data wait, %",
    "perf/dedupe_ratio": "Texts/slots",
    "memory/max_gib": "Memory, GiB",
}
_WEIGHT = re.compile(r"train/(?:.*_)?teacher_weight_(\d+)")
_PANELS_OF_TEACHERS = 6  # models with a panel of their own; the table has all


def curves_section(groups: Sequence[Group]) -> Section | None:
    """A figure a stage: one panel a metric, one line a run; the seeds of a training share a colour."""
    blocks: list[Block] = []
    for stage in _stages(groups):
        members = [group for group in groups if group.stage == stage and any(run.records for run in group.runs)]
        keys = _curve_keys(run for group in members for run in group.runs)
        panels = [
            line_chart(_title(key), "samples", _lines(members, lambda run, key=key: run.column(key)))  # type: ignore[misc]
            for key in keys
        ]
        found = [panel for panel in panels if panel is not None]
        if not found:
            continue
        blocks.append(Heading(stage))
        caption = f"Training of {stage}{_paler(members)}{_left_out(members)}."
        blocks.append(Figure(f"curves-{stage}", caption, found, _legend(members)))
        matching = _matching(members)
        if matching is not None:
            blocks.append(matching)
    return Section("training", "Training curves", blocks) if blocks else None


def teachers_section(groups: Sequence[Group]) -> Section | None:
    """What each teacher counts for: its weight over time, the weights' entropy, and omega."""
    members = [group for group in groups if any(_weight_keys(run) for run in group.runs)]
    if not members:
        return None
    blocks: list[Block] = []
    count = max(len(_weight_keys(run)) for group in members for run in group.runs)
    panels = []
    for group in members[:_PANELS_OF_TEACHERS]:
        series = [
            Series(f"teacher {i}{_seed(run, group)}", _samples(run), _whole(run, key), i, i // SERIES, bool(place))
            for place, run in enumerate(group.runs)
            for i, key in enumerate(_weight_keys(run))
        ]
        own = max(len(_weight_keys(run)) for run in group.runs)
        panels.append(
            line_chart(group.label, "samples", series, references=[(1 / own, "equal")], from_zero=True, log=False)
        )
    more = len(members) - _PANELS_OF_TEACHERS
    caption = "Mean weight of each teacher in the batches" + (f", the first {_PANELS_OF_TEACHERS} models" * (more > 0))
    legend = [Legend(f"teacher {i}", i % SERIES, i // SERIES) for i in range(count)]
    found = [panel for panel in panels if panel is not None]
    if found:
        blocks.append(Figure("teachers", f"{caption}.", found, legend))
    entropy = line_chart(
        "Entropy of the weights",
        "samples",
        _lines(members, lambda run: run.column("train/teacher_entropy")),
        references=[(math.log(count), f"equal trust: ln {count}")] if count > 1 else [],
        from_zero=True,
        log=False,
    )
    omega = line_chart(
        "omega", "samples", _lines(members, lambda run: run.column("train/omega")), from_zero=True, log=False
    )
    both = [panel for panel in (entropy, omega) if panel is not None]
    if both:
        words = "How far the weights are from equal trust, and the learned omega: the larger, the more the best teacher counts."
        blocks.append(Figure("trust", words, both, _legend(members)))
    blocks.append(_last_weights(members, count))
    return Section("teachers", "Teachers", blocks)


def speed_section(groups: Sequence[Group]) -> Section | None:
    """Means of what is logged of speed, waiting and memory, a row a training; and how they went."""
    keys = [key for key in _SHORT if any(run.mean(key) is not None for group in groups for run in group.runs)]
    if not keys:
        return None
    members = [group for group in groups if any(run.records for run in group.runs)]
    rows: list[list[Cell | str]] = [
        [group.label, group.stage, *(_mean(group.runs, key) for key in keys)] for group in members
    ]
    words = {
        "perf/mfu": "MFU: operations of the news encoder over what the devices can do",
        "perf/dedupe_ratio": "texts/slots: texts encoded over text slots of the batches",
    }
    caption = "; ".join(
        [
            "Means over a training (its first record, a warm-up, is left out) and its seeds, all ranks together",
            "of waiting and memory the worst rank counts",
            *(text for key, text in words.items() if key in keys),
        ]
    )
    blocks: list[Block] = [Table(f"{caption}.", ["Run", "Stage", *(_SHORT[key] for key in keys)], rows, words=2)]
    shown = [key for key in ("perf/samples_per_s", "perf/data_wait_pct", "memory/max_gib", "perf/mfu") if key in keys]
    panels = [
        line_chart(
            _NAMES[key],
            "% of the training",
            _lines(members, lambda run, key=key: run.column(key), _progress),  # type: ignore[misc]
            from_zero=True,
            log=None if key == "perf/samples_per_s" else False,
        )
        for key in shown
    ]
    found = [panel for panel in panels if panel is not None]
    if found:
        several = _paler(members)
        blocks.append(Figure("speed", f"Speed, waiting and memory while training{several}.", found, _legend(members)))
    ranks = _ranks(members)
    if ranks is not None:
        blocks.append(ranks)
    return Section("speed", "Speed", blocks)


def _stages(groups: Sequence[Group]) -> list[str]:
    there = {group.stage for group in groups if any(run.records for run in group.runs)}
    return [stage for stage in STAGES if stage in there] + sorted(there - set(STAGES))


def _curve_keys(runs: Iterable[Run]) -> list[str]:
    """Loss, its parts, what else the stage measures, then the optimiser; the teachers' figures have their own section."""
    met = dict.fromkeys(key for run in runs for record in run.records for key in record)
    keys = [key for key in met if key.startswith(("train/", "optim/"))]
    other = {"train/skipped_samples", "train/omega", "train/teacher_entropy"}
    return [key for key in keys if key not in other and not _WEIGHT.fullmatch(key)]


def _title(key: str) -> str:
    return _NAMES.get(key) or key.partition("/")[2].replace("_", " ")


def _lines(
    groups: Sequence[Group],
    values: Callable[[Run], list[float | None]],
    places: Callable[[Run], list[float]] | None = None,
) -> list[Series]:
    """A line a run over its samples, or over `places`; a group has a colour and a dash of its own."""
    at = places or _samples
    return [
        Series(group.label + _seed(run, group), at(run), _masked(run, values(run)), i % SERIES, i // SERIES, place > 0)
        for i, group in enumerate(groups)
        for place, run in enumerate(group.runs)
    ]


def _masked(run: Run, values: Sequence[float | None]) -> list[float | None]:
    """Without the records of an epoch's last batch where it is a smaller one: a figure of few samples is mostly chance."""
    return [None if small else value for small, value in zip(run.of_part_batches, values, strict=True)]


def _whole(run: Run, key: str) -> list[float | None]:
    return _masked(run, run.column(key))


def _left_out(groups: Sequence[Group]) -> str:
    some = any(any(run.of_part_batches) for group in groups for run in group.runs)
    return "; an epoch's last batch is left out where it is smaller than the others" if some else ""


def _paler(groups: Sequence[Group]) -> str:
    several = any(len(group.runs) > 1 for group in groups)
    return "; paler lines of one colour are further seeds" if several else ""


def _legend(groups: Sequence[Group]) -> list[Legend]:
    return [Legend(group.label, i % SERIES, i // SERIES) for i, group in enumerate(groups)]


def _samples(run: Run) -> list[float]:
    """Samples seen at each record; where a record does not say, its step or its place."""
    found = []
    for place, record in enumerate(run.records):
        said = (number(record.get(key)) for key in ("samples", "step"))
        found.append(next((value for value in said if value is not None), float(place)))
    return found


def _progress(run: Run) -> list[float]:
    steps = [step or 0.0 for step in run.column("step")]
    last = run.total_steps or max(steps, default=0.0) or 1.0
    return [100 * step / last for step in steps]


def _seed(run: Run, group: Group) -> str:
    return f", seed {run.seed}" if len(group.runs) > 1 else ""


def _weight_keys(run: Run) -> list[str]:
    keys = dict.fromkeys(key for record in run.records for key in record if _WEIGHT.fullmatch(key))
    return sorted(keys, key=lambda key: int(key.rpartition("_")[2]))


def _last_weights(groups: Sequence[Group], count: int) -> Table:
    rows = []
    for group in groups:
        keys = sorted({key for run in group.runs for key in _weight_keys(run)}, key=lambda k: int(k.rpartition("_")[2]))
        weights = [_last(group.runs, key) for key in keys] + ["-"] * (count - len(keys))
        rows.append(
            [group.label, *weights, _last(group.runs, "train/teacher_entropy"), _last(group.runs, "train/omega")]
        )
    columns = ["Model", *(f"Teacher {i}" for i in range(count)), "Entropy", "omega"]
    return Table("Weights at the last logged step, mean ± standard deviation over seeds.", columns, rows)


def _last(runs: Sequence[Run], key: str) -> str:
    values = [value for run in runs if (value := run.last(key)) is not None]
    if not values:
        return "-"
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")


def _matching(groups: Sequence[Group]) -> Table | None:
    """Accuracy on the pairs that were held out, measured after the last step."""
    key = "eval/matching_accuracy"
    rows = []
    for group in groups:
        values = [v for run in group.runs if run.complete and (v := number(run.complete.get(key))) is not None]
        if values:
            mean, deviation = mean_and_deviation(values)
            text = f"{100 * mean:.2f}" + ("" if deviation is None else f" ± {100 * deviation:.2f}")
            rows.append([group.label, text])
    return (
        Table("Matching accuracy on held-out pairs after the last step, percent.", ["Run", "Accuracy"], rows)
        if rows
        else None
    )


def _mean(runs: Sequence[Run], key: str) -> Cell:
    values = [value for run in runs if (value := run.mean(key)) is not None]
    if not values:
        return Cell("-", quiet=True)
    mean = math.fsum(values) / len(values)
    return Cell(f"{mean:,.0f}" if mean >= 1000 else figure(mean))


def _ranks(groups: Sequence[Group]) -> Table | None:
    """How alike the ranks are, of runs with several."""
    rows = []
    for group in groups:
        for run in group.runs:
            found: dict[str, list[float]] = {}
            for key in sorted({key for record in run.records for key in record if key.startswith("ranks/")}):
                mean = run.mean(key)
                if mean is not None:
                    found.setdefault(key.partition("/")[2].rpartition("_")[0], []).append(mean)
            if found:
                cells = [found.get(name, []) for name in ("data_wait_pct", "cpu_pct", "max_gib")]
                ranks = str(max(map(len, found.values())))
                rows.append([group.label + _seed(run, group), ranks, *(_least_and_most(one) for one in cells)])
    columns = ["Run", "Ranks", "Waiting for data, %", "CPU, %", "Peak memory, GiB"]
    return Table("The least and the most of the ranks' means.", columns, rows) if rows else None


def _least_and_most(values: Sequence[float]) -> str:
    return f"{figure(min(values))} to {figure(max(values))}" if values else "-"
