"""DeepSpeed: ZeRO 0 to 3 under our own optimiser, with weights and state read and written in the common form."""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from tnr_dist.config.schema import DeepSpeedConfig
from tnr_dist.engines.base import OptimizerFactory, OptimizerState, Terms
from tnr_dist.engines.core import autocast
from tnr_dist.engines.deepspeed.config import OwnSettings, read_ds_config, resolve, zero_stage
from tnr_dist.engines.meeting import groups_with_our_timeout
from tnr_dist.engines.process_group import ProcessGroupEngine
from tnr_dist.util.errors import InputError


class DeepSpeedEngine(ProcessGroupEngine):
    """Data parallelism by DeepSpeed's ZeRO.

    DeepSpeed takes the module at the first forward pass: until then a checkpoint is loaded, and the frozen layers run,
    on plain parameters. `optimizer` holds the groups over the module's own parameters, as checkpoints name them; from
    stage 1 on it never steps, and its twin inside DeepSpeed, whose parameters are flat partitions, follows its rates.
    """

    def __init__(
        self,
        device: str = "auto",
        threads: int = 0,
        settings: DeepSpeedConfig | None = None,
        terms: Terms | None = None,
    ) -> None:
        self.settings = settings or DeepSpeedConfig()
        self._file = read_ds_config(self.settings.config)
        self.stage = zero_stage(self.settings, self._file)
        super().__init__(device, threads, terms, alone=True)
        os.environ["LOCAL_RANK"] = str(self.environment.local_rank)
        self._deepspeed = load_deepspeed(self.device.type)
        self._engine: Any = None
        self._last = True  # whether the micro-batch under way is its step's last

    @override
    def _take(self, optimizer: OptimizerFactory, batch_size: int, accumulate: int) -> None:
        """Raises InputError for a ds_config.json that contradicts what is asked for."""
        self._factory = optimizer
        ours = OwnSettings(
            batch_size,
            accumulate,
            self._clip,
            self._precision,
            self.environment.world_size,
            self.optimizer,
            sum(p.numel() for p in self.module.parameters() if p.requires_grad),
        )
        self._config = resolve(self.settings.config, self._file, self.stage, ours)

    def _start(self) -> None:
        inner = self._factory(self.module) if self.stage else self.optimizer
        computed = _Computed(self.module, functools.partial(autocast, self._precision, self.device))
        try:
            with groups_with_our_timeout():
                self._engine, *_ = self._deepspeed.initialize(model=computed, optimizer=inner, config=self._config)
        except (AssertionError, ValueError, TypeError, NotImplementedError) as error:
            if not self.settings.config:
                raise
            line = " ".join(str(error).split())[:300]
            raise InputError(f"{self.settings.config}: DeepSpeed refuses it: {line}") from error
        self._inner = inner
        if self.stage and self.optimizer.state:
            self._give_state()
            self.optimizer.state.clear()

    @override
    def forward(self, *args: object) -> Any:
        if self._engine is None:
            self._start()
        return self._engine(*args)

    @override
    def micro_batch(self, last: bool) -> AbstractContextManager[object]:
        return self._micro_batch(last)

    @contextlib.contextmanager
    def _micro_batch(self, last: bool) -> Generator[None]:
        self._last = last
        try:
            yield
        finally:
            self._last = True

    @override
    def backward(self, loss: Tensor) -> None:
        self._engine.set_gradient_accumulation_boundary(self._last)
        self._engine.backward(loss * self.environment.world_size)  # DeepSpeed averages; the shares are to be summed

    @override
    def step(self) -> Tensor:
        """Raises FloatingPointError where DeepSpeed would leave the step out and say nothing."""
        if not self.stage:
            norm = self._clip_gradients()
            self._engine.step()
            return norm
        for ours, theirs in zip(self.optimizer.param_groups, self._inner.param_groups, strict=True):
            theirs["lr"] = ours["lr"]
        self._engine.step()
        if self._engine.optimizer.overflow:
            raise FloatingPointError(
                "the gradients are not finite; lower the learning rate or set precision=fp32 (DeepSpeed skips such a step)"
            )
        return torch.as_tensor(self._engine.get_global_grad_norm(), device=self.device)

    @override
    def state_dict(self) -> OptimizerState:
        if not self.stage or self._engine is None:
            return self.optimizer.state_dict()
        from deepspeed.utils import safe_get_full_optimizer_state

        state: dict[int, dict[str, object]] = {}
        position = 0
        self._link()
        for number, group in enumerate(self.optimizer.param_groups):
            flat = self._partitions(number)[0]
            held = self._inner.state.get(flat, {})
            for parameter in group["params"]:
                values = {key: value for key, value in held.items() if not _is_partition(value, flat)}
                # A collective each, so in one order on all ranks: that of a set differs between processes.
                for key in sorted(held.keys() - values.keys()):
                    whole = safe_get_full_optimizer_state(parameter, key)
                    if self.environment.rank == 0:
                        values[key] = whole.cpu()
                if held:
                    state[position] = values
                position += 1
        return {"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]}

    @override
    def load_state_dict(self, state: OptimizerState) -> None:
        self.optimizer.load_state_dict(state)
        if self.stage and self._engine is not None:
            self._give_state()
            self.optimizer.state.clear()

    @contextlib.contextmanager
    def _gathered(self) -> Generator[None]:
        with self._deepspeed.zero.GatheredParameters(list(self.module.parameters())):
            yield

    @override
    def whole(self) -> AbstractContextManager[object]:
        return self._gathered() if self.stage == 3 and self._engine is not None else contextlib.nullcontext()

    @override
    def finish(self) -> None:
        if self._engine is None:
            return
        fresh: dict[int, nn.Parameter] = {}
        if self.stage:
            with self.whole():
                for parameter in self.module.parameters():
                    fresh[id(parameter)] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
        self._release()
        self.optimizer.state.clear()
        if fresh:
            # ZeRO leaves views of its buffers, partitions and its own attributes on the parameters it had.
            for part in self.module.modules():
                part._parameters = {
                    name: None if p is None else fresh[id(p)] for name, p in dict.items(part._parameters)
                }

    @override
    def _release(self) -> None:
        if getattr(self, "_engine", None) is not None:
            self._engine.destroy()
            self._engine = None

    @override
    def forget(self) -> None:
        for name in ("_factory", "_inner"):
            vars(self).pop(name, None)
        super().forget()

    def _partitions(self, group: int) -> list[Tensor]:
        """This rank's flat float32 partitions of a parameter group."""
        zero = self._engine.optimizer
        if self.stage == 3:
            return [zero.fp32_partitioned_groups_flat[i] for i, g in zero.sub_group_to_group_id.items() if g == group]
        return [zero.single_partition_of_fp32_groups[group]]

    def _link(self) -> None:
        """Let DeepSpeed's parameters find their state in the flat partitions.

        Stages 1 and 2 do so once, when the first group has made its first step and the others have no state yet.
        """
        if self.stage < 3 and self._inner.state:
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _give_state(self) -> None:
        """`optimizer`'s whole state into DeepSpeed's partitions."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        rank, world = self.environment.rank, self.environment.world_size
        for number, group in enumerate(self.optimizer.param_groups):
            first = self.optimizer.state[group["params"][0]]
            for flat in self._partitions(number):
                # What has the parameter's shape is kept in partitions; the number of steps is one for all of them.
                self._inner.state[flat] = {
                    key: torch.zeros_like(flat, requires_grad=False)
                    if _is_like(value, group["params"][0])
                    else _clone_tensor(value)
                    for key, value in first.items()
                }
        self._link()
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                for key, value in self.optimizer.state[parameter].items():
                    if not _is_like(value, parameter):
                        continue
                    if self.stage < 3:
                        safe_set_full_optimizer_state(parameter, value, key)
                        continue
                    size = parameter.partition_numel()
                    padded = F.pad(value.flatten(), (0, size * world - value.numel()))
                    safe_set_local_optimizer_state(parameter, padded[rank * size : (rank + 1) * size], key)


class _Computed(nn.Module):
    """The module under our autocast: DeepSpeed turns off one that begins outside its own forward pass."""

    def __init__(self, module: nn.Module, autocast: Callable[[], AbstractContextManager[object]]) -> None:
        super().__init__()
        self.module, self._autocast = module, autocast

    def forward(self, *args: object) -> Any:
        with self._autocast():
            return self.module(*args)


def _is_partition(value: object, flat: Tensor) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape == flat.shape


def _is_like(value: object, parameter: nn.Parameter) -> bool:
    shape = getattr(parameter, "ds_shape", parameter.shape)  # a partitioned parameter's own shape is empty
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape == shape


def _clone_tensor(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value


def load_deepspeed(device: str) -> ModuleType:
    """The package, made for this device, without its habit of compiling C++ at the first message.

    Raises InputError when it is not installed.
    """
    os.environ.setdefault("DS_ACCELERATOR", device)
    try:
        import deepspeed
        import deepspeed.ops
    except ImportError as error:
        raise InputError(f"engine=deepspeed: DeepSpeed cannot be imported ({error}); `pip install deepspeed`") from None
    # At every message: it calls torch.distributed by names that are about to go.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    if device == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    package: ModuleType = deepspeed
    return package
