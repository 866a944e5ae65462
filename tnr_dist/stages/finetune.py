"""Finetuning on clicks: the M teachers from the post-trained PLM, PLM-NR-n (FT) from the plain one, PLM-NR-n (FP) from
the further pre-trained one, and the student of stage 1 without stage 2 (Fig. 4)."""

from __future__ import annotations

from torch import Tensor, nn

from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.losses.common import click_loss
from tnr_dist.models.recommender import Recommender
from tnr_dist.runs.folder import RunFolder
from tnr_dist.stages import further_pretrain, post_train, stage1
from tnr_dist.stages.finetune_settings import FinetuneConfig
from tnr_dist.stages.parts.click_data import click_loader, fit_scale
from tnr_dist.stages.parts.click_task import ClickInputs, ClickTask, ClickTitles
from tnr_dist.stages.parts.recipes import BATCH_SETTINGS, MODEL_SETTINGS, folder, recipe
from tnr_dist.stages.parts.start_models import continued_model, freeze, fresh_model, with_fresh_user_encoder
from tnr_dist.stages.stage import RowRun, Training
from tnr_dist.util.errors import InputError

_TEACHER_SEED = 1000  # teacher i of seed s draws from seed 1000 * (i + 1) + s: other numbers than any stage's own


class ClickModule(nn.Module):
    """The click loss on a batch."""

    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: ClickInputs) -> dict[str, Tensor]:
        """This rank's share of the loss."""
        news = inputs.encode(self.model.news_encoder)
        _, scores = inputs.users_and_scores(self.model, news)
        return {"loss": click_loss(scores, inputs.weights, inputs.count, inputs.candidate_mask)}


def _settings(config: Config) -> tuple[str, ...]:
    # Which of the models are trained does not change what one of them becomes.
    return (
        *MODEL_SETTINGS,
        *BATCH_SETTINGS,
        *recipe("finetune", FinetuneConfig.of(config), ("teachers", "teachers_by", "teacher", "layers", "init")),
    )


def _teacher_settings(config: Config, **finetune: object) -> Config:
    """The configuration as `tnr finetune` would have to be told to make this one model: what its config.yaml says."""
    return FinetuneConfig.changed(config, **finetune)


def teacher_folder(config: Config, data: DataSet, teacher: int) -> RunFolder:
    """Where teacher `teacher` lies and what it depends on; M itself does not matter to one teacher."""
    inputs: dict[str, str | RunFolder] = {"data": data.id, "post-train": post_train.run_folder(config, data)}
    extra = {"teacher": teacher}
    if FinetuneConfig.of(config).teachers_by == "checkpoints" and teacher:  # both forms have the same first teacher
        extra["before_end"] = teacher
    told = _teacher_settings(config, init="post-train", layers=0, teacher=teacher)
    return RunFolder(f"teacher-{teacher}", "finetune", told, _settings(config), inputs, extra)


def plain_folder(config: Config, data: DataSet, layers: int) -> RunFolder:
    """Where PLM-NR-n (FT) lies: the plain PLM's first `layers` layers, finetuned."""
    name = f"finetune-{layers or 'all'}"
    told = _teacher_settings(config, init="plm", layers=layers, teacher=-1)
    return RunFolder(name, "finetune", told, _settings(config), {"data": data.id}, {"layers": layers})


def further_folder(config: Config, data: DataSet, layers: int) -> RunFolder:
    """Where PLM-NR-n (FP) lies: the further pre-trained PLM, finetuned under the same fresh head as PLM-NR-n (FT)."""
    source = further_pretrain.run_folder(config, data, layers)
    inputs: dict[str, str | RunFolder] = {"data": data.id, source.stage: source}
    name = f"further-finetune-{layers or 'all'}"
    told = _teacher_settings(config, init="further-pretrain", layers=layers, teacher=-1)
    return RunFolder(name, "finetune", told, _settings(config), inputs, {"further": layers})


def student_folder(config: Config, data: DataSet) -> RunFolder:
    """Where the stage-1 student of `student.layers` layers lies that is finetuned instead of distilled a second time."""
    inputs: dict[str, str | RunFolder] = {"data": data.id, "stage1": stage1.run_folder(config, data)}
    name = f"stage1-finetune-{config.student.layers}"
    told = _teacher_settings(config, init="stage1", layers=0, teacher=-1)
    return RunFolder(name, "finetune", told, _settings(config), inputs, {"student": config.student.layers})


def runs(config: Config, data: DataSet) -> list[RunFolder]:
    """What `tnr finetune` makes: the M teachers, the one that `finetune.teacher` names, or what `finetune.init` says."""
    train = FinetuneConfig.of(config)
    if train.init == "plm":
        return [plain_folder(config, data, train.layers)]
    if train.init == "further-pretrain":
        return [further_folder(config, data, train.layers)]
    if train.init == "stage1":
        return [student_folder(config, data)]
    if train.teacher >= train.teachers:
        raise InputError(f"finetune.teacher={train.teacher}: the teachers are 0 to {train.teachers - 1}")
    chosen = range(train.teachers) if train.teacher < 0 else [train.teacher]
    return [teacher_folder(config, data, teacher) for teacher in chosen]


def build(run: RunFolder, data: DataSet, engine: Engine) -> ClickTask:
    """A post-trained PLM with a teacher's seed, the plain or the further pre-trained one, or a student of stage 1."""
    config = run.config
    teacher = run.extra.get("teacher")
    seed = config.seed if teacher is None else _TEACHER_SEED * (teacher + 1) + config.seed
    if "layers" in run.extra:
        model, spec = fresh_model(config, data, run.extra["layers"], seed, run.stage)
        title = f"finetune ({spec.encoder.layers} layers)"
    elif "further" in run.extra:
        source = further_pretrain.run_folder(config, data, run.extra["further"])
        model, spec = continued_model(config, source.path, source.stage)
        title = f"further-finetune ({spec.encoder.layers} layers)"
    elif "student" in run.extra:
        model, spec = continued_model(config, stage1.run_folder(config, data).path, "stage1")
        model = with_fresh_user_encoder(model, spec, seed, run.stage)
        title = f"stage1, then finetune ({spec.encoder.layers} layers)"
    else:
        source, before_end = post_train.run_folder(config, data), run.extra.get("before_end", 0)
        model, spec = continued_model(config, source.path, "post-train", before_end)
        model = with_fresh_user_encoder(model, spec, seed, run.stage)
        title = f"teacher {teacher}"
    return _task(config, data, engine, model, seed, title)


def _task(config: Config, data: DataSet, engine: Engine, model: Recommender, seed: int, title: str) -> ClickTask:
    train = FinetuneConfig.of(config)
    freeze(model.news_encoder, train, engine)
    loader, held_out = click_loader(config, data, train, seed, engine)
    fit_scale(config, data, train, model, loader, engine)
    titles = ClickTitles(
        data.news_tokens(config.data),
        config.data.news_tokens,
        model.news_encoder,
        train,
        engine,
        folder(config, "frozen"),
    )
    return ClickTask(model, ClickModule(model), titles, loader, train, seed, title, held_out)


STAGES = (Training("finetune", build),)
ROWS: dict[str, RowRun] = {
    "teacher": lambda config, data, layers: teacher_folder(config, data, 0),
    "finetune": plain_folder,
    "further-pretrain": further_folder,
    "stage1": lambda config, data, layers: student_folder(config, data),
}
