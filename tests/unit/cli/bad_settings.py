"""Malformed and contradictory configurations, overrides and arguments, over every command that takes them."""

from __future__ import annotations

import json
from typing import Any

from tests.unit.cli.bad_table import Place, add, case

# Configuration files --------------------------------------------------------------------------------------------------

_BAD_FILES: dict[str, tuple[str | bytes, list[str]]] = {
    "unknown_key": ("stage2: {ler: 1}\n", ["c.yaml", "stage2.ler", "did you mean 'stage2.lr'"]),
    "wrong_type": ("stage2: {lr: fast}\n", ["c.yaml", "stage2.lr='fast'", "a number"]),
    "group_as_a_number": ("stage2: 3\n", ["c.yaml", "stage2=3", "a group of keys"]),
    "a_list": ("- 1\n- 2\n", ["c.yaml", "expected a mapping"]),
    "not_yaml": ("stage2: {lr: [1\n", ["c.yaml, line", "not valid YAML"]),
    "tab_indented": ("stage2:\n\tlr: 1\n", ["c.yaml, line 2", "not valid YAML"]),
    "python_tag": ("output: !!python/object/apply:os.system ['touch executed']\n", ["c.yaml, line 1", "python"]),
    "python_object": ("output: !!python/object:os.environ {}\n", ["c.yaml, line 1", "python"]),
    "duplicate_key": ("seed: 1\nseed: 2\n", ["c.yaml, line 2", "duplicate key 'seed'"]),
    "key_that_is_a_number": ("1: 2\n", ["c.yaml, line 1", "key 1"]),
    "key_that_is_a_list": ("? [a, b]\n: 2\n", ["c.yaml", "key"]),
    "in_utf16": ("seed: 1\n".encode("utf-16"), ["c.yaml", "not a UTF-8"]),
    "in_latin1": ("output: K\xf6ln\n".encode("latin-1"), ["c.yaml", "not a UTF-8"]),
    "with_nul_bytes": ("seed: \0\n", ["c.yaml", "not valid YAML"]),
    "nested_without_end": ("seed: " + "[" * 20_000, ["c.yaml"]),
    "billion_laughs": (
        "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'lol'}]\n" for i in range(9)),
        ["c.yaml", "its aliases (*name) stand for more than"],
    ),
    "number_without_end": ("seed: 0x" + "f" * 100_000 + "\n", ["c.yaml, line 1: a whole number of 100,002 characters"]),
    "number_of_base_60": ("seeds: " + ":".join(["1"] * 5_000), ["c.yaml, line 1: a whole number of 9,999 characters"]),
    "merge_of_a_number": ("<<: 3\nseed: 1\n", ["c.yaml"]),
    "alias_of_nothing": ("seed: *x\n", ["c.yaml, line 1", "not valid YAML"]),
    "two_documents": ("seed: 1\n---\nseed: 2\n", ["c.yaml", "not valid YAML"]),
    "date_for_text": ("output: 2019-11-15\n", ["c.yaml", "output=", "expected text"]),
    "date_of_no_day": ("output: 2019-02-31\n", ["c.yaml", "day is out of range"]),
    "number_for_a_list": ("stage2: {betas: 0.9}\n", ["c.yaml", "stage2.betas=0.9", "a list"]),
    "yes_for_a_number": ("seed: yes\n", ["c.yaml", "seed=True", "a whole number"]),
}
for _name, (_text, _says) in _BAD_FILES.items():
    add(f"config_{_name}", lambda place, text=_text: ["stage2", place.config(text)], *_says)

add("config_missing", lambda place: ["stage1", place.path / "none.yaml"], "none.yaml: no such configuration file")
add("config_is_a_folder", lambda place: ["cache", place.path], "a folder; give a configuration file")

# Values, given on the command line ------------------------------------------------------------------------------------

