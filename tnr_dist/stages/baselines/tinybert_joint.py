"""TinyBERT as one training on clicks, the form in which Tiny-NewsRec's authors first published it (`tinybert.form=joint`).

The student starts from the PLM's first layers with fresh pooling, dense layer and user encoder, and learns from the
finetuned teacher (teacher 0) all at once: states and attention scores of its last `trainable_layers` layers from the
teacher's last ones, in order, the soft labels of a sample's candidates, and the clicks themselves with `target_weight`.
There is neither general distillation nor a loss on embeddings.

The published code takes the losses between layers over the tokens of a rank's distinct titles; here they are the mean over
a sample's news, as in TinyBERT's other form, so that they do not depend on how samples are shared among ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.losses.common import click_loss
from tnr_dist.losses.tinybert import joint_loss, last_layers, prediction_loss
from tnr_dist.models.recommender import Recommender
from tnr_dist.runs.folder import RunFolder
from tnr_dist.stages.baselines.common import TeacherClickTask, layer_losses
from tnr_dist.stages.baselines.layerwise import LayerwiseModule, build_beside_teacher, run_beside_teacher
from tnr_dist.stages.baselines.tinybert_settings import JointConfig, TinyBERTConfig
from tnr_dist.stages.parts.click_task import ClickInputs


class JointModule(LayerwiseModule):
    """The joint loss on a batch; see `LayerwiseModule`."""

    def __init__(self, student: Recommender, teacher: Recommender, settings: JointConfig) -> None:
        own, other = student.news_encoder.encoder, teacher.news_encoder.encoder
        mapping = last_layers(len(own.layers), len(other.layers))[own.frozen_layers :]

        def losses(
            scores: Tensor, teacher_scores: Tensor, parts: Sequence[Tensor], inputs: ClickInputs
        ) -> dict[str, Tensor]:
            hidden, attention = parts
            weights, count, known = inputs.weights, inputs.count, inputs.candidate_mask
            distill = prediction_loss(teacher_scores, scores, settings.temperature, weights, count, known)
            target = click_loss(scores, weights, count, known)
            return {
                "loss": joint_loss(distill, hidden, attention, target, settings.target_weight),
                "loss_hidden": hidden,
                "loss_attention": attention,
                "loss_distill": distill,
                "loss_target": target,
            }

        super().__init__(student, teacher, mapping, layer_losses, losses)


def run_folder(config: Config, data: DataSet) -> RunFolder:
    """Where TinyBERT-n of the joint form lies, n = `student.layers`, and what it depends on."""
    return run_beside_teacher(config, data, "tinybert-joint", "tinybert.joint", TinyBERTConfig.of(config).joint)


def build(run: RunFolder, data: DataSet, engine: Engine) -> TeacherClickTask:
    """The PLM's first layers beside teacher 0."""
    train = TinyBERTConfig.of(run.config).joint
    return build_beside_teacher(run, data, engine, train, lambda student, teacher: JointModule(student, teacher, train))
