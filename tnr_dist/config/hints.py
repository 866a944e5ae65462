"""Which key was meant where an unknown one stands: a typing error, another name of it, or what its meaning says."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing

from tnr_dist.config.fields import meaning

# What other libraries call these settings, where neither the name nor the meaning has it.
_OTHER_NAMES = {
    "adam_eps": "eps",
    "adam_epsilon": "eps",
    "adam_betas": "betas",
    "bs": "batch_size",
    "grad_clip": "clip_norm",
    "gradient_clipping": "clip_norm",
    "max_grad_norm": "clip_norm",
    "gradient_accumulation_steps": "accumulate",
    "grad_accum": "accumulate",
    "lr_scheduler": "schedule",
    "lr_scheduler_type": "schedule",
    "scheduler": "schedule",
    "max_title_length": "title_tokens",
    "max_body_length": "body_tokens",
    "model_name_or_path": "name",
    "model_name": "name",
    "nproc": "ranks",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "num_workers": "workers",
    "num_layers": "layers",
    "save_steps": "checkpoint_every",
    "learning_rate": "lr",
    "learningrate": "lr",
    "logging_steps": "every",
    "wd": "weight_decay",
    "world_size": "ranks",
}


def nearest_key(full: str, parent: str, part: str, kind: type, tree: type) -> str:
    """The key that was most likely meant.

    Args:
        full: the key as it was given; parent: its part that is known ('' at the top); part: the name after that, which is
            none of the fields of `kind`.
        tree: the whole one.
    """
    names = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
    if found := _of_group(part, kind, names, last=full.endswith(part)):
        return f"{parent}.{found}" if parent else found
    keys = _all_keys(tree)
    leaf = full.rpartition(".")[2]
    # The leaf may exist in another group: `lr` alone, or `data.lr`.
    for name in (leaf, _OTHER_NAMES.get(leaf, "")):
        same = [key for key in keys if key.rpartition(".")[2] == name]
        if same:
            return (
                max(same, key=lambda key: difflib.SequenceMatcher(None, full, key).ratio()) if "." in full else same[0]
            )
    everywhere = [(_share(leaf, key, meaning(owner, key.rpartition(".")[2])), key) for key, owner in keys.items()]
    share, best = max(everywhere, key=lambda one: one[0])
    return best if share else (difflib.get_close_matches(full, keys, n=1, cutoff=0.0) or names)[0]


def _of_group(part: str, kind: type, names: list[str], last: bool) -> str:
    """The field of one group that was meant; '' where none is like it. Before the `last` part it is a group's name."""
    if near := difflib.get_close_matches(part, names, n=1, cutoff=0.75):
        return near[0]
    if _OTHER_NAMES.get(part) in names:
        return _OTHER_NAMES[part]
    if last:
        share, best = max(((_share(part, name, meaning(kind, name)), name) for name in names), default=(0.0, ""))
        if share:
            return best
    return next(iter(difflib.get_close_matches(part, names, n=1, cutoff=0.5)), "")


def _share(part: str, name: str, text: str) -> float:
    """How much of a key's name or meaning the words of `part` make up; 0 unless all of them are there, or begin one."""
    wanted = _words(part)
    shares = [
        len(wanted) / len(words)
        for words in (_words(name), _words(text))
        if wanted and all(any(word.startswith(one) and len(one) > 2 for word in words) for one in wanted)
    ]
    return max(shares, default=0.0)


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", text.lower()) if word]


def _all_keys(kind: type, prefix: str = "") -> dict[str, type]:
    """Every dotted key and the group that it is a field of."""
    keys: dict[str, type] = {}
    for name, hint in typing.get_type_hints(kind).items():
        keys[prefix + name] = kind
        if dataclasses.is_dataclass(hint):
            keys |= _all_keys(typing.cast(type, hint), f"{prefix}{name}.")
    return keys
