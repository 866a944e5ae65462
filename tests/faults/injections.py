"""The faults: each starts a run, does its harm at a random moment, and says what is to be expected of it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.faults.process import Attempt
from tests.faults.world import LIMIT, Case, Variant
from tests.lanes import reason_against
from tests.resign import resign_run
from tnr_dist.data.shards import pack_tar, read_index, read_shard, unpack_tar

TIMEOUT = 10  # seconds, `timeout=` of the runs in which a rank hangs


@dataclass(frozen=True)
class Harm:
    """What was done and what may come of it."""

    what: str
    error: str = ""  # where going on would be wrong: what the one line must say
    error_code: int = 0  # and how it must end; 0: anyhow
    mend: Callable[[], None] | None = None  # what a person then does, after which the run must come to its end
    lost_rank: int | None = None  # the harmed run must say that this rank is lost
    codes: tuple[int, ...] = ()  # how the harmed run may end, beside 0; (): anyhow
    ranks: int = 0  # the later runs' number of ranks; 0: the same
    tolerance: float = 0.0  # of weights and losses


def moment(case: Case, attempt: Attempt, rng: random.Random, *, early: bool = True, first: int = 0) -> str:
    """Wait for a random moment: a step, or (now and then, with `early`) some second before the first step."""
    attempt.ranks()
    if early and rng.random() < 0.15:
        seconds = rng.uniform(0.0, 4.0)
        time.sleep(seconds)
        return f"{seconds:.1f} s after the start"
    step = rng.randrange(first, 50)
    case.wait_for(attempt, step)
    time.sleep(rng.uniform(0.0, 0.05))
    return f"step {case.reached()}"


def kill_rank(case: Case, rng: random.Random) -> Harm:
    attempt = case.start()
    when = moment(case, attempt, rng)
    rank = rng.randrange(case.variant.ranks)
    attempt.signal_rank(rank, signal.SIGKILL)
    return Harm(f"KILL rank {rank} at {when}", lost_rank=rank)


def kill_launcher(case: Case, rng: random.Random) -> Harm:
    attempt = case.start()
    when = moment(case, attempt, rng)
    far_from_the_end = case.reached() < 44
    attempt.signal_launcher(signal.SIGKILL)
    attempt.wait_for_ranks(5.0)
    if far_from_the_end and (case.run / "complete.json").exists():
        raise TimeoutError(f"the ranks went on to the end without their launcher (KILL at {when})")
    return Harm(f"KILL launcher at {when}")


def kill_node(case: Case, rng: random.Random) -> Harm:
    attempt = case.start()
    when = moment(case, attempt, rng)
    attempt.kill_all()
    return Harm(f"KILL launcher and ranks at {when}")


def fill_disk(case: Case, rng: random.Random) -> Harm:
    """A small file system under the run folder (as root), or a limit to the size of rank 0's files."""
    lasting = rng.random() < 0.5
    mounted = _mount(case)
    attempt = case.start()
    when = moment(case, attempt, rng, early=False)
    if mounted:
        filler = case.run / ".filler"
        left = rng.choice([0, 4096, 65536])
        _fill(filler, left)

        def mend() -> None:
            filler.unlink(missing_ok=True)

        if not lasting:
            case.wait_for(attempt, case.reached() + rng.randrange(2, 12))
            mend()
        how = f"full run folder ({left} bytes left{'' if lasting else ', for some steps'})"
        return Harm(f"{how} at {when}", error="No space left" if lasting else "", mend=mend)
    process = attempt.ranks()[0]
    newest = [file.stat().st_size for path in case.checkpoints()[:1] for file in path.glob("*.safetensors")]
    limit = max(newest or [40_000]) * 3 // 4
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    return Harm(f"files of rank 0 limited to {limit} bytes at {when}")


def _mount(case: Case) -> bool:
    if os.geteuid() != 0:
        return False
    case.run.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tnr-faults", case.run], stderr=-3).returncode:
        case.run.rmdir()
        return False
    case.undo.append(lambda: subprocess.run(["umount", "-l", case.run], check=False))
    return True


def _fill(filler: Path, left: int) -> None:
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    os.truncate(filler, max(filler.stat().st_size - left, 0))


