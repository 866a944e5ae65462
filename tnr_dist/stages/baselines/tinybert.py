"""TinyBERT from PLM-NR-12 (DP) (Jiao et al. 2020), in its three trainings, each with a run folder of its own.

- general: the student learns embeddings, states and attention scores from the post-trained PLM, on the News corpus. It
  starts from the PLM's first layers (as every student in Tiny-NewsRec), not from random weights.
- intermediate: the same losses from the finetuned teacher (teacher 0), on the news of click samples.
- prediction: the finetuned teacher's soft labels of a sample's candidates.

Of the task-specific trainings only the last `trainable_layers` learn (Tiny-NewsRec, "Experiment Settings": 2), so only
their losses are computed; with -1 it is all, the embeddings' too, as in TinyBERT's paper. What of the teacher is the
same in every step is computed once: its states below the first layer that is asked for, and its news vectors. TinyBERT's
data augmentation has no counterpart for click data and is left out.

With `tinybert.form=joint` it is one training instead of three: `tinybert_joint`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from tnr_dist.config.schema import Config
from tnr_dist.config.training import ClickTrainConfig
from tnr_dist.data.batches.clicks import Batch
from tnr_dist.data.batches.matching import MatchingLoader
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.evaluation.scoring import encode_table
from tnr_dist.losses.common import mean_over_batch
from tnr_dist.losses.newsbert import mean_over_slots
from tnr_dist.losses.tinybert import prediction_loss, state_loss, uniform_mapping
from tnr_dist.models.flops import plm_flops
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import Recommender
from tnr_dist.models.transformer import Encoder
from tnr_dist.runs.folder import RunFolder
from tnr_dist.stages import finetune, post_train
from tnr_dist.stages.baselines import tinybert_joint
from tnr_dist.stages.baselines.common import (
    BesideTeacher,
    TeacherClickTask,
    WithTeacher,
    layer_losses,
    states_and_scores,
)
from tnr_dist.stages.baselines.tinybert_settings import GeneralConfig, TinyBERTConfig
from tnr_dist.stages.parts.click_data import click_loader, fit_scale
from tnr_dist.stages.parts.click_task import ClickInputs, ClickTitles
from tnr_dist.stages.parts.corpus_task import CorpusTask, CountsItself, corpus_texts, in_parts
from tnr_dist.stages.parts.recipes import BATCH_SETTINGS, MODEL_SETTINGS, folder, recipe
from tnr_dist.stages.parts.start_models import continued_model, freeze, trained_model
from tnr_dist.stages.stage import RowRun, Training
from tnr_dist.stages.stage1 import first_layers
from tnr_dist.util.transfer import to_device

PARTS = ("loss_embedding", "loss_hidden", "loss_attention")


class LayerDistillation(WithTeacher):
    """L_embd, L_hidn and L_attn of texts; student layer m learns from the teacher's layer g(m) = m * N / M.

    W_e and W_h are learned where the widths differ and are the identity where they are equal.
    """

    def __init__(self, student: Encoder, teacher: Encoder, token_budget: int) -> None:
        super().__init__(teacher)
        self.student, self.budget = student, token_budget
        self.mapping = uniform_mapping(len(student.layers), len(teacher.layers))
        if student.frozen_embeddings:
            # The teacher's layers below give nothing that a loss wants.
            teacher.frozen_layers = min(self.mapping[student.frozen_layers :], default=1) - 1
        narrow, wide = student.config.hidden, teacher.config.hidden
        self.project_states: nn.Parameter | None = None
        self.project_embeddings: nn.Parameter | None = None
        if narrow != wide:
            self.project_states = nn.Parameter(torch.randn(narrow, wide) * narrow**-0.5)
            if not student.frozen_embeddings:
                self.project_embeddings = nn.Parameter(torch.randn(narrow, wide) * narrow**-0.5)

    def losses(self, texts: Packed, below: Tensor | None = None, teacher_below: Tensor | None = None) -> Tensor:
        """[U, 3] of each text in the caller's order: the embeddings' loss, the states', the attention scores'.

        Args:
            texts: U texts, T tokens.
            below, teacher_below: [T, hidden] what the frozen layers of each make of them, where it is known.
        """
        order = texts.by_length
        known = [None if states is None else order.enter(states) for states in (below, teacher_below)]

        def compute(part: Packed, rows: slice) -> Tensor:
            return self._losses(part, *(None if states is None else states[rows] for states in known))

        return order.leave_rows(in_parts(texts, self.budget, compute))

    def _losses(self, texts: Packed, below: Tensor | None, teacher_below: Tensor | None) -> Tensor:
        first, teacher_first = self.student.frozen_layers, self._encoder.frozen_layers
        states, scores = states_and_scores(self.student, texts, below)
        with torch.no_grad():
            teacher_states, teacher_scores = states_and_scores(self._encoder, texts, teacher_below)
        embedding = states[-1].new_zeros(len(texts), dtype=torch.float32)
        if not self.student.frozen_embeddings:
            lengths = to_device(texts.lengths, texts.tokens.device)
            embedding = state_loss(states[0], teacher_states[0], texts.sequences, lengths, self.project_embeddings)
        layers = [layer - teacher_first for layer in self.mapping[first:]]
        hidden, attention = layer_losses(
            (states, scores), (teacher_states, teacher_scores), texts, layers, self.project_states
        )
        return torch.stack([embedding, hidden, attention], 1)

    def encoded_texts(self, texts: Packed, first: int, teacher_first: int) -> tuple[np.ndarray, float]:
        """What `CountsItself` asks for, of a step that starts with these layers."""
        flops = plm_flops(self.student, texts.lengths, first)
        return texts.lengths, flops + plm_flops(self._encoder, texts.lengths, teacher_first, trains=False)

    @property
    def _encoder(self) -> Encoder:
        teacher = self._teacher[0]
        assert isinstance(teacher, Encoder)
        return teacher


@dataclass
class CorpusInputs:
    """Texts of the corpus on the device: bodies, then titles."""

    texts: Packed
    weights: Tensor  # [2 B]
    count: float  # news of the global batch


class GeneralModule(LayerDistillation, CountsItself[CorpusInputs]):
    """General distillation: the mean of the losses over a news' two texts, then over the news."""

    def forward(self, inputs: CorpusInputs) -> dict[str, Tensor]:
        """This rank's share of the loss and of its parts."""
        per_text = self.losses(inputs.texts).unbind(1)
        parts = [mean_over_batch(loss, inputs.weights / 2, inputs.count) for loss in per_text]
        return {"loss": sum(parts[1:], parts[0]), **dict(zip(PARTS, parts, strict=True))}

    @override
    def encoded(self, inputs: CorpusInputs) -> tuple[np.ndarray, float]:
        return self.encoded_texts(inputs.texts, 0, 0)


