"""The whole chain on one rank with a tiny PLM, run once."""

import shutil
from pathlib import Path

import pytest

from tests.unit.stages.baseline_scene import scene  # noqa: F401
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.stages import pipeline
from tnr_dist.stages.methods import load_config

TRAINING = {
    "post_train": "{batch_size: 16, max_steps: 3, negatives: 3, lr: 1e-3, body_tokens: 40, held_out: 0.1}",
    "stage1": "{batch_size: 16, max_steps: 3, negatives: 3, lr: 1e-3, body_tokens: 40, held_out: 0.1}",
    "finetune": "{teachers: 2, batch_size: 32, max_steps: 4, lr: 1e-3}",
    "stage2": "{batch_size: 32, max_steps: 4, lr: 1e-3}",
}


@pytest.fixture(scope="session")
def chain_yaml(prepared: Path, raw_mind: Path, tiny_plm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration file over the small prepared data; outputs go where `output=` says."""
    folder = tmp_path_factory.mktemp("chain")
    lines = [
        "threads: 1",
        "precision: fp32",
        f"data: {{dir: {prepared}, input: {raw_mind}, corpus: {raw_mind / 'corpus.tsv'}, title_tokens: 24, body_tokens: 40, history: 10}}",
        f"plm: {{name: {tiny_plm}}}",
        "model: {news_dim: 16, query_dim: 8}",
        *(f"{name}: {value}" for name, value in TRAINING.items()),
        "log: {every: 1, checkpoint_every: 2}",
        "rows:",
        "  - {name: teacher, method: teacher}",
        "  - {name: Tiny-1, method: tiny-newsrec, layers: 1}",
        "  - {name: FT-1, method: finetune, layers: 1}",
        f"output: {folder / 'run'}",
    ]
    path = folder / "chain.yaml"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="session")
def finished(chain_yaml: Path) -> Path:
    """The chain run once; tests that change it copy it first."""
    engine = DDPEngine("cpu", 1)
    pipeline.run_chain(load_config(chain_yaml), engine)
    return Path(load_config(chain_yaml).output)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))
