"""Domain-specific post-training: the news encoder learns to match a body to its own title among N others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from tnr_dist.config.schema import Config
from tnr_dist.config.training import MatchingConfig
from tnr_dist.data.batches.clicks import Batch
from tnr_dist.data.batches.matching import MatchingLoader
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.losses.matching import matching_loss
from tnr_dist.models.flops import news_encoder_flops
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import Matcher, NewsEncoder, Recommender
from tnr_dist.runs.folder import RunFolder
from tnr_dist.stages.parts.recipes import MODEL_SETTINGS, recipe
from tnr_dist.stages.parts.start_models import freeze, fresh_model, plm_parameters
from tnr_dist.stages.parts.task import TrainsRecommender
from tnr_dist.stages.post_train_settings import PostTrainConfig
from tnr_dist.stages.stage import Training
from tnr_dist.train.throughput import Texts
from tnr_dist.util.transfer import to_device


@dataclass
class MatchingInputs:
    """A matching batch on the device: B bodies, U distinct titles, and rows of them."""

    bodies: Packed
    titles: Packed
    candidates: Tensor  # [B, 1 + N] rows of `titles`, the own title first
    weights: Tensor  # [B]
    count: float


def matching_inputs(
    batch: Batch, loader: MatchingLoader, train: MatchingConfig, device: torch.device
) -> MatchingInputs:
    """Gather the tokens of a batch; each distinct title once."""
    rows, inverse = np.unique(batch["titles"], return_inverse=True)
    bodies, titles = loader.bodies, loader.titles
    return MatchingInputs(
        Packed.gather(bodies.values, bodies.offsets, batch["body"], train.body_tokens).to(device),
        Packed.gather(titles.values, titles.offsets, rows, train.title_tokens).to(device),
        to_device(inverse.reshape(batch["titles"].shape), device),
        to_device(batch["weights"], device),
        float(batch["count"]),
    )


class MatchingModule(nn.Module):
    """L_match on a batch."""

    def __init__(self, matcher: Matcher) -> None:
        super().__init__()
        self.matcher = matcher

    def forward(self, inputs: MatchingInputs) -> dict[str, Tensor]:
        """This rank's share of the loss and of the matching accuracy."""
        scores, _, _ = self.matcher(inputs.bodies, inputs.titles, inputs.candidates)
        loss = matching_loss(scores, inputs.weights, inputs.count)
        return {"loss": loss, "accuracy": accuracy(scores, inputs.weights, inputs.count)}


def matching_texts(encoder: NewsEncoder, inputs: MatchingInputs) -> list[Texts]:
    """The bodies and titles that a step encodes."""
    lengths = inputs.bodies.lengths, inputs.titles.lengths
    return [Texts(one, partial(news_encoder_flops, encoder, one)) for one in lengths]


@torch.no_grad()
def accuracy(scores: Tensor, weights: Tensor, count: float) -> Tensor:
    """Share of samples [B] whose first candidate scores highest."""
    return ((scores.argmax(1) == 0) * weights).sum() / count


@torch.no_grad()
def matching_accuracy(
    matcher: Matcher, loader: MatchingLoader, train: MatchingConfig, engine: Engine
) -> dict[str, float]:
    """Accuracy on the held-out pairs, shared among ranks; empty when too few were held out."""
    correct = torch.zeros(2, device=engine.device)
    for number, batch in enumerate(loader.held_out_batches()):
        if number % engine.environment.world_size == engine.environment.rank:
            inputs = matching_inputs(batch, loader, train, engine.device)
            with engine.autocast():
                scores, _, _ = matcher(inputs.bodies, inputs.titles, inputs.candidates)
            correct += torch.stack(
                [(scores.argmax(1) == 0).sum(), torch.tensor(len(scores), device=engine.device)]
            ).float()
    right, total = engine.all_reduce(correct).tolist()
    return {"eval/matching_accuracy": right / total} if total else {}


@dataclass
class PostTrainTask(TrainsRecommender):
    """The matching task on (body, title) pairs."""

    recommender: Recommender
    module: MatchingModule
    loader: MatchingLoader
    train: PostTrainConfig
    seed: int
    device: torch.device
    title: str = "post-train"
    prefetch: bool = True

    @override
    def to_device(self, batch: Batch) -> MatchingInputs:
        return matching_inputs(batch, self.loader, self.train, self.device)

    @override
    def texts(self, inputs: MatchingInputs) -> list[Texts]:
        return matching_texts(self.recommender.news_encoder, inputs)

    @override
    def plm_parameters(self) -> set[nn.Parameter]:
        return plm_parameters(self.module)

    @override
    def validate(self, engine: Engine) -> dict[str, float]:
        return matching_accuracy(self.module.matcher, self.loader, self.train, engine)


def matching_loader(config: Config, data: DataSet, train: MatchingConfig, engine: Engine) -> MatchingLoader:
    """The corpus loader of this rank."""
    env = engine.environment
    return MatchingLoader(
        data.folder,
        train.batch_size,
        train.negatives,
        config.seed,
        train.held_out,
        env.rank,
        env.world_size,
        negatives_from=train.negatives_from,
    )


def run_folder(config: Config, data: DataSet) -> RunFolder:
    """Where the post-trained encoder lies and what it depends on."""
    settings = (*MODEL_SETTINGS, *recipe("post_train", PostTrainConfig.of(config)))
    return RunFolder("post-train", "post-train", config, settings, {"data": data.id}, {})


def build(run: RunFolder, data: DataSet, engine: Engine) -> PostTrainTask:
    """The whole PLM, which learns to match."""
    config, train = run.config, PostTrainConfig.of(run.config)
    model, _ = fresh_model(config, data, 0, config.seed, run.stage)
    freeze(model.news_encoder, train, engine)
    loader = matching_loader(config, data, train, engine)
    module = MatchingModule(Matcher(model.news_encoder))
    return PostTrainTask(model, module, loader, train, config.seed, engine.device)


def _keep(config: Config) -> tuple[int, int]:
    train = PostTrainConfig.of(config)
    return train.keep_models, train.keep_models_every


STAGES = (Training("post-train", build, _keep),)