class IntermediateModule(LayerDistillation, BesideTeacher, CountsItself[ClickInputs]):
    """Task-specific distillation between layers: the mean of the losses over a click sample's news."""

    @override
    def prepare(self, titles: ClickTitles, title: str) -> None:
        titles.prepare_teacher(self._encoder, title)

    def forward(self, inputs: ClickInputs) -> dict[str, Tensor]:
        """This rank's share of the loss and of its parts."""
        losses = self.losses(inputs.titles, inputs.frozen, inputs.teacher_frozen)
        per_text = inputs.spread(losses).unbind(1)
        slots, mask = inputs.slots()
        parts = [mean_over_slots(loss, slots, mask, inputs.weights, inputs.count) for loss in per_text]
        return {"loss": sum(parts[1:], parts[0]), **dict(zip(PARTS, parts, strict=True))}

    @override
    def encoded(self, inputs: ClickInputs) -> tuple[np.ndarray, float]:
        first = 0 if inputs.frozen is None else self.student.frozen_layers
        teacher_first = 0 if inputs.teacher_frozen is None else self._encoder.frozen_layers
        return self.encoded_texts(inputs.titles, first, teacher_first)


class PredictionModule(WithTeacher, BesideTeacher):
    """Task-specific distillation of the prediction layer: L_pred on the scores of a sample's candidates.

    The teacher's news vectors come from a table; `prepare` fills it.
    """

    def __init__(self, student: Recommender, teacher: Recommender, temperature: float) -> None:
        super().__init__(teacher)
        self.student, self.temperature = student, temperature
        self._table: Tensor | None = None

    @override
    def prepare(self, titles: ClickTitles, title: str) -> None:
        teacher = self._teacher[0]
        assert isinstance(teacher, Recommender)
        self._table = encode_table(teacher.news_encoder, titles.titles, titles.longest, titles.engine, title)

    def forward(self, inputs: ClickInputs) -> dict[str, Tensor]:
        """This rank's share of the loss."""
        assert self._table is not None
        news = inputs.encode(self.student.news_encoder)
        _, scores = inputs.users_and_scores(self.student, news)
        with torch.no_grad():
            teacher_news = F.embedding(inputs.news, self._table)
            _, teacher_scores = inputs.users_and_scores(self._teacher[0], teacher_news)  # type: ignore[arg-type]
        loss = prediction_loss(
            teacher_scores, scores, self.temperature, inputs.weights, inputs.count, inputs.candidate_mask
        )
        return {"loss": loss}


def general_folder(config: Config, data: DataSet) -> RunFolder:
    """Where the student of the general distillation lies and what it depends on."""
    inputs: dict[str, str | RunFolder] = {"data": data.id, "post-train": post_train.run_folder(config, data)}
    settings = (*MODEL_SETTINGS, "student", *recipe("tinybert.general", TinyBERTConfig.of(config).general))
    return RunFolder(f"tinybert-general-{config.student.layers}", "tinybert-general", config, settings, inputs, {})


