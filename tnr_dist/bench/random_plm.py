"""A PLM of random weights and the vocabulary of generated texts, for machines that hold no published one."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file

from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.plm import to_published
from tnr_dist.models.transformer import encoder_from_config
from tnr_dist.util.errors import InputError

_ROWS = 30_522  # BERT's and UniLMv2's
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_NAME = re.compile(r"random:(\d+)x(\d+)(:unilm)?")


def write_random_plm(name: str, folder: Path, texts: Iterable[Path]) -> None:
    """Write `random:LAYERSxWIDTH` (BERT's form) or `random:LAYERSxWIDTH:unilm` (with UniLMv2's relative bias) to `folder`.

    Every word of the files `texts` is a token, so that a text has about as many tokens as with WordPiece.
    Raises InputError for another name, or a width that has no heads of 32 or 64.
    """
    found = _NAME.fullmatch(name)
    if not found or int(found[2]) % 64 or not int(found[1]):
        raise InputError(
            f"plm={name}: expected random:LAYERSxWIDTH or random:LAYERSxWIDTH:unilm, WIDTH a multiple of 64"
        )
    layers, width = int(found[1]), int(found[2])
    folder.mkdir(parents=True)
    words = Counter(word for path in texts for word in re.findall(r"\w+|[^\w\s]", path.read_text("utf-8").lower()))
    known = [word for word, _ in words.most_common(_ROWS - len(_SPECIAL))]
    blanks = [f"[unused{i}]" for i in range(_ROWS - len(_SPECIAL) - len(known))]
    (folder / "vocab.txt").write_text("\n".join([*_SPECIAL, *known, *blanks]) + "\n", encoding="utf-8")
    torch.manual_seed(0)
    encoder = encoder_from_config(
        EncoderConfig(
            vocab_size=_ROWS, hidden=width, layers=layers, heads=12 if width % 12 == 0 else width // 64,
            intermediate=4 * width, max_positions=512, relative_buckets=32 if found[3] else 0,
        )
    )  # fmt: skip
    state, values = to_published(encoder)
    save_file({key: value.contiguous().clone() for key, value in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
