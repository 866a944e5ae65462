"""Published weights into our encoder: BERT, RoBERTa, XLM-RoBERTa, MPNet and UniLMv2, and back to Hugging Face's names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tnr_dist.models import unilm
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.published import check_published
from tnr_dist.models.sources import config_file, find_folder, weight_files
from tnr_dist.models.tokenizer import Tokenizer, TokenizerFiles
from tnr_dist.models.transformer import Encoder, encoder_from_config
from tnr_dist.models.weights import check_number, load_state, load_strict, read_weights, save_model
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json
from tnr_dist.util.json_types import JsonObject
from tnr_dist.util.progress import say

__all__ = [
    "encoder_from_config",
    "load_plm",
    "load_state",
    "read_config",
    "save_model",
    "to_huggingface",
    "to_published",
]


@dataclass(frozen=True)
class Kind:
    """A `model_type` that loads; docs/plms.md is made from these.

    Attributes:
        name: the model in words.
        example: a hub id, or the published file.
        tokenizer: files that it comes with, of those that `TokenizerFiles` knows.
        after_pad: positions are numbered from behind the pad id.
        exported_as: its `model_type` in an export for `transformers`.
    """

    name: str
    example: str
    tokenizer: str
    after_pad: bool
    exported_as: str


_WORDPIECE, _BPE, _JSON = (
    "tokenizer.json or vocab.txt",
    "tokenizer.json or vocab.json with merges.txt",
    "tokenizer.json",
)
_UNILM = Kind("UniLMv2", "unilm2-base-uncased.bin", _WORDPIECE, False, "mpnet")
#: Of UniLMv2 the type names differ by who published it; a file without a type is BERT's, or UniLMv2's with `rel_pos_bins`.
KINDS = {
    "bert": Kind("BERT; MiniLM and others in its form", "bert-base-uncased", _WORDPIECE, False, "bert"),
    "roberta": Kind("RoBERTa", "roberta-base", _BPE, True, "roberta"),
    "xlm-roberta": Kind("XLM-RoBERTa", "xlm-roberta-base", _JSON, True, "roberta"),
    "camembert": Kind("CamemBERT", "camembert-base", _JSON, True, "roberta"),
    "mpnet": Kind("MPNet", "sentence-transformers/all-mpnet-base-v2", _JSON, True, "mpnet"),
    **dict.fromkeys(("unilm", "unilmv2", "tnlr", "tnlrv3"), _UNILM),
}
#: MPNet numbers positions from here, whatever its pad id is.
_MPNET_OFFSET = 2
# What frameworks and task models put before the encoder's names: DistributedDataParallel, torch.compile, a head around it.
_WORDS = re.compile(r"((?:(?:module|_orig_mod|model|bert|roberta|mpnet)\.)*)embeddings\.word_embeddings\.weight")

# Our names against the published ones, within a layer and outside of one; qkv is three published matrices.
_BERT_LAYER = {
    "attention_out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
_BERT_QKV = [f"attention.self.{name}" for name in ("query", "key", "value")]
_MPNET_LAYER = _BERT_LAYER | {"attention_out": "attention.attn.o", "attention_norm": "attention.LayerNorm"}
_MPNET_QKV = [f"attention.attn.{name}" for name in ("q", "k", "v")]
_EMBEDDINGS = {
    "words.weight": "embeddings.word_embeddings.weight",
    "positions.weight": "embeddings.position_embeddings.weight",
    "types.weight": "embeddings.token_type_embeddings.weight",
    "embedding_norm.weight": "embeddings.LayerNorm.weight",
    "embedding_norm.bias": "embeddings.LayerNorm.bias",
}
_RELATIVE = "encoder.relative_attention_bias.weight"  # MPNet: [buckets, heads]
#: Classes in `transformers`.
_CLASSES = {"mpnet": "MPNetModel", "roberta": "RobertaModel", "bert": "BertModel"}
#: Other names of the activations.
_ACTIVATION_NAMES = {"gelu_pytorch_tanh": "gelu_new", "gelu_python": "gelu"}
_USE = "use the config.json published with the weights"
# Heads and buffers that are no part of the encoder.
_NOT_ENCODER = re.compile(r"(pooler|cls|lm_head|classifier|qa_outputs)\.|embeddings\.position_ids$|crit_.*")


def load_plm(name: str, layers: int | None = None) -> tuple[Encoder, TokenizerFiles]:
    """Load a pre-trained encoder and find its tokenizer's files.

    Args:
        name: local folder, hub id, or `package:PACKAGE/FOLDER` (see `sources.find_folder`). UniLMv2's folder holds the
            files under their published names (`unilm.NAME`); without its configuration the published one is assumed.
            A position table of another size than the configuration's is cut or extended, and tensors that the model has
            no place for are left out, each with a warning, as public code that reads this file does.
        layers: keep only the first `layers` layers; None = all.

    Returns:
        The encoder, float32 on the CPU, in training mode with all parameters trainable; and the tokenizer's files.

    Raises:
        InputError: not found, unsupported, corrupt, a key missing, unexpected or of a wrong shape or kind of number, or a
            vocabulary that does not fit; names the file.
    """
    folder = find_folder(name)
    config = read_config(folder)
    keep = config.layers if layers is None else layers
    if not 1 <= keep <= config.layers:
        raise InputError(f"{folder}: layers={layers}, but this model has {config.layers}; choose 1 to {config.layers}")
    tokenizer = TokenizerFiles.find(folder)
    check_vocabulary(tokenizer, config)
    weights, source = read_weights(folder)
    state = _own_names(weights, config, source)
    used = [*weight_files(folder), config_file(folder), *tokenizer.paths.values()]
    check_published(name, folder, [path for path in used if path is not None])
    encoder = Encoder(config).truncate(keep)
    wanted = {key: value for key, value in state.items() if _layer_of(key) < keep}
    load_strict(encoder, wanted, source)
    return encoder, tokenizer


def read_config(folder: Path) -> EncoderConfig:
    """Encoder configuration from a published config.json, or UniLMv2's own where only its weights are there."""
    path = config_file(folder)
    if path is not None:
        return _encoder_config(read_json(path), path)
    if (folder / unilm.WEIGHTS_FILE).is_file():
        return _encoder_config(unilm.BASE_UNCASED, folder / unilm.WEIGHTS_FILE)
    raise InputError(f"{folder}: no config.json; not a model folder")


