"""Every engine trains alike: in float32 the same curve, the same clipping, checkpoints that any other takes up."""

import functools
import json
import os
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist

from tests import engine_task as task
from tests.lanes import missing
from tests.ranks import on_ranks
from tnr_dist.config.schema import DeepSpeedConfig, HorovodConfig
from tnr_dist.engines.horovod.start import load_horovod
from tnr_dist.engines.make import make_engine
from tnr_dist.models.recommender import load_recommender
from tnr_dist.runs.tracker import read_metrics
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.registry import run_command
from tnr_dist.train.checkpoint import Checkpoints
from tnr_dist.util.errors import InputError

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "engines.json").read_text())
ENGINES = ["ddp", "deepspeed-0", "deepspeed-1", "deepspeed-2", "deepspeed-3", "horovod"]
HALF, END = 3, 6  # steps of the interrupted run


@functools.cache
def reason_against(name: str) -> str:
    """Why an engine cannot run here; empty when it can."""
    if name.startswith("deepspeed"):
        try:
            import deepspeed  # noqa: F401
        except ImportError as error:
            return f"DeepSpeed is not installed ({error})"
    if name.startswith("horovod"):
        try:
            load_horovod()
        except InputError as error:
            return str(error)
    return ""


@pytest.fixture(params=ENGINES)
def engine_name(request):
    if reason_against(request.param):
        missing(reason_against(request.param))
    return request.param


def make(name):
    kind, _, stage = name.partition("-")
    return make_engine(kind, "cpu", 1, DeepSpeedConfig(zero_stage=int(stage or -1)), HorovodConfig())


def save(engine, folder, step):
    checkpoints = Checkpoints(folder, engine, keep=1)
    checkpoints.save(step, {"fingerprint": "x"})
    checkpoints.close()
    engine.barrier()


def load(engine, folder):
    assert Checkpoints(folder, engine, keep=1).load_newest("x")["step"] == HALF


def scenarios(name, folder):
    """What one rank sees of an engine; the run in `folder/name` stops at step HALF and goes on."""
    os.environ["TORCH_EXTENSIONS_DIR"] = str(folder / "built")
    engine = make(name)
    out = {}

    task.setup(engine)
    out["losses"], out["norms"] = task.steps(engine, 0, 50)
    out["adam_steps"] = {float(values["step"]) for values in engine.state_dict()["state"].values()}
    engine.finish()
    out["plain"] = engine.module.omega.raw.shape == (1,) and all(p.numel() for p in engine.module.parameters())

    task.setup(engine)
    task.steps(engine, 0, END)
    out["weights"] = task.weights(engine)
    task.setup(engine)
    task.steps(engine, 0, HALF)
    save(engine, folder / name, HALF)
    task.setup(engine)
    load(engine, folder / name)
    task.steps(engine, HALF, END)
    out["resumed"] = task.weights(engine)

    task.setup(engine, clip_norm=0.1)
    out["clipped"] = task.steps(engine, 0, 4)
    task.setup(engine, accumulate=2)
    out["accumulated"] = task.steps(engine, 0, 4, pieces=2)
    task.setup(engine, precision="bf16")
    out["bf16"] = task.steps(engine, 0, 4)[0]
    state = engine.state_dict()["state"].values()
    out["dtypes"] = {str(value.dtype) for values in state for value in values.values()}
    out["bf16_adam_steps"] = {float(values["step"]) for values in state}
    engine.finish()
    out["dtypes"] |= {str(p.dtype) for p in engine.module.parameters()}

    rank = engine.environment.rank
    out["votes"] = [engine.any_rank(rank == 0 and call == 1) for call in range(4)]
    out["arrays"] = [part.tolist() for part in engine.gather(np.arange(2 * rank, dtype=np.int64))]
    out["listening"] = {c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == "LISTEN"}
    out["built"] = [str(p) for p in (folder / "built").glob("*")]
    engine.close()
    return out


@functools.cache
def folder():
    # Not a fixture: results are computed once, whatever tests are chosen.
    return Path(tempfile.mkdtemp(prefix="engines-"))


