"""Stage 2 under faults: `python -m tests.faults.harness SEEDS=50` (or `make faults SEEDS=50`).

Each seed makes one fault at a random moment of a run on 2 to 4 ranks and then runs the same command again, as a requeue
does, until the run is complete or says clearly why it cannot go on. What may come of it:

- recovered: complete without help, no step or sample lost or repeated, losses and weights those of the uninterrupted run
  (bit for bit; to 1e-5 when it went on at another number of ranks);
- error: one line that names the cause, the same when run again, and complete as above once the cause is mended;
- lost: everything else, such as a wait beyond its limit, a rank that outlives its launcher, a traceback, other weights.

Two seeds in five train with DeepSpeed (ZeRO 1) or Horovod, where installed. The faults of a Slurm job (tests/faults/slurm.py)
happen on a Slurm of two nodes on this machine (tests/cluster), where one can be started; there the job must come to its end
by Slurm's requeue alone.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.cluster.harness import NoCluster, running_cluster
from tests.faults import impolite, injections, slurm
from tests.faults.injections import TIMEOUT, Harm, variant
from tests.faults.process import ROOT
from tests.faults.world import LIMIT, Case, Result, World
from tnr_dist.util.progress import say

os.environ["WANDB_MODE"] = "disabled"  # as tests/conftest.py does, which is not loaded here
FAULTS = injections.FAULTS | impolite.FAULTS | slurm.FAULTS
ENGINES = ("ddp", "deepspeed", "horovod")
RUNS = 5  # of one command, before the case is lost
ENDS = ("recovered", "lost", "error")


class Lost(Exception):
    """Why a case is lost."""


@dataclass
class Outcome:
    """What came of one seed."""

    seed: int
    fault: str
    end: str
    harm: str
    engine: str
    ranks: int
    codes: list[int]  # exit codes of all runs
    seconds: float
    note: str = ""  # why it is lost, or the error's line


def run_seed(world: World, seed: int, fault: str, engine: str = "") -> Outcome:
    """One fault at a moment that the seed chooses, as it does the engine unless given."""
    rng = random.Random(seed)
    kind = variant(fault, rng)
    kind = replace(kind, engine=engine or kind.engine)
    reference = world.reference(kind)
    began = time.monotonic()
    case = Case(world, world.root / f"seed-{seed}", kind)
    harm, codes, line = Harm("?"), [], ""
    try:
        try:
            harm = FAULTS[fault](case, rng)
            line = _settle(case, harm, codes)
            difference = Result.read(case.run).difference(reference, harm.tolerance)
            if difference:
                raise Lost(difference)
            end = "error" if line else "recovered"
        except (Lost, TimeoutError, AssertionError, subprocess.TimeoutExpired) as error:
            end, line = "lost", str(error)
    finally:
        case.end()
    if end != "lost":
        case.clear()
    return Outcome(
        seed, fault, end, harm.what, kind.engine, kind.ranks, codes, round(time.monotonic() - began, 1), line
    )


def _settle(case: Case, harm: Harm, codes: list[int]) -> str:
    """Run again until complete; the line of the error in between, if there was one. Raises Lost."""
    said = again = unnamed = ""
    mended = False
    for number in range(RUNS):
        harmed = number == 0
        attempt = case.attempts[-1] if harmed else case.start(harm.ranks)
        code = attempt.wait(LIMIT + TIMEOUT)
        codes.append(code)
        text = attempt.text()
        if "Traceback (most recent call last)" in text:
            raise Lost(f"run {number + 1} ends in a traceback")
        if harmed and harm.lost_rank is not None and code != 0 and not _names(text, harm.lost_rank):
            unnamed = f"exit code {code}, and no line says that rank {harm.lost_rank} is lost: {_last(text)}"
        if harmed and harm.codes and code not in (0, *harm.codes):
            raise Lost(f"exit code {code}, not {harm.codes[0]}: {_last(text)}")
        if code == 0:
            if not (case.run / "complete.json").exists():
                raise Lost("exit code 0, and the run is not complete")
            if unnamed:
                raise Lost(unnamed)
            return said
        if not harm.error or mended:
            if not harmed and code != 75 and code > 0 and number >= 2:
                raise Lost(f"run {number + 1} ends with {code}: {_last(text)}")
            continue
        found = [line for line in text.splitlines() if harm.error in line]
        if not found:
            if harmed:  # ended by something else, such as a KILL that came first
                continue
            raise Lost(f"exit code {code}, and no line says {harm.error!r}: {_last(text)}")
        if harm.error_code and code != harm.error_code:
            raise Lost(f"exit code {code}, not {harm.error_code}: {found[0]}")
        if said:
            again = found[0]
        said = said or found[0]
        if again:
            assert harm.mend is not None
            harm.mend()
            mended = True
    raise Lost(f"not complete after {RUNS} runs, exit codes {codes}: {_last(case.attempts[-1].text())}")


def _names(text: str, rank: int) -> bool:
    """Whether a line says that this rank is gone: the launcher's, another rank's, or that of the ranks' meeting."""
    gone = rf"\blost [^\n]*\brank {rank} \(|\brank {rank} (?:was killed|ended with|of \d+ is missing)"
    return re.search(rf"{gone}|\branks (?:\d+, )*{rank}(?:, \d+)* of \d+ are missing", text) is not None


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("tnr: ")]
    return (ours or lines or ["it says nothing"])[-1][:300]


