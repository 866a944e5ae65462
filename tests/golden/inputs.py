"""What the golden curves are trained on: a small MIND folder, a corpus with bodies and a PLM of random weights.

Made here and not by `tnr data synth`, so that better generated data moves no curve. Everything is drawn by NumPy from named
seeds, so it is the same on every machine.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

NEWS, USERS, TOPICS = 120, 100, 6
TRAIN, DEV = 2500, 60  # impressions; so many that the train split has two shards
LAYERS, HIDDEN, HEADS, INNER, POSITIONS = 4, 64, 4, 128, 64
_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeiou"]
# The first 40 words are of all topics, the others of one of them.
WORDS = [first + second for first in _SYLLABLES[::3] for second in _SYLLABLES[1::7]]
_COMMON = 40


def write_inputs(folder: Path) -> None:
    """FOLDER/mind (train, dev), FOLDER/corpus.tsv and FOLDER/plm."""
    topics = np.random.default_rng([1, 0]).integers(0, TOPICS, NEWS)
    _write_news(folder, topics)
    _write_behaviors(folder / "mind", topics)
    write_plm(folder / "plm")


def _text(rng: np.random.Generator, topic: int, words: int) -> str:
    own = np.arange(_COMMON + topic, len(WORDS), TOPICS)
    chosen = np.where(rng.random(words) < 0.6, rng.choice(own, words), rng.integers(0, _COMMON, words))
    return " ".join(WORDS[word] for word in chosen)


def _write_news(folder: Path, topics: np.ndarray) -> None:
    rng, news, corpus = np.random.default_rng([1, 1]), [], []
    for number, topic in enumerate(topics.tolist()):
        title, abstract, body = (_text(rng, topic, int(n)) for n in rng.integers([3, 2, 2], [7, 4, 5]) * [1, 3, 5])
        about = f"N{number}\ttopic{topic}\tpart{number % 3}\t{title}\t{abstract}"
        news.append(f"{about}\thttps://example.org/{number}\t[]\t[]\n")
        corpus.append(f"{about}\t{body}\n")
    for split in ("train", "dev"):
        (folder / "mind" / split).mkdir(parents=True)
        (folder / "mind" / split / "news.tsv").write_text("".join(news), encoding="utf-8")
    (folder / "corpus.tsv").write_text("".join(corpus), encoding="utf-8")


def _write_behaviors(folder: Path, topics: np.ndarray) -> None:
    """Users read and click mostly what is of their two topics."""
    rng = np.random.default_rng([1, 2])
    likes = np.stack([rng.permutation(TOPICS)[:2] for _ in range(USERS)])
    liked = (topics == likes[:, :, None]).any(1)  # [USERS, NEWS]
    histories = []
    for user in range(USERS):
        weights = np.where(liked[user], 8.0, 1.0)
        size = int(rng.integers(0, 14))
        histories.append(" ".join(f"N{n}" for n in rng.choice(NEWS, size, replace=False, p=weights / weights.sum())))
    for split, impressions in (("train", TRAIN), ("dev", DEV)):
        lines = []
        for number in range(impressions):
            user = int(rng.integers(USERS))
            shown = rng.choice(NEWS, int(rng.integers(3, 12)), replace=False)
            clicked = rng.random(len(shown)) < np.where(liked[user, shown], 0.5, 0.08)
            clicked[0] |= not clicked.any()
            time = f"11/{10 + number % 5}/2019 {1 + number % 11}:{number % 60:02}:00 AM"
            candidates = " ".join(f"N{n}-{int(c)}" for n, c in zip(shown, clicked, strict=True))
            lines.append(f"{number + 1}\tU{user}\t{time}\t{histories[user]}\t{candidates}\n")
        (folder / split / "behaviors.tsv").write_text("".join(lines), encoding="utf-8")


def write_plm(folder: Path) -> None:
    """A BERT of 4 layers in Hugging Face's form, its weights as large as a trained one's, so that every part matters."""
    folder.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    config = {
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    rng, weights = np.random.default_rng([1, 3]), {}

    def matrix(name: str, rows: int, columns: int) -> None:
        weights[f"{name}.weight"] = rng.normal(0, columns**-0.5, (rows, columns))

    def dense(name: str, rows: int, columns: int) -> None:
        matrix(name, rows, columns)
        weights[f"{name}.bias"] = rng.normal(0, 0.1, rows)

    def norm(name: str) -> None:
        weights[f"{name}.weight"] = rng.normal(1, 0.1, HIDDEN)
        weights[f"{name}.bias"] = rng.normal(0, 0.1, HIDDEN)

    for name, rows in (("word", len(vocabulary)), ("position", POSITIONS), ("token_type", 2)):
        matrix(f"embeddings.{name}_embeddings", rows, HIDDEN)
    norm("embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            dense(f"{at}.attention.self.{name}", HIDDEN, HIDDEN)
        dense(f"{at}.attention.output.dense", HIDDEN, HIDDEN)
        norm(f"{at}.attention.output.LayerNorm")
        dense(f"{at}.intermediate.dense", INNER, HIDDEN)
        dense(f"{at}.output.dense", HIDDEN, INNER)
        norm(f"{at}.output.LayerNorm")
    save_file({name: values.astype(np.float32) for name, values in weights.items()}, folder / "model.safetensors")
