"""`tnr evaluate` and `tnr predict`: a trained model's scores of a split, as metrics or as MIND's submission."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.parquet import read_table
from tnr_dist.data.shards import SplitIndex, read_index
from tnr_dist.data.tokens import RaggedTable
from tnr_dist.engines.base import Engine
from tnr_dist.engines.precision import choose_precision
from tnr_dist.evaluation.metrics import NAMES, ImpressionMetrics, Metric
from tnr_dist.evaluation.results import MadeFrom, Results, read_results
from tnr_dist.evaluation.scoring import encode_table, evaluate_split, length_chunks, recommender_scorer, score_split
from tnr_dist.evaluation.submission import check_prediction, write_prediction
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import NewsEncoder, Recommender, count_parameters, load_recommender
from tnr_dist.runs.finished import Mark, check_file, check_run, read_done
from tnr_dist.runs.folder import completed_id
from tnr_dist.runs.places import run_config
from tnr_dist.runs.tracker import METRICS, log_evaluation
from tnr_dist.runs.wandb_tables import Table, nearest_news, news_titles, worst_impressions
from tnr_dist.stages.chosen import chosen_run
from tnr_dist.stages.methods import Tree
from tnr_dist.stages.run import stop_if_asked
from tnr_dist.util.digests import describe, fault, write_sealed
from tnr_dist.util.ends import result
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path, read_json_object
from tnr_dist.util.hardware import cores
from tnr_dist.util.progress import say

IMPRESSIONS = "impressions.parquet"
_MANY_TIED = 0.05  # a few percent are users without a history, for whom every model scores all candidates alike


def _load(run: Path, engine: Engine, config: Config, data: DataSet) -> tuple[Recommender, Mark, Config]:
    done = read_done(run, "training")
    trained_with = run_config(Tree, run)
    model, _ = load_recommender(run / "model.safetensors")
    for name in ("config.yaml", "model.safetensors"):
        check_file(run, name)
    if isinstance(done.get("tokenizer"), str):
        data.check_tokenizer(done["tokenizer"], trained_with.plm.name)
    else:  # of an earlier version
        data.check_tokenizer_name(trained_with.plm.name)
    if trained_with.data.news_inputs != config.data.news_inputs:
        raise InputError(
            f"data.news_inputs={config.data.news_inputs}: {run} was trained on {trained_with.data.news_inputs}"
        )
    # The engine is set up without a module to train: evaluation only needs its precision.
    engine.use_precision(config.precision)
    return model.to(engine.device).eval(), done, trained_with


def labelled_index(data: DataSet, split: str) -> SplitIndex:
    """The index of a split that can be evaluated. Raises InputError for one that is not there or has no labels."""
    index = read_index(data.folder, split)
    if not index.labelled:
        raise InputError(f"{data.folder}: the {split} split has no labels; use `tnr predict` and the leaderboard")
    return index


def result_key(config: Config, data_id: str, run_id: str) -> MadeFrom:
    """What a result follows from: the model by its run's id, the data by its own, split and settings."""
    return {
        "run": run_id,
        "data": data_id,
        "split": config.evaluate.split,
        "history": config.data.history,
        "news_inputs": config.data.news_inputs,
        "tokens": [getattr(config.data, f"{name}_tokens") for name in config.data.news_inputs],
        "precision": config.precision,
    }


LABELS: dict[Metric, str] = {"auc": "AUC", "mrr": "MRR", "ndcg5": "nDCG@5", "ndcg10": "nDCG@10"}


def evaluate(config: Config, engine: Engine) -> Results:
    """Score `evaluate.split` with the model of `evaluate.run`; writes and returns RUN/results.json.

    A result that is already there for the same model, data, split and settings is returned as it is.
    """
    data = DataSet.open(config)
    run, split = chosen_run(config, data), config.evaluate.split
    index = labelled_index(data, split)
    results = run / "results.json"
    key = result_key(config, data.id, completed_id(run, "training"))
    if results.is_file():
        before = read_results(results)
        if before.get("made_from") == key:
            check_run(run)
            if engine.environment.rank == 0:
                say(f"{results}: complete, skipped")
                result(_in_words(results, before))
            return before
        if engine.environment.rank == 0:
            say(f"{results}: of another model, data or settings; replaced")
    stop_if_asked(engine, f"evaluate {split}")
    model, done, trained_with = _load(run, engine, config, data)
    began = time.monotonic()
    texts = data.news_tokens(config.data)
    news = encode_table(model.news_encoder, texts, config.data.news_tokens, engine, "encode news")
    scorer = recommender_scorer(model, news, config.data.history)
    rows, metrics = evaluate_split(data.folder, index, scorer, engine, f"evaluate {split}")
    mean = metrics.mean()
    seconds = time.monotonic() - began
    if engine.environment.rank == 0:
        out: Results = {
            "stage": done["stage"],
            "split": split,
            "auc": mean["auc"],
            "mrr": mean["mrr"],
            "ndcg5": mean["ndcg5"],
            "ndcg10": mean["ndcg10"],
            "impressions": mean["impressions"],
            "skipped": mean["skipped"],
            "tied": metrics.tied_share,
            "model": {
                "layers": len(model.news_encoder.encoder.layers),
                "parameters": count_parameters(model),
                "news_encoder_parameters": count_parameters(model.news_encoder),
            },
            "seed": trained_with.seed,
            "seconds": round(seconds, 2),
            "train_seconds": done.get("seconds"),
            "news_per_s": round(news_per_second(model.news_encoder, texts, config.data.news_tokens, engine), 1),
            "made_from": key,
        }
        if metrics.tied_share > _MANY_TIED:
            say(
                f"{run}: in {metrics.tied_share:.1%} of the impressions a click ties with other candidates, as it does for "
                "users without a history; MRR and nDCG are means over the orders of tied candidates"
            )
        write_impressions(run / IMPRESSIONS, rows, metrics)

        def tables() -> dict[str, Table]:
            titles = news_titles(data.folder)
            return {
                "eval/worst_impressions": worst_impressions(data.folder, index, rows, metrics, scorer, titles),
                "eval/nearest_news": nearest_news(news, titles),
            }

        # The user's own configuration decides where tables go, never that of a run folder from elsewhere.
        trained_with.wandb = config.wandb
        figures: dict[str, float | str] = {"eval/split": split, **{f"eval/{name}": mean[name] for name in NAMES}}
        log_evaluation(run, trained_with, figures, tables)
        out["files"] = {**describe(run, [IMPRESSIONS, METRICS])}
        write_sealed(results, out)
    engine.barrier()
    written = read_results(results)
    if engine.environment.rank == 0:
        result(_in_words(results, written))
    return written


