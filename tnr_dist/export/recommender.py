"""`Recommender`: encode news and users, rank and recommend, with the model of any export.

It needs NumPy, tokenizers and either torch or onnxruntime; transformers is not imported.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tnr_dist.export.catalogue import Catalogue, Snapshot
from tnr_dist.export.description import TABLES, Description
from tnr_dist.export.runtimes import Runtime, open_runtime
from tnr_dist.util.errors import InputError

if TYPE_CHECKING:
    from tnr_dist.models.tokenizer import Tokenizer

_CHUNK = 1024  # texts tokenised and encoded at a time
_LOG = logging.getLogger(__name__)


class Recommender:
    """A trained news recommender and the news it can recommend (`add_news`, or a `vectors` export).

    News are known by their ids: `"N1" in model`. Vectors are float32 [D]; a score is the dot product of user and news
    vector. Several threads may use one `Recommender` at a time: every call reads one `snapshot` of the known news, and
    additions of several threads are all kept.
    """

    def __init__(self, description: Description, runtime: Runtime, tokenizer: Tokenizer | None) -> None:
        self.description = description
        self._catalogue = Catalogue(description.news_dim)
        self._runtime, self._tokenizer = runtime, tokenizer

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        vectors: Path | str | None = None,
        *,
        quantised: bool = False,
        bf16: bool = False,
        threads: int = 0,
        trust: bool = False,
    ) -> Recommender:
        """Load an export.

        Args:
            folder: of any format.
            vectors: an export of format `vectors`, made from the same model, whose news are then known.
            quantised, bf16, threads, trust: as in `runtimes.open_runtime`.

        Raises:
            InputError: a folder is no export, a file is missing or damaged, the vectors are another model's, or `folder`
                is of format `torch.export` and `trust` is not given.
        """
        folder = Path(folder)
        description = Description.read(folder)
        description.check(folder)
        runtime = open_runtime(folder, description, quantised=quantised, bf16=bf16, threads=threads, trust=trust)
        tokenizer = None
        if description.format != "vectors":
            from tnr_dist.models.tokenizer import load_tokenizer

            tokenizer = load_tokenizer(str(folder))
        found = cls(description, runtime, tokenizer)
        if vectors is None and description.format == "vectors":
            vectors = folder
        if vectors is not None:
            found._add_export(Path(vectors))
        return found

    @property
    def snapshot(self) -> Snapshot:
        """The news known now: ids and vectors that belong together, whatever is added later."""
        return self._catalogue.snapshot

    @property
    def ids(self) -> list[str]:
        """The ids of the news known now, in the order in which they were first added."""
        return self.snapshot.ids

    @property
    def vectors(self) -> np.ndarray:
        """Their vectors [N, D], read-only. Beside writers, take ids and vectors of one `snapshot`."""
        return self.snapshot.vectors

    def __contains__(self, name: object) -> bool:
        """Whether a news is known by this id."""
        return name in self.snapshot

    def encode_news(self, texts: Iterable[str]) -> np.ndarray:
        """Vectors [N, D] of N titles."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if any(not isinstance(text, str) for text in texts):
            raise InputError("encode_news: a title that is not a text")
        if self._tokenizer is None:
            raise InputError("this export holds news vectors, no news encoder; load an export of another format")
        parts = [np.zeros((0, self.description.news_dim), np.float32)]
        for start in range(0, len(texts), _CHUNK):
            encoded = self._tokenizer.encode_batch(texts[start : start + _CHUNK], self.description.title_tokens)
            parts.append(self._runtime.news(*encoded))
        return np.concatenate(parts)

    def add_news(self, ids: Sequence[str], news: Sequence[str] | np.ndarray) -> None:
        """Make news known: their ids, and their titles or their vectors [N, D]. A known id is replaced in place.

        Raises InputError, and changes nothing, when ids and news do not fit, an id stands twice, or a vector holds NaN.
        """
        names = _names(ids)
        if len(set(names)) != len(names):
            raise InputError("add_news: a duplicate id")
        vectors = news if _are_vectors(news) else self.encode_news(news)
        self._catalogue.put(names, self._vectors(vectors, len(names), f"add_news: {len(names)} ids, and vectors"))

    def vectors_of(self, news: Sequence[str] | np.ndarray) -> np.ndarray:
        """Vectors [N, D] of known ids; vectors are given back as they are. Raises InputError for an unknown id."""
        return self._vectors(news) if _are_vectors(news) else self._known(self.snapshot, news)

    def history_vectors(self, history: Sequence[str] | np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Vectors of the known news of a history, and the ids that are not known.

        Args:
            history: clicked news, oldest first: ids, or vectors [L, D].

        Returns:
            Vectors [K, D] of the last clicks that are known, as many as the model reads; and the ids that are not known,
            among them news that have expired.
        """
        if not len(history):
            return np.zeros((0, self.description.news_dim), np.float32), []
        if _are_vectors(history):
            return self._vectors(history)[-self.description.history :], []
        now, names = self.snapshot, _names(history)
        rows = [now.row(name) for name in names]
        known = [row for row in rows if row is not None][-self.description.history :]
        skipped = [name for name, row in zip(names, rows, strict=True) if row is None]
        return now.vectors[np.array(known, np.int64)], skipped

    def encode_user(self, history: Sequence[str] | np.ndarray) -> np.ndarray:
        """Vector [D] of a user from the clicked news, oldest first: ids, or vectors [L, D].

        Ids that are not known are skipped, with a warning in the log `tnr_dist.export.recommender`; `history_vectors`
        returns them. The last `history` known clicks are used. A user without any gets zeros, so that all news score
        alike.
        """
        vectors, skipped = self.history_vectors(history)
        if skipped:
            shown = ", ".join(repr(name) for name in skipped[:5]) + (", ..." if len(skipped) > 5 else "")
            _LOG.warning(
                "encode_user: skipped %d of %d news of a history: not known: %s", len(skipped), len(history), shown
            )
        # One masked slot stands for an empty history: a graph need not know lengths of 0.
        mask = np.ones((1, max(len(vectors), 1)), bool)
        if not len(vectors):
            vectors, mask[:] = np.zeros((1, self.description.news_dim), np.float32), False
        return self._runtime.users(np.ascontiguousarray(vectors[None]), mask)[0]  # type: ignore[no-any-return]

    def rank(self, user: np.ndarray, candidates: Sequence[str]) -> list[tuple[str, float]]:
        """Candidates (known ids) with their scores for a user vector, best first; equal ones as they came."""
        names = _names(candidates)
        scores = self._scores(self._known(self.snapshot, names), user)
        return [(names[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")]

    def recommend(self, user: np.ndarray, k: int = 10, exclude: Iterable[str] = ()) -> list[tuple[str, float]]:
        """The k known news with the highest scores for a user vector, best first, without those of `exclude`.

        Raises InputError when `exclude` is a text: its letters would be taken for ids.
        """
        if not isinstance(k, int | np.integer):
            raise InputError(f"recommend: k={k!r}: a whole number")
        now = self.snapshot
        scores = self._scores(now.vectors, user)
        left_out = {row for name in _names(exclude) if (row := now.row(name)) is not None}
        scores[list(left_out)] = -np.inf
        k = min(k, len(now) - len(left_out))
        if k < 1:
            return []
        best = np.argpartition(-scores, k - 1)[:k]
        best = best[np.argsort(-scores[best], kind="stable")]
        return [(now.id(i), float(scores[i])) for i in best.tolist()]

    def _known(self, now: Snapshot, news: Iterable[str]) -> np.ndarray:
        """Vectors [N, D] of ids. Raises InputError for one that is not known."""
        names = _names(news)
        rows = [now.row(name) for name in names]
        if None in rows:
            raise InputError(
                f"news {names[rows.index(None)]!r} is not known; add_news() it, or load its vectors (vectors=FOLDER)"
            )
        return now.vectors[np.array(rows, np.int64)]

    def _vectors(self, vectors: object, count: int | None = None, what: str = "vectors") -> np.ndarray:
        return _checked(vectors, (count, self.description.news_dim), what)

    def _scores(self, vectors: np.ndarray, user: object) -> np.ndarray:
        """Scores [N] of vectors [N, D] for a user vector. Raises InputError for one of another size, or with NaN."""
        wanted = _checked(user, (self.description.news_dim,), "user vector")
        with np.errstate(over="ignore", invalid="ignore"):  # looked for next
            scores: np.ndarray = vectors @ wanted
        if not np.isfinite(scores).all():
            raise InputError("user vector: its values are so large that scores are beyond float32")
        return scores

    def _add_export(self, folder: Path) -> None:
        other = Description.read(folder)
        if other.format != "vectors":
            raise InputError(f"{folder}: an export of format {other.format}, not of news vectors")
        if other.made_from["model_sha256"] != self.description.made_from["model_sha256"]:
            raise InputError(f"{folder}: news vectors of another model; export vectors from the same run")
        other.check(folder)
        try:
            ids, vectors = (np.load(folder / name, allow_pickle=False) for name in TABLES)
            if not _are_vectors(vectors):
                raise InputError(f"{TABLES[1]} holds no vectors")
            self.add_news(ids, vectors)
        except (OSError, EOFError, ValueError, InputError) as error:
            raise InputError(f"{folder}: {error}; export the vectors again") from None


def _names(ids: Iterable[object] | np.ndarray) -> list[str]:
    """News ids as texts. Raises InputError for a single text, whose letters would be taken for ids, and for what is no id."""
    if isinstance(ids, str):
        raise InputError(f"expected a sequence of news ids, got the single text {ids!r}")
    names = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    for name in names:
        if not isinstance(name, str | int | np.integer):
            raise InputError(f"a news id is a text or a whole number, not {type(name).__name__}")
    return [str(name) for name in names]


def _are_vectors(news: object) -> bool:
    """Whether an argument holds vectors: an array of numbers with a fraction, or of more than one dimension."""
    return isinstance(news, np.ndarray) and (news.dtype.kind == "f" or news.ndim > 1)


def _checked(values: object, shape: tuple[int | None, ...], what: str) -> np.ndarray:
    """As float32 of a shape, in which None stands for any size. Raises InputError for another shape, NaN and infinity."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiubO":  # complex numbers, dates and texts would be cast, too
            raise TypeError
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite
            array = array.astype(np.float32, copy=False)
    except (TypeError, ValueError):
        raise InputError(f"{what}: not an array of numbers") from None
    if array.ndim != len(shape) or any(
        size not in (None, found) for size, found in zip(shape, array.shape, strict=True)
    ):
        expected = ", ".join("N" if size is None else str(size) for size in shape)
        raise InputError(f"{what} of shape {list(array.shape)}; expected [{expected}]")
    if not np.isfinite(array).all():
        raise InputError(f"{what} with NaN or infinite values")
    return array
