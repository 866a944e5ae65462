"""`tnr bench profile` and `tiers`: every kernel has a class, every tier the same step."""

import pytest

from tnr_dist.bench import profile, step, tiers
from tnr_dist.bench.profile import class_of
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.transformer import encoder_from_config


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    def encoder_of(width, layers):
        return encoder_from_config(EncoderConfig(30_522, width, layers, 2, 4 * width, 64))

    monkeypatch.setattr(step, "encoder_of", encoder_of)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("nvjet_hsh_128x256_64x4", "products"),
        ("aten::mm", "products"),
        ("attention_gradient_kernel", "attention"),
        ("residual_norm_kernel", "norm and residual"),
        ("multi_tensor_apply_kernel<FusedAdam>", "optimiser"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("GeluBackwardCUDAKernelImpl", "gelu"),
        ("states_gradient_kernel", "pooling"),
        ("something_else", "other"),
    ],
)
def test_kernels_have_a_class(name, label):
    assert class_of(name) == label


def test_a_profile_shares_out_all_of_the_time():
    found = profile.run(samples=4, layers=2, width=16, trainable=1, steps=1)
    assert sum(row["share"] for row in found["rows"]) == pytest.approx(1)
    assert sum(row["ms"] for row in found["rows"]) == pytest.approx(found["ms"])
    assert found["rows"][0]["ms"] >= found["rows"][-1]["ms"] > 0 and found["busy"] > 0


def test_every_tier_is_measured():
    rows = tiers.run(samples=4, layers=2, width=16, trainable=1, repeats=1)["rows"]
    assert [row["frozen_cache"] for row in rows] == ["device", "host", "disk", "none"]
    assert rows[0]["ratio_device"] == 1 and all(row["samples_per_s"] > 0 for row in rows)
