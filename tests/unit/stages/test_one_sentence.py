"""What is wrong with a run's folder, which rank 0 alone looks into, all ranks say in the same words."""

import pytest

from tests.ranks import on_ranks
from tests.unit.train.test_resume import config, train
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.stages.registry import run_command
from tnr_dist.util.errors import InputError


def said(settings):
    engine = DDPEngine("cpu", 1)
    try:
        run_command("finetune", settings, engine)
    except InputError as error:
        return str(error)
    finally:
        engine.close()


@pytest.mark.parametrize("found", ["a finished run", "something else"])
def test_two_ranks_say_one_sentence(prepared, tiny_plm, tmp_path, found):
    if found == "a finished run":
        train(config(prepared, tiny_plm, tmp_path, "finetune.max_steps=1"))
    else:
        (tmp_path / "finetune-2").mkdir()
        (tmp_path / "finetune-2" / "mine.txt").write_text("mine")
    settings = config(prepared, tiny_plm, tmp_path, "finetune.max_steps=1", "finetune.lr=2e-3")
    first, second = on_ranks(2, said, settings)
    assert first == second and str(tmp_path / "finetune-2") in first and "choose another output" in first
