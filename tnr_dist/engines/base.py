"""The seam between the training loop and data-parallel engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tnr_dist.launch.environment import Environment

OptimizerFactory = Callable[[nn.Module], torch.optim.Optimizer]
OptimizerState = dict[str, Any]  # as torch's optimisers give it: `state` and `param_groups`


@dataclass(frozen=True)
class Terms:
    """What the ranks must have in common to train together, compared when they meet, and what ends their wait.

    Attributes:
        settings: a name -> the digest of a value that must be the same on all ranks.
        folders: a name -> a path that must be the same folder on all ranks (`meeting.differences` says how it is compared).
        stop_requested: whether this process was asked to stop.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    stop_requested: Callable[[], bool] = lambda: False


class Engine(Protocol):
    """Everything the training loop asks of data parallelism.

    The loss handed to `backward` is this rank's share of the global mean: summed over ranks it is the loss of the
    global batch, so an engine that averages gradients multiplies by the world size.
    """

    environment: Environment
    device: torch.device
    module: nn.Module  # the trained module itself, never a wrapper
    optimizer: torch.optim.Optimizer

    def setup(
        self,
        module: nn.Module,
        optimizer: OptimizerFactory,
        *,
        precision: str,
        clip_norm: float,
        batch_size: int = 0,
        accumulate: int = 1,
    ) -> None:
        """Take the module (equal on all ranks) and build its optimiser.

        `batch_size` (samples of a global batch; 0: not said) and `accumulate` (micro-batches of a step) are told so that
        an engine with a configuration file of its own can refuse one that contradicts them. Weights and optimiser state
        of a checkpoint are loaded between `setup` and the first `forward`.
        """

    def use_precision(self, precision: str) -> None:
        """Set the compute precision without a module to train (evaluation)."""

    def forward(self, *args: object) -> Any:
        """Run the module under the engine's precision."""

    def micro_batch(self, last: bool) -> AbstractContextManager[object]:
        """Around forward and backward of each micro-batch of a step: only the last need send the gradients."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of this rank's share of the loss."""

    def step(self) -> Tensor:
        """Sum gradients over ranks, clip, update, zero; returns the gradient norm (device scalar, before clipping)."""

    def autocast(self) -> AbstractContextManager[object]:
        """The compute precision, for code outside `forward` (evaluation)."""

    def all_reduce(self, value: Tensor) -> Tensor:
        """The sum over ranks, on all ranks."""

    def any_rank(self, flag: bool) -> bool:
        """Whether it is so on any rank, as of the call before this one; never waits for the device.

        A collective: all ranks call it equally often (once a step), so all of them learn of it at the same step.
        """

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        """Arrays of all ranks (equal dtype and inner shape, any length), in rank order, on all ranks."""

    def all_gather_rows(self, rows: Tensor, sizes: list[int]) -> Tensor:
        """Concatenate every rank's rows [sizes[rank], D]; differentiable, gradients of all ranks are summed."""

    def barrier(self) -> None:
        """Wait for all ranks."""

    def state_dict(self) -> OptimizerState:
        """Optimiser state of the common checkpoint format (tensors and numbers only), whole on rank 0; a collective."""

    def load_state_dict(self, state: OptimizerState) -> None:
        """Restore what `state_dict` gave."""

    def whole(self) -> AbstractContextManager[object]:
        """Inside, every rank can read all of the module's weights; a collective of all ranks."""

    def finish(self) -> None:
        """Training is over: the module is a plain one again, with whole weights on every rank; a collective.

        `forward`, `step` and the optimiser's state are gone until the next `setup`.
        """

    def forget(self) -> None:
        """Hold nothing of an earlier stage's: its tables and states are as large as those that are about to come.

        What was freed goes back to the system. Waits for no other rank.
        """

    def close(self) -> None:
        """Leave the other ranks; also after an error, so it waits for none of them."""
