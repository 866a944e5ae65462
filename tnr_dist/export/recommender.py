"""`Recommender`: encode news and users, rank and recommend, with the model of any export.

It needs NumPy, tokenizers and either torch or onnxruntime; transformers is not imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tnr_dist.errors import InputError
from tnr_dist.export.description import TABLES, Description
from tnr_dist.export.runtimes import Runtime, open_runtime

if TYPE_CHECKING:
    from tnr_dist.models.tokenizer import Tokenizer

_CHUNK = 1024  # texts tokenised and encoded at a time


class Recommender:
    """A trained news recommender and the news it can recommend (`add_news`, or a `vectors` export).

    News are known by their ids. Vectors are float32 [D]; a score is the dot product of user and news vector.
    """

    def __init__(self, description: Description, runtime: Runtime, tokenizer: Tokenizer | None) -> None:
        self.description = description
        self.ids: list[str] = []
        self.vectors = np.zeros((0, description.news_dim), np.float32)
        self._runtime, self._tokenizer = runtime, tokenizer
        self._row: dict[str, int] = {}

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        vectors: Path | str | None = None,
        *,
        quantised: bool = False,
        bf16: bool = False,
        threads: int = 0,
    ) -> Recommender:
        """Load an export.

        Args:
            folder: of any format.
            vectors: an export of format `vectors`, made from the same model, whose news are then known.
            quantised, bf16, threads: as in `runtimes.open_runtime`.

        Raises:
            InputError: a folder is no export, a file is missing or damaged, or the vectors are another model's.
        """
        folder = Path(folder)
        description = Description.read(folder)
        tokenizer = None
        if description.format != "vectors":
            from tnr_dist.models.tokenizer import load_tokenizer

            tokenizer = load_tokenizer(str(folder))
        runtime = open_runtime(folder, description, quantised=quantised, bf16=bf16, threads=threads)
        found = cls(description, runtime, tokenizer)
        if vectors is None and description.format == "vectors":
            vectors = folder
        if vectors is not None:
            found._add_export(Path(vectors))
        return found

    def encode_news(self, texts: Iterable[str]) -> np.ndarray:
        """Vectors [N, D] of N titles."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if self._tokenizer is None:
            raise InputError("this export holds news vectors, no news encoder; load an export of another format")
        parts = [np.zeros((0, self.description.news_dim), np.float32)]
        for start in range(0, len(texts), _CHUNK):
            encoded = self._tokenizer.encode_batch(texts[start : start + _CHUNK], self.description.title_tokens)
            parts.append(self._runtime.news(*encoded))
        return np.concatenate(parts)

    def add_news(self, ids: Sequence[str], news: Sequence[str] | np.ndarray) -> None:
        """Make news known: their ids, and their titles or their vectors [N, D]. A known id is replaced."""
        vectors = np.asarray(news, np.float32) if isinstance(news, np.ndarray) else self.encode_news(news)
        if vectors.shape != (len(ids), self.description.news_dim):
            raise InputError(
                f"add_news: {len(ids)} ids, but vectors of shape {list(vectors.shape)}; expected "
                f"[{len(ids)}, {self.description.news_dim}]"
            )
        ids = [str(name) for name in ids]
        if any(name in self._row for name in ids):
            fresh = set(ids)
            kept = [row for row, name in enumerate(self.ids) if name not in fresh]
            ids, vectors = [*(self.ids[row] for row in kept), *ids], np.concatenate([self.vectors[kept], vectors])
        else:
            ids, vectors = [*self.ids, *ids], np.concatenate([self.vectors, vectors])
        row = {name: i for i, name in enumerate(ids)}
        if len(row) != len(ids):
            raise InputError("add_news: an id stands twice")
        self.ids, self.vectors, self._row = ids, vectors, row

    def vectors_of(self, news: Sequence[str] | np.ndarray) -> np.ndarray:
        """Vectors [N, D] of known ids; vectors are given back as they are. Raises InputError for an unknown id."""
        if isinstance(news, np.ndarray) and news.dtype.kind == "f":
            if news.ndim != 2 or news.shape[1] != self.description.news_dim:
                raise InputError(f"vectors of shape {list(news.shape)}; expected [N, {self.description.news_dim}]")
            return np.asarray(news, np.float32)
        if isinstance(news, str):
            raise InputError(f"expected a sequence of news ids, got the single text {news!r}")
        try:
            return self.vectors[[self._row[str(name)] for name in news]]
        except KeyError as error:
            raise InputError(
                f"news {error.args[0]!r} is not known; add_news() it, or load its vectors (vectors=FOLDER)"
            ) from None

    def encode_user(self, history: Sequence[str] | np.ndarray) -> np.ndarray:
        """Vector [D] of a user from the clicked news, oldest first: known ids, or vectors [L, D].

        The last `history` clicks count. A user without any gets zeros, with which all news score alike.
        """
        vectors = self.vectors_of(history) if len(history) else np.zeros((0, self.description.news_dim), np.float32)
        vectors = vectors[-self.description.history :]
        # One masked slot stands for an empty history: a graph need not know lengths of 0.
        mask = np.ones((1, max(len(vectors), 1)), bool)
        if not len(vectors):
            vectors, mask[:] = np.zeros((1, self.description.news_dim), np.float32), False
        return self._runtime.users(np.ascontiguousarray(vectors[None]), mask)[0]  # type: ignore[no-any-return]

    def rank(self, user: np.ndarray, candidates: Sequence[str]) -> list[tuple[str, float]]:
        """Candidates (known ids) with their scores for a user vector, best first; equal ones as they came."""
        scores = self.vectors_of(candidates) @ np.asarray(user, np.float32)
        return [(str(candidates[i]), float(scores[i])) for i in np.argsort(-scores, kind="stable")]

    def recommend(self, user: np.ndarray, k: int = 10, exclude: Iterable[str] = ()) -> list[tuple[str, float]]:
        """The k known news with the highest scores for a user vector, best first, without those of `exclude`.

        Raises InputError when `exclude` is a text: its letters would be taken for ids.
        """
        if isinstance(exclude, str):
            raise InputError(f"expected news ids to leave out, got the single text {exclude!r}")
        scores = self.vectors @ np.asarray(user, np.float32)
        left_out = [self._row[str(name)] for name in exclude if str(name) in self._row]
        scores[left_out] = -np.inf
        k = min(k, len(self.ids) - len(set(left_out)))
        if k < 1:
            return []
        best = np.argpartition(-scores, k - 1)[:k]
        best = best[np.argsort(-scores[best], kind="stable")]
        return [(self.ids[i], float(scores[i])) for i in best]

    def _add_export(self, folder: Path) -> None:
        other = Description.read(folder)
        if other.format != "vectors":
            raise InputError(f"{folder}: an export of format {other.format}, not of news vectors")
        if other.made_from["model_sha256"] != self.description.made_from["model_sha256"]:
            raise InputError(f"{folder}: news vectors of another model; export vectors from the same run")
        try:
            ids, vectors = (np.load(folder / name, allow_pickle=False) for name in TABLES)
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: {error}; export the vectors again") from None
        self.add_news(ids.tolist(), vectors)
