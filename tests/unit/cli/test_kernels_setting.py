"""`kernels=` holds in every command that computes, `tnr run` among them."""

import pytest

from tnr_dist.cli.engine import open_engine, run_with_engine
from tnr_dist.kernels import dispatch
from tnr_dist.stages.methods import load_config


def test_the_setting_holds_while_a_command_runs(monkeypatch):
    monkeypatch.setattr("tnr_dist.util.preemption.listen", lambda: None)
    with open_engine(load_config(None, ["kernels=torch", "threads=1", "device=cpu"]), "run") as engine:
        assert dispatch._chosen == "torch" and engine.device.type == "cpu"
    assert dispatch._chosen == "auto"


@pytest.mark.parametrize("command", ["run", "stage"])
def test_commands_start_their_engine_there(monkeypatch, chain_like_config, command):
    """Both ways in go through `open_engine`: what a stage sees is what the configuration says."""
    from tnr_dist.cli import train
    from tnr_dist.stages import pipeline

    seen = []
    monkeypatch.setattr("tnr_dist.util.preemption.listen", lambda: None)
    for name in ("ensure_data", "report"):
        monkeypatch.setattr(pipeline, name, lambda config: None)
    monkeypatch.setattr(pipeline, "is_complete", lambda config: False)
    monkeypatch.setattr(pipeline, "run_chain", lambda config, engine, **_: seen.append(dispatch._chosen))
    if command == "run":
        train.run(chain_like_config, ["kernels=torch", "threads=1", "device=cpu"])
    else:
        work = lambda config, engine: seen.append(dispatch._chosen)  # noqa: E731
        run_with_engine("stage2", chain_like_config, ["kernels=torch", "threads=1", "device=cpu"], False, work)
    assert seen == ["torch"]


@pytest.fixture
def chain_like_config(tmp_path, monkeypatch):
    monkeypatch.delenv("TNR_DATA_READY", raising=False)
    path = tmp_path / "c.yaml"
    path.write_text(f"output: {tmp_path / 'run'}\n")
    yield path
    import os

    os.environ.pop("TNR_DATA_READY", None)
