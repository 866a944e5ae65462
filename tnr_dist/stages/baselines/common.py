"""What the baselines share: texts in parts, a frozen teacher beside a student, losses between layers, tasks that need
nothing before the first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from tnr_dist.engines.base import Engine
from tnr_dist.losses.tinybert import attention_loss, state_loss
from tnr_dist.models.packed import Packed
from tnr_dist.models.transformer import Encoder
from tnr_dist.stages.parts.click_task import ClickInputs, ClickTask, ClickTitles
from tnr_dist.stages.parts.corpus_task import CountsItself, encoded_texts
from tnr_dist.train.throughput import Texts
from tnr_dist.util.transfer import to_device


class WithTeacher(nn.Module):
    """A module beside a frozen teacher, which is no part of it: neither trained nor reduced nor saved."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self._teacher = [teacher.requires_grad_(False).eval()]

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._teacher[0]._apply(fn)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class BesideTeacher(Protocol):
    """A module of a click stage that learns from a teacher whose frozen part is computed once."""

    def prepare(self, titles: ClickTitles, title: str) -> None:
        """Compute it, with teacher and module on the engine's device; `title` is for the progress bar."""


class TeacherClickTask(ClickTask):
    """A click stage with a teacher in its `BesideTeacher` module; no CUDA graph, so its batches are not filled up."""

    @override
    def begin(self, engine: Engine) -> None:
        super().begin(engine)
        self.titles.repeats = False
        module: BesideTeacher = self.module  # type: ignore[assignment]
        module.prepare(self.titles, f"{self.title}: teacher")

    @override
    def texts(self, inputs: ClickInputs) -> list[Texts]:
        module: CountsItself[ClickInputs] = self.module  # type: ignore[assignment]
        return [encoded_texts(module, inputs)] if hasattr(module, "encoded") else super().texts(inputs)


def states_and_scores(
    encoder: Encoder, texts: Packed, below: Tensor | None, scores: bool = True
) -> tuple[list[Tensor], list[Tensor]]:
    """`Encoder.forward_all` from the first layer that is not frozen on; `below` [T, hidden]: its input, where known."""
    first = encoder.frozen_layers
    if first and below is None:
        below = encoder(texts, 0, first)
    return encoder.forward_all(texts, scores, first, below)


def layer_losses(
    student: tuple[list[Tensor], list[Tensor]],
    teacher: tuple[list[Tensor], list[Tensor]],
    texts: Packed,
    layers: list[int],
    projection: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """L_hidn and L_attn of each text, summed over the student's layers that learn.

    Args:
        student, teacher: what `states_and_scores` gives of the texts.
        texts: U texts.
        layers: for each learning layer of the student, which of the teacher's layers that ran it learns from, from 1.
        projection: [d, d'] W_h; None where the widths are equal.

    Returns:
        Two [U], float32.
    """
    (states, scores), (teacher_states, teacher_scores) = student, teacher
    lengths = to_device(texts.lengths, texts.tokens.device)
    pairs = to_device(np.repeat(np.arange(len(texts)), texts.lengths**2), texts.tokens.device)
    hidden = attention = states[-1].new_zeros(len(texts), dtype=torch.float32)
    for number, other in enumerate(layers):
        hidden = hidden + state_loss(states[number + 1], teacher_states[other], texts.sequences, lengths, projection)
        attention = attention + attention_loss(scores[number], teacher_scores[other - 1], pairs, lengths**2)
    return hidden, attention
