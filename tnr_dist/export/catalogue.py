"""The news that a `Recommender` knows: readers hold an immutable snapshot, writers make the next one, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Snapshot:
    """News ids and vectors as they stood together at one moment. What is added later does not change them.

    Attributes:
        vectors: float32 [N, D], read-only; row i is the vector of `ids[i]`.
    """

    vectors: np.ndarray
    # Later snapshots share both and only append: what lies beyond this snapshot's N rows is not its own.
    _names: list[str]
    _rows: dict[str, int]

    def __len__(self) -> int:
        return len(self.vectors)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str | int | np.integer) and self.row(str(name)) is not None

    @property
    def ids(self) -> list[str]:
        """The N ids, in the order in which they were first added."""
        return self._names[: len(self)]

    def id(self, row: int) -> str:
        """The id of one row."""
        return self._names[row]

    def row(self, name: str) -> int | None:
        """The row of an id; None when it is not known."""
        row = self._rows.get(name)
        # The name is compared because a writer that was interrupted may have left an entry for a row it never published.
        return row if row is not None and row < len(self) and self._names[row] == name else None


class Catalogue:
    """Vectors by news id. `snapshot` may be read at any time, by any thread; `put` by several threads loses nothing."""

    def __init__(self, dim: int) -> None:
        self._lock = threading.Lock()
        self._space = np.empty((0, dim), np.float32)  # rows beyond those of the snapshot are spare
        self.snapshot = Snapshot(_read_only(self._space), [], {})

    def put(self, ids: Sequence[str], vectors: np.ndarray) -> None:
        """Add news, or replace the vectors of known ones in place.

        New news go into spare rows, which no snapshot shows yet. A replacement copies the vectors first: readers keep the
        array that they have.

        Args:
            ids: N ids, each once.
            vectors: float32 [N, D].
        """
        with self._lock:
            now = self.snapshot
            known = {i: row for i, name in enumerate(ids) if (row := now.row(name)) is not None}
            new = [i for i in range(len(ids)) if i not in known]
            size = len(now) + len(new)
            if known or size > len(self._space):
                capacity = len(self._space) if size <= len(self._space) else size + size // 2
                space = np.empty((capacity, self._space.shape[1]), np.float32)
                space[: len(now)] = now.vectors
                space[list(known.values())] = vectors[list(known)]
            else:
                space = self._space
            space[len(now) : size] = vectors[new]
            del now._names[len(now) :]  # of a writer that was interrupted
            now._names.extend(ids[i] for i in new)
            now._rows.update((ids[i], len(now) + place) for place, i in enumerate(new))
            self._space = space
            self.snapshot = Snapshot(_read_only(space[:size]), now._names, now._rows)


def _read_only(vectors: np.ndarray) -> np.ndarray:
    view = vectors.view()
    view.flags.writeable = False
    return view