_BAD_VALUES: dict[str, list[str]] = {
    "stage2.lr=.nan": ["stage2.lr=nan", "finite"],
    "stage2.lr=nan": ["stage2.lr=nan", "a finite number"],
    "stage2.lr=.inf": ["stage2.lr=inf", "finite"],
    "stage2.lr=-1": ["stage2", "lr", "greater than 0"],
    "stage2.batch_size=0": ["stage2", "batch_size"],
    "stage2.batch_size=1.5": ["stage2.batch_size=1.5", "a whole number"],
    "stage2.epochs=-3": ["stage2", "epochs"],
    "stage2.betas=[0.9]": ["stage2.betas=[0.9]"],
    "stage2.betas=[0.9,1.0]": ["stage2.betas"],
    "stage2.eps=-1": ["stage2.eps=-1"],
    "stage2.warmup=1": ["stage2.warmup=1"],
    "stage2.temperature=0": ["stage2.temperature=0"],
    "stage2.omega=-1": ["stage2.omega=-1"],
    "stage2.beta2=-0.1": ["stage2.beta2=-0.1"],
    "stage2.accumulate=0": ["stage2.accumulate=0"],
    "stage2.init=magic": ["stage2.init='magic'", "one of"],
    "stage2=3": ["stage2=3", "a group of keys"],
    "stage2.lr": ["'stage2.lr'", "key=value"],
    "=3": ["'=3'", "key=value"],
    "stage2..lr=3": ["unknown key 'stage2..lr'"],
    "output.x=3": ["output.x"],
    "seed=-1": ["seed=-1"],
    "seed=99999999999999999999999": ["seed=99999999999999999999999"],
    "seeds=0": ["seeds=0"],
    "ranks=0": ["ranks=0"],
    "threads=-1": ["threads=-1"],
    "timeout=-1": ["timeout=-1"],
    "engine=mpi": ["engine='mpi'"],
    "data.history=0": ["data.history=0"],
    "data.negatives=-4": ["data.negatives=-4"],
    "data.streams=0": ["data.streams=0"],
    "data.workers=-1": ["data.workers=-1"],
    "data.max_unknown=2": ["data.max_unknown=2"],
    "data.news_inputs=[]": ["data.news_inputs=[]"],
    "data.news_inputs=[body]": ["data.news_inputs=['body']"],
    "model.dropout=1": ["model.dropout=1"],
    "model.news_dim=0": ["model.news_dim=0"],
    "student.layers=0": ["student.layers=0"],
    "evaluate.split=valid": ["tnr: evaluate.split=valid: 'valid' is no split"],
    "post_train.title_tokens=-5": ["post_train.title_tokens=-5", "at least 3"],
    "stage1.body_tokens=-1": ["stage1.body_tokens=-1", "at least 3"],
    "stage1.title_tokens=0": ["stage1.title_tokens=0", "at least 3"],
    "further_pretrain.body_tokens=2": ["further_pretrain.body_tokens=2", "at least 3"],
    "tinybert.general.body_tokens=-1": ["tinybert.general.body_tokens=-1", "at least 3"],
    "data.title_tokens=2": ["data.title_tokens=2", "at least 3"],
    "reproduce.sizes=[]": ["reproduce.sizes=[]", "one value or more"],
    "reproduce.teachers=[]": ["reproduce.teachers=[]", "one value or more"],
    "reproduce.beta1=[]": ["reproduce.beta1=[]", "one value or more"],
    "reproduce.beta2=[]": ["reproduce.beta2=[]", "one value or more"],
    "cache.splits=[valid]": ["cache.splits=['valid']: 'valid' is no split"],
    "cache.splits=[]": ["cache.splits=[]", "train must be among them"],
    "cache.splits=[dev]": ["cache.splits=['dev']", "train must be among them"],
    "stage2={use_distill: false, use_embedding: false, use_target: false}": ["stage2", "nothing is learned"],
    "log.every=0": ["log.every=0"],
    "log.keep=0": ["log.keep=0"],
    "deepspeed.zero_stage=4": ["deepspeed.zero_stage=4"],
    "stage1.teachers=4": ["stage1.teachers=4", "post_train.keep_models=1"],
    "rows=[{name: a}, {name: a}]": ["rows", "a name of its own"],
    "rows=[{name: a, set: [seed=3]}]": ["'a'", "'seed=3'"],
    "rows=[{name: a, set: [deepspeed.zero_stage=3]}]": ["'a'", "'deepspeed.zero_stage=3'", "for one row only"],
    "rows=[{name: a, set: [kernels=torch]}]": ["'a'", "'kernels=torch'", "for one row only"],
    "rows=[{name: a, set: [stage2.ler=3]}]": ["row 'a': its set: unknown key 'stage2.ler'"],
    "rows=[{name: a, layers: -1}]": ["'a'", "layers=-1"],
}
for _setting, _says in _BAD_VALUES.items():
    add(f"setting {_setting}", lambda place, one=_setting: ["stage2", place.config(), one], *_says)

