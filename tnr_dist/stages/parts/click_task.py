"""What a stage that trains on clicks hands to the training loop."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tnr_dist.config.schema import ClickTrainConfig, ValidatedTrainConfig
from tnr_dist.data.batches.clicks import Batch, ClickLoader
from tnr_dist.data.held_out import HeldOut
from tnr_dist.engines.base import Engine
from tnr_dist.models.recommender import Recommender
from tnr_dist.stages.parts.click_inputs import ClickInputs, ClickTitles
from tnr_dist.stages.parts.start_models import plm_parameters
from tnr_dist.stages.parts.validation import Validation


@dataclass
class ClickTask:
    """What the stages that train on clicks hand to the loop; see `train.loop.Task`."""

    recommender: Recommender
    module: nn.Module
    titles: ClickTitles
    loader: ClickLoader
    train: ClickTrainConfig
    seed: int
    title: str
    held_out: HeldOut | None = None

    @property
    def prefetch(self) -> bool:
        """See `Task`: with titles shared among ranks, laying out a batch is a conversation of the ranks."""
        return not self.titles.shared

    def begin(self, engine: Engine) -> None:
        """See `Task`."""
        self.titles.prepare(f"{self.title}: frozen layers")

    def to_device(self, batch: Batch) -> ClickInputs:
        """See `Task`."""
        return self.titles.inputs(batch)

    def plm_parameters(self) -> set[nn.Parameter]:
        """See `Task`."""
        return plm_parameters(self.module)

    def validation(self) -> Validation | None:
        """See `Task`."""
        if self.held_out is None:
            return None
        assert isinstance(self.train, ValidatedTrainConfig)
        history, every = self.loader.options.history, self.train.validate_every
        return Validation(self.recommender, self.titles, self.held_out, history, every, self.loader.steps)

    def validate(self, engine: Engine) -> dict[str, float]:
        """See `Task`."""
        return {}
