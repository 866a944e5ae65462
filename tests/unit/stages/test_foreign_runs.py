"""A run folder and a data set from elsewhere run nothing: `pipe:` counts where the user wrote it, and nowhere else."""

import contextlib
import json
import shutil

import pytest
import yaml

from tnr_dist.data.dataset import DataSet
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.export.command import export
from tnr_dist.report.command import write_report
from tnr_dist.stages import stage2
from tnr_dist.stages.evaluate import evaluate, predict
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.registry import run_command
from tnr_dist.util.errors import InputError


@pytest.fixture
def foreign(copy, prepared, tmp_path, monkeypatch):
    """A finished chain and its data, in whose files commands stand; a configuration over them; what the commands would make."""
    owned = tmp_path / "owned"
    command = f"pipe:touch {owned}; cat {prepared}/train/shard-{{000000..000003}}.tar"
    for path in copy.glob("seed-0/*/config.yaml"):
        tree = yaml.safe_load(path.read_text())
        tree["data"]["shards"] = command
        path.write_text(yaml.safe_dump(tree))
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    index = json.loads((data / "train" / "index.json").read_text())
    for shard in index["shards"]:
        shard["url"] = command
    monkeypatch.setenv("GOPEN_REWRITE", f"{data}=pipe:touch {owned}; echo ")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return copy, data, owned, index


def test_what_a_run_folder_says_is_not_run(foreign, chain_yaml, tmp_path):
    runs, _, owned, _ = foreign
    config = load_config(chain_yaml, [f"output={runs / 'seed-0'}", "student.layers=1"])
    run = stage2.run_folder(config, DataSet.open(config)).path
    (run / "results.json").unlink(missing_ok=True)
    config.evaluate.run = str(run)
    for work in (
        lambda: evaluate(config, DDPEngine("cpu", 1)),
        lambda: predict(config, DDPEngine("cpu", 1)),
        lambda: export(run, ["vectors"], tmp_path / "export", speed=False),
        lambda: write_report([runs], tmp_path / "report"),
    ):
        with contextlib.suppress(InputError):  # a folder that was changed may be refused
            work()
        assert not owned.exists()


def test_what_a_data_set_says_is_not_run(foreign, chain_yaml, tmp_path):
    _, data, owned, index = foreign
    (data / "train" / "index.json").write_text(json.dumps(index))
    config = load_config(chain_yaml, [f"output={tmp_path / 'new'}", f"data.dir={data}", "finetune.init=plm"])
    with pytest.raises(InputError):
        run_command("finetune", config, DDPEngine("cpu", 1))
    assert not owned.exists()


def test_what_the_user_says_is_run(foreign, chain_yaml, prepared, tmp_path):
    """So the tests above would see it."""
    _, _, owned, _ = foreign
    shards = len(list((prepared / "train").glob("*.tar")))
    command = f"pipe:touch {owned}; cat {prepared}/train/shard-{{000000..{shards - 1:06d}}}.tar"
    overrides = [f"output={tmp_path / 'new'}", "finetune.init=plm", "finetune.teachers=1", f"data.shards={command}"]
    run_command("finetune", load_config(chain_yaml, overrides), DDPEngine("cpu", 1))
    assert owned.exists()
