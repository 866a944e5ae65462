"""`tnr run CONFIG`: every stage in order, skipping what is complete, ending with one table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import numpy as np

from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.prepare.prepare import PrepareOptions, prepare, read_manifest
from tnr_dist.data.shards import read_index
from tnr_dist.engines.base import Engine
from tnr_dist.evaluation.metrics import NAMES, Metric
from tnr_dist.evaluation.results import read_baselines, read_results
from tnr_dist.evaluation.scoring import evaluate_split
from tnr_dist.evaluation.yardsticks import POPULAR, oracle_scorer, popularity_scorer, random_scorer
from tnr_dist.figures.tables import ORACLE
from tnr_dist.launch.environment import detect
from tnr_dist.runs.folder import RunFolder, in_order, with_folder_names
from tnr_dist.runs.owned import MARKS, is_run
from tnr_dist.runs.tracker import of_part_batches, read_metrics
from tnr_dist.stages.evaluate import labelled_index
from tnr_dist.stages.registry import make
from tnr_dist.stages.table_rows import evaluate_run, is_evaluated
from tnr_dist.stages.targets import each_seed, row_folder, rows_of
from tnr_dist.util.digests import read_sealed, write_sealed
from tnr_dist.util.ends import result
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json, write_json, write_text
from tnr_dist.util.json_types import JsonObject
from tnr_dist.util.progress import say

_SEEDS = "seeds.json"  # of which seeds a report is


def prepare_options(config: Config) -> PrepareOptions:
    """How `tnr run` prepares its data; generated raw files lie beside the prepared ones."""
    corpus = config.data.corpus
    if not config.data.input and not corpus and config.synth.bodies:
        corpus = str(raw_folder(config) / "corpus.tsv")
    return PrepareOptions(
        input=config.data.input or str(raw_folder(config)),
        corpus=corpus,
        plm=config.plm.name,
        title_tokens=config.data.title_tokens,
        body_tokens=config.data.body_tokens,
        dev_split=config.data.dev_split,
        test_split=config.data.test_split,
        max_unknown=config.data.max_unknown,
        news_inputs=tuple(config.data.news_inputs),
        category_tokens=config.data.category_tokens,
        subcategory_tokens=config.data.subcategory_tokens,
        abstract_tokens=config.data.abstract_tokens,
    )


def raw_folder(config: Config) -> Path:
    """Where generated raw files lie."""
    return Path(config.data.dir).with_name(Path(config.data.dir).name + "-raw")


def ensure_data(config: Config) -> None:
    """Generate (without `data.input`) and prepare the data, by rank 0; the other ranks wait for the manifest."""
    manifest = Path(config.data.dir) / "manifest.json"
    if detect().rank != 0:
        while not manifest.is_file():
            time.sleep(0.5)
        return
    if not config.data.input:
        from tnr_dist.synth.generate import synthesize

        synth = config.synth
        synthesize(
            raw_folder(config),
            news=synth.news,
            users=synth.users,
            impressions=synth.impressions,
            dev_impressions=synth.dev_impressions,
            test_impressions=synth.test_impressions,
            bodies=synth.bodies,
            body_words=synth.body_words,
            signal=synth.signal,
            seed=synth.seed,
        )
    prepare(prepare_options(config), Path(config.data.dir))


def is_complete(config: Config) -> bool:
    """Whether every stage of every seed is complete and evaluated."""
    try:
        read_manifest(config.data.dir)
        data = DataSet.open(config)
        for one in each_seed(config):
            runs, targets = placed_rows(one, data)
            if not all(run.is_complete() for run in runs) or not all(is_evaluated(run) for run in targets):
                return False
        yardsticks = Path(config.output) / "baselines.json"
        return yardsticks.is_file() and read_sealed(yardsticks).get("made_from") == _scored(config, data)
    except InputError:
        return False


def placed_rows(
    config: Config, data: DataSet, *, instead: bool = False, engine: Engine | None = None
) -> tuple[list[RunFolder], list[RunFolder]]:
    """All runs of one seed, inputs first, and of them those of the rows, each with its folder (`runs.folder.in_order`).

    With an `engine` all ranks get the folders that rank 0 has found: it may be ahead of them and have begun the first.
    """
    rows = [row_folder(config, data, row).key for row in rows_of(config)]
    runs = in_order([row_folder(config, data, row) for row in rows_of(config)], instead=instead)
    if engine is not None:
        names = "\n".join(run.path.name for run in runs)
        first = engine.gather(np.frombuffer(names.encode(), np.uint8))[0].tobytes().decode()
        runs = with_folder_names(runs, first.split("\n"))
    by_key = {run.key: run for run in runs}
    return runs, [by_key[key] for key in rows]


def run_chain(config: Config, engine: Engine, *, replace: bool = False) -> None:
    """All stages of all seeds on this rank; runs of other settings stay beside the new ones, or go with `replace`."""
    data = DataSet.open(config)
    labelled_index(data, config.evaluate.split)  # what cannot be scored is not trained for hours first
    for one in each_seed(config):
        if engine.environment.rank == 0 and config.seeds > 1:
            say(f"seed {one.seed}")
        runs, targets = placed_rows(one, data, instead=replace, engine=engine)
        for run in runs:
            if engine.environment.rank == 0 and (why := explain_new_folder(run)):
                say(f"{run.plain}: kept, it {why}; this run goes to {run.path.name}")
            make(run, engine, replace=replace)
        for run in targets:
            evaluate_run(run, engine)
    baselines(config, data, engine)


def explain_new_folder(run: RunFolder) -> str:
    """What is in the folder of a new run's plain name, where that is why the run goes beside it; '' else."""
    if run.path == run.plain or run.path.exists() or not run.plain.exists() or run.config.folders == "hashed":
        return ""
    if not is_run(run.plain):
        return f"is not a run of {run.stage}"
    made_from = read_sealed(run.plain / next(one for one in MARKS if (run.plain / one).is_file()))
    return f"has other settings ({', '.join(run.differences(made_from))})"


