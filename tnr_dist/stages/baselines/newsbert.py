"""NewsBERT (Wu et al. 2021): teacher and student learn together on clicks, the student from the teacher's soft labels,
hidden states and gradients.

As Tiny-NewsRec uses it: the teacher's PLM is the post-trained one, and so are the pooling and dense layer that both
share; the student starts from the PLM's first layers, the user encoder (shared too) is fresh. Of both PLMs the last
`trainable_layers` learn (2, "Experiment Settings"; -1: everything, as in NewsBERT's paper); hidden states and gradients
are matched among these: K = the teacher's / the student's learning layers. Where all layers learn, that is NewsBERT's
own K; with 2 of each the last two layers stand against the last two, and a student of one layer against both.

With `newsbert.match=vectors` news and user vectors are matched instead of pooled texts, as Tiny-NewsRec's authors first
published it (with `target_weight` 0.1).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from typing_extensions import override

from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.losses.common import click_loss, mean_over_batch
from tnr_dist.losses.newsbert import (
    blocks,
    damp_gradient,
    distillation_loss,
    link_gradient,
    mean_over_slots,
    pooled_loss,
    state_loss,
    vector_loss,
)
from tnr_dist.models.flops import plm_flops, top_flops
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import Recommender
from tnr_dist.models.transformer import Encoder
from tnr_dist.runs.folder import RunFolder
from tnr_dist.stages import post_train
from tnr_dist.stages.baselines.common import BesideTeacher, TeacherClickTask
from tnr_dist.stages.baselines.newsbert_settings import NewsBERTConfig
from tnr_dist.stages.parts.click_data import click_loader, fit_scale
from tnr_dist.stages.parts.click_task import ClickInputs, ClickTitles
from tnr_dist.stages.parts.corpus_task import CountsItself, in_parts
from tnr_dist.stages.parts.recipes import BATCH_SETTINGS, MODEL_SETTINGS, folder, recipe
from tnr_dist.stages.parts.start_models import continued_model, freeze
from tnr_dist.stages.stage import RowRun, Training
from tnr_dist.stages.stage1 import first_layers
from tnr_dist.util.errors import InputError
from tnr_dist.util.transfer import to_device


class NewsBERTModule(nn.Module, BesideTeacher, CountsItself[ClickInputs]):
    """L^s + L^t on a batch, with the teacher's gradients in the student's.

    Args:
        student: the model that is kept; its pooling, dense layer and user encoder are the teacher's too.
        teacher: the teacher's PLM, at least as deep and as wide as the student's.
    """

    def __init__(self, student: Recommender, teacher: Encoder, settings: NewsBERTConfig) -> None:
        super().__init__()
        self.student, self.teacher, self.settings = student, teacher, settings
        encoder = student.news_encoder.encoder
        first, above = encoder.frozen_layers, teacher.frozen_layers
        #: The teacher's layers that stand against each learning layer of the student.
        self.blocks = [
            range(above + block.start, above + block.stop)
            for block in blocks(len(encoder.layers) - first, len(teacher.layers) - above)
        ]

    @override
    def prepare(self, titles: ClickTitles, title: str) -> None:
        titles.prepare_teacher(self.teacher, title)

    def forward(self, inputs: ClickInputs) -> dict[str, Tensor]:
        """This rank's share of the loss and of its parts."""
        settings, student = self.settings, self.student
        dim = student.news_encoder.dense.out_features
        rows = inputs.spread(self._rows(inputs))
        news, teacher_news, per_text = rows.split([dim, dim, 2], dim=1)
        users, scores = inputs.users_and_scores(student, news)
        teacher_users, teacher_scores = inputs.users_and_scores(student, teacher_news)
        slots, mask = inputs.slots()
        weights, count, known = inputs.weights, inputs.count, inputs.candidate_mask
        hidden, above = (mean_over_slots(loss, slots, mask, weights, count) for loss in per_text.unbind(1))
        matched = {"loss_hidden": hidden, "loss_pooled": above}
        if settings.match == "vectors":
            user = mean_over_batch(vector_loss(users, teacher_users.detach()), weights, count)
            matched = {"loss_hidden": hidden, "loss_news": above, "loss_user": user}
        distill = distillation_loss(teacher_scores.detach(), scores, settings.temperature, weights, count, known)
        target = click_loss(scores, weights, count, known)
        teacher = click_loss(teacher_scores, weights, count, known)
        return {
            "loss": sum(matched.values(), distill) + settings.target_weight * target + teacher,
            **matched,
            "loss_distill": distill,
            "loss_target": target,
            "loss_teacher": teacher,
        }

    @override
    def encoded(self, inputs: ClickInputs) -> tuple[np.ndarray, float]:
        lengths, encoder = inputs.titles.lengths, self.student.news_encoder
        first = 0 if inputs.frozen is None else encoder.encoder.frozen_layers
        teacher_first = 0 if inputs.teacher_frozen is None else self.teacher.frozen_layers
        plms = plm_flops(encoder.encoder, lengths, first) + plm_flops(self.teacher, lengths, teacher_first)
        return lengths, plms + 2 * top_flops(encoder, lengths)

    def _rows(self, inputs: ClickInputs) -> Tensor:
        """[E, 2 D + 2]: the student's vector of each title, the teacher's, L_hidden^l, and L_hidden^p or L_news."""
        order = inputs.titles.by_length
        known = [None if x is None else order.enter(x) for x in (inputs.frozen, inputs.teacher_frozen)]
        of_student, of_teacher = self._mixed_parameters()

        def compute(part: Packed, rows: slice) -> Tensor:
            encoder, top = self.student.news_encoder.encoder, self.student.news_encoder
            below, teacher_below = (None if x is None else x[rows] for x in known)
            stops = range(encoder.frozen_layers + 1, len(encoder.layers) + 1)
            states = states_at(encoder, of_student, part, list(stops), below)
            teacher_stops = [block.stop for block in self.blocks]
            teacher_states = states_at(self.teacher, of_teacher, part, teacher_stops, teacher_below)
            if encoder.frozen_embeddings:  # and so the layers' input: nothing in it learns
                del states[0], teacher_states[0]
            lengths = to_device(part.lengths, part.tokens.device)
            per_layer = [
                state_loss(own, other.detach(), part.sequences, lengths)
                for own, other in zip(states, teacher_states, strict=True)
            ]
            pooled, teacher_pooled = (top.pooling.forward_packed(s[-1], part) for s in (states, teacher_states))
            vectors = [top.dense(top.dropout(x)).float() for x in (pooled, teacher_pooled)]
            if self.settings.match == "pooled":
                above = pooled_loss(pooled, teacher_pooled.detach())
            else:
                above = vector_loss(vectors[0], vectors[1].detach())
            return torch.cat([*vectors, torch.stack([torch.stack(per_layer).sum(0), above], 1)], 1)

        # Two PLMs' activations are kept where the budget is meant for one.
        return order.leave_rows(in_parts(inputs.titles, self.student.news_encoder.token_budget // 2, compute))

    def _mixed_parameters(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters of the learning layers by name, with the gradients' momentum: the student's and the teacher's."""
        beta = self.settings.beta
        encoder = self.student.news_encoder.encoder
        of_student: dict[str, Tensor] = {}
        of_teacher: dict[str, Tensor] = {}
        for layer, block in enumerate(self.blocks, encoder.frozen_layers):
            for name, own in encoder.layers[layer].named_parameters():
                of_student[f"layers.{layer}.{name}"] = damp_gradient(own, beta)
                for number in block:
                    other = self.teacher.layers[number].get_parameter(name)
                    of_teacher[f"layers.{number}.{name}"] = link_gradient(other, own, beta / len(block))
        return of_student, of_teacher


def states_at(
    encoder: Encoder, parameters: dict[str, Tensor], texts: Packed, stops: list[int], below: Tensor | None = None
) -> list[Tensor]:
    """States that an encoder computes with `parameters` in place of those of the same names.

    Args:
        encoder: whose frozen layers run as they are.
        parameters: by their names in the encoder.
        texts: packed texts, T tokens.
        stops: numbers of layers, ascending; states after so many layers are wanted.
        below: [T, d] output of the frozen layers, where it is known.

    Returns:
        [T, d] below the first learning layer, then at each stop.
    """
    first = encoder.frozen_layers
    states = [encoder(texts, 0, first) if below is None else below]
    for start, stop in zip([first, *stops], stops, strict=False):
        states.append(functional_call(encoder, parameters, (texts, start, stop, states[-1])))
    return states


def run_folder(config: Config, data: DataSet) -> RunFolder:
    """Where NewsBERT-n lies, n = `student.layers`, and what it depends on."""
    inputs: dict[str, str | RunFolder] = {"data": data.id, "post-train": post_train.run_folder(config, data)}
    settings = (*MODEL_SETTINGS, *BATCH_SETTINGS, "student", *recipe("newsbert", NewsBERTConfig.of(config)))
    return RunFolder(f"newsbert-{config.student.layers}", "newsbert", config, settings, inputs, {})


def build(run: RunFolder, data: DataSet, engine: Engine) -> TeacherClickTask:
    """A student of `student.layers` layers together with its teacher."""
    config, train = run.config, NewsBERTConfig.of(run.config)
    if getattr(engine, "stage", 0) == 3:
        raise InputError("newsbert: deepspeed.zero_stage=3 splits parameters that it links; use 0 to 2")
    teacher, _ = continued_model(config, post_train.run_folder(config, data).path, "post-train")
    student, _ = first_layers(config, data, config.student.init, run.stage)
    top, source = student.news_encoder, teacher.news_encoder
    top.pooling, top.dense = source.pooling, source.dense
    freeze(top, train, engine)
    freeze(source, train, engine)
    tokens, longest = data.news_tokens(config.data), config.data.news_tokens
    titles = ClickTitles(tokens, longest, top, train, engine, folder(config, "frozen"))
    loader, held_out = click_loader(config, data, train, config.seed, engine)
    fit_scale(config, data, train, student, loader, engine)
    module = NewsBERTModule(student, source.encoder, train)
    return TeacherClickTask(student, module, titles, loader, train, config.seed, run.name, held_out)


STAGES = (Training("newsbert", build),)
ROWS: dict[str, RowRun] = {"newsbert": lambda config, data, layers: run_folder(config, data)}
