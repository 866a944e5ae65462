"""How the ranks find each other, and refuse to train with ranks of another run.

Rank 0 serves torch's key-value store. Each rank posts a word there about its run: digests of its settings, as JSON. Rank 0
compares them and posts a verdict, so that all ranks go on, or end in the same way with the same line.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import TypedDict

import torch.distributed as dist

from tnr_dist.engines import core
from tnr_dist.engines.base import Terms
from tnr_dist.engines.broken import reason
from tnr_dist.engines.core import on_one_machine
from tnr_dist.engines.waiting import TooLate, Wait, stopped
from tnr_dist.launch.environment import Environment
from tnr_dist.util.errors import EarlierStart, InputError, PortTaken, Preempted, RankLost
from tnr_dist.util.restarts import restarts

LOOPBACK = "127.0.0.1"


class Word(TypedDict, total=False):
    """What a rank says of its run."""

    host: str
    ranks: int
    settings: dict[str, str]
    folders: dict[str, str]


class Verdict(TypedDict, total=False):
    """Whether the ranks train together: kind `one run` and their number, or one of `_KINDS` and why not."""

    kind: str
    why: str
    ranks: int


_LINGER = 1.0  # seconds that rank 0 goes on serving the store for the others to read why all of them end
_SHOWN = 8  # names in a list of an error
_KINDS: dict[str, type[Exception]] = {
    "refused": InputError,
    "earlier": EarlierStart,
    "lost": RankLost,
    "stopped": Preempted,
}


def timeout() -> datetime.timedelta:
    """How long a rank waits for another."""
    return datetime.timedelta(seconds=core.TIMEOUT_SECONDS)


@contextlib.contextmanager
def groups_with_our_timeout() -> Iterator[None]:
    """Groups that a library makes inside wait as long as `timeout`; left alone they would wait for half an hour."""
    new_group = dist.new_group
    dist.new_group = functools.partial(new_group, timeout=timeout())
    try:
        yield
    finally:
        dist.new_group = new_group


def address(env: Environment) -> str:
    """Where the ranks meet."""
    return f"{env.master_addr}:{env.master_port}"


def meeting_error(env: Environment, error: Exception) -> RankLost:
    """One line that names the rank and where it waited."""
    return RankLost(f"rank {env.rank} of {env.world_size}: the ranks did not meet at {address(env)} ({reason(error)})")


def meet(env: Environment, terms: Terms, wait: Wait) -> dist.Store:
    """The key-value store of ranks that are all there and all of one run.

    Raises InputError when they are of different runs, RankLost when one does not come in time (it is named), EarlierStart
    when ranks of this job from before its restart are still there, Preempted when one is asked to stop.
    """
    if env.world_size == 1:
        return dist.HashStore()
    try:
        store = open_store(env, wait)
        _agree(store, env, terms, wait)
        return store
    except (RuntimeError, ValueError, OSError) as error:  # a DistStoreError is a RuntimeError
        raise meeting_error(env, error) from None


# The store ------------------------------------------------------------------------------------------------------------


def open_store(env: Environment, wait: Wait) -> dist.Store:
    """The store that rank 0 serves, on loopback where all ranks are on this machine; under torchrun its agent's.

    Raises RankLost when rank 0 does not serve it in time, PortTaken when rank 0 finds the port taken, Preempted.
    """
    # The agent serves all restarts of the ranks, which must not read what those before them wrote.
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    host = LOOPBACK if on_one_machine(env) and not agent else env.master_addr
    if env.rank == 0 and not agent:
        store = _serve(env, host)
    else:
        _wait_for_server(env, host, wait)
        limit = datetime.timedelta(seconds=wait.left)
        store = dist.TCPStore(host, env.master_port, env.world_size, False, limit, wait_for_workers=False)
    store.set_timeout(timeout())
    return dist.PrefixStore(f"tnr/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _serve(env: Environment, host: str) -> dist.TCPStore:
    listener = _listener(env, host)
    if host != LOOPBACK:
        listener.close()
        return dist.TCPStore(host, env.master_port, env.world_size, True, timeout(), wait_for_workers=False)
    # torch's own server would listen on every interface.
    listener.listen(128)
    return dist.TCPStore(
        host,
        env.master_port,
        env.world_size,
        True,
        timeout(),
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def _listener(env: Environment, host: str) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK if host == LOOPBACK else "", env.master_port))
    except OSError as error:
        listener.close()
        raise PortTaken(
            f"port {env.master_port} on {socket.gethostname()} is not free ({error.strerror}): another run meets there, or "
            "another program listens; run it again once it is free, or set MASTER_PORT to another, the same on all ranks"
        ) from None
    return listener


def _wait_for_server(env: Environment, host: str, wait: Wait) -> None:
    """Until something listens where rank 0 is expected: torch's own wait takes up to five times its limit."""
    while True:
        try:
            socket.create_connection((host, env.master_port), timeout=min(wait.left, 2.0)).close()
            return
        except OSError as error:
            reason = error.strerror or str(error)
        try:
            wait.sleep()
        except TooLate:
            raise RankLost(f"{_missing(env, [0], wait)} ({reason})") from None


# The meeting ----------------------------------------------------------------------------------------------------------


def word_of(env: Environment, terms: Terms) -> Word:
    """What this rank says of its run."""
    return {
        "host": socket.gethostname(),
        "ranks": env.world_size,
        "settings": dict(terms.settings),
        "folders": dict(terms.folders),
    }