def _encoder_config(values: object, path: Path) -> EncoderConfig:
    if not isinstance(values, dict):
        raise InputError(f"{path}: not a JSON object")
    relative = values.get("rel_pos_bins") or 0
    kind = values.get("model_type") or ("unilm" if relative else "bert")
    if kind not in KINDS:
        raise InputError(f"{path}: model_type {kind!r} is not supported; supported are {', '.join(sorted(KINDS))}")
    if values.get("position_embedding_type", "absolute") != "absolute":
        raise InputError(f"{path}: position_embedding_type {values['position_embedding_type']!r} is not supported")
    if values.get("embedding_size", values.get("hidden_size")) != values.get("hidden_size"):
        raise InputError(f"{path}: embedding_size differs from hidden_size, which is not supported")
    pad_id = values.get("pad_token_id")
    if pad_id is None:
        pad_id = int(KINDS[kind].after_pad)
    activation = str(values.get("hidden_act", "gelu"))
    mpnet = kind == "mpnet"
    try:
        return EncoderConfig(
            vocab_size=values["vocab_size"],
            hidden=values["hidden_size"],
            layers=values["num_hidden_layers"],
            heads=values["num_attention_heads"],
            intermediate=values["intermediate_size"],
            max_positions=values["max_position_embeddings"],
            type_vocab_size=0 if mpnet else int(values.get("type_vocab_size", 2)),
            layer_norm_eps=float(values.get("layer_norm_eps", 1e-12)),
            position_offset=_MPNET_OFFSET if mpnet else pad_id + 1 if KINDS[kind].after_pad else 0,
            activation=_ACTIVATION_NAMES.get(activation, activation),
            dropout=float(values.get("hidden_dropout_prob", 0.1)),
            attention_dropout=float(values.get("attention_probs_dropout_prob", 0.1)),
            relative_buckets=int(values.get("relative_attention_num_buckets", 32)) if mpnet else int(relative),
            relative_max_distance=int(values.get("max_rel_pos") or 128),
            pad_id=pad_id,
        )
    except KeyError as error:
        raise InputError(f"{path}: key {error.args[0]!r} is missing") from None
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None


def _is_mpnet(config: EncoderConfig) -> bool:
    """Whether a relative bias is MPNet's; else it is UniLMv2's."""
    return bool(config.relative_buckets) and config.position_offset == _MPNET_OFFSET


