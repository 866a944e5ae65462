"""UniLMv2 (Bao et al. 2020) as its authors published it: the files' names, the architecture, and the tensors' names.

Read in public code that loads this very file, since the file itself was not at hand:
- names: microsoft/unilm, s2s-ft/s2s_ft/convert_state_dict.py (`unilm_to_hf_bert`); the same in the paper's code,
  yflyl613/Tiny-NewsRec, Tiny-NewsRec/tnlrv3/convert_state_dict.py, and in microsoft/SpeedyRec, LanguageModels/;
- function: microsoft/unilm, s2s-ft/s2s_ft/modeling.py: BERT, and a bias added to the scaled scores of every layer;
- sizes: microsoft/SpeedyRec, example_data/pretrainedModel/uncased-config.json, and yflyl613/Tiny-NewsRec,
  TinyBERT/tnlrv3/config/tnlrv3-base-uncased-config.json;
- shapes of q_bias and v_bias: LayoutLMv2 in `transformers`, which has the same fused projection (`fast_qkv`);
- what else a file may hold: Tiny-NewsRec/tnlrv3/modeling.py, which resizes the position table and, as `transformers` does,
  leaves out tensors that the model has no place for. Nobody can test the file itself here, so both are done here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tnr_dist.util.errors import InputError
from tnr_dist.util.json_types import JsonObject

#: Published as NAME.bin, NAME-config.json and NAME-vocab.txt.
NAME = "unilm2-base-uncased"
WEIGHTS_FILE = f"{NAME}.bin"

#: The published configuration, for a folder that has the weights and the vocabulary only.
BASE_UNCASED: JsonObject = {
    "model_type": "unilmv2",
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "rel_pos_bins": 32,
    "max_rel_pos": 128,
}

#: The relative position bias [heads, buckets], without a prefix: as the authors' model names it, and as in the file.
RELATIVE = "rel_pos_bias.weight"
_RELATIVE_IN_FILE = "encoder.rel_pos_bias.weight"
_FUSED = "attention.self.qkv_linear.weight"
_NEW_ROWS = 0.02  # standard deviation of rows that a position table is extended by: the published initializer_range


def bert_names(weights: Mapping[str, Tensor], hidden: int, source: Path) -> dict[str, Tensor]:
    """The encoder's tensors under BERT's names; those of a model that has them already are left as they are.

    Published for layer i and hidden size d, after the prefix `bert.`:

        encoder.layer.i.attention.self.qkv_linear.weight   [3 d, d], queries above keys above values
        encoder.layer.i.attention.self.q_bias, v_bias      [1, 1, d]; the keys have none
        encoder.rel_pos_bias.weight                        [heads, buckets], shared by all layers

    and all else as in BERT.

    Args:
        weights: tensors by name, without prefix.
        hidden: d.
        source: the file, for messages.

    Returns:
        The same with query, key and value apart, zero biases for the keys, and the bias table as `RELATIVE`.

    Raises:
        InputError: a projection or its bias has another shape, or a bias is missing.
    """
    named = dict(weights)
    if _RELATIVE_IN_FILE in named:
        named[RELATIVE] = named.pop(_RELATIVE_IN_FILE)
    for key in [key for key in weights if key.endswith(_FUSED)]:
        fused, attention = named.pop(key), key.removesuffix("qkv_linear.weight")
        if fused.shape != (3 * hidden, hidden):
            raise InputError(f"{source}: key {key} has shape {list(fused.shape)}, expected {[3 * hidden, hidden]}")
        for name, part in zip(("query", "key", "value"), fused.chunk(3), strict=True):
            named[f"{attention}{name}.weight"] = part
        for letter, name in (("q", "query"), ("v", "value")):
            bias = named.pop(f"{attention}{letter}_bias", None)
            if bias is None or bias.numel() != hidden:
                state = "is missing" if bias is None else f"has shape {list(bias.shape)}"
                raise InputError(f"{source}: key {attention}{letter}_bias {state}, expected {[1, 1, hidden]}")
            named[f"{attention}{name}.bias"] = bias.reshape(hidden)
        named[f"{attention}key.bias"] = torch.zeros_like(named[f"{attention}query.bias"])
    return named


def resized_positions(table: Tensor, rows: int) -> Tensor:
    """A position table [rows', d] with `rows` rows: cut, or extended by rows drawn from N(0, 0.02^2).

    The draw is the same every time, so that every load on every rank gives the same encoder.
    """
    more = rows - len(table)
    if more <= 0:
        return table[:rows].contiguous()
    drawn = torch.randn(more, table.shape[1], generator=torch.Generator().manual_seed(0)) * _NEW_ROWS
    return torch.cat([table, drawn.to(table.dtype)])