def table(outcomes: Iterable[Outcome], key: str, names: Iterable[str]) -> str:
    """`key` (fault or engine), times, recovered, lost, error."""
    found = {name: Counter(o.end for o in outcomes if getattr(o, key) == name) for name in names}
    found = {name: ends for name, ends in found.items() if ends}
    found["all"] = sum(found.values(), Counter())
    lines = [f"| {key} | times | " + " | ".join(ENDS) + " |", "|" + "---|" * (2 + len(ENDS))]
    for name, ends in found.items():
        lines.append(f"| {name} | {ends.total()} | " + " | ".join(str(ends[end]) for end in ENDS) + " |")
    return "\n".join(lines)


def write_report(outcomes: list[Outcome], left_out: str, folder: Path) -> None:
    """faults.md and faults.json."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True)
    facts = {
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "seeds": len(outcomes),
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }
    lost = [
        f"- seed {o.seed}, {o.fault} ({o.harm}; {o.engine}, {o.ranks} ranks): {o.note}"
        for o in outcomes
        if o.end == "lost"
    ]
    text = [
        "# Stage 2 under faults",
        "",
        f"{facts['date']}, commit {facts['commit']}; `make faults SEEDS={len(outcomes)}`: one fault a seed at a random",
        "moment, 2 to 4 ranks (gloo), float32, dropout; what the words mean: `tests/faults/harness.py`. Where a run went on",
        "at another number of ranks there is no dropout and the tolerance is 1e-5; all others are compared bit for bit.",
        "Most runs are forked from a process that has imported everything (`tests/faults/warm.py`), one in ten starts anew.",
        "Those named slurm are jobs on a real Slurm of two nodes on the same machine, which alone puts them back into its queue.",
        *([left_out] if left_out else []),
        "",
        table(outcomes, "fault", FAULTS),
        "",
        table(outcomes, "engine", ENGINES),
        *(["", "Lost:", "", *lost] if lost else []),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faults.md").write_text("\n".join(text) + "\n")
    (folder / "faults.json").write_text(json.dumps(facts, indent=1) + "\n")


def main(arguments: list[str]) -> int:
    """SEEDS=n (default 50), FIRST=seed (default 0), FAULT=part of a name, SKIP=part of a name, ENGINE=name, KEEP=folder.

    The report is written when neither FAULT nor ENGINE was chosen.
    """
    given = dict(argument.split("=", 1) for argument in arguments)
    unknown = set(given) - {"SEEDS", "FIRST", "FAULT", "SKIP", "ENGINE", "KEEP"}
    if unknown:
        say(f"unknown: {', '.join(sorted(unknown))} (SEEDS=50 FIRST=0 FAULT=... SKIP=... ENGINE=... KEEP=folder)")
        return 2
    first, count = int(given.get("FIRST", 0)), int(given.get("SEEDS", 50))
    skip = given.get("SKIP", "")
    names = [name for name in FAULTS if given.get("FAULT", "") in name and not (skip and skip in name)]
    folder = Path(given["KEEP"]) if "KEEP" in given else Path(tempfile.mkdtemp(prefix="tnr-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    left_out = ""
    # Ended from outside, it still ends its cluster and its runs.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as running:
        cluster = None
        if any(name in slurm.FAULTS for name in names):
            try:
                cluster = running.enter_context(running_cluster())
            except NoCluster as reason:
                left_out = f"Faults of a Slurm job are left out: {reason}"
                say(left_out)
                names = [name for name in names if name not in slurm.FAULTS]
        world = World(folder, cluster)
        for seed in range(first, first + count) if names else ():
            outcomes.append(run_seed(world, seed, names[seed % len(names)], given.get("ENGINE", "")))
            one = outcomes[-1]
            say(
                f"{one.end:9} seed {seed}: {one.fault} ({one.engine}): {one.harm}; exit codes {one.codes}, "
                f"{one.seconds:.0f} s {one.note}"
            )
    lost = [outcome for outcome in outcomes if outcome.end == "lost"]
    print(table(outcomes, "fault", FAULTS))
    print(table(outcomes, "engine", ENGINES))
    if not {"FAULT", "ENGINE"} & set(given) and len(outcomes) == count:
        write_report(outcomes, left_out, ROOT / "benchmarks" / "results")
    if lost:
        say(f"what the lost ones left is in {folder}")
    elif "KEEP" not in given:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