_CONTRADICTIONS: dict[str, tuple[list[str], list[str]]] = {
    "teacher_beyond_teachers": (["finetune", "finetune.teacher=1"], ["finetune.teacher=1", "0 to 0"]),
    "teacher_negative": (["finetune", "finetune.teacher=-2"], ["finetune.teacher=-2"]),
    "teachers_none": (["finetune", "finetune.teachers=0"], ["finetune.teachers=0"]),
    "nrms_heads": (
        ["finetune", "model.user_encoder=nrms", "model.user_heads=5"],
        ["model.user_heads=5", "model.news_dim=16"],
    ),
    "nrms_with_learned_padding": (
        ["finetune", "finetune.init=plm", "model.user_encoder=nrms", "model.history_padding=learned"],
        ["history_padding 'learned'", "user_encoder"],
    ),
    "layers_beyond_the_plm": (["finetune", "finetune.init=plm", "finetune.layers=9"], ["layers=9", "3"]),
    "soft_labels_of_more_than_all": (["bert-pkd", "bert_pkd.alpha=2"], ["bert_pkd.alpha=2", "a share between 0 and 1"]),
    "gradient_of_more_than_all": (["newsbert", "newsbert.beta=2"], ["newsbert.beta=2", "a share between 0 and 1"]),
    "mask_of_every_token": (["further-pretrain", "further_pretrain.mask=1"], ["further_pretrain.mask=1"]),
    "trainable_layers_none": (["baseline newsbert", "newsbert.trainable_layers=0"], ["newsbert.trainable_layers=0"]),
    "checkpoints_that_are_not_kept": (
        ["finetune", "finetune.teachers=4", "finetune.teachers_by=checkpoints"],
        ["finetune.teachers=4", "post_train.keep_models"],
    ),
    "shard_range_backwards": (["cache", "cache.shard_range=5:2"], ["cache.shard_range", "5:2"]),
    "shard_range_of_text": (["cache", "--shard-range", "a:b"], ["cache.shard_range", "a:b"]),
    "device_that_is_not_there": (["finetune", "finetune.init=plm", "device=cuda"], ["torch sees none", "device=cpu"]),
    "ds_config_missing": (
        ["finetune", "engine=deepspeed", "deepspeed.config=none.json"],
        ["deepspeed.config=none.json"],
    ),
    "shards_that_miss_one": (["finetune", "finetune.init=plm", "data.shards=x/shard-999999.tar"], ["shard-000000.tar"]),
    "shards_that_count_down": (["finetune", "finetune.init=plm", "data.shards=shard-{9..1}.tar"], ["counts down"]),
    "more_negatives_than_news": (["post-train", "post_train.negatives=5000"], ["too few for 5000"]),
}
for _name, (_arguments, _says) in _CONTRADICTIONS.items():
    add(
        f"settings_{_name}",
        lambda place, given=_arguments: [*given[0].split(), place.config(), *given[1:]],
        *_says,
    )


def _ds_config(place: Place, content: Any) -> str:
    path = place.path / "ds.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return f"deepspeed.config={path}"


@case("ds.json", "not valid JSON")
def ds_config_is_no_json(place: Place) -> list[Any]:
    return ["finetune", place.config(), "engine=deepspeed", _ds_config(place, "{")]


@case("ds.json", "expected an object")
def ds_config_is_a_list(place: Place) -> list[Any]:
    return ["finetune", place.config(), "engine=deepspeed", _ds_config(place, [])]


@case("zero_optimization.stage=2", "deepspeed.zero_stage=1")
def ds_config_contradicts(place: Place) -> list[Any]:
    content = {"zero_optimization": {"stage": 2}}
    return ["finetune", place.config(), "engine=deepspeed", "deepspeed.zero_stage=1", _ds_config(place, content)]


# Other commands' arguments --------------------------------------------------------------------------------------------

