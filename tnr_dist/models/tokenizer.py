"""Texts to ragged token ids, with the tokenizer that belongs to a pre-trained model."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import tokenizers

from tnr_dist.models.sources import find_folder, one_file
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import atomic_path, read_json_object, write_json

# Encodings are Python objects of some kilobytes; this many live at a time.
_CHUNK = 8192
_MOST_IDS = 1 << 24  # the largest published vocabularies have a million tokens


@dataclass(frozen=True)
class TokenizerFiles:
    """Files that define a tokenizer: `tokenizer.json`; or a WordPiece vocabulary; or BPE vocabulary and merges.

    Attributes:
        folder: where they lie.
        paths: the defining files by their standard names.
        lowercase: WordPiece only: whether texts are lowercased: `do_lower_case` of tokenizer_config.json; without it, yes
            unless the vocabulary's name says cased (unilm2-large-cased-vocab.txt).
        strip_accents, chinese: WordPiece only: whether accents go, by default where texts are lowercased, and whether
            Chinese characters are words each; `strip_accents` and `tokenize_chinese_chars` of tokenizer_config.json.
    """

    folder: Path
    paths: dict[str, Path]
    lowercase: bool = True
    strip_accents: bool | None = None
    chinese: bool = True

    @classmethod
    def find(cls, folder: Path) -> TokenizerFiles:
        """Files of the tokenizer in `folder`; an `InputError` says what was looked for."""
        file = folder / "tokenizer_config.json"
        settings = read_json_object(file) if file.is_file() else {}
        if (folder / "tokenizer.json").is_file():
            return cls(folder, {"tokenizer.json": folder / "tokenizer.json"})
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return cls(folder, {name: folder / name for name in ("vocab.json", "merges.txt")})
        vocabulary = one_file(folder, "vocab.txt", "*-vocab.txt")
        if vocabulary is not None:
            lowercase, accents = settings.get("do_lower_case"), settings.get("strip_accents")
            return cls(
                folder,
                {"vocab.txt": vocabulary},
                "-cased" not in vocabulary.name if lowercase is None else bool(lowercase),
                None if accents is None else bool(accents),
                bool(settings.get("tokenize_chinese_chars", True)),
            )
        raise InputError(f"{folder}: no tokenizer; expected tokenizer.json, vocab.txt, or vocab.json with merges.txt")

    def hash(self) -> str:
        """sha256 over the files' names and content (and a vocabulary's settings): what determines the ids."""
        digest = hashlib.sha256()
        for name, path in sorted(self.paths.items()):
            digest.update(f"{name}:{path.stat().st_size}:".encode())
            digest.update(path.read_bytes())
        if "vocab.txt" in self.paths:
            digest.update(f"lowercase:{self.lowercase}".encode())
            if (self.strip_accents, self.chinese) != (None, True):  # data prepared without these keeps its hash
                digest.update(f"accents:{self.strip_accents}chinese:{self.chinese}".encode())
        return digest.hexdigest()


class Tokenizer:
    """A `tokenizers.Tokenizer` that gives ragged arrays, with its special tokens and without padding."""

    def __init__(self, files: TokenizerFiles) -> None:
        self.files = files
        self.hash = files.hash()
        self._tokenizer = _build(files)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        first = next(iter(files.paths.values()))
        #: One more than the largest token id, special ones included: the rows of word table that the ids need.
        self.vocab_size = 1 + _largest_id(self._tokenizer.get_vocab(with_added_tokens=True), first)
        mask = self._tokenizer.encode("a").special_tokens_mask
        if len(mask) < 2 or not (mask[0] and mask[-1]):
            raise InputError(
                f"{first}: puts no special tokens around a text, as [CLS] and [SEP]; use the tokenizer published with the PLM"
            )

    def token_id(self, token: str) -> int | None:
        """Id of a token, for example "[MASK]"; None if the vocabulary has no such token."""
        return self._tokenizer.token_to_id(token)

    def encode_batch(self, texts: Iterable[str], max_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of all texts.

        Args:
            texts: N strings; an empty one gives its special tokens only.
            max_length: tokens kept at most, specials included; a longer text loses its end, not its final [SEP].

        Returns:
            flat int32 [T] and offsets int64 [N + 1].
        """
        if max_length < 2:
            raise InputError(f"max_length {max_length}: a text needs at least its 2 special tokens")
        self._tokenizer.enable_truncation(max_length)
        flats, lengths = [], [np.zeros(1, np.int64)]
        for chunk in _chunks(texts):
            ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(chunk)]
            sizes = np.fromiter(map(len, ids), np.int64, len(ids))
            flats.append(np.fromiter(chain.from_iterable(ids), np.int32, int(sizes.sum())))
            lengths.append(sizes)
        return np.concatenate(flats or [np.zeros(0, np.int32)]), np.cumsum(np.concatenate(lengths))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens."""
        return self._tokenizer.decode(list(ids))

    def to_json(self, max_length: int) -> str:
        """Content of a `tokenizer.json` that gives the same ids, whatever files defined this one, and cuts as `encode_batch`.

        The tokenizers library itself cuts to `max_length` tokens then; transformers only where it is told to.
        """
        self._tokenizer.enable_truncation(max_length)
        return self._tokenizer.to_str()

    def save(self, folder: Path | str) -> None:
        """Copy the defining files into `folder`, from where `load_tokenizer` gives the same ids and hash."""
        folder = Path(folder)
        for name, path in self.files.paths.items():
            if path.resolve() != (folder / name).resolve():
                with atomic_path(folder / name) as temporary:
                    shutil.copyfile(path, temporary)
        if "vocab.txt" in self.files.paths:
            settings = {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": self.files.lowercase,
                "strip_accents": self.files.strip_accents,
                "tokenize_chinese_chars": self.files.chinese,
            }
            write_json(folder / "tokenizer_config.json", settings)


def load_tokenizer(name: str | TokenizerFiles) -> Tokenizer:
    """Tokenizer of a model: a folder, hub id or `package:PACKAGE/FOLDER`, or the files `load_plm` returned."""
    return Tokenizer(name if isinstance(name, TokenizerFiles) else TokenizerFiles.find(find_folder(name)))


def _largest_id(vocabulary: Mapping[str, object], file: Path) -> int:
    """Raises InputError for a vocabulary without ids or with ids that no PLM has."""
    ids = [number for number in vocabulary.values() if isinstance(number, int)]
    largest = max(ids, default=-1)
    if len(ids) < len(vocabulary) or min(ids, default=-1) < 0 or largest >= _MOST_IDS:
        raise InputError(f"{file}: token ids up to {largest:,}; expected whole numbers, 0 to {_MOST_IDS - 1:,}")
    return largest


def _build(files: TokenizerFiles) -> tokenizers.Tokenizer:
    paths = {name: str(path) for name, path in files.paths.items()}
    first = next(iter(files.paths.values()))
    try:
        if "tokenizer.json" in paths:
            return tokenizers.Tokenizer.from_file(paths["tokenizer.json"])
        if "vocab.txt" in paths:
            wordpiece = tokenizers.BertWordPieceTokenizer(
                paths["vocab.txt"],
                handle_chinese_chars=files.chinese,
                strip_accents=files.strip_accents,
                lowercase=files.lowercase,
            )
            missing = [token for token in ("[CLS]", "[SEP]", "[UNK]") if wordpiece.token_to_id(token) is None]
            if missing:
                raise InputError(f"{first}: no {missing[0]} in it; not a BERT vocabulary")
            return tokenizers.Tokenizer.from_str(wordpiece.to_str())
        # Before the library writes it, which takes memory for every id up to the largest one.
        _largest_id(read_json_object(files.paths["vocab.json"]), first)
        bpe = tokenizers.ByteLevelBPETokenizer(paths["vocab.json"], paths["merges.txt"])
        sep, cls = bpe.token_to_id("</s>"), bpe.token_to_id("<s>")
        if sep is None or cls is None:
            raise InputError(f"{first}: no <s> and </s> in it; not a RoBERTa vocabulary")
        tokenizer = tokenizers.Tokenizer.from_str(bpe.to_str())
        tokenizer.add_special_tokens(
            [t for t in ("<s>", "<pad>", "</s>", "<unk>", "<mask>") if bpe.token_to_id(t) is not None]
        )
        tokenizer.post_processor = tokenizers.processors.RobertaProcessing(
            ("</s>", sep), ("<s>", cls), add_prefix_space=False
        )
        return tokenizer
    except InputError:
        raise
    except Exception as error:  # the Rust library raises plain Exception
        raise InputError(f"{first}: not a readable tokenizer file ({error})") from None


def _chunks(texts: Iterable[str]) -> Iterable[list[str]]:
    chunk: list[str] = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
