"""What an exported model is compared by: its vectors against ours, its latency and its throughput."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import time
from pathlib import Path

import numpy as np
import torch

from tnr_dist.export.description import Checks, Description
from tnr_dist.export.runtimes import Runtime, open_runtime
from tnr_dist.export.source import Source
from tnr_dist.models.packed import Packed
from tnr_dist.util.errors import InputError
from tnr_dist.util.hardware import OtherWork, cpu_name

#: Largest difference of a vector's component from ours that rounding explains, relative to the largest component.
TOLERANCE = 1e-4
_NOISE = 0.25  # cores: what the system itself does on a quiet machine
_TITLES = (
    "Harbor bridge reopens after winter repairs",
    "City council approves a new bus line to the airport",
    "Rookie goalkeeper saves two penalties as the underdogs reach the final",
    "How to keep your tomatoes healthy through a wet summer",
    "Stocks slip as investors wait for the central bank",
    "Storm",
    "Five films to watch this weekend",
    "Scientists map the sea floor of the southern ocean, one sonar line at a time",
    "Local bakery wins national prize for its rye bread",
    "Quarterback out for six weeks with a sprained ankle, coach confirms after practice on Monday",
    "Why electric vans are taking over the morning delivery round",
    "A first look at next year's phones",
    "Museum returns carved masks to the island they came from",
    "Rain expected",
    "Nurses reach a pay deal after eleven days of strike",
    "The quiet comeback of the night train, and what a ticket from Vienna to Paris costs today",
)


def sample_tokens(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Flat token ids [T] and offsets [N + 1] of some titles of different lengths."""
    return source.tokenizer.encode_batch(_TITLES, source.title_tokens)


@torch.inference_mode()
def our_vectors(source: Source, tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """What the run's own model gives in float32, [N, D]."""
    return source.model.encode_news(Packed.pack(tokens, np.diff(offsets))).numpy()


@torch.inference_mode()
def user_difference(source: Source, runtime: Runtime, news: np.ndarray) -> float:
    """The largest difference of a user vector's component from ours: of one who clicked all `news` [N, D], half, none."""
    mask = np.arange(len(news)) < np.array([[len(news)], [len(news) // 2], [0]])
    history = np.repeat(news[None], len(mask), axis=0)
    ours = source.model.encode_users(torch.from_numpy(history), torch.from_numpy(mask)).numpy()
    return float(np.abs(runtime.users(history, mask) - ours).max())


def differences(found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """The largest difference of a component, and the smallest cosine between vectors that should be the same."""
    dots = (found * expected).sum(1)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return {
        "max_difference": float(np.abs(found - expected).max()),
        "min_cosine": float((dots / np.maximum(norms, 1e-30)).min()),
    }


def latency(
    runtime: Runtime, tokens: np.ndarray, offsets: np.ndarray, batch: int, seconds: float = 1.0, least: int = 5
) -> dict[str, float]:
    """Time of requests of `batch` titles each, token ids to vectors, one after another.

    Args:
        tokens, offsets: titles; requests take them in turn, again and again.
        seconds, least: requests are made for so long, and so many at least, after one eighth of it to warm up.

    Returns:
        `p50_ms`, `p99_ms` of a request, and `news_per_s` over all of them.
    """
    rows = itertools.cycle(range(len(offsets) - 1))
    took: list[float] = []
    began, warm = time.perf_counter(), False
    while not warm or len(took) < least or time.perf_counter() - began < seconds:
        chosen = [next(rows) for _ in range(batch)]
        parts = [tokens[offsets[row] : offsets[row + 1]] for row in chosen]
        flat, edges = np.concatenate(parts), np.cumsum([0, *map(len, parts)])
        start = time.perf_counter()
        runtime.news(flat, edges)
        took.append(time.perf_counter() - start)
        if not warm and time.perf_counter() - began > seconds / 8 and len(took) > 1:
            took, began, warm = [], time.perf_counter(), True
    p50, p99 = np.percentile(took, [50, 99]) * 1e3
    return {"p50_ms": float(p50), "p99_ms": float(p99), "news_per_s": batch * len(took) / sum(took)}


def check(source: Source, folder: Path, description: Description, *, speed: bool) -> Checks:
    """Load an export again and compare it with the run's model.

    Returns:
        By variant (`float32`, and `int8` for onnx) the `differences`, with `speed` also latency at batch 1 and throughput
        at batch 256; what they were measured on; and with `speed` `other_work`, the cores that other processes kept busy
        meanwhile, and `busy`, whether that left too few for ours.

    Raises:
        InputError: the run's model gives vectors that are not finite.
        RuntimeError: a variant's vectors are not finite; a float32 variant's, or the user vectors, differ by more than
            rounding.
    """
    tokens, offsets = sample_tokens(source)
    expected = our_vectors(source, tokens, offsets)
    if not np.isfinite(expected).all():
        raise InputError(f"{source.name}: the model's news vectors are not finite; it is damaged, train it again")
    found: dict[str, dict[str, float]] = {}
    others, threads, cores = OtherWork(), torch.get_num_threads(), os.cpu_count() or 1
    for variant in ("float32", "int8") if description.format == "onnx" else ("float32",):
        # The folder is our own, written a moment ago.
        runtime = open_runtime(folder, description, quantised=variant == "int8", threads=threads, trust=True)
        facts: dict[str, float] = differences(runtime.news(tokens, offsets), expected)
        allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
        difference = facts["max_difference"]
        if not np.isfinite(difference) or (variant == "float32" and difference > allowed):
            raise RuntimeError(f"{description.format}: vectors differ from the run's by {difference:.2g}")
        users = user_difference(source, runtime, expected)
        if not users <= allowed:  # NaN is not, either
            raise RuntimeError(f"{description.format}: user vectors differ from the run's by {users:.2g}")
        if speed:
            one, many = (latency(runtime, tokens, offsets, batch) for batch in (1, 256))
            facts |= {"p50_ms_batch_1": one["p50_ms"], "p99_ms_batch_1": one["p99_ms"]}
            facts |= {"news_per_s_batch_256": many["news_per_s"]}
        found[variant] = facts
    measured_on: dict[str, object] = {"cpu": cpu_name(), "cores": cores, "threads": threads, "torch": torch.__version__}
    if description.format == "onnx":
        measured_on["onnxruntime"] = importlib.metadata.version("onnxruntime")
    checks: Checks = {"variants": found, "measured_on": measured_on}
    if speed:
        other_work = round(others.cores(), 2)
        checks["other_work"], checks["busy"] = other_work, threads + other_work > cores + _NOISE
    return checks
