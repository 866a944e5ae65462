"""PLM-NR (FP): the PLM is pre-trained further on the News corpus by masked language modelling, then finetuned.

The task is BERT's (Devlin et al. 2019) with masks drawn anew every epoch and a softmax over the whole vocabulary, the
recipe of Sun et al. 2019a ("How to Fine-Tune BERT for Text Classification?"), which Tiny-NewsRec names as its source.
Finetuning is `stages.finetune`'s, from this PLM.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tnr_dist.config.schema import Config
from tnr_dist.data.batches.clicks import Batch
from tnr_dist.data.batches.masking import MaskedLoader, Masking
from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.base import Engine
from tnr_dist.losses.common import mean_over_batch
from tnr_dist.losses.mlm import mlm_loss
from tnr_dist.models.flops import plm_flops
from tnr_dist.models.packed import Packed
from tnr_dist.models.tokenizer import load_tokenizer
from tnr_dist.models.transformer import ACTIVATIONS, Encoder
from tnr_dist.runs.folder import RunFolder
from tnr_dist.stages.finetune_settings import FinetuneConfig
from tnr_dist.stages.further_pretrain_settings import MLMConfig
from tnr_dist.stages.parts.corpus_task import CorpusTask, corpus_texts, in_parts
from tnr_dist.stages.parts.recipes import MODEL_SETTINGS, recipe
from tnr_dist.stages.parts.start_models import freeze, fresh_model
from tnr_dist.stages.stage import Training
from tnr_dist.util.errors import InputError
from tnr_dist.util.transfer import to_device


@dataclass
class MLMInputs:
    """Masked texts on the device, with P tokens to predict."""

    texts: Packed
    positions: Tensor  # [P] rows of the texts' tokens
    labels: Tensor  # [P] the tokens that stood there
    weights: Tensor  # [P]
    count: float  # masked tokens of the global batch


def mlm_inputs(batch: Batch, loader: MaskedLoader, train: MLMConfig, device: torch.device) -> MLMInputs:
    """Gather the texts of a batch and mask them."""
    texts = corpus_texts(batch, loader, train.title_tokens, train.body_tokens)
    tokens = texts.tokens.numpy()
    numbers = np.concatenate([2 * batch["body"], 2 * batch["body"] + 1])
    seen, positions = loader.masking.mask(tokens, texts.lengths, numbers, int(batch["epoch"]))
    owners = np.repeat(np.arange(len(texts)), texts.lengths)[positions]
    return MLMInputs(
        Packed(to_device(seen, device), texts.lengths),
        to_device(positions, device),
        to_device(tokens[positions], device),
        to_device(np.tile(batch["weights"], 2)[owners], device),
        float(batch["masked"]),
    )


class MLMHead(nn.Module):
    """BERT's: dense, activation, layer norm, then the word embeddings as the decoder, with a bias of its own."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        config = encoder.config
        self.dense = nn.Linear(config.hidden, config.hidden)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        """States [P, d] and word embeddings [V, d] -> logits [P, V]."""
        return F.linear(self.norm(self.activation(self.dense(states))), words, self.bias)


class MLMModule(nn.Module):
    """L_mlm on a batch."""

    def __init__(self, encoder: Encoder, token_budget: int) -> None:
        super().__init__()
        self.encoder, self.head, self.budget = encoder, MLMHead(encoder), token_budget

    def forward(self, inputs: MLMInputs) -> dict[str, Tensor]:
        """This rank's share of the loss and of the accuracy at the masked tokens."""
        states = in_parts(inputs.texts, self.budget, lambda part, _: self.encoder(part))
        states = inputs.texts.by_length.leave(states).index_select(0, inputs.positions)
        logits = self.head(states, self.encoder.words.weight)
        with torch.no_grad():
            right = (logits.argmax(1) == inputs.labels).float()
            accuracy = mean_over_batch(right, inputs.weights, max(inputs.count, 1.0))
        return {"loss": mlm_loss(logits, inputs.labels, inputs.weights, inputs.count), "accuracy": accuracy}

    def encoded(self, inputs: MLMInputs) -> tuple[np.ndarray, float]:
        """See `CountsItself`; with the decoder, which is as large as some PLMs."""
        config, lengths = self.encoder.config, inputs.texts.lengths
        decoder = (6 if self.encoder.words.weight.requires_grad else 4) * config.vocab_size
        head = len(inputs.positions) * config.hidden * (6 * config.hidden + decoder)
        return lengths, plm_flops(self.encoder, lengths) + head


def run_folder(config: Config, data: DataSet, layers: int = 0) -> RunFolder:
    """Where the further pre-trained PLM of `layers` layers (0: all) lies and what it depends on."""
    settings = (*MODEL_SETTINGS, *recipe("further_pretrain", MLMConfig.of(config)))
    name = f"further-pretrain-{layers or 'all'}"
    return RunFolder(name, "further-pretrain", config, settings, {"data": data.id}, {"layers": layers})


def runs(config: Config, data: DataSet) -> list[RunFolder]:
    """What `tnr baseline further-pretrain` makes, of `finetune.layers` layers, as in the finetuning that follows."""
    return [run_folder(config, data, FinetuneConfig.of(config).layers)]


def build(run: RunFolder, data: DataSet, engine: Engine) -> CorpusTask:
    """The PLM under the head that PLM-NR-n (FT) starts with."""
    config, train = run.config, MLMConfig.of(run.config)
    model, spec = fresh_model(config, data, run.extra["layers"], config.seed, "finetune")
    freeze(model.news_encoder, train, engine)
    loader = _loader(config, data, engine)
    module = MLMModule(model.news_encoder.encoder, model.news_encoder.token_budget)
    title = f"further-pretrain ({spec.encoder.layers} layers)"
    return CorpusTask(
        model, module, loader, train, config.seed, title, lambda b: mlm_inputs(b, loader, train, engine.device)
    )


def _loader(config: Config, data: DataSet, engine: Engine) -> MaskedLoader:
    train, place = MLMConfig.of(config), engine.environment
    tokenizer = load_tokenizer(config.plm.name)
    known = [tokenizer.token_id(token) for token in ("[MASK]", "<mask>")]
    mask_id = next((token for token in known if token is not None), None)
    if mask_id is None:
        raise InputError(f"{config.plm.name}: its vocabulary has no [MASK] or <mask>; it cannot be pre-trained further")
    masking = Masking(train.mask, mask_id, tokenizer.vocab_size, config.seed)
    return MaskedLoader(
        data.folder,
        train.batch_size,
        masking,
        train.title_tokens,
        train.body_tokens,
        place.rank,
        place.world_size,
    )


STAGES = (Training("further-pretrain", build),)