def check_vocabulary(tokenizer: TokenizerFiles, config: EncoderConfig) -> None:
    """Raise InputError when a tokenizer has ids for which the word table has no row.

    Some models pad the table; UniLMv2 has a row for each line of its vocabulary.
    """
    path = tokenizer.paths.get("vocab.txt")
    if path is None:  # ids stand in the file itself, and need not count up
        if (needed := Tokenizer(tokenizer).vocab_size) > config.vocab_size:
            raise InputError(
                f"{next(iter(tokenizer.paths.values()))}: has token id {needed - 1}, but the configuration says vocab_size "
                f"= {config.vocab_size}; use the tokenizer published with the weights"
            )
        return
    text = path.read_bytes()
    lines = text.count(b"\n") + (not text.endswith(b"\n"))
    exact = bool(config.relative_buckets) and not _is_mpnet(config)
    if lines > config.vocab_size or (exact and lines != config.vocab_size):
        raise InputError(
            f"{path}: {lines} lines, but the configuration says vocab_size = {config.vocab_size}; "
            "use the vocabulary published with the weights"
        )


def _layer_of(key: str) -> int:
    match = re.match(r"layers\.(\d+)\.", key)
    return int(match.group(1)) if match else -1


def _own_names(weights: dict[str, Tensor], config: EncoderConfig, source: Path) -> dict[str, Tensor]:
    """Published tensors under our names, float32; keys of task heads are dropped."""
    left = unilm.bert_names(_encoder_part(weights), config.hidden, source)
    state: dict[str, Tensor] = {}

    def take(key: str) -> Tensor:
        if key not in left:
            raise InputError(f"{source}: key {key} is missing; is the config.json beside it of another model?")
        check_number(left[key], f"{source}: key {key}")
        return left.pop(key).float()

    for own, published in _EMBEDDINGS.items():
        if own != "types.weight" or config.type_vocab_size:
            state[own] = take(published)
    mpnet = _RELATIVE in left
    if config.relative_buckets:
        state["relative_bias.weight"] = take(_RELATIVE) if mpnet else _bias_table(take(unilm.RELATIVE), config, source)
    of_unilm = bool(config.relative_buckets) and not mpnet
    if of_unilm:
        state["positions.weight"] = _fitting_positions(state["positions.weight"], config, source)
    _check_tables(state, config, source)
    names, qkv = (_MPNET_LAYER, _MPNET_QKV) if mpnet else (_BERT_LAYER, _BERT_QKV)
    for i in range(config.layers):
        layer = f"encoder.layer.{i}."
        for kind in ("weight", "bias"):
            parts = [take(f"{layer}{name}.{kind}") for name in qkv]
            for name, part in zip(qkv, parts, strict=True):
                if part.shape[0] != config.hidden:
                    shape = list(part.shape)
                    raise InputError(f"{source}: key {layer}{name}.{kind} has shape {shape}, hidden is {config.hidden}")
            state[f"layers.{i}.qkv.{kind}"] = torch.cat(parts)
        for own, published in names.items():
            for kind in ("weight", "bias"):
                state[f"layers.{i}.{own}.{kind}"] = take(f"{layer}{published}.{kind}")
    if unilm.RELATIVE in left:
        shape = list(left[unilm.RELATIVE].shape)
        raise InputError(f"{source}: has a relative position bias {shape}, the configuration no rel_pos_bins; {_USE}")
    if left and of_unilm:
        say(
            f"{source}: left out: {sorted(left)[0]} ({len(left)} in all), for which {config.layers} layers have no place"
        )
    elif left:
        raise InputError(f"{source}: unexpected key {sorted(left)[0]} ({len(left)} in all) for {config.layers} layers")
    return state


