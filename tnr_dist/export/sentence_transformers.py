"""The news encoder's attention pooling as a module of sentence-transformers.

A copy of this file lies in every Hugging Face export, from where sentence-transformers loads it (with
`trust_remote_code=True`): it needs torch and safetensors only.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class AdditivePooling(nn.Module):
    """sum_t softmax_t(q^T tanh(W x_t + b)) x_t over the tokens of a text (Tiny-NewsRec's attention network)."""

    def __init__(self, embedding_dimension: int, query_dimension: int) -> None:
        super().__init__()
        self.embedding_dimension, self.query_dimension = embedding_dimension, query_dimension
        self.project = nn.Linear(embedding_dimension, query_dimension)
        self.query = nn.Linear(query_dimension, 1, bias=False)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Pool `token_embeddings` [B, L, d] under `attention_mask` [B, L] into `sentence_embedding` [B, d]."""
        x, mask = features["token_embeddings"], features["attention_mask"].bool()
        logits: Tensor = self.query(torch.tanh(self.project(x))).squeeze(-1).float()
        weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(-1).masked_fill(~mask, 0.0)
        features["sentence_embedding"] = torch.bmm(weights.to(x.dtype).unsqueeze(1), x).squeeze(1)
        return features

    def get_embedding_dimension(self) -> int:
        """Size of the pooled vector."""
        return self.embedding_dimension

    def save(self, output_path: str, safe_serialization: bool = True) -> None:
        """Write config.json and model.safetensors into `1_AdditivePooling`; `safe_serialization` says nothing new."""
        folder = Path(output_path)
        settings = {"embedding_dimension": self.embedding_dimension, "query_dimension": self.query_dimension}
        (folder / "config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
        save_file(self.state_dict(), folder / "model.safetensors")
        if __name__.startswith("transformers_modules."):
            # sentence-transformers copies this file beside the weights, but looks for it one folder up.
            shutil.copyfile(__file__, folder.parent / Path(__file__).name)

    @staticmethod
    def load(input_path: str) -> AdditivePooling:
        """Read what `save` wrote."""
        folder = Path(input_path)
        module = AdditivePooling(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
        module.load_state_dict(load_file(folder / "model.safetensors"))
        return module