def _in_words(path: Path, results: Results) -> str:
    figures = ", ".join(f"{label} {100 * results[key]:.2f}" for key, label in LABELS.items())
    return f"{path}: {figures}; {scored(results)}"


def scored(results: Results) -> str:
    """How many impressions the metrics are of, and how many had to be left out, in words."""
    said = f"{results['impressions']:,} impressions of {results['split']}"
    skipped = results.get("skipped", 0)
    if skipped:
        share = 100 * skipped / (results["impressions"] + skipped)
        said += f"; {skipped:,} ({share:.1f} %) are skipped: all or none of their candidates were clicked"
    return said


def write_impressions(path: Path, rows: np.ndarray, metrics: ImpressionMetrics) -> None:
    """Keep every impression's metrics, for paired tests: `row` (of the raw file), auc, mrr, ndcg5, ndcg10; NaN: skipped."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, np.ndarray] = {"row": rows.astype(np.int32)} | {name: getattr(metrics, name) for name in NAMES}
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


def read_impressions(path: Path) -> dict[str, np.ndarray]:
    """What `write_impressions` wrote beside a results.json. Raises InputError when it is not there or damaged."""
    results = path.with_name("results.json")
    files = read_json_object(results).get("files") if results.is_file() else None
    if path.is_file() and isinstance(files, dict) and (found := fault(path.parent, path.name, files)):
        raise InputError(f"{path}: {found}; delete {results} and run `tnr evaluate` again")
    if not path.is_file():
        raise InputError(f"{path}: no per-impression scores; run `tnr evaluate` again")
    table = read_table(path, ["row", *NAMES])
    return {name: table[name].to_numpy() for name in table.column_names}


@torch.no_grad()
def news_per_second(
    encoder: NewsEncoder, titles: RaggedTable, max_length: int, engine: Engine, news: int = 2048, seconds: float = 1.5
) -> float:
    """Titles encoded a second by this process on the whole machine: the best pass over up to `news` titles.

    There are up to 3 passes, fewer when they have taken `seconds`. A large model on a CPU has one: it is its own warm-up.
    """
    rows = length_chunks(RaggedTable(titles.values, titles.offsets[: news + 1]), max_length, engine.device)
    batches = [Packed.gather(titles.values, titles.offsets, part, max_length).to(engine.device) for part in rows]
    count = sum(len(part) for part in rows)
    threads = torch.get_num_threads()
    if engine.device.type == "cpu":
        torch.set_num_threads(cores())
    took: list[float] = []
    while len(took) < 3 and sum(took) < seconds:
        began = time.perf_counter()
        for batch in batches:
            with engine.autocast():
                encoder(batch)
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    return count / min(took)


def predict(config: Config, engine: Engine) -> Path:
    """Rank every candidate of `evaluate.split` and write RUN/prediction.zip, checked against the split."""
    data = DataSet.open(config)
    run, split = chosen_run(config, data), config.evaluate.split
    index = read_index(data.folder, split)
    out = run / "prediction.zip"
    model, _, _ = _load(run, engine, config, data)
    texts = data.news_tokens(config.data)
    news = encode_table(model.news_encoder, texts, config.data.news_tokens, engine, "encode news")
    scored = score_split(
        data.folder, index, recommender_scorer(model, news, config.data.history), engine, f"score {split}"
    )
    if engine.environment.rank == 0:
        if out.exists():
            say(f"{out}: replaced")
        write_prediction(out, scored.impression_id, scored.scores, scored.offsets)
        counts = scored.offsets[1:] - scored.offsets[:-1]
        facts = check_prediction(out, [(scored.impression_id, counts)])
        precision = choose_precision(config.precision, engine.device)
        said = f"{out}: {facts['impressions']:,} impressions of {split}, {precision}, checked"
        say(said)
        result(said)
    engine.barrier()
    return out


def expected_of_split(folder: Path, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Impression ids and candidate counts of a prepared split in the raw file's order, for `tnr predict --check`."""
    import numpy as np

    from tnr_dist.data.shards import read_shard

    rows, ids, counts = [], [], []
    index = read_index(folder, split)
    for info in index.shards:
        for block in read_shard(folder / split / info.name, info).values():
            rows.append(block["row"])
            ids.append(block["impression_id"])
            counts.append(np.diff(block["candidate_offsets"]))
    order = np.argsort(np.concatenate(rows), kind="stable")
    return [(np.concatenate(ids)[order], np.concatenate(counts)[order].astype(np.int64))]
