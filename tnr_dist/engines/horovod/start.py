"""Horovod under any launcher: horovodrun and mpirun tell it where to meet, under all others the ranks arrange it here."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from http.server import HTTPServer
from pathlib import Path
from types import ModuleType

import torch
import torch.distributed as dist

from tnr_dist.engines import core
from tnr_dist.engines.base import Terms
from tnr_dist.engines.core import on_one_machine
from tnr_dist.engines.meeting import address, compare_words, meet, meeting_error, word_of
from tnr_dist.engines.waiting import Result, TooLate, Wait, interruptible
from tnr_dist.launch.environment import Environment
from tnr_dist.util.errors import InputError

_INSTALL = "run launch/install_horovod.sh with this environment's python"


def load_horovod() -> ModuleType:
    """`horovod.torch`. Raises InputError when it is not there or was not built for this PyTorch."""
    try:
        import horovod
        import horovod.torch as hvd
    except ImportError:
        raise InputError(f"engine=horovod: Horovod is not installed; {_INSTALL}") from None
    # A missing or broken extension is a printed warning only, after which nothing works.
    if not hasattr(hvd, "init"):
        raise InputError(f"engine=horovod: Horovod's extension for PyTorch does not load; {_INSTALL}")
    facts = Path(str(horovod.__file__)).parent / "metadata.json"
    built_for = json.loads(facts.read_text(encoding="utf-8")).get("pytorch") if facts.is_file() else None
    if built_for not in (None, torch.__version__):
        raise InputError(
            f"engine=horovod: it was built for PyTorch {built_for}, this is {torch.__version__}; {_INSTALL}"
        )
    found: ModuleType = hvd
    return found


class Meeting:
    """The ranks' meeting through Horovod, until `leave`. Raises as `make_engine`."""

    def __init__(self, env: Environment, hvd: ModuleType, terms: Terms) -> None:
        self._hvd, self._terms = hvd, terms
        self._store: dist.Store | None = None
        self._server: HTTPServer | None = None
        settings = {
            "HOROVOD_FUSION_THRESHOLD": "0",  # see GradientSum
            "HOROVOD_GLOO_TIMEOUT_SECONDS": str(max(int(core.TIMEOUT_SECONDS), 1)),
            "HOROVOD_STALL_CHECK_TIME_SECONDS": str(int(core.TIMEOUT_SECONDS / 2)),  # names the ranks it waits for
            "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": str(int(core.TIMEOUT_SECONDS)),
        }
        if on_one_machine(env):
            settings["HOROVOD_GLOO_IFACE"] = "lo"
        elif "GLOO_SOCKET_IFNAME" in os.environ:
            settings["HOROVOD_GLOO_IFACE"] = os.environ["GLOO_SOCKET_IFNAME"]
        settings = {name: os.environ.get(name, value) for name, value in settings.items()}
        told = self._has_rendezvous(env)
        try:
            if not told:
                settings |= self._within_timeout(functools.partial(self._arrange, env))
            with _environment(settings):
                self._within_timeout(hvd.init)
            if told and env.world_size > 1:
                self._within_timeout(functools.partial(self._compare, env))
        except TooLate:
            raise meeting_error(env, TimeoutError(f"no answer for {core.TIMEOUT_SECONDS:g} s")) from None
        except (RuntimeError, OSError) as error:
            raise meeting_error(env, error) from None
        if (hvd.rank(), hvd.size()) != (env.rank, env.world_size):
            raise InputError(
                f"engine=horovod: this is rank {env.rank} of {env.world_size} by {env.launcher}, and rank {hvd.rank()} of "
                f"{hvd.size()} by Horovod; start with one launcher, and unset variables that are left over from another"
            )

    def _within_timeout(self, work: Callable[[], Result]) -> Result:
        """`work()`, within `timeout`."""
        return interruptible(work, Wait(core.TIMEOUT_SECONDS, self._terms.stop_requested))

    def _compare(self, env: Environment) -> None:
        """What `meet` does, where Horovod has met without torch's store. Raises InputError on all ranks alike."""
        said = json.dumps(word_of(env, self._terms)).encode()
        sizes = self._hvd.allgather(torch.tensor([len(said)]), name="words.sizes").tolist()
        said_by_all = self._hvd.allgather(torch.frombuffer(bytearray(said), dtype=torch.uint8), name="words")
        texts = [bytes(part.tolist()) for part in said_by_all.split(sizes)]
        if why := compare_words({rank: [json.loads(text)] for rank, text in enumerate(texts)}, address(env)):
            raise InputError(why)

    def _has_rendezvous(self, env: Environment) -> bool:
        """Whether the launcher has told Horovod where to meet."""
        if "HOROVOD_GLOO_RENDEZVOUS_ADDR" in os.environ:
            return True
        return env.launcher in ("openmpi", "mpich", "horovodrun") and bool(self._hvd.mpi_built())

    def _arrange(self, env: Environment) -> dict[str, str]:
        """Rank 0 serves Horovod's rendezvous and tells the others its address through torch's store."""
        gloo = {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo"}
        if env.world_size == 1:
            return gloo
        self._store = store = meet(env, self._terms, Wait(core.TIMEOUT_SECONDS, self._terms.stop_requested))
        node = os.environ.get("SLURMD_NODENAME") or f"{socket.gethostname()}.{os.environ.get('GROUP_RANK', '0')}"
        store.set(f"horovod/node/{env.rank}", "localhost" if on_one_machine(env) else node)
        places = _places([store.get(f"horovod/node/{rank}").decode() for rank in range(env.world_size)])
        if env.rank == 0:
            self._server = _serve("127.0.0.1" if on_one_machine(env) else "", places)
            store.set("horovod/port", str(self._server.server_address[1]))
        place = places[env.rank]
        return gloo | {
            "HOROVOD_HOSTNAME": place.hostname,
            "HOROVOD_RANK": str(place.rank),
            "HOROVOD_SIZE": str(place.size),
            "HOROVOD_LOCAL_RANK": str(place.local_rank),
            "HOROVOD_LOCAL_SIZE": str(place.local_size),
            "HOROVOD_CROSS_RANK": str(place.cross_rank),
            "HOROVOD_CROSS_SIZE": str(place.cross_size),
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1" if on_one_machine(env) else env.master_addr,
            "HOROVOD_GLOO_RENDEZVOUS_PORT": store.get("horovod/port").decode(),
        }

    def leave(self) -> None:
        """Shut Horovod down; waits for no other rank."""
        if self._hvd.is_initialized():
            self._hvd.shutdown()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._store = self._server = None


@dataclass(frozen=True)
class _Place:
    """A rank's place in Horovod's words; `cross` counts the nodes that have a rank of this local number."""

    hostname: str
    rank: int
    size: int
    local_rank: int
    local_size: int
    cross_rank: int
    cross_size: int


def _places(nodes: list[str]) -> list[_Place]:
    """All ranks' places from the name of each one's node."""
    members = {node: [rank for rank, other in enumerate(nodes) if other == node] for node in dict.fromkeys(nodes)}
    places = []
    for rank, node in enumerate(nodes):
        local = members[node].index(rank)
        peers = [other for other, ranks in members.items() if len(ranks) > local]
        places.append(_Place(node, rank, len(nodes), local, len(members[node]), peers.index(node), len(peers)))
    return places


def _serve(address: str, places: list[_Place]) -> HTTPServer:
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    server = RendezvousHTTPServer((address, 0), RendezvousHandler, 0)
    server.init(places)
    threading.Thread(target=server.serve_forever, name="rendezvous", daemon=True).start()
    serving: HTTPServer = server
    return serving


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Generator[None]:
    """Variables for as long as Horovod reads them: left behind, a later start would take them for its launcher's."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
