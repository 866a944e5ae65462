"""What the frozen layers make of every title: computed once, kept on the device, in host memory or on disk.

The frozen layers see no dropout, so their output for a title is the same in every step. On disk it lies in segments of
`_SEGMENT` titles under a key of the frozen weights, the tokens and the precision: other weights are another key, the M
teachers (which start from one post-trained PLM) share one, and a run that is taken up again finds it there. A segment
is a `.npy` file followed by the sha256 of it; one that is damaged is computed again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from tnr_dist.config.training import ClickTrainConfig
from tnr_dist.data.tokens import RaggedTable, gather_rows, positions_of
from tnr_dist.engines.base import Engine
from tnr_dist.engines.precision import compute_dtype
from tnr_dist.evaluation.scoring import length_chunks
from tnr_dist.models.packed import Packed, StatesInMemory, StatesOnDisk, TokenStates
from tnr_dist.models.transformer import Encoder
from tnr_dist.stages.parts.shared_table import SharedTable
from tnr_dist.util.digests import digest
from tnr_dist.util.files import atomic_path
from tnr_dist.util.memory import GIB, job_limit
from tnr_dist.util.progress import Bar, say
from tnr_dist.util.restarts import mark_progress
from tnr_dist.util.transfer import to_device, to_stored

_SEGMENT = 16_384
_DIGEST = 32  # bytes of a sha256
_SHARE_OF_FREE = 0.5  # of a memory that `auto` may take


def frozen_states(
    encoder: Encoder, titles: RaggedTable, settings: ClickTrainConfig, engine: Engine, place: Path, title: str
) -> TokenStates | None:
    """Compute or find the states below `encoder`'s first trainable layer; None when no layer is frozen or it is none.

    `place`: the folder of the segments on disk. All ranks call it; each computes its share.
    """
    if not encoder.frozen_layers or settings.frozen_cache == "none":
        return None
    encoder.eval()
    where: str = settings.frozen_cache
    if where == "auto":
        size = len(titles.values) * encoder.config.hidden * compute_dtype(engine).itemsize
        where = _place_for(size, settings.frozen_cache_gib * GIB, engine)
    if where == "none":
        return None
    if where == "host":
        shape = len(titles.values), encoder.config.hidden
        table = SharedTable(*shape, compute_dtype(engine), engine)
        if table.tensor is not None:
            _fill(table, table.tensor, encoder, titles, engine, title)
            return StatesInMemory(table.tensor, engine.device)
        if engine.environment.rank == 0:
            say(f"{title}: /dev/shm of a node has no room for {shape[0]:,} x {shape[1]} states; they go to disk")
        where = "disk"
    if where == "disk":
        return _on_disk(encoder, titles, engine, place, title)
    return StatesInMemory(_in_memory(encoder, titles, engine, title), engine.device)


def _place_for(size: int, at_most: float, engine: Engine) -> str:
    """Where `auto` keeps states of `size` bytes: the fastest place that has room on every rank.

    A GPU computes them again in each step faster than they are read from disk (27.6 k against 8 k samples/s on an H200); a
    CPU does not.
    """
    on_gpu = engine.device.type == "cuda"
    on_host = size <= _SHARE_OF_FREE * min(psutil.virtual_memory().available, job_limit().size)
    on_device = size <= at_most and on_host
    if on_gpu:
        free = torch.cuda.mem_get_info(engine.device)[0]
        free += torch.cuda.memory_reserved(engine.device) - torch.cuda.memory_allocated(engine.device)
        on_device = size <= min(at_most, _SHARE_OF_FREE * free)
    missing = engine.all_reduce(torch.tensor([float(not on_device), float(not on_host)], device=engine.device)).tolist()
    several = not on_gpu and engine.environment.local_world_size > 1  # their device is the host's memory
    if not missing[0]:
        return "host" if several else "device"
    if on_gpu:
        return "none" if missing[1] else "host"
    return "disk"


@torch.no_grad()
def _run(encoder: Encoder, titles: RaggedTable, rows: np.ndarray, engine: Engine) -> Tensor:
    packed = Packed.gather(titles.values, titles.offsets, rows).to(engine.device)
    with engine.autocast():
        states: Tensor = encoder(packed, 0, encoder.frozen_layers).to(compute_dtype(engine))
        return states


def _in_memory(encoder: Encoder, titles: RaggedTable, engine: Engine, title: str) -> Tensor:
    rank, world = engine.environment.rank, engine.environment.world_size
    out = torch.zeros(len(titles.values), encoder.config.hidden, dtype=compute_dtype(engine), device=engine.device)
    with Bar(title, len(titles), "news", enabled=rank == 0) as bar:
        for rows in length_chunks(titles, int(titles.lengths.max(initial=0)), engine.device)[rank::world]:
            tokens, _ = positions_of(titles.offsets, rows)
            out[to_device(tokens, engine.device)] = _run(encoder, titles, rows, engine)
            bar.advance(min(len(rows) * world, len(titles) - bar.done))
    # Each row was computed by one rank and is zero elsewhere.
    return engine.all_reduce(out)


def _fill(table: SharedTable, out: Tensor, encoder: Encoder, titles: RaggedTable, engine: Engine, title: str) -> None:
    """The same into a node's shared table: each rank computes its share, and nothing of the table is on the device."""
    rank, world = engine.environment.rank, engine.environment.world_size
    chunks = length_chunks(titles, int(titles.lengths.max(initial=0)), engine.device)
    with Bar(title, len(titles), "news", enabled=rank == 0) as bar:
        for start in range(0, len(chunks), world):
            group = chunks[start : start + world]
            group += [np.zeros(0, np.int64)] * (world - len(group))
            mine, rows = group[rank], group if table.leads and not table.alone else [group[rank]]
            if len(mine):
                states = _run(encoder, titles, mine, engine)
            else:
                states = torch.zeros(0, out.shape[1], dtype=out.dtype, device=engine.device)
            if not table.alone:  # other nodes' shares, too
                states = engine.all_gather_rows(states, [int(titles.lengths[one].sum()) for one in group])
            if table.alone or table.leads:
                tokens = np.concatenate([positions_of(titles.offsets, one)[0] for one in rows])
                out[torch.from_numpy(tokens)] = states.cpu()
            bar.advance(min(sum(map(len, group)), len(titles) - bar.done))
    engine.barrier()