def flip_shard(case: Case, rng: random.Random) -> Harm:
    return _damage(case, rng, rng.choice(sorted((case.data / "train").glob("*.tar"))), "data shard")


def flip_side_shard(case: Case, rng: random.Random) -> Harm:
    return _damage(case, rng, rng.choice(sorted((case.cache / "train").glob("*.tar"))), "side shard")


def _damage(case: Case, rng: random.Random, path: Path, what: str) -> Harm:
    """Damage a file of the input in mid-run; the run must say so when it next reads it, and never take it as sound."""
    attempt = case.start()
    when = moment(case, attempt, rng)
    sound = path.read_bytes()
    bits = _flip(path, rng)
    if rng.random() < 0.5:  # the next run reads everything anew
        attempt.kill_all()
        when += ", then KILL"
    return Harm(f"{bits} bits of {what} {path.name} at {when}", error=path.name, mend=lambda: _rewrite(path, sound))


def _flip(path: Path, rng: random.Random) -> int:
    data = bytearray(path.read_bytes())
    bits = rng.choice([1, 2, 16])
    for place in rng.sample(range(len(data) * 8), bits):
        data[place // 8] ^= 1 << place % 8
    _rewrite(path, bytes(data))
    return bits


def _rewrite(path: Path, data: bytes) -> None:
    """In place, as a failing disk does: what has the file open or mapped sees it."""
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def flip_checkpoint(case: Case, rng: random.Random) -> Harm:
    attempt = case.start()
    when = moment(case, attempt, rng, early=False, first=4)
    attempt.kill_all()
    harmed = []
    for checkpoint in case.checkpoints() if rng.random() < 0.2 else case.checkpoints()[:1]:
        file = rng.choice(sorted(checkpoint.iterdir()))
        harmed.append(f"{_flip(file, rng)} bits of {checkpoint.name}/{file.name}")
    return Harm(f"{' and '.join(harmed) or 'no checkpoint yet'} after KILL at {when}")


def delete_latest(case: Case, rng: random.Random) -> Harm:
    attempt = case.start()
    when = moment(case, attempt, rng, early=False, first=4)
    deleted = []
    for checkpoint in case.checkpoints() if rng.random() < 0.2 else case.checkpoints()[:1]:
        chosen = rng.choice([checkpoint, *sorted(checkpoint.glob("*"))])
        if chosen.is_dir():
            shutil.rmtree(chosen, ignore_errors=True)
        else:
            chosen.unlink(missing_ok=True)
        deleted.append(str(chosen.relative_to(case.run / "checkpoints")))
    if rng.random() < 0.7:
        time.sleep(rng.uniform(0.0, 0.1))
        attempt.kill_all()
        when += ", then KILL"
    return Harm(f"deleted {' and '.join(deleted) or 'nothing, no checkpoint yet'} at {when}")


def stop_rank(case: Case, rng: random.Random) -> Harm:
    attempt = case.start(0, f"timeout={TIMEOUT}")
    when = moment(case, attempt, rng, early=False)
    rank = rng.randrange(case.variant.ranks)
    attempt.signal_rank(rank, signal.SIGSTOP)
    return Harm(f"STOP rank {rank} at {when}", lost_rank=rank, codes=(69,))


def stall_rank(case: Case, rng: random.Random) -> Harm:
    attempt = case.start()
    when = moment(case, attempt, rng)
    rank, seconds = rng.randrange(case.variant.ranks), rng.uniform(0.5, 4.0)
    attempt.signal_rank(rank, signal.SIGSTOP)
    time.sleep(seconds)
    attempt.signal_rank(rank, signal.SIGCONT)
    return Harm(f"STOP rank {rank} for {seconds:.1f} s at {when}", codes=(0,))


def nan(case: Case, rng: random.Random) -> Harm:
    """The teachers' logits of one impression become NaN, in a side shard whose digests say that it is sound."""
    index = read_index(case.data, "train")
    info = rng.choice([shard for shard in index.shards if shard.samples])
    path, facts_file = case.cache / "train" / info.name, case.cache / "cache.json"
    sound, facts = path.read_bytes(), facts_file.read_text()
    blocks = read_shard(case.data / "train" / info.name, info)
    members = [(key, field, array.copy()) for key, field, array in unpack_tar(sound, str(path))]
    key, block = rng.choice(sorted(blocks.items()))
    bounds = block["candidate_offsets"]
    clicks = np.add.reduceat(block["candidate_clicked"].astype(np.int64), bounds[:-1])
    chosen = rng.choice(np.flatnonzero((clicks > 0) & (clicks < np.diff(bounds))).tolist())
    for member_key, field, array in members:
        if member_key == key and field == "teacher_logits":
            array[bounds[chosen] : bounds[chosen + 1]] = np.nan
    bad = pack_tar([(f"{member_key}.{field}", array) for member_key, field, array in members])
    path.write_bytes(bad)
    changed = json.loads(facts)
    changed["splits"]["train"][info.name] = hashlib.sha256(bad).hexdigest()
    facts_file.write_text(json.dumps(changed))
    resign_run(case.cache)

    def mend() -> None:
        path.write_bytes(sound)
        facts_file.write_text(facts)
        resign_run(case.cache)

    case.start()
    # DeepSpeed looks at the gradients before anybody else at the loss.
    says = "not finite" if case.variant.engine == "deepspeed" else "nan"
    return Harm(f"NaN logits of an impression in {info.name}", error=says, mend=mend)


def preempt(case: Case, rng: random.Random) -> Harm:
    attempt = case.start()
    when = moment(case, attempt, rng)
    name = rng.choice(["SIGUSR1", "SIGTERM"])
    if rng.random() < 0.3:
        rank = rng.randrange(case.variant.ranks)
        attempt.signal_rank(rank, signal.Signals[name])
        whom = f"rank {rank}"
    else:
        attempt.signal_launcher(signal.Signals[name])
        whom = "launcher"
    # Before there is anything to save, the signal may end the process in its own way.
    return Harm(f"{name} to {whom} at {when}", codes=(75,) if when.startswith("step") else ())


def requeue(case: Case, rng: random.Random) -> Harm:
    """Two or three interruptions, one after another."""
    done = []
    for number in range(rng.choice([2, 3])):
        if number:
            case.attempts[-1].wait(LIMIT)
        if (case.run / "complete.json").exists():
            break
        done.append(rng.choice([kill_rank, kill_launcher, kill_node, preempt])(case, rng).what)
    return Harm(", then ".join(done))


def other_ranks(case: Case, rng: random.Random) -> Harm:
    harm = rng.choice([kill_rank, kill_node, preempt])(case, rng)
    ranks = 4 if case.variant.ranks == 2 else 2
    return Harm(f"{harm.what}, then {ranks} ranks", ranks=ranks, tolerance=1e-5)


Fault = Callable[[Case, random.Random], Harm]
FAULTS: dict[str, Fault] = {
    "rank killed": kill_rank,
    "launcher killed": kill_launcher,
    "node killed": kill_node,
    "disk full": fill_disk,
    "bits of a data shard flipped": flip_shard,
    "bits of a side shard flipped": flip_side_shard,
    "bits of a checkpoint flipped": flip_checkpoint,
    "newest checkpoint deleted": delete_latest,
    "rank stopped beyond the timeout": stop_rank,
    "rank stopped for a while": stall_rank,
    "NaN in a batch": nan,
    "preempted": preempt,
    "requeued several times": requeue,
    "continued on other ranks": other_ranks,
}


def variant(fault: str, rng: random.Random) -> Variant:
    """What kind of run the fault meets."""
    engine = rng.choice(["ddp", "ddp", "ddp", "deepspeed", "horovod"])
    if reason_against(engine):
        engine = "ddp"
    ranks = 2 if fault.startswith("slurm: ") else rng.choice([2, 2, 2, 2, 3, 4])
    dedupe = rng.choice(["global", "local"]) if ranks == 2 else "global"
    # Tables in memory read the cache once, without them it is read along every epoch.
    tables = rng.choice(["8", "0"])
    same = (f"stage2.teacher_tables_gib={tables}", f"stage2.frozen_cache={rng.choice(['auto', 'disk'])}")
    if fault == "continued on other ranks":
        # Dropout draws by rank, so only without it can the runs be compared.
        return Variant(2, "global", 0.0, engine, same)
    return Variant(ranks, dedupe, 0.1, engine, same, anew=rng.random() < 0.1)
