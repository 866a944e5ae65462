"""A PLM small enough for tests."""

from __future__ import annotations

from pathlib import Path


def write_tiny_plm(folder: Path) -> None:
    """A BERT-shaped PLM of 3 layers and random weights with a vocabulary of letters, as a Hugging Face folder."""
    import torch
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    words = list("abcdefghijklmnopqrstuvwxyz")
    pieces = [f"##{letter}" for letter in words] + list("0123456789.,:;'\"!?-$%&()")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *pieces]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
