"""A finished run, read for export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tnr_dist.config.schema import Config
from tnr_dist.evaluation.metrics import Figures
from tnr_dist.evaluation.results import Results, read_results
from tnr_dist.evaluation.yardsticks import POPULAR
from tnr_dist.export.description import Description
from tnr_dist.models.recommender import ModelSpec, Recommender, load_recommender
from tnr_dist.models.tokenizer import Tokenizer, load_tokenizer
from tnr_dist.runs.finished import Mark, check_file, read_done
from tnr_dist.runs.places import PLM, candidates_text, run_config
from tnr_dist.stages.methods import Tree
from tnr_dist.util.digests import digest, read_sealed
from tnr_dist.util.errors import InputError
from tnr_dist.util.json_types import checked


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        name: of the run's folder.
        model: on the CPU, float32, in evaluation mode.
        made_from: what identifies the model, for `Description`.
        done: complete.json; results: results.json, None where this model was not evaluated.
        popularity: metrics of "most popular" on the same data and split; None where they were not computed.
    """

    name: str
    model: Recommender
    spec: ModelSpec
    tokenizer: Tokenizer
    config: Config
    made_from: dict[str, str]
    done: Mark
    results: Results | None
    popularity: Figures | None = None

    @classmethod
    def open(cls, run: Path) -> Source:
        """Raises InputError when `run` is not a finished run, or its PLM's tokenizer is not to be had."""
        if not run.is_dir():
            raise InputError(f"{run}: no such run folder")
        if not (run / "complete.json").is_file():
            inside = sorted(path.parent.name for path in run.glob("*/complete.json"))
            if inside:
                raise InputError(f"{run}: not a run itself; export one of those in it ({', '.join(inside)})")
        done = read_done(run, "training")
        weights = run / "model.safetensors"
        model, spec = load_recommender(weights)
        config = run_config(Tree, run)
        for name in ("model.safetensors", "config.yaml"):
            check_file(run, name)
        if config.data.news_inputs != ["title"]:
            raise InputError(
                f"{run}: reads {', '.join(config.data.news_inputs)} of a news (data.news_inputs); exports know titles only"
            )
        tokenizer = _tokenizer_of(run, config, done.get("tokenizer"))
        if tokenizer.vocab_size > spec.encoder.vocab_size:
            raise InputError(
                f"{run}: the tokenizer of {config.plm.name} has {tokenizer.vocab_size} tokens, the model only "
                f"{spec.encoder.vocab_size}; is plm.name in {run / 'config.yaml'} still the same model?"
            )
        results = _results_of(run / "results.json", done["id"])
        return cls(
            name=run.resolve().name,
            model=model.eval().requires_grad_(False),
            spec=spec,
            tokenizer=tokenizer,
            config=config,
            made_from={
                "run": run.resolve().name,
                "stage": done["stage"],
                "id": done["id"],
                "model_sha256": digest(weights),
                "tokenizer": tokenizer.hash,
            },
            done=done,
            results=results,
            popularity=_popularity(run, results) if results else None,
        )

    @property
    def title_tokens(self) -> int:
        """Tokens kept of a title."""
        return min(self.config.data.title_tokens, self.spec.encoder.max_length)

    @property
    def pad_id(self) -> int:
        """Token id of padding."""
        return self.spec.encoder.pad_id

    def describe(self, form: str, data: str | None = None) -> Description:
        """What `recommender.json` will say, before anything is measured; `data`: id of the data set of vectors."""
        made_from = self.made_from if data is None else self.made_from | {"data": data}
        return Description(
            form, self.spec.to_dict(), self.title_tokens, self.config.data.history, self.pad_id, made_from
        )


def _tokenizer_of(run: Path, config: Config, wanted: str | None) -> Tokenizer:
    """The PLM's tokenizer, or the copy that the data set keeps of it; `wanted`: its hash (None: an earlier version's run).

    Raises InputError when none of them is the one that the run was trained with.
    """
    faults = []
    for name in (config.plm.name, str(Path(config.data.dir) / "tokenizer")):
        if name is not config.plm.name and not Path(name).is_dir():
            continue
        try:
            found = load_tokenizer(name)
        except InputError as error:
            faults.append(str(error))
            continue
        if wanted in (None, found.hash):
            return found
        faults.append(f"{name}: not the tokenizer that {run} was trained with")
    looked = f"{candidates_text(run, PLM, config.plm.name)} or {Path(config.data.dir) / 'tokenizer'}"
    raise InputError(f"{run}: the tokenizer that it was trained with is not at {looked} ({'; '.join(faults)})")


def _results_of(file: Path, run_id: str) -> Results | None:
    """What is in results.json; None where there is none, or only that of a model that was here before."""
    found = read_results(file) if file.is_file() else Results()
    return found if (found.get("made_from") or {}).get("run") == run_id else None


def _popularity(run: Path, results: Results) -> Figures | None:
    """What `tnr run` wrote of "most popular" into its output folder, one or two above the run; None where there is none."""
    for folder in run.resolve().parents[:2]:
        file = folder / "baselines.json"
        found = read_sealed(file) if file.is_file() else {}
        made_from, rows = found.get("made_from"), found.get("rows")
        row = rows.get(POPULAR) if isinstance(rows, dict) else None
        if not isinstance(made_from, dict) or not isinstance(row, dict):
            continue
        if all(made_from.get(key) == results["made_from"].get(key) for key in ("data", "split")):
            return checked(row, Figures, f"{file}: rows.{POPULAR}.")
    return None
