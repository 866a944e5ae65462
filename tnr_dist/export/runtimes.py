"""The model of any export behind one interface of NumPy arrays; torch or onnxruntime are imported by what needs them."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from typing_extensions import override

from tnr_dist.export.description import GRAPHS, INT8_GRAPH, PROGRAMS, Description
from tnr_dist.util.errors import InputError

if TYPE_CHECKING:
    import torch

    from tnr_dist.models.recommender import Recommender as Model

# torch reads this at every torch.load; it outweighs a weights_only=False in the code.
_SAFE_LOAD = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
#: What a .pt2 archive may hold; the rest of its format (opaque and custom objects) is pickled.
_MEMBER = re.compile(
    r"[^/]+/(data/(weights/weight_\d+|constants/tensor_\d+|(weights|constants)/\w+_config\.json|sample_inputs/\w+\.pt)"
    r"|models/\w+\.json|archive_format|archive_version|byteorder|\.data/\w+)"
)
BATCH = 32  # padded texts of similar length at a time: more would be mostly padding, and leave the cache


class Runtime(Protocol):
    """News and user encoder."""

    def news(self, tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Texts as flat token ids [T] and offsets [N + 1] -> vectors [N, D] float32."""
        ...

    def users(self, history: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """News vectors [B, L, D] float32 and mask [B, L] bool -> user vectors [B, D] float32."""
        ...


def open_runtime(
    folder: Path,
    description: Description,
    *,
    quantised: bool = False,
    bf16: bool = False,
    threads: int = 0,
    trust: bool = False,
) -> Runtime:
    """The runtime of an export.

    Args:
        folder: the export; description: its `recommender.json`.
        quantised: `onnx` only: the INT8 news encoder.
        bf16: `hf` only: the news encoder under bf16 autocast.
        threads: `onnx` only: threads of a session; 0: onnxruntime's choice. torch has `torch.set_num_threads`.
        trust: load a `torch.export` program: torch evaluates expressions that stand in it, so it runs whatever code
            whoever made it wrote there.

    Raises:
        InputError: a missing file, an option that this format does not have, or a program without `trust`.
    """
    if quantised and description.format != "onnx":
        raise InputError(f"{folder}: quantised needs an export of format onnx; this one is {description.format}")
    if bf16 and description.format != "hf":
        raise InputError(f"{folder}: bf16 needs an export of format hf; this one is {description.format}")
    if description.format == "hf":
        from tnr_dist.export.huggingface import read_model

        return PackedRuntime(read_model(folder, description), bf16)
    if description.format == "torch.export":
        if not trust:
            raise InputError(
                f"{folder}: loading a torch.export program runs code that stands in it; give trust=True if you know who made "
                "it, or load an export of format hf or onnx"
            )
        return ProgramRuntime(folder, description)
    if description.format == "onnx":
        return OnnxRuntime(folder, description, quantised, threads)
    return UsersOnly(folder, description)


class PackedRuntime(Runtime):
    """`hf`: our own packed model.

    Args:
        model: on the CPU, in evaluation mode.
        bf16: multiply matrices of the news encoder in bfloat16; this changes `model`.
    """

    def __init__(self, model: Model, bf16: bool = False) -> None:
        import torch

        self.model, self.bf16 = model, bf16
        encoder = model.news_encoder.encoder
        if bf16:
            # Autocast would cast every weight at every call, which takes longer than encoding a single title.
            for module in encoder.modules():
                if isinstance(module, torch.nn.Linear):
                    module.to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            encoder.serve()

    @override
    def news(self, tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        import torch

        from tnr_dist.models.packed import Packed

        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.model.encode_news(Packed.pack(tokens, np.diff(offsets))).float().numpy()

    @override
    def users(self, history: np.ndarray, mask: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return self.model.encode_users(torch.from_numpy(history), torch.from_numpy(mask)).numpy()


class ProgramRuntime(Runtime):
    """`torch.export`: two programs, which need torch alone."""

    def __init__(self, folder: Path, description: Description) -> None:
        self.pad_id, self.dim = description.pad_id, description.news_dim
        self._news, self._users = (_program(folder / name) for name in PROGRAMS)

    @override
    def news(self, tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        import torch

        out = np.empty((len(offsets) - 1, self.dim), np.float32)
        with torch.inference_mode():
            for rows, ids, mask in padded_batches(tokens, offsets, self.pad_id):
                out[rows] = self._news(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        return out

    @override
    def users(self, history: np.ndarray, mask: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return self._users(torch.from_numpy(history), torch.from_numpy(mask)).numpy()


class OnnxRuntime(Runtime):
    """`onnx`: two graphs, which need onnxruntime alone."""

    def __init__(self, folder: Path, description: Description, quantised: bool = False, threads: int = 0) -> None:
        news, users = GRAPHS
        self.pad_id, self.dim = description.pad_id, description.news_dim
        self._news = _session(folder / (INT8_GRAPH if quantised else news), threads)
        self._users = _session(folder / users, threads)

    @override
    def news(self, tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        out = np.empty((len(offsets) - 1, self.dim), np.float32)
        for rows, ids, mask in padded_batches(tokens, offsets, self.pad_id):
            out[rows] = self._news.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return out

    @override
    def users(self, history: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self._users.run(None, {"history": history, "mask": mask})[0]


class UsersOnly(Runtime):
    """`vectors`: news vectors are given, only users are computed."""

    def __init__(self, folder: Path, description: Description) -> None:
        from tnr_dist.export.huggingface import read_user_encoder

        self.folder, self.encoder = folder, read_user_encoder(folder, description)

    @override
    def news(self, tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Raises InputError: there is no news encoder."""
        raise InputError(f"{self.folder}: holds news vectors, no news encoder; load an export of another format")

    @override
    def users(self, history: np.ndarray, mask: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return self.encoder(torch.from_numpy(history), torch.from_numpy(mask)).numpy()  # type: ignore[no-any-return]


def padded_batches(
    tokens: np.ndarray, offsets: np.ndarray, pad_id: int, size: int = BATCH
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Texts of similar length together.

    Yields:
        rows [n]; token ids [n, L] int64, padded at the end; mask [n, L] int64, 1 at tokens.
    """
    lengths = np.diff(offsets)
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        position = np.arange(max(int(lengths[rows[-1]]), 1))
        mask = position < lengths[rows][:, None]
        ids = np.full(mask.shape, pad_id, np.int64)
        ids[mask] = tokens[(offsets[rows][:, None] + position)[mask]]
        yield rows, ids, mask.astype(np.int64)


def _program(path: Path) -> Callable[..., torch.Tensor]:
    """A program's module. The file is trusted: torch evaluates the expressions in it. Pickled objects are still refused."""
    import torch

    before = os.environ.get(_SAFE_LOAD)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        strange = [name for name in names if not _MEMBER.fullmatch(name)]
        if strange or len(set(names)) != len(names):
            raise InputError(f"{path}: refused: {(strange or ['a duplicate member'])[0]} is no part of an export")
        os.environ[_SAFE_LOAD] = "1"
        program: torch.export.ExportedProgram = torch.export.load(path)
    except InputError:
        raise
    except pickle.UnpicklingError:
        raise InputError(f"{path}: refused: it holds pickled objects that are not tensors; export it again") from None
    except Exception as error:  # zip, JSON and schema errors of many types
        raise InputError(f"{path}: not a readable torch.export program ({_line(error)}); export it again") from None
    finally:
        if before is None:
            os.environ.pop(_SAFE_LOAD, None)
        else:
            os.environ[_SAFE_LOAD] = before
    module: Callable[..., torch.Tensor] = program.module()
    return module


class _Session(Protocol):
    """An ONNX graph, loaded."""

    def run(self, outputs: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """All outputs of the graph."""


def _session(path: Path, threads: int) -> _Session:
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"{path}: onnxruntime is not installed; run: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session: _Session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return session
    except Exception as error:  # onnxruntime's own types share no base of theirs
        raise InputError(f"{path}: not a readable ONNX graph ({_line(error)}); export it again") from None


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