def intermediate_folder(config: Config, data: DataSet) -> RunFolder:
    """Where the student of the distillation between layers lies and what it depends on."""
    settings = (
        *MODEL_SETTINGS,
        *BATCH_SETTINGS,
        *recipe("tinybert.intermediate", TinyBERTConfig.of(config).intermediate),
    )
    inputs: dict[str, str | RunFolder] = {
        "data": data.id,
        "tinybert-general": general_folder(config, data),
        "teacher": finetune.teacher_folder(config, data, 0),
    }
    name = f"tinybert-intermediate-{config.student.layers}"
    return RunFolder(name, "tinybert-intermediate", config, settings, inputs, {})


def run_folder(config: Config, data: DataSet) -> RunFolder:
    """Where TinyBERT-n lies, n = `student.layers`, and what it depends on; of either form."""
    if TinyBERTConfig.of(config).form == "joint":
        return tinybert_joint.run_folder(config, data)
    settings = (*MODEL_SETTINGS, *BATCH_SETTINGS, *recipe("tinybert.prediction", TinyBERTConfig.of(config).prediction))
    inputs: dict[str, str | RunFolder] = {
        "data": data.id,
        "tinybert-intermediate": intermediate_folder(config, data),
        "teacher": finetune.teacher_folder(config, data, 0),
    }
    return RunFolder(f"tinybert-{config.student.layers}", "tinybert", config, settings, inputs, {})


def runs(config: Config, data: DataSet) -> list[RunFolder]:
    """What `tnr baseline tinybert` makes: all three trainings of TinyBERT-n, or its joint one."""
    if TinyBERTConfig.of(config).form == "joint":
        return [run_folder(config, data)]
    return [general_folder(config, data), intermediate_folder(config, data), run_folder(config, data)]


def build_general(run: RunFolder, data: DataSet, engine: Engine) -> CorpusTask:
    """The student of the general distillation."""
    config, train, env = run.config, TinyBERTConfig.of(run.config).general, engine.environment
    teacher, _ = trained_model(post_train.run_folder(config, data).path, "post-train")
    student, _ = first_layers(config, data, config.student.init, run.stage)
    freeze(student.news_encoder, train, engine)
    loader = MatchingLoader(data.folder, train.batch_size, 0, config.seed, 0.0, env.rank, env.world_size)
    news_encoder = student.news_encoder
    module = GeneralModule(news_encoder.encoder, teacher.news_encoder.encoder, news_encoder.token_budget)
    return CorpusTask(
        student,
        module,
        loader,
        train,
        config.seed,
        run.name,
        lambda batch: _corpus_inputs(batch, loader, train, engine.device),
    )


def _corpus_inputs(batch: Batch, loader: MatchingLoader, train: GeneralConfig, device: torch.device) -> CorpusInputs:
    texts = corpus_texts(batch, loader, train.title_tokens, train.body_tokens).to(device)
    return CorpusInputs(texts, to_device(np.tile(batch["weights"], 2), device), float(batch["count"]))


def build_intermediate(run: RunFolder, data: DataSet, engine: Engine) -> TeacherClickTask:
    """The student of the distillation between layers."""
    config, train = run.config, TinyBERTConfig.of(run.config).intermediate
    student, teacher = _student(config, general_folder(config, data)), _teacher(config, data)
    freeze(student.news_encoder, train, engine)
    titles = _titles(config, data, student, train, engine)
    encoders = student.news_encoder.encoder, teacher.news_encoder.encoder
    module = IntermediateModule(*encoders, student.news_encoder.token_budget)
    loader, held_out = click_loader(config, data, train, config.seed, engine)
    return TeacherClickTask(student, module, titles, loader, train, config.seed, run.name, held_out)


def build(run: RunFolder, data: DataSet, engine: Engine) -> TeacherClickTask:
    """TinyBERT-n, from the student of the distillation between layers."""
    config, train = run.config, TinyBERTConfig.of(run.config).prediction
    student, teacher = _student(config, intermediate_folder(config, data)), _teacher(config, data)
    freeze(student.news_encoder, train, engine)
    titles = _titles(config, data, student, train, engine)
    module = PredictionModule(student, teacher, train.temperature)
    loader, held_out = click_loader(config, data, train, config.seed, engine)
    fit_scale(config, data, train, student, loader, engine)
    return TeacherClickTask(student, module, titles, loader, train, config.seed, run.name, held_out)


def _student(config: Config, source: RunFolder) -> Recommender:
    return continued_model(config, source.path, source.stage)[0]


def _teacher(config: Config, data: DataSet) -> Recommender:
    return trained_model(finetune.teacher_folder(config, data, 0).path, "finetune")[0]


def _titles(
    config: Config, data: DataSet, student: Recommender, train: ClickTrainConfig, engine: Engine
) -> ClickTitles:
    tokens, longest = data.news_tokens(config.data), config.data.news_tokens
    return ClickTitles(tokens, longest, student.news_encoder, train, engine, folder(config, "frozen"))


STAGES = (
    Training("tinybert-general", build_general),
    Training("tinybert-intermediate", build_intermediate),
    Training("tinybert", build),
    Training("tinybert-joint", tinybert_joint.build),
)
ROWS: dict[str, RowRun] = {"tinybert": lambda config, data, layers: run_folder(config, data)}
