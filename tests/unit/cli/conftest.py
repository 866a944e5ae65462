"""What the malformed inputs are made from: data prepared as `tnr run` does, and one finished chain of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.bad_table import Place, settings


@pytest.fixture(scope="session")
def sound_runs(raw_mind: Path, tiny_plm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A prepared data set, and a folder with one finished run of every stage."""
    from tnr_dist.data.prepare.prepare import prepare
    from tnr_dist.engines.ddp import DDPEngine
    from tnr_dist.stages import pipeline
    from tnr_dist.stages.methods import load_config
    from tnr_dist.stages.registry import run_command

    folder = tmp_path_factory.mktemp("sound")
    path = folder / "c.yaml"
    path.write_text(settings(folder / "runs", folder / "data", raw_mind, tiny_plm))
    config = load_config(path)
    prepare(pipeline.prepare_options(config), folder / "data", processes=1)
    for command in ("post-train", "finetune", "cache", "stage1", "stage2"):
        run_command(command, config, DDPEngine("cpu", 1))
    return folder / "data", folder / "runs"


@pytest.fixture
def place(tmp_path, raw_mind, tiny_plm, sound_runs, monkeypatch) -> Place:
    data, runs = sound_runs
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "RANK", "WORLD_SIZE", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, raw_mind, data, tiny_plm, runs)
