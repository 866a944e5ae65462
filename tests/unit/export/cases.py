"""Tiny models that were never trained, as runs and as sources of exports."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tests.lanes import missing
from tnr_dist.config.schema import to_yaml
from tnr_dist.export.source import Source
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.plm import load_plm
from tnr_dist.models.recommender import ModelSpec, build_recommender, save_recommender
from tnr_dist.models.transformer import encoder_from_config
from tnr_dist.stages.methods import Tree
from tnr_dist.util.files import write_json, write_text

TITLES = ["Storm", "Quiet night on the coast", "a b c d e f g h i j k l m n o p q r s t u v w x y z", "Two goals"]
#: Close enough for float32: the largest component is about 1.
CLOSE = 1e-4
KINDS = ("bert", "nrms", "learned", "roberta", "mpnet", "unilm")


def need(*packages: str) -> None:
    for package in packages:
        if not importlib.util.find_spec(package):
            missing(f"{package} is not installed: pip install 'tnr_dist[export]'")


def write_run(folder: Path, plm: Path | str, data: Path, layers: int = 2, **model: object) -> Path:
    """A run of the PLM's first layers with random heads, as stage 2 would leave it."""
    encoder, _ = load_plm(str(plm), layers)
    torch.manual_seed(1)
    spec = ModelSpec(encoder.config, news_dim=16, query_dim=8, **model)  # type: ignore[arg-type]
    config = Tree()
    config.plm.name, config.data.dir, config.data.title_tokens, config.data.history = str(plm), str(data), 24, 10
    save_recommender(build_recommender(spec, encoder), spec, folder / "model.safetensors")
    write_text(folder / "config.yaml", to_yaml(config))
    write_json(folder / "complete.json", {"id": "abc", "stage": "stage2"})
    return folder


def source_of(kind: str) -> Source:
    """A model of another shape: 2 layers of width 16, random weights, no tokenizer."""
    base = EncoderConfig(50, 16, 2, 2, 32, 40)
    configs = {
        "bert": base,
        "nrms": base,
        "learned": base,
        "roberta": replace(base, type_vocab_size=1, position_offset=2, pad_id=1, activation="gelu_new"),
        "mpnet": replace(base, type_vocab_size=0, position_offset=2, pad_id=1, relative_buckets=32),
        "unilm": replace(base, relative_buckets=32),
    }
    heads: dict[str, object] = {}
    if kind == "nrms":
        heads = {"user_encoder": "nrms", "user_heads": 4}
    elif kind == "learned":
        heads = {"history_padding": "learned"}
    torch.manual_seed(0)
    spec = ModelSpec(configs[kind], news_dim=8, query_dim=5, **heads)  # type: ignore[arg-type]
    model = build_recommender(spec, encoder_from_config(spec.encoder)).eval()
    for parameter in model.parameters():  # biases are 0 else, and the tables too small to see a slip
        torch.nn.init.normal_(parameter, std=0.3)
    return Source("tiny", model, spec, None, Tree(), {"model_sha256": "x"}, {}, None)  # type: ignore[arg-type]


def random_titles(source: Source, lengths: tuple[int, ...] = (5, 2, 9, 30, 1)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(5, source.spec.encoder.vocab_size, sum(lengths)), np.cumsum([0, *lengths])
