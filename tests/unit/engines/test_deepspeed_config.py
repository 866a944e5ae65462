import json

import pytest
import torch

from tnr_dist.config.schema import DeepSpeedConfig
from tnr_dist.engines.deepspeed.config import OwnSettings, read_ds_config, resolve, zero_stage
from tnr_dist.util.errors import InputError


def ours(**changes):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], lr=1e-4, betas=(0.9, 0.999), eps=1e-8)
    return OwnSettings(**{
        "batch_size": 64, "accumulate": 2, "clip_norm": 1.0, "precision": "bf16", "world_size": 4,
        "optimizer": optimizer, "trained": 1000, **changes,
    })  # fmt: skip


PLAIN = {
    "train_batch_size": 64,
    "train_micro_batch_size_per_gpu": 8,
    "gradient_accumulation_steps": 2,
    "gradient_clipping": 1.0,
    "bf16": {"enabled": True},
    "fp16": {"enabled": False},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0}},
    "zero_optimization": {"stage": 2, "overlap_comm": False, "reduce_bucket_size": "auto"},
    "wall_clock_breakdown": False,
}


def test_a_plain_file_is_accepted(tmp_path):
    path = tmp_path / "ds_config.json"
    path.write_text(json.dumps(PLAIN))
    found = read_ds_config(str(path))
    stage = zero_stage(DeepSpeedConfig(str(path)), found)
    given = resolve(str(path), found, stage, ours())
    assert stage == 2 and given["zero_optimization"]["stage"] == 2
    assert given["zero_optimization"]["overlap_comm"] is False and given["wall_clock_breakdown"] is False
    assert given["gradient_clipping"] == 1.0 and given["zero_optimization"]["reduce_bucket_size"] == 1024
    # Ours to do: no optimiser of its own (which is compiled), no bf16 of its own (which keeps no float32 weights).
    assert not {"optimizer", "bf16", "fp16", "train_batch_size"} & given.keys()


def test_auto_is_what_we_say():
    auto = dict.fromkeys(("train_batch_size", "gradient_clipping", "gradient_accumulation_steps", "bf16"), "auto")
    auto["optimizer"] = {"type": "AdamW", "params": {"lr": "auto"}}
    assert resolve("x.json", auto, 1, ours()) == resolve("", {}, 1, ours())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_batch_size": 32}, ["train_batch_size=32", "batch_size=64"]),
        ({"train_micro_batch_size_per_gpu": 16}, ["train_micro_batch_size_per_gpu=16", "batch_size=64", "4 ranks is 8"]),
        ({"gradient_accumulation_steps": 1}, ["gradient_accumulation_steps=1", "accumulate=2"]),
        ({"gradient_clipping": 0.5}, ["gradient_clipping=0.5", "clip_norm=1.0"]),
        ({"bf16": {"enabled": False}}, ["bf16.enabled=False", "precision='bf16'"]),
        ({"fp16": {"enabled": True}}, ["fp16.enabled=True", "precision='bf16'"]),
        ({"torch_autocast": {"enabled": True, "dtype": "float16"}}, ["torch_autocast.dtype='float16'", "precision='bf16'"]),
        ({"optimizer": {"type": "Lamb"}}, ["optimizer.type='Lamb'", "Adam"]),
        ({"optimizer": {"params": {"lr": 1e-3}}}, ["optimizer.params.lr=0.001", "lr=0.0001"]),
        ({"optimizer": {"params": {"betas": [0.8, 0.9]}}}, ["optimizer.params.betas=[0.8, 0.9]", "betas=(0.9, 0.999)"]),
        ({"optimizer": {"params": {"freeze_step": 3}}}, ["optimizer.params.freeze_step=3"]),
        ({"scheduler": {"type": "WarmupLR"}}, ["scheduler", "schedule"]),
        ({"zero_optimization": 2}, ["zero_optimization=2", "object"]),
    ],
)  # fmt: skip
def test_a_contradiction_names_both(change, words):
    with pytest.raises(InputError) as raised:
        resolve("x.json", {**PLAIN, **change}, 2, ours())
    assert all(word in str(raised.value) for word in ["x.json", *words]), raised.value


def test_bf16_in_a_float32_run():
    with pytest.raises(InputError, match=r"bf16\.enabled=True contradicts precision='fp32'"):
        resolve("x.json", {"bf16": {"enabled": True}}, 1, ours(precision="fp32"))


def test_zero_stage():
    assert zero_stage(DeepSpeedConfig(), {}) == 1
    assert zero_stage(DeepSpeedConfig(zero_stage=3), {}) == 3
    assert zero_stage(DeepSpeedConfig("x.json", 0), {"zero_optimization": {"stage": 0}}) == 0
    with pytest.raises(InputError, match=r"zero_optimization\.stage=2 contradicts deepspeed\.zero_stage=1"):
        zero_stage(DeepSpeedConfig("x.json", 1), {"zero_optimization": {"stage": 2}})
    with pytest.raises(InputError, match="0 to 3"):
        zero_stage(DeepSpeedConfig("x.json"), {"zero_optimization": {"stage": 4}})


def test_stage_0_clips_by_itself():
    assert resolve("", {}, 0, ours())["gradient_clipping"] == 0.0


@pytest.mark.parametrize(("text", "says"), [("{", "not valid JSON"), ("[1]", "expected an object")])
def test_a_file_that_is_none(tmp_path, text, says):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        read_ds_config(str(path))
    with pytest.raises(InputError, match="cannot be read"):
        read_ds_config(str(tmp_path / "none.json"))