def _on_disk(encoder: Encoder, titles: RaggedTable, engine: Engine, place: Path, title: str) -> TokenStates:
    rank, world = engine.environment.rank, engine.environment.world_size
    stored = "bf16" if compute_dtype(engine) == torch.bfloat16 else "fp32"
    folder = place / key_of(encoder, titles, stored)
    starts = np.arange(0, len(titles), _SEGMENT)
    files = [folder / f"segment-{number:06d}.npy" for number in range(len(starts))]
    with Bar(title, len(titles), "news", enabled=rank == 0) as bar:
        for number in range(rank, len(starts), world):
            stop = min(int(starts[number]) + _SEGMENT, len(titles))
            if files[number].exists() and not _is_sound(files[number]):
                say(f"{files[number]}: damaged or of an older version; computed again")
                files[number].unlink()
            if not files[number].exists():
                _write_segment(encoder, titles, np.arange(starts[number], stop), engine, stored, files[number])
            bar.advance(min((stop - int(starts[number])) * world, len(titles) - bar.done))
    engine.barrier()
    maps = [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]
    return StatesOnDisk(maps, np.asarray(titles.offsets)[starts], engine.device)


def _write_segment(
    encoder: Encoder, titles: RaggedTable, rows: np.ndarray, engine: Engine, stored: str, file: Path
) -> None:
    values, offsets = gather_rows(titles.values, titles.offsets, rows)
    part = RaggedTable(values, offsets)
    out: np.ndarray | None = None
    for chunk in length_chunks(part, int(part.lengths.max(initial=0)), engine.device):
        states = to_stored(_run(encoder, part, chunk, engine), stored)
        out = np.empty((len(values), states.shape[1]), states.dtype) if out is None else out
        tokens, _ = positions_of(offsets, chunk)
        out[tokens] = states
    assert out is not None  # a segment has one title at least
    with atomic_path(file) as temporary:
        with temporary.open("wb") as handle:
            np.save(handle, out, allow_pickle=False)
        found = digest(temporary)
        with temporary.open("ab") as handle:
            handle.write(bytes.fromhex(found))
    mark_progress()


def _is_sound(file: Path) -> bool:
    size = file.stat().st_size - _DIGEST
    if size <= 0:
        return False
    with file.open("rb") as handle:
        handle.seek(size)
        return handle.read().hex() == digest(file, size)


def key_of(encoder: Encoder, titles: RaggedTable, stored: str) -> str:
    """What the states depend on: frozen weights, their number, the tokens, the precision."""
    digest = hashlib.sha256(f"{encoder.frozen_layers} {stored} {_SEGMENT}".encode())
    for name, parameter in sorted(encoder.named_parameters()):
        if not name.startswith("layers.") or int(name.split(".")[1]) < encoder.frozen_layers:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    for values in (titles.values, titles.offsets):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:32]
