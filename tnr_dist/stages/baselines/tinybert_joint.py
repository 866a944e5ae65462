"""TinyBERT as one training on clicks, the form in which Tiny-NewsRec's authors first published it (`tinybert.form=joint`).

The student starts from the PLM's first layers with fresh pooling, dense layer and user encoder, and learns from the
finetuned teacher (teacher 0) all at once: states and attention scores of its last `trainable_layers` layers from the
teacher's last ones, in order, the soft labels of a sample's candidates, and the clicks themselves with `target_weight`.
There is neither general distillation nor a loss on embeddings.

The published code takes the losses between layers over the tokens of a rank's distinct titles; here they are the mean over
a sample's news, as in TinyBERT's other form, so that they do not depend on how samples are shared among ranks.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.evaluation.scoring import encode_table
from tnr_dist.losses.common import click_loss
from tnr_dist.losses.newsbert import mean_over_slots
from tnr_dist.losses.tinybert import joint_loss, last_layers, prediction_loss
from tnr_dist.models.flops import plm_flops, top_flops
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import Recommender
from tnr_dist.runs.folder import RunFolder
from tnr_dist.stages import finetune
from tnr_dist.stages.baselines.common import (
    TeacherClickTask,
    WithTeacher,
    layer_losses,
    states_and_scores,
    users_and_scores,
)
from tnr_dist.stages.baselines.tinybert_settings import JointConfig, TinyBERTConfig
from tnr_dist.stages.parts.click_data import click_loader, fit_scale
from tnr_dist.stages.parts.click_task import ClickInputs, ClickTitles
from tnr_dist.stages.parts.corpus_task import in_parts
from tnr_dist.stages.parts.recipes import BATCH_SETTINGS, MODEL_SETTINGS, folder, recipe
from tnr_dist.stages.parts.start_models import freeze, trained_model
from tnr_dist.stages.stage1 import first_layers


class JointModule(WithTeacher):
    """The joint loss on a batch.

    Args:
        student: the model that is kept, its frozen layers set.
        teacher: finetuned, at least as deep as the student and as wide.
    """

    def __init__(self, student: Recommender, teacher: Recommender, settings: JointConfig) -> None:
        super().__init__(teacher)
        self.student, self.settings = student, settings
        own, other = student.news_encoder.encoder, teacher.news_encoder.encoder
        mapping = last_layers(len(own.layers), len(other.layers))[own.frozen_layers :]
        # The teacher's layers below give nothing that a loss wants.
        other.frozen_layers = mapping[0] - 1
        self.layers = [layer - other.frozen_layers for layer in mapping]
        self._table: Tensor | None = None

    def prepare(self, titles: ClickTitles, title: str) -> None:
        """See `BesideTeacher`."""
        encoder = self._recommender.news_encoder
        self._table = encode_table(encoder, titles.titles, titles.longest, titles.engine, title)
        titles.prepare_teacher(encoder.encoder, f"{title}, frozen layers")

    def forward(self, inputs: ClickInputs) -> dict[str, Tensor]:
        """This rank's share of the loss and of its parts."""
        assert self._table is not None
        settings, student = self.settings, self.student
        dim = student.news_encoder.dense.out_features
        news, per_text = inputs.spread(self._rows(inputs)).split([dim, 2], dim=1)
        _, scores = users_and_scores(student, news, inputs)
        with torch.no_grad():
            _, teacher_scores = users_and_scores(self._recommender, F.embedding(inputs.news, self._table), inputs)
        slots = torch.cat([inputs.history, inputs.candidates], 1)
        mask = torch.cat([inputs.history_mask, inputs.candidate_mask], 1)
        weights, count, known = inputs.weights, inputs.count, inputs.candidate_mask
        hidden, attention = (mean_over_slots(loss, slots, mask, weights, count) for loss in per_text.unbind(1))
        distill = prediction_loss(teacher_scores, scores, settings.temperature, weights, count, known)
        target = click_loss(scores, weights, count, known)
        return {
            "loss": joint_loss(distill, hidden, attention, target, settings.target_weight),
            "loss_hidden": hidden,
            "loss_attention": attention,
            "loss_distill": distill,
            "loss_target": target,
        }

    def encoded(self, inputs: ClickInputs) -> tuple[np.ndarray, float]:
        """See `CountsItself`."""
        lengths, top, teacher = inputs.titles.lengths, self.student.news_encoder, self._recommender.news_encoder.encoder
        first = 0 if inputs.frozen is None else top.encoder.frozen_layers
        teacher_first = 0 if inputs.teacher_frozen is None else teacher.frozen_layers
        teachers = plm_flops(teacher, lengths, teacher_first, trains=False)
        return lengths, plm_flops(top.encoder, lengths, first) + teachers + top_flops(top, lengths)

    def _rows(self, inputs: ClickInputs) -> Tensor:
        """[E, D + 2]: the student's vector of each title, L_hidn and L_attn."""
        order = inputs.titles.by_length
        known = [None if x is None else order.enter(x) for x in (inputs.frozen, inputs.teacher_frozen)]
        top, teacher = self.student.news_encoder, self._recommender.news_encoder.encoder

        def compute(part: Packed, rows: slice) -> Tensor:
            below, teacher_below = (None if x is None else x[rows] for x in known)
            own = states_and_scores(top.encoder, part, below)
            with torch.no_grad():
                other = states_and_scores(teacher, part, teacher_below)
            vectors = top.dense(top.dropout(top.pooling.forward_packed(own[0][-1], part))).float()
            return torch.cat([vectors, torch.stack(layer_losses(own, other, part, self.layers), 1)], 1)

        return order.leave_rows(in_parts(inputs.titles, top.token_budget, compute))

    @property
    def _recommender(self) -> Recommender:
        teacher = self._teacher[0]
        assert isinstance(teacher, Recommender)
        return teacher


def run_folder(config: Config, data: DataSet) -> RunFolder:
    """Where TinyBERT-n of the joint form lies, n = `student.layers`, and what it depends on."""
    settings = (*MODEL_SETTINGS, *BATCH_SETTINGS, "student", *recipe("tinybert.joint", TinyBERTConfig.of(config).joint))
    inputs: dict[str, str | RunFolder] = {"data": data.id, "teacher": finetune.teacher_folder(config, data, 0)}
    return RunFolder(f"tinybert-joint-{config.student.layers}", "tinybert-joint", config, settings, inputs, {})


def build(run: RunFolder, data: DataSet, engine: Engine) -> TeacherClickTask:
    """The PLM's first layers beside teacher 0."""
    config, train = run.config, TinyBERTConfig.of(run.config).joint
    teacher, _ = trained_model(finetune.teacher_folder(config, data, 0).path, "finetune")
    student, _ = first_layers(config, data, config.student.init, run.stage)
    freeze(student.news_encoder, train, engine)
    tokens, longest = data.news_tokens(config.data), config.data.news_tokens
    titles = ClickTitles(tokens, longest, student.news_encoder, train, engine, folder(config, "frozen"))
    loader, held_out = click_loader(config, data, train, config.seed, engine)
    fit_scale(config, data, train, student, loader, engine)
    module = JointModule(student, teacher, train)
    return TeacherClickTask(student, module, titles, loader, train, config.seed, run.name, held_out)
