"""What each table and figure of the paper varies, as rows of a results table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tnr_dist.config.schema import Config, RowConfig
from tnr_dist.models.plm import read_config
from tnr_dist.models.sources import find_folder
from tnr_dist.stages.stage1_settings import Stage1Config
from tnr_dist.stages.stage2_settings import Stage2Config
from tnr_dist.util.errors import InputError


@dataclass(frozen=True)
class Panel:
    """One panel of a figure: the rows along its x axis."""

    label: str
    rows: list[tuple[str, str]]  # (value or words on the axis, name of the row)
    reference: str = ""  # the row that the paper's setting is


@dataclass(frozen=True)
class Study:
    """One table or figure.

    Attributes:
        kind: `table`, `values` (panels over a number), `variants` (panels of named forms) or `speed`.
        pairs: rows to be compared with a paired test, the one expected to be better first.
        finding: what the paper reports, in our words.
    """

    name: str
    title: str
    kind: str
    rows: list[RowConfig]
    pairs: list[tuple[str, str]]
    finding: str
    panels: list[Panel] = field(default_factory=list)
    teacher_layers: int = 12  # of the PLM used here; the paper's has 12


def study_of(name: str, config: Config) -> Study:
    """The study `name` for this configuration. Raises InputError for an unknown name or sizes the PLM does not have."""
    if name not in STUDIES:
        raise InputError(f"{name!r}: no such table or figure; one of {', '.join(STUDIES)}")
    layers = config.plm.layers or read_config(find_folder(config.plm.name)).layers
    for key, size in _sizes_of(name, config):
        if not 1 <= size <= layers:
            raise InputError(f"{key}: {name} has a student of {size} layers, but {config.plm.name} has {layers}")
    return STUDIES[name](config, layers)


def _sizes_of(name: str, config: Config) -> list[tuple[str, int]]:
    """The students' sizes that a study asks for, each with its key."""
    if name in _OF_SEVERAL_SIZES:
        return [("reproduce.sizes", size) for size in config.reproduce.sizes]
    return [("reproduce.size", config.reproduce.size)]


def table2(config: Config, layers: int) -> Study:
    """All methods at all sizes."""
    sizes = config.reproduce.sizes
    rows = [
        RowConfig(f"PLM-NR-{layers} (FT)", "finetune", 0),
        RowConfig(f"PLM-NR-{layers} (FP)", "further-pretrain", 0),
        RowConfig(f"PLM-NR-{layers} (DP)", "teacher", 0),
        # One of the teacher's own size is the first row.
        *(RowConfig(f"PLM-NR-{n} (FT)", "finetune", n) for n in sizes if n != layers),
        *(RowConfig(f"TinyBERT-{n}", "tinybert", n) for n in sizes),
        *(RowConfig(f"NewsBERT-{n}", "newsbert", n) for n in sizes),
        *(RowConfig(f"Tiny-NewsRec-{n}", "tiny-newsrec", n) for n in sizes),
    ]
    others = ("PLM-NR-{} (FT)", "TinyBERT-{}", "NewsBERT-{}")
    pairs = [(f"PLM-NR-{layers} (DP)", f"PLM-NR-{layers} ({form})") for form in ("FT", "FP")]
    pairs += [(f"Tiny-NewsRec-{n}", other.format(n)) for n in sizes for other in others]
    finding = (
        "Tiny-NewsRec is above every other method at the same number of layers (p < 0.01), distilled students are above "
        "finetuned ones, and further pre-training (FP) and domain-specific post-training (DP) improve the teacher, DP most."
    )
    return Study("table2", "Table 2: comparison of methods", "table", rows, pairs, finding, [], layers)


def fig3(config: Config, layers: int) -> Study:
    """The number of teachers."""
    n, counts = config.reproduce.size, config.reproduce.teachers
    names = {m: f"Tiny-NewsRec-{n}, M = {m}" for m in counts}
    rows = [RowConfig(names[m], "tiny-newsrec", n, [f"finetune.teachers={m}"]) for m in counts]
    most = max(counts)
    panel = Panel("number of teachers M", [(str(m), names[m]) for m in counts], names[most])
    pairs = [(names[most], names[m]) for m in counts if m != most]
    finding = "The student improves with the number of teachers, from 1 to 4."
    return Study("fig3", "Fig. 3: number of teachers", "values", rows, pairs, finding, [panel], layers)