def _scored(config: Config, data: DataSet) -> dict[str, str]:
    """What the baselines' figures depend on."""
    return {"data": data.id, "split": config.evaluate.split}


def baselines(config: Config, data: DataSet, engine: Engine) -> None:
    """Score what needs no training, as yardsticks: OUTPUT/baselines.json."""
    out = Path(config.output) / "baselines.json"
    key = _scored(config, data)
    if out.is_file() and read_sealed(out).get("made_from") == key:
        return
    index = read_index(data.folder, config.evaluate.split)
    scorers = {
        "random": random_scorer(),
        POPULAR: popularity_scorer(data.folder, data.manifest["counts"]["news"]),
    }
    if not config.data.input and config.evaluate.split != "train":  # the generator keeps the truth of the other splits
        scorers[ORACLE] = oracle_scorer(raw_folder(config), config.evaluate.split)
    rows = {}
    for name, scorer in scorers.items():
        _, metrics = evaluate_split(data.folder, index, scorer, engine, f"evaluate {name}")
        rows[name] = metrics.mean()
    if engine.environment.rank == 0:
        write_sealed(out, {"made_from": key, "rows": rows})
    engine.barrier()


def report_folder(config: Config) -> Path:
    """Where the table of these seeds goes: OUTPUT/report, unless that is of a seed which this table would not have."""
    seeds, first = _seeds(config), Path(config.output) / "report"
    if (first / _SEEDS).is_file() and not _seeds_in(first) <= set(seeds):
        return first.with_name(f"report-seed-{seeds[0]}" if len(seeds) == 1 else f"report-seeds-{seeds[0]}-{seeds[-1]}")
    return first


def _seeds_in(report: Path) -> set[int]:
    seeds = read_json(report / _SEEDS)
    found = [one for one in seeds if isinstance(one, int)] if isinstance(seeds, list) else []
    return set(found) if isinstance(seeds, list) and len(found) == len(seeds) else set()


def _seeds(config: Config) -> list[int]:
    return list(range(config.seed, config.seed + config.seeds))


def report(config: Config) -> None:
    """Print the results table; write it as Markdown and JSON, and draw curves and quality against speed as PNG."""
    from rich.console import Console

    from tnr_dist.figures.plots import quality_vs_speed, training_curves
    from tnr_dist.figures.tables import results_markdown, results_table

    data = DataSet.open(config)
    base = Path(config.output)
    yardsticks = read_baselines(base / "baselines.json")
    table: list[dict[str, object]] = [
        {"model": name, **yardsticks[name]} for name in ("random", POPULAR) if name in yardsticks
    ]
    curves: dict[str, list[JsonObject]] = {}
    for row in rows_of(config):
        found = [read_results(row_folder(one, data, row).path / "results.json") for one in each_seed(config)]
        keys: tuple[Literal[Metric, "news_per_s"], ...] = (*NAMES, "news_per_s")
        table.append({"model": row.name, **found[0]["model"], **{key: [one[key] for one in found] for key in keys}})
    if ORACLE in yardsticks:
        table.append({"model": ORACLE, **yardsticks[ORACLE]})
    for one in each_seed(config):
        for place in placed_rows(one, data)[0]:
            if records := read_metrics(place.path / "metrics.jsonl"):
                name = place.path.name
                whole = [record for record, part in zip(records, of_part_batches(records), strict=True) if not part]
                curves[f"{name}/seed-{one.seed}" if config.seeds > 1 else name] = whole
    out = report_folder(config)
    out.mkdir(parents=True, exist_ok=True)
    text, page = results_markdown(table), out / "table.md"
    if page.is_file() and page.read_text(encoding="utf-8", errors="replace") != text:
        say(f"{page}: replaced, it was of other runs or results")
    write_json(out / _SEEDS, _seeds(config))
    write_json(out / "table.json", table)
    write_text(page, text)
    training_curves(curves, out / "training_curves.png")
    quality_vs_speed(table, out / "quality_vs_speed.png")
    split = config.evaluate.split
    count = yardsticks[next(iter(yardsticks))]["impressions"]
    seeds = f"{config.seeds} seeds, mean ± deviation" if config.seeds > 1 else f"seed {config.seed}"
    console = Console()
    # In a log file there is no width to fit: names must not be cut.
    console = console if console.is_terminal else Console(width=120)
    console.print(results_table(table, f"{split}: {count:,} impressions, {seeds}"))
    say(f"pictures and tables: {out}")
    result(f"{out}: table and pictures, {count:,} impressions of {split}, {seeds}")
