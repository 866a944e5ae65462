"""A job that was given GPUs and sees none stops; what a command runs on is one line."""

import subprocess

import pytest
import torch

from tests.signals import given_back
from tnr_dist.cli.app import main
from tnr_dist.engines import devices
from tnr_dist.engines.devices import choose_device, describe, driver_version, gpus_given, warnings
from tnr_dist.launch.environment import Environment
from tnr_dist.util.errors import InputError

ALONE = Environment(0, 1, 0, 1, "127.0.0.1", 0, "none")
RANKS = Environment(0, 4, 0, 2, "node1", 20097, "slurm")
OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build  (dvs-builder@U16-I3-A16-2-4)\n"
)
CLOSED = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version:  gcc 12\n"
)


@pytest.fixture
def blind(monkeypatch, tmp_path):
    """Without a GPU, a driver, or variables that speak of them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(devices, "_DRIVER", tmp_path / "version")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("SLURM_JOB_ID", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize(
    "name, value",
    [("SLURM_JOB_GPUS", "0"), ("SLURM_STEP_GPUS", "0,1"), ("SLURM_GPUS_ON_NODE", "4"), ("CUDA_VISIBLE_DEVICES", "0")],
)
def test_a_gpu_job_that_sees_no_gpu_stops(blind, device, name, value):
    blind.setenv("SLURM_JOB_ID", "7")
    blind.setenv(name, value)
    with pytest.raises(InputError) as stopped:
        choose_device(device, RANKS)
    line = str(stopped.value)
    assert f"Slurm gave this job GPUs ({name}={value}) and torch sees none" in line
    assert f"torch {torch.__version__}, built for CUDA 12.8; NVIDIA driver: none found; " in line
    assert "apptainer --nv" in line and line.endswith("or set device=cpu to train without")
    assert choose_device("cpu", RANKS) == torch.device("cpu")  # set so explicitly, it goes on


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SLURM_JOB_ID": "7"},
        {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "0", "CUDA_VISIBLE_DEVICES": ""},
        {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "NoDevFiles"},
        {"CUDA_VISIBLE_DEVICES": "0"},  # outside a job it says nothing of what is there
    ],
)
def test_a_job_without_gpus_trains_on_the_cpu(blind, variables):
    for name, value in variables.items():
        blind.setenv(name, value)
    assert gpus_given(variables) == ""
    assert choose_device("auto", RANKS) == torch.device("cpu")
    with pytest.raises(InputError, match="device=cuda and torch sees none"):
        choose_device("cuda", ALONE)


def test_a_sound_gpu_is_taken(blind):
    blind.setenv("SLURM_JOB_ID", "7")
    blind.setenv("SLURM_JOB_GPUS", "0")
    blind.setattr(torch.cuda, "is_available", lambda: True)
    blind.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto", RANKS) == torch.device("cuda", 0)
    with pytest.raises(InputError, match="local rank 1 has no GPU"):
        choose_device("auto", Environment(1, 4, 1, 2, "node1", 20097, "slurm"))


@pytest.mark.parametrize("text, version", [(OPEN, "550.54.14"), (CLOSED, "535.129.03"), ("other\n", "")])
def test_the_driver_by_its_own_file(blind, text, version):
    devices._DRIVER.write_text(text)
    assert driver_version() == version


def test_the_driver_by_nvidia_smi(blind, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 470.82.01\necho 470.82.01\n")
    program.chmod(0o755)
    assert driver_version() == "470.82.01"
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert driver_version() == ""

    def hangs(*_arguments, timeout, **_options):
        raise subprocess.TimeoutExpired("nvidia-smi", timeout)

    blind.setattr(subprocess, "run", hangs)
    assert driver_version() == ""


@pytest.mark.parametrize(
    "cuda, visible, driver, remedy",
    [
        (None, None, "", "install a torch that is built for CUDA"),
        ("12.8", "", "", "CUDA_VISIBLE_DEVICES= hides them"),
        ("12.8", "0", CLOSED, "a CUDA that this driver supports"),
    ],
)
def test_what_to_do(blind, cuda, visible, driver, remedy):
    blind.setattr(torch.version, "cuda", cuda)
    blind.setenv("SLURM_JOB_ID", "7")
    blind.setenv("SLURM_JOB_GPUS", "0")
    if visible is not None:
        blind.setenv("CUDA_VISIBLE_DEVICES", visible)
    if driver:
        devices._DRIVER.write_text(driver)
    with pytest.raises(InputError, match=remedy):
        choose_device("auto", RANKS)


def test_the_command_ends_with_one_line_and_2(blind, prepared, tmp_path, capsys):
    blind.setenv("SLURM_JOB_ID", "7")
    blind.setenv("SLURM_JOB_GPUS", "0")
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {{dir: {prepared}}}\noutput: {tmp_path / 'out'}\n")
    blind.setattr("sys.argv", ["tnr", "stage2", str(config)])
    with given_back(), pytest.raises(SystemExit) as ended:
        main()
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.startswith("tnr: ") and err.count("\n") == 1 and "torch sees none" in err


def test_one_line_says_what_a_command_runs_on(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert describe(ALONE, cpu, "fp32") == "no launcher: 1 rank; CPU with 1 thread; precision fp32"
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "3")
    ranks = "slurm: 4 ranks on 3 nodes, meeting at node1:20097; each "
    assert describe(RANKS, cpu, "bf16") == f"{ranks}CPU with 1 thread; precision bf16"
    monkeypatch.delenv("SLURM_STEP_NUM_NODES")
    monkeypatch.delenv("SLURM_JOB_NUM_NODES", raising=False)
    assert " on 2 nodes," in describe(RANKS, cpu, "fp32")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_options: True)
    gpu = torch.device("cuda", 0)
    assert describe(RANKS, gpu, "auto").endswith("; each GPU NVIDIA H200; precision bf16")


def test_warnings(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(devices, "cores", lambda: 4)
    assert list(warnings(RANKS, cpu, 1, {})) == list(warnings(RANKS, cpu, 4, {})) == []
    assert list(warnings(RANKS, cpu, 2, {})) == ["ranks=2 does not count here: slurm started 4"]
    monkeypatch.setattr(devices, "cores", lambda: 2)
    assert list(warnings(RANKS, cpu, 1, {"SLURM_CPUS_ON_NODE": "4"})) == []  # each rank is bound to two of its own
    (line,) = warnings(RANKS, cpu, 1, {})
    assert line.startswith("2 x 2 threads of computation on 2 cores: ")
    monkeypatch.setattr(devices, "cores", lambda: 1)
    (line,) = warnings(RANKS, cpu, 1, {"SLURM_CPUS_ON_NODE": "2"})
    assert line.startswith("2 x 2 threads of computation on 2 cores: ")
    assert list(warnings(RANKS, torch.device("cuda", 0), 1, {})) == []
