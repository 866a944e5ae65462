"""The last impressions by time are kept apart, each click of the others is trained on once an epoch."""

from __future__ import annotations

import numpy as np
import pytest

from tnr_dist.data.batches.clicks import ClickLoader, LoaderOptions
from tnr_dist.data.held_out import hold_out_last
from tnr_dist.data.shards import count_samples, read_index
from tnr_dist.data.source import ShardSource
from tnr_dist.util.errors import InputError


@pytest.fixture
def split(prepared):
    index = read_index(prepared, "train")
    return index, ShardSource.of(prepared / "train", index)


def all_blocks(split):
    index, source = split
    return [block for info in index.shards for block in source.read_blocks(info).values()]


def test_each_impression_is_on_one_side(split):
    index, source = split
    held = hold_out_last(index, source, 0.2)
    times = np.sort(np.concatenate([block["time"] for block in all_blocks(split)]))
    assert held.before == times[len(times) - int(0.2 * len(times))]
    rows = {int(row): int(t) for block in all_blocks(split) for row, t in zip(block["row"], block["time"], strict=True)}
    apart = [int(row) for block in held.blocks for row in block["row"]]
    assert len(apart) == len(set(apart)) == held.impressions > 0.15 * len(rows)
    assert all(rows[row] >= held.before for row in apart)
    assert held.index.samples + sum(count_samples(block) for block in held.blocks) == index.samples


def test_what_is_kept_apart_is_what_the_shard_says(split):
    whole = {int(row): (block, i) for block in all_blocks(split) for i, row in enumerate(block["row"])}
    for part in hold_out_last(*split, 0.3).blocks:
        for i, row in enumerate(part["row"]):
            block, at = whole[int(row)]
            for one, place in ((part, i), (block, at)):
                user, c = one["impression_history"][place], one["candidate_offsets"]
                one["seen"] = (
                    one["history_news"][one["history_offsets"][user] : one["history_offsets"][user + 1]].tolist(),
                    one["candidate_news"][c[place] : c[place + 1]].tolist(),
                    one["candidate_clicked"][c[place] : c[place + 1]].tolist(),
                )
            assert part.pop("seen") == block.pop("seen")


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_trains_on_the_rest_exactly_once(split, workers):
    index, source = split
    held = hold_out_last(index, source, 0.25)
    options = LoaderOptions(32, history=10, streams=4, before=held.before)
    found = []
    for rank in (0, 1):
        loader = ClickLoader(held.index, source, options, rank=rank, world_size=2, workers=workers)
        for batch in loader.epoch(0):
            found += batch["row"][batch["weights"] > 0].tolist()
    wanted = []
    for block in all_blocks(split):
        offsets = block["candidate_offsets"]
        for i, row in enumerate(block["row"]):
            clicks = int(block["candidate_clicked"][offsets[i] : offsets[i + 1]].sum())
            if block["time"][i] < held.before and clicks < offsets[i + 1] - offsets[i]:
                wanted += [int(row)] * clicks
    assert sorted(found) == sorted(wanted)


def test_another_cut_is_another_sequence(split):
    index, source = split
    prints = {
        ClickLoader(index, source, LoaderOptions(32, before=before)).fingerprint()
        for before in (None, 10, 1_573_000_000)
    }
    assert len(prints) == 3


def test_a_share_too_small_for_one_impression_is_refused(split):
    with pytest.raises(InputError, match=r"a share of 1e-06 of 600 impressions leaves nothing to validate on"):
        hold_out_last(*split, 1e-6)
