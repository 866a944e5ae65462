"""The post-trained teachers' vectors of every title and body of the News corpus, computed once for stage 1 of all students.

A title is met 1 + N times an epoch, and a teacher sees no dropout: nothing is lost. They lie with post-training, in a
folder of a key of all that they depend on (teacher, data, tokens read, precision):

    matching/KEY/cache.json               what they depend on
    matching/KEY/titles.npy, bodies.npy   [news, D] float32, memory-mapped: the ranks of a node share its page cache
    matching/KEY/complete.json            size and sha256 of the files above
    matching/KEY/parts/                   until then: vectors of some texts each, so that a pass that was killed goes on
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tnr_dist.config.training import MatchingConfig
from tnr_dist.data.batches.matching import MatchingLoader
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.tokens import RaggedTable, check_ids, gather_rows
from tnr_dist.engines.base import Engine
from tnr_dist.engines.precision import compute_dtype
from tnr_dist.evaluation.scoring import encode_rows, length_chunks
from tnr_dist.models.recommender import NewsEncoder
from tnr_dist.models.weights import DIGEST, read_safetensors, save_tensors, tensors_digest
from tnr_dist.runs.finished import DONE
from tnr_dist.runs.folder import completed_id
from tnr_dist.stages.parts.start_models import trained_model
from tnr_dist.util import preemption
from tnr_dist.util.digests import describe, fault, read_sealed, write_sealed
from tnr_dist.util.errors import InputError, Preempted
from tnr_dist.util.files import atomic_path
from tnr_dist.util.progress import Bar, say
from tnr_dist.util.restarts import mark_progress

FORMAT_VERSION = 1
_TABLES = ("titles", "bodies")
_PART = {"titles": 16_384, "bodies": 1_024}  # texts whose vectors are written at a time: some 300,000 tokens


@dataclass(frozen=True)
class TeacherVectors:
    """Vectors of the corpus by each teacher; teacher i is post-training's model i intervals before its end.

    Attributes:
        titles, bodies: [M][news, D] float32, on the host.
    """

    titles: list[np.ndarray]
    bodies: list[np.ndarray]

    @classmethod
    def find(
        cls, run: Path, teachers: int, loader: MatchingLoader, train: MatchingConfig, engine: Engine, data: DataSet
    ) -> TeacherVectors:
        """Read those of the last `teachers` models of the post-training `run`; what is missing is made, by all ranks.

        Raises InputError when what is there is of other teachers, data or settings, and Preempted when it is being made
        and this process was told to stop.
        """
        found = [_Cache(run, number, loader, train, engine, data).open() for number in range(teachers)]
        return cls([titles for titles, _ in found], [bodies for _, bodies in found])


class _Cache:
    """The vectors of one teacher."""

    def __init__(
        self, run: Path, number: int, loader: MatchingLoader, train: MatchingConfig, engine: Engine, data: DataSet
    ) -> None:
        self.run, self.number, self.engine = run, number, engine
        self.tables: dict[str, RaggedTable] = {"titles": loader.titles, "bodies": loader.bodies}
        self.tokens = {"titles": train.title_tokens, "bodies": train.body_tokens}
        self.facts: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "teacher": {"id": completed_id(run, "post-train"), "before_end": number},
            "data": data.id,
            "tokenizer": data.manifest["tokenizer"]["hash"],
            "tokens": self.tokens,
            "precision": str(compute_dtype(engine)).removeprefix("torch."),
            "news": len(loader.titles),
        }
        self.key = hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()
        self.folder = run / "matching" / self.key[:16]

    def open(self) -> tuple[np.ndarray, np.ndarray]:
        """Titles and bodies; a collective."""
        # Another student's job may complete it just now: all ranks of this one must come to the same conclusion.
        missing = torch.tensor([float(not self._is_complete())], device=self.engine.device)
        if self.engine.all_reduce(missing).item():
            self._make()
            self.engine.barrier()
            if not self._is_complete():
                raise InputError(
                    f"{self.folder}: damaged right after it was written; look at the disk, run stage1 again"
                )
        titles, bodies = (np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _TABLES)
        return titles, bodies

    def _is_complete(self) -> bool:
        """Whether it is there; said, if damaged. Raises InputError when it is of something else."""
        if not (self.folder / DONE).is_file():
            return False
        files = read_sealed(self.folder / DONE).get("files")
        files = files if isinstance(files, dict) else {}
        for name in ("cache.json", *(f"{name}.npy" for name in _TABLES)):
            if found := fault(self.folder, name, files):
                say(f"{self.folder / name}: {found}; made again")
                return False
        made_from = read_sealed(self.folder / "cache.json")
        for key, value in self.facts.items():
            if made_from.get(key) != value:
                raise InputError(
                    f"{self.folder / 'cache.json'}: {key} is {made_from.get(key)!r}, this stage needs {value!r}; "
                    f"delete {self.folder} and run stage1 again"
                )
        return True

    def _make(self) -> None:
        rank, world = self.engine.environment.rank, self.engine.environment.world_size
        if rank == 0 and not self._is_complete():
            (self.folder / DONE).unlink(missing_ok=True)  # of a damaged one
        self.engine.barrier()
        teacher, _ = trained_model(self.run, "post-train", self.number)
        encoder = teacher.news_encoder.eval().requires_grad_(False).to(self.engine.device)
        with self.engine.autocast():
            encoder.encoder.serve()
        for name, table in self.tables.items():
            check_ids(table, encoder.encoder.config.vocab_size, f"the {name} of the corpus")
        parts = [(name, at) for name in _TABLES for at in range(0, len(self.tables[name]), _PART[name])]
        total, left = sum(map(len, self.tables.values())), False
        with Bar(f"teacher {self.number}: titles and bodies", total, "texts", enabled=rank == 0) as bar:
            for name, start in parts[rank::world]:
                if preemption.stop_requested():
                    left = True
                    break
                stop = min(start + _PART[name], len(self.tables[name]))
                # Where another job has just completed it, the parts are gone.
                if not (self.folder / DONE).is_file() and self._read(name, start) is None:
                    self._write(encoder, name, start, stop)
                bar.advance(min((stop - start) * world, total - bar.done))
        # Together: a rank that has made all of its parts would else wait for the others.
        if self.engine.all_reduce(torch.tensor([float(left)], device=self.engine.device)).item():
            preemption.clear_request()
            raise Preempted("stage1: told to stop while it encoded the corpus; run it again to go on")
        if rank == 0:
            if not self._is_complete():
                self._join()
            shutil.rmtree(self.folder / "parts", ignore_errors=True)

    def _file(self, name: str, start: int) -> Path:
        return self.folder / "parts" / f"{name}-{start:09d}.safetensors"

    def _read(self, name: str, start: int) -> Tensor | None:
        """A part; None where it is missing or damaged."""
        file = self._file(name, start)
        if not file.is_file():
            return None
        try:
            tensors, metadata = read_safetensors(file)
        except InputError as error:
            say(f"{error}; made again")
            return None
        if metadata.get("key") != self.key or metadata.get(DIGEST) != tensors_digest(tensors):
            say(f"{file}: damaged; made again")
            return None
        return tensors["vectors"]

    def _write(self, encoder: NewsEncoder, name: str, start: int, stop: int) -> None:
        table, tokens = self.tables[name], self.tokens[name]
        some = RaggedTable(*gather_rows(table.values, table.offsets, np.arange(start, stop)))
        vectors = torch.empty(len(some), encoder.dense.out_features)
        for rows in length_chunks(some, tokens, self.engine.device):
            vectors[torch.from_numpy(rows)] = encode_rows(encoder, some, rows, tokens, self.engine).cpu()
        tensors = {"vectors": vectors}
        with atomic_path(self._file(name, start)) as temporary:
            save_tensors(tensors, temporary, {"key": self.key, DIGEST: tensors_digest(tensors)})
        mark_progress()

    def _join(self) -> None:
        """All parts as one file a table, then the marks; another job may do the same, or have done it."""
        for name in _TABLES:
            with atomic_path(self.folder / f"{name}.npy") as temporary:
                out: np.ndarray | None = None
                for start in range(0, len(self.tables[name]), _PART[name]):
                    part = self._read(name, start)
                    if part is None:
                        if self._is_complete():
                            return
                        raise InputError(f"{self._file(name, start)}: missing or damaged; run stage1 again")
                    if out is None:
                        shape = len(self.tables[name]), part.shape[1]
                        out = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
                    out[start : start + len(part)] = part.numpy()
                assert out is not None  # a corpus has a text at least
                out.flush()  # type: ignore[attr-defined]
        write_sealed(self.folder / "cache.json", self.facts)
        files = describe(self.folder, ("cache.json", *(f"{name}.npy" for name in _TABLES)))
        write_sealed(self.folder / DONE, {"files": files})