@functools.cache
def results(name, ranks):
    place = folder() / str(ranks)
    place.mkdir(exist_ok=True)
    return on_ranks(ranks, scenarios, name, place)


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_golden_curve(engine_name, ranks):
    for seen in results(engine_name, ranks):
        np.testing.assert_allclose(seen["losses"], GOLDEN["losses"], atol=1e-5, rtol=0)
        np.testing.assert_allclose(seen["norms"], GOLDEN["norms"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ranks", [1, 2])
def test_no_step_but_ours(engine_name, ranks):
    """Horovod's broadcast of a fresh optimiser's state, and DeepSpeed's bf16 at stage 0, begin with one of their own."""
    assert results(engine_name, ranks)[0]["adam_steps"] == {50.0}


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_resumed_run_is_bit_equal(engine_name, ranks):
    seen = results(engine_name, ranks)[0]
    for name, value in seen["weights"].items():
        assert np.array_equal(seen["resumed"][name], value), name


@pytest.mark.parametrize("ranks", [1, 2])
def test_clipping(engine_name, ranks):
    seen, plain = results(engine_name, ranks)[0], results("ddp", 1)[0]
    np.testing.assert_allclose(seen["clipped"], plain["clipped"], atol=1e-5)
    assert max(seen["clipped"][1]) > 0.1  # the norm before clipping
    assert not np.allclose(seen["clipped"][0], plain["losses"][:4], atol=1e-5)


@pytest.mark.parametrize("ranks", [1, 2])
def test_accumulation(engine_name, ranks):
    seen = results(engine_name, ranks)[0]
    np.testing.assert_allclose(seen["accumulated"], (GOLDEN["losses"][:4], GOLDEN["norms"][:4]), atol=1e-5)


@pytest.mark.parametrize("ranks", [1, 2])
def test_bf16_keeps_float32_weights_and_state(engine_name, ranks):
    seen = results(engine_name, ranks)[0]
    assert seen["dtypes"] == {"torch.float32"}
    assert seen["bf16_adam_steps"] == {4.0}
    # A score rounded the other way is 1e-3 of a loss.
    np.testing.assert_allclose(seen["bf16"][:2], results("ddp", ranks)[0]["bf16"][:2], atol=3e-3)
    np.testing.assert_allclose(seen["bf16"], GOLDEN["losses"][:4], atol=2e-2)
    assert not np.allclose(seen["bf16"], GOLDEN["losses"][:4], atol=1e-6)


def test_finish_leaves_a_plain_module(engine_name):
    assert all(seen["plain"] for seen in results(engine_name, 2))


def test_votes_arrive_everywhere_a_call_later(engine_name):
    assert results(engine_name, 1)[0]["votes"] == [False, True, False, False]
    assert [seen["votes"] for seen in results(engine_name, 2)] == [[False, False, True, False]] * 2


def test_arrays_of_any_length(engine_name):
    assert [seen["arrays"] for seen in results(engine_name, 2)] == [[[], [0, 1]]] * 2


def test_ranks_of_one_machine_listen_on_loopback_only(engine_name):
    addresses = set().union(*(seen["listening"] for seen in results(engine_name, 2)))
    assert addresses <= {"127.0.0.1", "::1"}


def test_nothing_is_compiled(engine_name):
    """DeepSpeed builds C++ at the first message, and for optimisers of its own: a minute, and a compiler."""
    assert results(engine_name, 2)[0]["built"] == []


def _go_on(name, checkpoints):
    engine = make(name)
    task.setup(engine)
    load(engine, checkpoints)
    task.steps(engine, HALF, END)
    out = task.weights(engine)
    engine.close()
    return out


PAIRS = [("ddp", other) for other in ENGINES[1:]]
PAIRS += [(source, other) for source in ("deepspeed-1", "deepspeed-3", "horovod") for other in ("ddp", "deepspeed-2")]


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize(("ranks_then", "ranks"), [(2, 2), (1, 2)])
def test_any_engine_goes_on_from_anothers_checkpoint(source, target, ranks_then, ranks):
    for name in (source, target):
        if reason_against(name):
            missing(reason_against(name))
    expected = results(source, ranks_then)[0]["weights"]
    out = on_ranks(ranks, _go_on, target, folder() / str(ranks_then) / source)[0]
    for name, value in expected.items():
        np.testing.assert_allclose(out[name], value, atol=1e-5, rtol=0, err_msg=name)


def _reducers_at_the_end_of_the_group():
    engine = make("ddp")
    task.setup(engine)
    task.steps(engine, 0, 2)
    reducer, seen, destroy = weakref.ref(engine._runs), [], dist.destroy_process_group
    dist.destroy_process_group = lambda: (seen.append(reducer() is None), destroy())
    engine.close()
    return seen


def test_the_reducer_ends_before_its_group():
    """As the group's last holder it waited for the group's threads with Python's lock: a hang at the end, now and then."""
    assert on_ranks(2, _reducers_at_the_end_of_the_group) == [[True], [True]]


def _gather_rows(name, sizes):
    engine = make(name)
    rank = engine.environment.rank
    torch.manual_seed(0)
    everything = torch.randn(sum(sizes), 3)
    start = sum(sizes[:rank])
    mine = everything[start : start + sizes[rank]].clone().requires_grad_()
    gathered = engine.all_gather_rows(mine, sizes)
    (gathered * torch.arange(1.0, gathered.numel() + 1).reshape(gathered.shape) * (rank + 1)).sum().backward()
    summed = engine.all_reduce(torch.full((2,), 1.5, dtype=torch.bfloat16))
    engine.barrier()
    engine.close()
    return torch.equal(gathered, everything), mine.grad.numpy(), start, summed.tolist(), str(summed.dtype)


@pytest.mark.parametrize("sizes", [[2, 3], [4, 0], [1, 1, 5]])
def test_horovod_gathers_rows_and_their_gradient(sizes):
    if reason_against("horovod"):
        missing(reason_against("horovod"))
    expected = np.arange(1.0, sum(sizes) * 3 + 1).reshape(-1, 3) * sum(range(1, len(sizes) + 1))
    for rank, (equal, grad, start, summed, dtype) in enumerate(on_ranks(len(sizes), _gather_rows, "horovod", sizes)):
        assert equal
        np.testing.assert_allclose(grad, expected[start : start + sizes[rank]])
        assert summed == [1.5 * len(sizes)] * 2 and dtype == "torch.bfloat16"  # Horovod itself refuses bf16


def _compressed():
    engine = make("horovod")
    out = {}
    for kind in ("none", "fp16", "bf16"):
        engine.settings = HorovodConfig(compression=kind)
        task.setup(engine)
        out[kind] = task.steps(engine, 0, 10)
    engine.close()
    return out


def test_horovod_compression():
    if reason_against("horovod"):
        missing(reason_against("horovod"))
    seen = on_ranks(2, _compressed)
    assert seen[0] == seen[1]
    for kind, atol in (("fp16", 1e-4), ("bf16", 1e-3)):
        difference = np.abs(np.array(seen[0][kind]) - np.array(seen[0]["none"])).max()
        assert 0 < difference < atol * 10, kind
        np.testing.assert_allclose(seen[0][kind][0], seen[0]["none"][0], atol=atol)


def _not_finite(stage):
    engine = make(f"deepspeed-{stage}")
    task.setup(engine)
    task.steps(engine, 0, 1)
    loss = engine.forward(task.batch(1, engine.environment.rank, engine.environment.world_size))["loss"]
    engine.backward(loss * float("nan"))
    try:
        engine.step()
    except FloatingPointError as error:
        return str(error)
    finally:
        engine.close()


@pytest.mark.parametrize("stage", [1, 3])
def test_deepspeed_skips_no_step_in_silence(stage):
    if reason_against("deepspeed"):
        missing(reason_against("deepspeed"))
    assert "not finite" in on_ranks(2, _not_finite, stage)[0]


LAUNCHERS = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"],
    "local": [sys.executable, "-m", "tnr_dist.launch.local", "2", "--", sys.executable, "-m"],
    "horovodrun": [str(Path(sys.executable).with_name("horovodrun")), "-np", "2", "--gloo", sys.executable, "-m"],
}


@pytest.mark.parametrize(
    ("launcher", "name"),
    [("torchrun", "horovod"), ("local", "horovod"), ("horovodrun", "horovod"), ("torchrun", "deepspeed")],
)
def test_under_launchers(launcher, name, tmp_path):
    if reason_against(name):
        missing(reason_against(name))
    command = [*LAUNCHERS[launcher], "tests.engine_task", name, "6", str(tmp_path / "out.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    out = json.loads((tmp_path / "out.json").read_text())
    np.testing.assert_allclose(out["losses"], GOLDEN["losses"][:6], atol=1e-5, rtol=0)


def _stage(config, engine, stage):
    config.engine, config.deepspeed.zero_stage = engine, stage
    made = make_engine(config.engine, "cpu", 1, config.deepspeed, config.horovod)
    run_command("finetune", config, made)
    made.close()


@pytest.mark.parametrize("name", ["deepspeed-1", "deepspeed-3", "horovod"])
def test_a_stage(name, prepared, tiny_plm, tmp_path):
    """The whole loop: frozen states, titles shared among ranks, checkpoints, accumulation, the saved model."""
    if reason_against(name):
        missing(reason_against(name))
    models, curves = [], []
    for engine, stage in (("ddp", -1), (name.partition("-")[0], int(name.partition("-")[2] or -1))):
        output = tmp_path / engine
        config = load_config(None, [
            f"output={output}", f"data.dir={prepared}", f"plm.name={tiny_plm}", "threads=1", "precision=fp32",
            "model.dropout=0", "model.news_dim=16", "model.query_dim=8", "data.history=10", "data.title_tokens=24",
            "log.every=1", "log.checkpoint_every=2", "finetune.init=plm", "finetune.layers=2", "finetune.batch_size=37",
            "finetune.max_steps=4", "finetune.lr=1e-3", "finetune.trainable_layers=1", "finetune.accumulate=2",
            "finetune.clip_norm=1.0",
        ])  # fmt: skip
        on_ranks(2, _stage, config, engine, stage)
        curves.append([r["train/loss"] for r in read_metrics(output / "finetune-2" / "metrics.jsonl")])
        models.append(load_recommender(output / "finetune-2" / "model.safetensors")[0])
    np.testing.assert_allclose(*curves, atol=1e-5, rtol=0)
    assert len(curves[0]) == 4
    for (which, a), b in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0, msg=which)