def differences(first: Word, other: Word) -> list[str]:
    """The names of what must be the same and is not, in the order of the first.

    Folders are compared by their whole paths on one machine; two machines may have one file system at different places,
    so between them the last part counts.
    """
    names = [] if first.get("ranks") == other.get("ranks") else ["number of ranks"]
    none: dict[str, str] = {}  # of an older version
    settings, others = first.get("settings", none), other.get("settings", none)
    names += [name for name in {**settings, **others} if settings.get(name) != others.get(name)]
    folders, others = first.get("folders", none), other.get("folders", none)
    one_machine = first.get("host") == other.get("host")
    for name in {**folders, **others}:
        mine, theirs = folders.get(name, ""), others.get(name, "")
        if mine != theirs and (one_machine or PurePath(mine).name != PurePath(theirs).name):
            names.append(name)
    return names


def compare_words(words: Mapping[int, list[Word]], where: str) -> str:
    """Why the ranks that meet at `where` must not train together; empty where they are one run.

    `words`: of every process that came, by the rank it says it is.
    """
    first = words[0][0]
    different: dict[int, list[str]] = {}
    twice = []
    for rank, claims in words.items():
        for number, word in enumerate(claims):
            if names := differences(first, word):
                different.setdefault(rank, []).extend(names)
            elif number:
                twice.append(rank)
    remedy = f"at {where}; start all ranks of a run with one command, or give each run a MASTER_PORT of its own"
    if different:
        names = list(dict.fromkeys(name for found in different.values() for name in found))
        verb = "runs" if len(different) == 1 else "run"
        return (
            f"{_ranks(different)} {verb} another configuration (differs in: {_listed(names)}): two runs meet {remedy}"
        )
    if twice:
        return f"{_ranks(twice)} came twice: the same run was started two times {remedy}"
    return ""


def _agree(store: dist.Store, env: Environment, terms: Terms, wait: Wait) -> None:
    """Post this rank's word and abide by rank 0's verdict. Raises as `meet` if it is to end."""
    claim = store.add(f"came/{env.rank}", 1)
    store.set(f"word/{env.rank}/{claim}", json.dumps(word_of(env, terms)))
    if env.rank == 0 and claim == 1:
        verdict = _decide(store, env, wait)
        store.set("verdict", json.dumps(verdict))
        if verdict["kind"] != "one run":
            _serve_until_read(store, env)
    else:
        verdict = _await_verdict(store, env, wait)
    if verdict["kind"] != "one run":
        raise _KINDS[verdict["kind"]](verdict["why"])
    if claim > 1 or env.rank >= verdict["ranks"]:
        first = json.loads(store.get("word/0/1"))
        names = differences(first, word_of(env, terms))
        if not names and restarts():
            raise EarlierStart(
                f"rank {env.rank} of {env.world_size}: ranks of an earlier start of this job are still at {address(env)}; run it "
                "again once they have ended"
            )
        other = f", of another configuration (differs in: {_listed(names)})" if names else ""
        raise InputError(
            f"rank {env.rank} of {env.world_size}: another run has met at {address(env)}{other}; give each run a MASTER_PORT "
            "of its own"
        )


def _decide(store: dist.Store, env: Environment, wait: Wait) -> Verdict:
    """Rank 0's verdict, when all words are there or one rank has given up."""
    missing = list(range(env.world_size))
    while missing := [rank for rank in missing if not store.check([f"word/{rank}/1"])]:
        if store.check(["left"]):
            left: Verdict = json.loads(store.get("left"))
            return left
        try:
            wait.sleep()
        except TooLate:
            return _verdict("lost", _missing(env, missing, wait))
        except Preempted:
            return _verdict("stopped", str(stopped("rank 0")))
    words = {}
    for rank in range(env.world_size):
        claims = [f"word/{rank}/{number}" for number in range(1, store.add(f"came/{rank}", 0) + 1)]
        words[rank] = [json.loads(store.get(claim)) for claim in claims]
    if why := compare_words(words, address(env)):
        same = not any(differences(words[0][0], word) for claims in words.values() for word in claims)
        return _verdict("earlier" if same and restarts() else "refused", why)
    return {"kind": "one run", "ranks": env.world_size}


def _await_verdict(store: dist.Store, env: Environment, wait: Wait) -> Verdict:
    while not store.check(["verdict"]):
        try:
            wait.sleep()
        except TooLate:
            missing = [rank for rank in range(env.world_size) if not store.check([f"word/{rank}/1"])]
            return _leave(store, _verdict("lost", _missing(env, missing or [0], wait)))
        except Preempted:
            return _leave(store, _verdict("stopped", str(stopped(f"rank {env.rank}"))))
    verdict: Verdict = json.loads(store.get("verdict"))
    store.add("read", 1)
    return verdict


def _leave(store: dist.Store, verdict: Verdict) -> Verdict:
    """Give up, and let rank 0 and all others know."""
    store.set("left", json.dumps(verdict))
    store.add("read", 1)
    return verdict


def _serve_until_read(store: dist.Store, env: Environment) -> None:
    """Serve the store until everyone who came has read the verdict, or has had the time to."""
    came = sum(store.add(f"came/{rank}", 0) for rank in range(env.world_size)) - 1
    end = time.monotonic() + _LINGER
    while store.add("read", 0) < came and time.monotonic() < end:
        time.sleep(0.02)


def _verdict(kind: str, why: str) -> Verdict:
    return {"kind": kind, "why": why}


def _missing(env: Environment, missing: list[int], wait: Wait) -> str:
    verb = "is" if len(missing) == 1 else "are"
    return (
        f"the ranks did not meet at {address(env)} within {wait.seconds:g} s: {_ranks(missing)} of {env.world_size} "
        f"{verb} missing"
    )


def _ranks(numbers: Mapping[int, object] | list[int]) -> str:
    return f"rank{'s' * (len(numbers) > 1)} {_listed(list(map(str, numbers)))}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