_BAD_ARGUMENTS: dict[str, tuple[list[str], list[str]]] = {
    "command_unknown": (["stage3"], ["stage3"]),
    "config_left_out": (["stage2"], ["'config'"]),
    "option_unknown": (["stage2", "CONFIG", "--fast"], ["--fast"]),
    "baseline_unknown": (["baseline", "bert", "CONFIG"], ["bert"]),
    "study_unknown": (["reproduce", "table9", "CONFIG"], ["table9"]),
    "study_partly_unknown": (["reproduce", "table2,fig99", "CONFIG"], ["fig99"]),
    "task_of_text": (["reproduce", "fig5", "CONFIG", "--task", "first"], ["--task 'first'"]),
    "task_beyond": (["reproduce", "fig5", "CONFIG", "--task", "9.9"], ["no task 9 of level 9"]),
    "study_of_a_student_too_large": (["reproduce", "fig6", "CONFIG", "reproduce.size=9"], ["9 layers"]),
    "jobs_negative": (["reproduce", "fig5", "CONFIG", "--jobs", "-3"], ["--jobs", "-3"]),
    "predict_without_anything": (["predict"], ["--check FILE"]),
    "bench_unknown": (["bench", "everything"], ["everything", "one of"]),
    "bench_setting_unknown": (["bench", "metrics", "size=3"], ["'size=3'"]),
    "bench_setting_of_text": (["bench", "metrics", "impressions=many"], ["impressions='many'"]),
    "bench_setting_of_none": (["bench", "metrics", "sample=0"], ["sample=0", "greater than 0"]),
    "bench_setting_nan": (["bench", "prepare", "scale=nan"], ["scale=nan", "greater than 0"]),
    "bench_setting_of_no_truth": (["bench", "step", "compile=maybe"], ["compile='maybe'", "bool"]),
    "bench_saved_into_proc": (["bench", "metrics", "--save", "/proc/x.json"], ["/proc/x.json: cannot be written"]),
    "bench_width": (["bench", "step", "width=512"], ["width=512", "384"]),
    "bench_batch": (["bench", "kernels", "batch=64"], ["batch=64", "128 or 1024"]),
    "bench_setting_negative": (["bench", "metrics", "impressions=-5"], ["impressions=-5"]),
    "dashboard_without_login": (["dashboard"], ["tnr dashboard"]),
    "doctor_of_no_config": (["doctor", "none.yaml"], ["none.yaml"]),
    "doctor_limit_negative": (["doctor", "--limit", "-1"], ["--limit", "-1"]),
    "report_of_nothing": (["report", "none"], ["none", "no such"]),
    "report_setting_unknown": (["report", "CONFIG", "stage2.ler=1"], ["stage2.ler"]),
    "export_of_nothing": (["export", "none", "--to", "hf"], ["none: no such run folder"]),
    "export_to_another_form": (["export", "none", "--to", "gguf"], ["'gguf'"]),
    "export_to_nothing": (["export", "none"], ["--to"]),
    "convert_of_nothing": (["plm", "convert", "./none", "--output", "x"], ["'./none'"]),
    "stats_of_nothing": (["data", "stats", "none"], ["none: not a prepared data set"]),
    "verify_of_nothing": (["data", "verify", "none"], ["none: no such folder"]),
}
for _name, (_arguments, _says) in _BAD_ARGUMENTS.items():
    add(
        f"arguments_{_name}",
        lambda place, given=_arguments: [place.config() if one == "CONFIG" else one for one in given],
        *_says,
        working=_arguments[0] == "reproduce",  # it looks at the data first
    )


@case("slurm/env.sh: exists with other content", "--force")
def init_over_other_settings(place: Place) -> list[Any]:
    (place.path / "slurm").mkdir()
    (place.path / "slurm" / "env.sh").write_text("TNR_NODES=4\n")
    return ["init", place.path]


@case("file1: is there and no folder")
def init_into_a_file(place: Place) -> list[Any]:
    (place.path / "file1").touch()
    return ["init", place.path / "file1"]


@case("file1: an empty file", "runs/run, is not there yet")
def report_of_an_empty_file(place: Place) -> list[Any]:
    (place.path / "file1").touch()
    return ["report", "file1"]


@case("1 fault", working=True)
def doctor_finds_damaged_data(place: Place) -> list[Any]:
    data = place.data()
    (data / "manifest.json").write_text("{")
    return ["doctor", place.config(), f"data.dir={data}"]


@case("fault", working=True)
def doctor_finds_too_little_disk(place: Place) -> list[Any]:
    return ["doctor", "--need-gib", "1e9"]
