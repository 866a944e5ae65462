"""Which ranks are of one run: what they compare, and what the line says that refuses the others."""

import dataclasses
import threading

import pytest
import torch.distributed as dist

from tnr_dist.engines.base import Terms
from tnr_dist.engines.meeting import _agree, compare_words, differences, word_of
from tnr_dist.engines.waiting import Wait
from tnr_dist.launch.environment import Environment
from tnr_dist.stages.methods import load_config
from tnr_dist.stages.parts import terms as terms_module
from tnr_dist.stages.parts.terms import terms_of
from tnr_dist.util.errors import InputError, Preempted, Unavailable

PLACE = Environment(0, 2, 0, 2, "127.0.0.1", 29500, "environment")


def word(host="a", ranks=2, folder="/runs/x", **settings):
    return {"host": host, "ranks": ranks, "settings": settings, "folders": {"output": folder}}


def test_one_run():
    assert compare_words({0: [word(seed="1")], 1: [word(seed="1")]}, "a:1") == ""


def test_another_configuration_is_named_with_its_keys():
    words = {0: [word(seed="1", lr="2")], 1: [word(seed="9", lr="2", extra="3")]}
    line = compare_words(words, "a:1")
    assert line.startswith("rank 1 runs another configuration (differs in: seed, extra): two runs meet at a:1;")
    several = compare_words({**words, 2: [word(seed="1", lr="2", folder="/runs/y")]}, "a:1")
    assert several.startswith("ranks 1, 2 run another configuration (differs in: seed, extra, output)")


def test_a_long_list_is_cut():
    line = compare_words({0: [word()], 1: [word(**{f"key{n}": "1" for n in range(30)})]}, "a:1")
    assert "key0, key1, key2, key3, key4, key5, key6, key7 and 22 more)" in line


def test_a_rank_that_came_twice():
    one = word(seed="1")
    assert compare_words({0: [one], 1: [one, one]}, "a:1").startswith(
        "rank 1 came twice: the same run was started two times"
    )
    other = compare_words({0: [one], 1: [one, word(seed="2")]}, "a:1")
    assert other.startswith("rank 1 runs another configuration (differs in: seed)")


def test_another_number_of_ranks():
    assert differences(word(), word(ranks=4)) == ["number of ranks"]


@pytest.mark.parametrize(
    ("first", "other", "found"),
    [
        (word(folder="/runs/x"), word(folder="/home/runs/x"), ["output"]),
        (word("a", folder="/mnt/runs/x"), word("b", folder="/nfs/runs/x"), []),  # one file system, mounted elsewhere
        (word("a", folder="/mnt/runs/x"), word("b", folder="/mnt/runs/y"), ["output"]),
    ],
)
def test_a_folder_is_the_same_on_one_machine_and_of_one_name_between_two(first, other, found):
    assert differences(first, other) == found


def test_a_word_that_says_nothing_is_another_run():
    assert differences(word(seed="1"), {}) == ["number of ranks", "seed", "output"]


class Ranks:
    """Threads that meet as ranks through one store, one after another."""

    def __init__(self):
        self.store, self.threads, self.ends = dist.HashStore(), [], {}

    def come(self, name, number, world=2, seed="1", seconds=20.0, stop_requested=lambda: False):
        """Rank `number` of `world` comes; returns once it has said its word."""
        place, terms = (
            dataclasses.replace(PLACE, rank=number, world_size=world),
            Terms({"seed": seed}, {}, stop_requested),
        )
        words = self.store.add(f"came/{number}", 0)

        def meet():
            try:
                _agree(self.store, place, terms, Wait(seconds, stop_requested))
                self.ends[name] = "met", ""
            except (InputError, Unavailable, Preempted) as error:
                self.ends[name] = type(error).__name__, str(error)

        self.threads.append(threading.Thread(target=meet))
        self.threads[-1].start()
        self.store.wait([f"word/{number}/{words + 1}"])

    def end(self):
        for thread in self.threads:
            thread.join(30)
        return self.ends


def test_all_go_on_when_the_last_has_come():
    ranks = Ranks()
    for number in (2, 1, 0, 3):
        assert not ranks.ends
        ranks.come(number, number, 4)
    assert ranks.end() == dict.fromkeys(range(4), ("met", ""))


