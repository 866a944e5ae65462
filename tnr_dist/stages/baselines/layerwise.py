"""One training on clicks beside the finetuned teacher: losses between layers, soft labels and clicks together.

What a method adds: which of the teacher's layers each layer of the student learns from, the losses of a text, and how the
parts are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from tnr_dist.config.schema import Config
from tnr_dist.config.training import ValidatedTrainConfig
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.evaluation.scoring import encode_table
from tnr_dist.losses.newsbert import mean_over_slots
from tnr_dist.models.flops import plm_flops, top_flops
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import Recommender
from tnr_dist.runs.folder import RunFolder
from tnr_dist.stages import finetune
from tnr_dist.stages.baselines.common import (
    BesideTeacher,
    TeacherClickTask,
    WithTeacher,
    states_and_scores,
)
from tnr_dist.stages.parts.click_data import click_loader, fit_scale
from tnr_dist.stages.parts.click_task import ClickInputs, ClickTitles
from tnr_dist.stages.parts.corpus_task import CountsItself, in_parts
from tnr_dist.stages.parts.recipes import BATCH_SETTINGS, MODEL_SETTINGS, folder, recipe
from tnr_dist.stages.parts.start_models import freeze, trained_model
from tnr_dist.stages.stage1 import first_layers

States = tuple[list[Tensor], list[Tensor]]
# Of what `states_and_scores` gives of the student and of the teacher, the U texts, and for each learning layer of the
# student the teacher's layer among those that ran, from 1: losses [U] of each text.
TextLosses = Callable[[States, States, Packed, list[int]], Sequence[Tensor]]
# Of the student's and the teacher's scores [B, C], the means of the text losses and the batch: the loss and its parts.
BatchLosses = Callable[[Tensor, Tensor, Sequence[Tensor], ClickInputs], dict[str, Tensor]]


class LayerwiseModule(WithTeacher, BesideTeacher, CountsItself[ClickInputs]):
    """The loss on a batch.

    Args:
        student: the model that is kept, its frozen layers set.
        teacher: finetuned, at least as deep as the student and as wide.
        mapping: the teacher's layer, from 1, for each of the student's learning layers from the first one; layers beyond
            have no loss of their own.
        attention: whether the text losses want attention scores.
    """

    def __init__(
        self,
        student: Recommender,
        teacher: Recommender,
        mapping: list[int],
        text_losses: TextLosses,
        batch_losses: BatchLosses,
        attention: bool = True,
    ) -> None:
        super().__init__(teacher)
        self.student, self.text_losses, self.batch_losses = student, text_losses, batch_losses
        self.attention = attention
        encoder = teacher.news_encoder.encoder
        # The teacher's layers below give nothing that a loss wants.
        encoder.frozen_layers = mapping[0] - 1 if mapping else 0
        self.layers = [layer - encoder.frozen_layers for layer in mapping]
        self._table: Tensor | None = None

    @override
    def prepare(self, titles: ClickTitles, title: str) -> None:
        encoder = self._recommender.news_encoder
        self._table = encode_table(encoder, titles.titles, titles.longest, titles.engine, title)
        if self.layers:
            titles.prepare_teacher(encoder.encoder, f"{title}, frozen layers")

    def forward(self, inputs: ClickInputs) -> dict[str, Tensor]:
        """This rank's share of the loss and of its parts."""
        assert self._table is not None
        student = self.student
        rows = inputs.spread(self._rows(inputs))
        dim = student.news_encoder.dense.out_features
        news, per_text = rows[:, :dim], rows[:, dim:]
        _, scores = inputs.users_and_scores(student, news)
        with torch.no_grad():
            _, teacher_scores = inputs.users_and_scores(self._recommender, F.embedding(inputs.news, self._table))
        slots, mask = inputs.slots()
        means = [mean_over_slots(loss, slots, mask, inputs.weights, inputs.count) for loss in per_text.unbind(1)]
        return self.batch_losses(scores, teacher_scores, means, inputs)

    @override
    def encoded(self, inputs: ClickInputs) -> tuple[np.ndarray, float]:
        lengths, top, teacher = inputs.titles.lengths, self.student.news_encoder, self._recommender.news_encoder.encoder
        first = 0 if inputs.frozen is None else top.encoder.frozen_layers
        teacher_first = 0 if inputs.teacher_frozen is None else teacher.frozen_layers
        teachers = plm_flops(teacher, lengths, teacher_first, trains=False) if self.layers else 0.0
        return lengths, plm_flops(top.encoder, lengths, first) + teachers + top_flops(top, lengths)

    def _rows(self, inputs: ClickInputs) -> Tensor:
        """[E, D + losses]: the student's vector of each title and its losses."""
        order = inputs.titles.by_length
        known = [None if x is None else order.enter(x) for x in (inputs.frozen, inputs.teacher_frozen)]
        top, teacher = self.student.news_encoder, self._recommender.news_encoder.encoder

        def compute(part: Packed, rows: slice) -> Tensor:
            below, teacher_below = (None if x is None else x[rows] for x in known)
            own = states_and_scores(top.encoder, part, below, self.attention)
            other: States = [], []
            if self.layers:
                with torch.no_grad():
                    other = states_and_scores(teacher, part, teacher_below, self.attention)
            vectors = top.dense(top.dropout(top.pooling.forward_packed(own[0][-1], part))).float()
            return torch.cat([vectors, torch.stack([*self.text_losses(own, other, part, self.layers)], 1)], 1)

        return order.leave_rows(in_parts(inputs.titles, top.token_budget, compute))

    @property
    def _recommender(self) -> Recommender:
        teacher = self._teacher[0]
        assert isinstance(teacher, Recommender)
        return teacher


def run_beside_teacher(
    config: Config, data: DataSet, stage: str, section: str, train: ValidatedTrainConfig
) -> RunFolder:
    """Where a stage's student of `student.layers` layers lies and what it depends on; `section`: the key of `train`."""
    settings = (*MODEL_SETTINGS, *BATCH_SETTINGS, "student", *recipe(section, train))
    inputs: dict[str, str | RunFolder] = {"data": data.id, "teacher": finetune.teacher_folder(config, data, 0)}
    return RunFolder(f"{stage}-{config.student.layers}", stage, config, settings, inputs, {})


def build_beside_teacher(
    run: RunFolder,
    data: DataSet,
    engine: Engine,
    train: ValidatedTrainConfig,
    make: Callable[[Recommender, Recommender], nn.Module],
) -> TeacherClickTask:
    """The PLM's first layers beside teacher 0; `make`: the module of a student, its frozen layers set, and a teacher."""
    config = run.config
    teacher, _ = trained_model(finetune.teacher_folder(config, data, 0).path, "finetune")
    student, _ = first_layers(config, data, config.student.init, run.stage)
    freeze(student.news_encoder, train, engine)
    tokens, longest = data.news_tokens(config.data), config.data.news_tokens
    titles = ClickTitles(tokens, longest, student.news_encoder, train, engine, folder(config, "frozen"))
    loader, held_out = click_loader(config, data, train, config.seed, engine)
    fit_scale(config, data, train, student, loader, engine)
    module = make(student, teacher)
    return TeacherClickTask(student, module, titles, loader, train, config.seed, run.name, held_out)
