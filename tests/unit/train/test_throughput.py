from tnr_dist.train.throughput import status

RECORD = {
    "train/loss": 1.23456,
    "perf/samples_per_s": 38_000.4,
    "perf/data_wait_pct": 12.3,
    "memory/max_gib": 7.06,
}
RANKS = {"ranks/data_wait_pct_0": 1.0, "ranks/data_wait_pct_1": 12.3, "ranks/max_gib_0": 7.06, "ranks/max_gib_1": 6.0}


def test_one_rank():
    assert status(RECORD, 1) == "loss 1.2346, 38,000 samples/s, waits 12 %, 7.1 GiB"


def test_all_ranks_in_one_line_with_the_worst_named():
    expected = "loss 1.2346, 38,000 samples/s, 2 ranks, waits 12 % (rank 1), 7.1 GiB (rank 0)"
    assert status({**RECORD, **RANKS}, 2) == expected


def test_many_ranks_are_not_recorded_one_by_one():
    assert status(RECORD, 512) == "loss 1.2346, 38,000 samples/s, 512 ranks, waits 12 %, 7.1 GiB"
