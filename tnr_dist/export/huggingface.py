"""`hf`: a Hugging Face folder that `transformers`, `sentence-transformers` and `Recommender` load.

config.json, model.safetensors     the PLM under transformers' names
tokenizer.json, tokenizer_config.json
modules.json, 1_AdditivePooling/, 2_Dense/   from the PLM's states to the news vector, for sentence-transformers
user_encoder.safetensors           the user encoder
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from tnr_dist.export.description import Description
from tnr_dist.export.source import Source
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.plm import load_plm, to_huggingface
from tnr_dist.models.recommender import ModelSpec, NewsEncoder, Recommender, build_recommender
from tnr_dist.models.transformer import encoder_from_config
from tnr_dist.models.weights import load_strict, read_safetensors
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import write_json

POOLING, DENSE, USERS = "1_AdditivePooling", "2_Dense", "user_encoder.safetensors"
#: The class of `1_AdditivePooling` travels with the folder, so that loading it needs no tnr_dist.
POOLING_CODE = "additive_pooling"
_SPECIAL = {
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "mask_token": ("[MASK]", "<mask>"),
}


def write(source: Source, folder: Path) -> None:
    """Write the folder's files, all but card and description."""
    write_model(source, folder)
    write_tokenizer(source, folder)


def write_model(source: Source, folder: Path) -> None:
    """Write all but the tokenizer."""
    news_encoder = source.model.news_encoder
    weights, config = to_huggingface(news_encoder.encoder)
    size = news_encoder.encoder.config.hidden
    # transformers' models end in a pooler, which ours lack: without its weights loading would warn and draw random ones.
    weights |= {"pooler.dense.weight": torch.zeros(size, size), "pooler.dense.bias": torch.zeros(size)}
    write_json(folder / "config.json", config | {"dtype": "float32"})
    _save(weights, folder / "model.safetensors")
    write_user_encoder(source, folder)
    _write_modules(source, news_encoder, folder)


def write_tokenizer(source: Source, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json; titles are cut to the tokens that the model was trained with."""
    (folder / "tokenizer.json").write_text(source.tokenizer.to_json(source.title_tokens), encoding="utf-8")
    special = {
        kind: next((token for token in names if source.tokenizer.token_id(token) is not None), None)
        for kind, names in _SPECIAL.items()
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": source.title_tokens,
        "model_input_names": ["input_ids", "attention_mask"],
        **{kind: token for kind, token in special.items() if token is not None},
    }
    write_json(folder / "tokenizer_config.json", settings)


def write_user_encoder(source: Source, folder: Path) -> None:
    """Write user_encoder.safetensors, which `read_user_encoder` reads."""
    _save(source.model.user_encoder.state_dict(), folder / USERS)


def _write_modules(source: Source, news_encoder: NewsEncoder, folder: Path) -> None:
    """What sentence-transformers reads."""
    code = Path(__file__).with_name("sentence_transformers.py")
    shutil.copyfile(code, folder / f"{POOLING_CODE}.py")
    modules = [
        ("", "sentence_transformers.models.Transformer"),
        (POOLING, f"{POOLING_CODE}.AdditivePooling"),
        (DENSE, "sentence_transformers.models.Dense"),
    ]
    entries = [
        {"idx": number, "name": str(number), "path": path, "type": kind} for number, (path, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", entries)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": source.title_tokens, "do_lower_case": False})
    write_json(
        folder / "config_sentence_transformers.json",
        {"model_type": "SentenceTransformer", "similarity_fn_name": "dot", "prompts": {}, "default_prompt_name": None},
    )
    dense, pooling = news_encoder.dense, news_encoder.pooling
    for name in (POOLING, DENSE):
        (folder / name).mkdir()
    write_json(
        folder / POOLING / "config.json",
        {"embedding_dimension": dense.in_features, "query_dimension": pooling.project.out_features},
    )
    _save(pooling.state_dict(), folder / POOLING / "model.safetensors")
    write_json(
        folder / DENSE / "config.json",
        {
            "in_features": dense.in_features,
            "out_features": dense.out_features,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    _save({f"linear.{name}": value for name, value in dense.state_dict().items()}, folder / DENSE / "model.safetensors")


def _save(state: dict[str, Tensor], path: Path) -> None:
    tensors = {name: value.detach().contiguous() for name, value in state.items()}
    # save_file makes files that nobody else may read.
    path.write_bytes(save(tensors, metadata={"format": "pt"}))


def read_model(folder: Path, description: Description) -> Recommender:
    """The recommender of an `hf` export, in evaluation mode. Raises InputError for a missing or damaged file."""
    encoder, _ = load_plm(str(folder.resolve()))
    spec = ModelSpec.from_dict(description.model)
    # UniLMv2 comes back as an MPNet, whose tables are laid out otherwise; the vectors are the same.
    model = build_recommender(replace(spec, encoder=encoder.config), encoder)
    _load(model.news_encoder.pooling, folder / POOLING / "model.safetensors")
    _load(model.news_encoder.dense, folder / DENSE / "model.safetensors", prefix="linear.")
    _load(model.user_encoder, folder / USERS)
    return model.eval().requires_grad_(False)


def read_user_encoder(folder: Path, description: Description) -> nn.Module:
    """The user encoder of a folder that has a user_encoder.safetensors, in evaluation mode."""
    spec = ModelSpec.from_dict(description.model)
    # The smallest PLM: only the user encoder is kept.
    tiny = EncoderConfig(vocab_size=1, hidden=1, layers=1, heads=1, intermediate=1, max_positions=1)
    model = build_recommender(replace(spec, encoder=tiny), encoder_from_config(tiny))
    _load(model.user_encoder, folder / USERS)
    return model.user_encoder.eval().requires_grad_(False)


def _load(module: nn.Module, path: Path, prefix: str = "") -> None:
    state = read_safetensors(path)[0]
    if prefix and not all(name.startswith(prefix) for name in state):
        raise InputError(f"{path}: keys do not start with {prefix!r}; export it again")
    load_strict(module, {name.removeprefix(prefix): value for name, value in state.items()}, path)