def _encoder_part(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    # Of several (a model beside its copy) the one with the shortest prefix is the encoder.
    found = sorted((match[1] for key in weights if (match := _WORDS.fullmatch(key))), key=len)
    prefix = found[0] if found else ""
    part = {}
    for key, value in weights.items():
        if not key.startswith(prefix):
            continue
        name = key.removeprefix(prefix).replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if not _NOT_ENCODER.match(name):
            part[name] = value
    return part


def _bias_table(weight: Tensor, config: EncoderConfig, source: Path) -> Tensor:
    """[buckets, heads] from UniLMv2's linear form [heads, buckets]; an embedding is taken as it is."""
    linear = [config.heads, config.relative_buckets]
    if list(weight.shape) not in (linear, linear[::-1]):
        raise InputError(
            f"{source}: relative position bias of shape {list(weight.shape)}, expected {linear} "
            f"(num_attention_heads, rel_pos_bins); {_USE}"
        )
    return weight.t().contiguous() if list(weight.shape) == linear else weight


def _fitting_positions(table: Tensor, config: EncoderConfig, source: Path) -> Tensor:
    """UniLMv2's position table with as many rows as the configuration says; one of another width is left as it is."""
    if table.shape == (config.max_positions, config.hidden) or table.shape[1:] != (config.hidden,):
        return table
    how = "cut" if len(table) > config.max_positions else "extended by rows drawn at random"
    say(f"{source}: {len(table)} positions, max_position_embeddings is {config.max_positions}: {how}")
    return unilm.resized_positions(table, config.max_positions)


def _check_tables(state: dict[str, Tensor], config: EncoderConfig, source: Path) -> None:
    """Compare the tables' sizes with what the configuration says: here a file of another model shows first."""
    tables = {
        "words.weight": ("vocab_size", config.vocab_size),
        "positions.weight": ("max_position_embeddings", config.max_positions),
        "types.weight": ("type_vocab_size", config.type_vocab_size),
    }
    for key, (setting, rows) in tables.items():
        if key in state and state[key].shape != (rows, config.hidden):
            raise InputError(
                f"{source}: key {_EMBEDDINGS[key]} has shape {list(state[key].shape)}, "
                f"expected {[rows, config.hidden]} ({setting}, hidden_size); {_USE}"
            )


def to_huggingface(encoder: Encoder) -> tuple[dict[str, Tensor], JsonObject]:
    """Weights and config.json of an encoder for `transformers`: as `mpnet` with a relative bias, else `bert`/`roberta`.

    Token types are added to the position table where the target has none (MPNet), which is exact: all are type 0.

    Returns:
        State dict of MPNetModel, RobertaModel or BertModel (without pooler), and the configuration's values.

    Raises:
        InputError: a relative bias other than MPNet's, whose 32 buckets and distance 128 are fixed.
    """
    config = encoder.config
    if config.relative_buckets and (config.relative_buckets, config.relative_max_distance) != (32, 128):
        raise InputError("export: transformers' MPNet has 32 relative buckets up to distance 128 only")
    state = _state(encoder)
    kind = "mpnet" if config.relative_buckets else "roberta" if config.position_offset else "bert"
    if kind == "mpnet":
        types = state.pop("types.weight", None)
        if types is not None:
            state["positions.weight"] += types[0]
        if config.position_offset == 0:
            blank = torch.zeros(_MPNET_OFFSET, config.hidden)
            state["positions.weight"] = torch.cat([blank, state["positions.weight"]])
    return _published(state, config, kind)


def to_published(encoder: Encoder) -> tuple[dict[str, Tensor], JsonObject]:
    """Weights and config.json from which `load_plm` gives the same encoder, bit for bit.

    As `to_huggingface`, but UniLMv2 stays UniLMv2 (`model_type` unilmv2, which `transformers` does not know).
    """
    config = encoder.config
    if not config.relative_buckets or _is_mpnet(config):
        return to_huggingface(encoder)
    return _published(_state(encoder), config, "unilmv2")


def _state(encoder: Encoder) -> dict[str, Tensor]:
    return {key: value.detach().cpu().clone() for key, value in encoder.state_dict().items()}


def _published(state: dict[str, Tensor], config: EncoderConfig, kind: str) -> tuple[dict[str, Tensor], JsonObject]:
    """Our tensors under the names of model type `kind`, and the configuration's values."""
    names, qkv = (_MPNET_LAYER, _MPNET_QKV) if kind == "mpnet" else (_BERT_LAYER, _BERT_QKV)
    out = {published: state[own] for own, published in _EMBEDDINGS.items() if own in state}
    if kind == "mpnet":
        out[_RELATIVE] = state["relative_bias.weight"]
    elif kind == "unilmv2":
        out[unilm.RELATIVE] = state["relative_bias.weight"].t().contiguous()
    for i in range(config.layers):
        layer = f"encoder.layer.{i}."
        for part in ("weight", "bias"):
            for name, value in zip(qkv, state[f"layers.{i}.qkv.{part}"].chunk(3), strict=True):
                out[f"{layer}{name}.{part}"] = value.contiguous()
            for own, published in names.items():
                out[f"{layer}{published}.{part}"] = state[f"layers.{i}.{own}.{part}"]
    values: JsonObject = {
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.intermediate,
        "max_position_embeddings": out["embeddings.position_embeddings.weight"].shape[0],
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_act": config.activation,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "pad_token_id": config.pad_id,
    }
    if kind in _CLASSES:
        values["architectures"] = [_CLASSES[kind]]
    if kind == "mpnet":
        values["relative_attention_num_buckets"] = config.relative_buckets
    else:
        values["type_vocab_size"] = config.type_vocab_size
    if kind == "unilmv2":
        values |= {"rel_pos_bins": config.relative_buckets, "max_rel_pos": config.relative_max_distance}
    return out, values
