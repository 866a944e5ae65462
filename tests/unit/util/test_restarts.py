"""Which start of a job a process belongs to."""

import pytest

from tnr_dist.util import restarts


@pytest.mark.parametrize(
    ("environment", "job", "count"),
    [
        ({}, "", 0),
        ({"SLURM_JOB_ID": "12"}, "12", 0),
        ({"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "2"}, "12", 2),
        ({"TNR_JOB_ID": "a7", "TNR_RESTART_COUNT": "1"}, "a7", 1),
        # A job that has submitted itself again, and that Slurm has requeued after that: the later start of the two.
        ({"TNR_JOB_ID": "12", "TNR_RESTART_COUNT": "1", "SLURM_JOB_ID": "15"}, "12", 1),
        ({"TNR_JOB_ID": "12", "TNR_RESTART_COUNT": "1", "SLURM_JOB_ID": "15", "SLURM_RESTART_COUNT": "1"}, "12", 2),
        ({"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "many"}, "12", 0),
    ],
)
def test_which_start_of_which_job(monkeypatch, environment, job, count):
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "TNR_JOB_ID", "TNR_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (restarts.job(), restarts.restarts()) == (job, count)


def test_progress_is_a_file_that_the_batch_script_names(monkeypatch, tmp_path):
    monkeypatch.delenv("TNR_PROGRESS", raising=False)
    restarts.mark_progress()
    monkeypatch.setenv("TNR_PROGRESS", str(tmp_path / "progress"))
    restarts.mark_progress()
    assert (tmp_path / "progress").is_file()
    monkeypatch.setenv("TNR_PROGRESS", str(tmp_path / "gone" / "progress"))
    restarts.mark_progress()  # a disk that does not answer ends no training