def fig4(config: Config, layers: int) -> Study:
    """Each stage of the distillation removed."""
    n = config.reproduce.size
    full, without1, without2, plain = f"Tiny-NewsRec-{n}", "without stage 1", "without stage 2", f"PLM-NR-{n} (FT)"
    rows = [
        RowConfig(full, "tiny-newsrec", n),
        RowConfig(without1, "tiny-newsrec", n, ["stage2.init=plm"]),
        RowConfig(without2, "stage1", n),
        RowConfig(plain, "finetune", n),
    ]
    panel = Panel("", [(name, name) for name in (full, without1, without2, plain)], full)
    pairs = [(full, without1), (full, without2), (without2, plain)]
    finding = (
        "Removing the second stage costs most, removing the first costs too, and stage 1 alone still beats PLM-NR (FT)."
    )
    return Study("fig4", "Fig. 4: each stage removed", "variants", rows, pairs, finding, [panel], layers)


def fig5(config: Config, layers: int) -> Study:
    """Size and speed of the teacher and its students."""
    sizes = config.reproduce.sizes
    rows = [
        RowConfig(f"PLM-NR-{layers} (DP)", "teacher", 0),
        *(RowConfig(f"Tiny-NewsRec-{n}", "tiny-newsrec", n) for n in sizes),
    ]
    panel = Panel("", [(row.name, row.name) for row in rows], rows[0].name)
    finding = "Students of 4, 2 and 1 layers have 50 to 70 % fewer parameters and encode news 2 to 8 times as fast."
    return Study("fig5", "Fig. 5: model size and inference speed", "speed", rows, [], finding, [panel], layers)


def fig6(config: Config, layers: int) -> Study:
    """beta1 at the configured beta2, and the reverse."""
    n, beta1, beta2 = config.reproduce.size, Stage1Config.of(config).beta1, Stage2Config.of(config).beta2

    def name(one: float, two: float) -> str:
        return f"beta1 = {one:g}, beta2 = {two:g}"

    def row(one: float, two: float) -> RowConfig:
        return RowConfig(name(one, two), "tiny-newsrec", n, [f"stage1.beta1={one!r}", f"stage2.beta2={two!r}"])

    first = [(one, beta2) for one in sorted({*config.reproduce.beta1, beta1})]
    second = [(beta1, two) for two in sorted({*config.reproduce.beta2, beta2})]
    reference = name(beta1, beta2)
    panels = [
        Panel(f"beta1 (beta2 = {beta2:g})", [(f"{one:g}", name(one, two)) for one, two in first], reference),
        Panel(f"beta2 (beta1 = {beta1:g})", [(f"{two:g}", name(one, two)) for one, two in second], reference),
    ]
    rows = [row(*values) for values in dict.fromkeys([*first, *second])]
    pairs = [(reference, row.name) for row in rows if row.name != reference]
    finding = (
        "beta1 = 1 is best, lower and higher are worse; beta2 is best between 0.05 and 0.15, 0 and over 0.15 are worse."
    )
    return Study("fig6", "Fig. 6: the weights of the target loss", "values", rows, pairs, finding, panels, layers)


def fig10(config: Config, layers: int) -> Study:
    """Each part of the second stage's loss removed."""
    n = config.reproduce.size
    full = f"Tiny-NewsRec-{n}"
    parts = {"distillation loss": "distill", "embedding loss": "embedding", "target loss": "target"}
    rows = [RowConfig(full, "tiny-newsrec", n)]
    rows += [
        RowConfig(f"without {words}", "tiny-newsrec", n, [f"stage2.use_{key}=false"]) for words, key in parts.items()
    ]
    panel = Panel("", [(row.name, row.name) for row in rows], full)
    pairs = [(full, row.name) for row in rows[1:]]
    finding = "Every part helps; without the distillation loss the student loses most."
    return Study("fig10", "Fig. 10: each loss of stage 2 removed", "variants", rows, pairs, finding, [panel], layers)


STUDIES: dict[str, Callable[[Config, int], Study]] = {
    "table2": table2,
    "fig3": fig3,
    "fig4": fig4,
    "fig5": fig5,
    "fig6": fig6,
    "fig10": fig10,
}
_OF_SEVERAL_SIZES = ("table2", "fig5")
