"""The files of `tnr doctor`: data set, splits, PLM, cache and finished runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.prepare.raw_files import find_splits
from tnr_dist.data.prepare.verify import Finding, verify_prepared
from tnr_dist.data.shards import read_index
from tnr_dist.data.teacher_cache import TeacherCache
from tnr_dist.models.plm import load_plm
from tnr_dist.runs.finished import DONE, damage, read_done
from tnr_dist.stages import cache
from tnr_dist.stages.targets import each_seed
from tnr_dist.util.digests import digest
from tnr_dist.util.errors import InputError


def _guarded(where: str, advice: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """What `look` finds; an InputError becomes a finding like the others."""
    try:
        return list(look())
    except InputError as error:
        return [Finding("error", where, str(error), advice)]


def check_data(config: Config) -> list[Finding]:
    """Look at the data set, the PLM, the cache and the finished runs of a configuration."""
    folder = Path(config.data.dir)
    if not (folder / "manifest.json").is_file():
        made = f"from {config.data.input}" if config.data.input else "from generated files"
        prepared_later = Finding("warning", "data", f"{folder}: not prepared yet; `tnr run` makes it {made}")
        return [prepared_later, *_guarded("splits", "see data.input", lambda: _raw_splits(config))]
    found = verify_prepared(folder)
    bad = [finding for finding in found if finding.level != "ok"]
    if any(finding.level == "error" for finding in bad):
        return bad
    findings = [*bad, Finding("ok", "data", f"{folder}: {len(found) - len(bad)} parts checked, all intact")]
    plm = _guarded("plm", "see plm.name", lambda: _plm(config))
    data = DataSet.open(config)
    findings += [*plm, *_splits(config, data)]
    if any(finding.level == "error" for finding in plm):
        return findings  # which runs are there to look at depends on what the PLM is
    for one in (config, *each_seed(config)):
        if (cache.run_folder(one, data).path / "cache.json").is_file():
            findings += _guarded("cache", "", lambda one=one: _cache(one))  # type: ignore[misc]
    findings += _runs(Path(config.output))
    return findings


_NO_DEV = "prepare it with data.dev_split=last-days:1 (or random:0.1), which takes it from train, or name another evaluate.split"


def _splits(config: Config, data: DataSet) -> Iterator[Finding]:
    """The splits that are trained and scored are there, with labels."""
    there = data.manifest["counts"].get("splits", {})
    if not there:
        yield Finding("warning", "splits", f"{data.folder}: a corpus alone, for post-train and stage1")
        return
    fine = True
    for split, use in (("train", "trained on"), (config.evaluate.split, "scored (evaluate.split)")):
        if split not in there:
            message = f"{data.folder}: no {split} split, which is {use}; there is {', '.join(there)}"
            yield Finding(
                "error", "splits", message, _NO_DEV if split != "train" else "prepare data with a train split"
            )
        elif not read_index(data.folder, split).labelled:
            message = f"{data.folder}: the {split} split, which is {use}, has no labels"
            yield Finding("error", "splits", message, "take a split whose candidates end in -0 and -1")
        else:
            continue
        fine = False
    if fine:
        yield Finding("ok", "splits", f"{', '.join(there)}; {config.evaluate.split} is scored")


def _raw_splits(config: Config) -> Iterator[Finding]:
    """The same of files that are not prepared yet, as far as their names tell."""
    if not config.data.input:
        return
    there = set(find_splits(config.data.input))
    made = {"dev": config.data.dev_split, "test": config.data.test_split}
    there |= {split for split, rule in made.items() if rule}
    for split in ("train", config.evaluate.split):
        if split not in there:
            message = f"{config.data.input}: no {split} split; there is {', '.join(sorted(there))}"
            yield Finding("error", "splits", message, _NO_DEV if split != "train" else "training needs one")


def _plm(config: Config) -> Iterator[Finding]:
    data = DataSet.open(config)
    data.check_tokenizer_name(config.plm.name)
    encoder, _ = load_plm(config.plm.name, config.plm.layers or None)  # as training does
    layers = len(encoder.layers)
    if said := data.changed_plm(config.plm.name):
        yield Finding("warning", "plm", f"{config.plm.name}: {said}", "if you did not replace it, copy it again")
    else:
        yield Finding("ok", "plm", f"{config.plm.name}: {layers} layers, its tokenizer is the data's")


def _cache(config: Config) -> Iterator[Finding]:
    """The cache fits the data and the teachers, and every file of it has its digest."""
    data = DataSet.open(config)
    folder = cache.run_folder(config, data).path
    stored = TeacherCache(folder, cache.expected(config, data))
    stored.news_vectors()
    shards = [
        (folder / split / name, sha256)
        for split, names in stored.facts["splits"].items()
        for name, sha256 in names.items()
    ]
    for path, sha256 in shards:
        if not path.is_file() or digest(path, again=True) != sha256:
            raise InputError(
                f"{path}: {'damaged' if path.is_file() else 'missing'}; delete it, its .json and {folder / 'complete.json'}, then run `tnr cache`"
            )
    yield Finding("ok", "cache", f"{folder}: {stored.teachers} teachers, {len(shards)} side shards, all intact")


def _runs(output: Path) -> Iterator[Finding]:
    """The files of every finished run of the configuration have their digests, read anew."""
    runs = sorted(path.parent for pattern in (f"*/{DONE}", f"seed-*/*/{DONE}") for path in output.glob(pattern))
    intact = 0
    for run in runs:
        try:
            done = read_done(run, "training")
        except InputError as error:
            yield Finding("error", "runs", str(error))
            continue
        if not isinstance(done.get("files"), dict):
            message = f"{run}: made by an older version, which kept no digests: damage to its files would go unseen"
            yield Finding("warning", "runs", message)
            continue
        faults = {name: found for name in done["files"] if (found := damage(run, name, done, again=True))}
        for name, found in faults.items():
            advice = f"delete {run} and run {done.get('stage', 'training')} again, or copy it again from a sound copy"
            yield Finding("error", "runs", f"{run / name}: {found}", advice)
        intact += not faults
    if intact:
        yield Finding("ok", "runs", f"{output}: {intact} finished, their models, configurations and records intact")
