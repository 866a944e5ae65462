"""Which form runs: the choice of the process, that of a call, and what `auto` takes."""

from __future__ import annotations

import pytest
import torch

from tnr_dist.kernels import dispatch
from tnr_dist.kernels.dispatch import use_kernels, use_triton
from tnr_dist.util.errors import InputError


def test_a_choice_holds_within_its_context(device: torch.device) -> None:
    x = torch.zeros(1, device=device)
    assert not use_triton(None, x, "distillation")
    with use_kernels("triton"):
        assert use_triton(None, x, "distillation")
        with use_kernels("torch"):
            assert not use_triton(None, x, "distillation")
            assert use_triton("triton", x, "distillation"), "a call's own choice comes first"
        assert use_triton(None, x, "distillation")
        assert not use_triton("torch", x, "distillation")
    assert not use_triton(None, x, "distillation")


def test_a_choice_ends_with_an_error(device: torch.device) -> None:
    with pytest.raises(ZeroDivisionError), use_kernels("triton"):
        raise ZeroDivisionError
    assert not use_triton(None, torch.zeros(1, device=device), "distillation")


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(InputError, match="kernels='cuda': unknown; one of auto, triton, torch"), use_kernels("cuda"):  # type: ignore[arg-type]
        raise AssertionError("entered")
    with pytest.raises(InputError, match="kernels='fast'"):
        use_triton("fast", torch.zeros(1), "gather_cast")  # type: ignore[arg-type]


def test_auto_is_plain_where_nothing_was_measured(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1, device=device)
    monkeypatch.setattr(dispatch, "AUTO", {"measured": True, "slower": False})
    with use_kernels("auto"):
        assert use_triton(None, x, "measured") == x.is_cuda
        assert not use_triton(None, x, "slower")
        assert not use_triton(None, x, "never measured")
        assert not use_triton(None, x.double(), "measured")


def test_triton_without_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with use_kernels("triton"), pytest.raises(InputError, match="needs a CUDA device"):
        use_triton(None, torch.zeros(1), "gather_cast")