def test_all_end_alike_when_one_is_of_another_run():
    ranks = Ranks()
    for number, seed in ((1, "2"), (0, "1"), (2, "1")):
        ranks.come(number, number, 3, seed)
    assert set(ranks.end()) == {0, 1, 2} and len(set(ranks.ends.values())) == 1
    kind, line = ranks.ends[0]
    assert kind == "InputError" and line.startswith("rank 1 runs another configuration (differs in: seed)")


def test_a_run_that_was_started_twice_is_refused():
    ranks = Ranks()
    for name, number in (("one", 1), ("the same again", 1), ("zero", 0)):
        ranks.come(name, number)
    assert len(ranks.end()) == 3
    for kind, line in ranks.ends.values():
        assert kind == "InputError" and line.startswith("rank 1 came twice")


@pytest.mark.parametrize(
    ("number", "world", "says"), [(1, 2, "of 2: another run has met"), (3, 4, "differs in: number of ranks")]
)
def test_who_comes_to_a_run_that_has_met_is_refused_alone(number, world, says):
    ranks = Ranks()
    for rank in (0, 1):
        ranks.come(rank, rank)
    ranks.end()
    ranks.come("late", number, world)
    assert ranks.end()[0] == ranks.ends[1] == ("met", "")
    assert ranks.ends["late"][0] == "InputError" and says in ranks.ends["late"][1]


@pytest.mark.parametrize("patience", [{0: 0.2, 1: 20.0}, {0: 20.0, 1: 0.2}])
def test_when_one_gives_up_all_end_and_the_missing_rank_is_named(patience):
    ranks = Ranks()
    for number, seconds in patience.items():
        ranks.come(number, number, 3, seconds=seconds)
    assert len(ranks.end()) == 2 and ranks.ends[0] == ranks.ends[1]
    assert ranks.ends[0][0] == "RankLost" and "within 0.2 s: rank 2 of 3 is missing" in ranks.ends[0][1]


@pytest.mark.parametrize("who", [0, 1])
def test_when_one_is_told_to_stop_all_stop(who):
    ranks, told = Ranks(), threading.Event()
    for number in (0, 1):
        ranks.come(number, number, 3, stop_requested=told.is_set if number == who else lambda: False)
    told.set()
    assert len(ranks.end()) == 2 and ranks.ends[0] == ranks.ends[1]
    assert ranks.ends[0] == (
        "Preempted",
        f"rank {who}: stopped before training began, nothing is lost; run it again",
    )


def of(command="stage2", *overrides):
    return word_of(PLACE, terms_of(load_config(None, ["output=runs/a", *overrides]), command))


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "stage2.lr=1e-3",
        "engine=deepspeed",
        "rows=[{name: x}]",
        "deepspeed.config=other.json",
        "timeout=5",
        "output=runs/b",
    ],
)
def test_every_setting_of_the_run_counts(override):
    assert differences(of(), of("stage2", override)) == [override.partition("=")[0]]


def test_command_and_version_count(monkeypatch):
    here = of()
    assert differences(here, of("stage1")) == ["command"]
    monkeypatch.setattr(terms_module, "__version__", "9.9")
    assert differences(here, of()) == ["tnr_dist"]


@pytest.mark.parametrize(
    "override", ["device=cpu", "threads=3", "data.workers=4", "data.shards=/local/train", "wandb.mode=disabled"]
)
def test_what_a_machine_may_have_of_its_own(override):
    assert differences(of(), of("stage2", override)) == []


def test_data_counts_by_what_it_is_and_not_by_where_it_lies(prepared, tmp_path):
    (tmp_path / "copy").mkdir()
    manifest = (prepared / "manifest.json").read_text()
    (tmp_path / "copy" / "manifest.json").write_text(manifest)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text(manifest.replace('"counts"', '"others": 1, "counts"', 1))
    here = of("stage2", f"data.dir={prepared}")
    assert differences(here, of("stage2", f"data.dir={tmp_path / 'copy'}")) == []
    for folder in ("other", "none"):
        assert differences(here, of("stage2", f"data.dir={tmp_path / folder}")) == ["data"]


def test_terms_are_compared_as_digests():
    """What is exchanged is JSON of short texts, whatever the settings are."""
    settings = terms_of(load_config(None, ["rows=[{name: a secret name}]"]), "run").settings
    assert settings["rows"] != terms_of(load_config(None, []), "run").settings["rows"]
    assert {len(value) for value in settings.values()} == {16} and "secret" not in str(settings)
    assert word_of(PLACE, Terms())["settings"] == {}
