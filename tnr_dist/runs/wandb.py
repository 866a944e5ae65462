"""A run on Weights & Biases: which mode, which names, and that logging never stops a training.

The variables `WANDB_*` go before the configuration. Without a key runs are kept offline in RUN/wandb, from where
`wandb sync` sends them. Each run folder is one run: its id is in RUN/wandb_id and in every checkpoint, so a job that is
started again, and the evaluation that comes later, go on with the same run.
"""

from __future__ import annotations

import contextlib
import netrc
import os
import re
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from tnr_dist.config.schema import Config, WandbConfig, to_dict
from tnr_dist.runs.wandb_tables import Table
from tnr_dist.util.errors import InputError, Preempted
from tnr_dist.util.files import write_text
from tnr_dist.util.progress import say, say_once
from tnr_dist.util.redaction import without_secrets

if TYPE_CHECKING:
    from wandb import Artifact, Run

Mode = Literal["online", "offline", "disabled"]
_MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
_NAMESPACES = ("train", "optim", "perf", "memory", "ranks", "eval")
_PREEMPTED = 75
_UNWRITTEN = 3.0  # seconds
# The client's settings where no variable says otherwise and it knows them: nothing on the terminal, which is the progress
# bar's; no endless wait for a network that is gone (what is not sent stays in RUN/wandb); records on disk soon.
Arguments = dict[str, Any]  # of the client's functions
_OURS: Arguments = {
    "silent": True,
    "console": "off",
    "login_timeout": 30.0,
    "finish_timeout": 30.0,
    "x_transaction_log_flush_interval": 1.0,
}
T = TypeVar("T")


def chosen_mode(settings: WandbConfig) -> Mode:
    """WANDB_MODE or `wandb.mode`; `auto` is online with a key and offline without one."""
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true"):
        return "disabled"
    name = os.environ.get("WANDB_MODE", "").lower() or settings.mode
    if name == "auto":
        return "online" if has_key() else "offline"
    if name not in _MODES:
        raise InputError(f"WANDB_MODE={name}: one of online, offline, disabled")
    return _MODES[name]


def has_key() -> bool:
    """Whether there is a login: WANDB_API_KEY, WANDB_IDENTITY_TOKEN_FILE, or one of `wandb login` in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    file = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return netrc.netrc(str(file)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def experiment(config: Config) -> str:
    """The group of an experiment's runs: `wandb.group`, or the name of its output folder, the same for all seeds."""
    if config.wandb.group:
        return config.wandb.group
    output = Path(config.output).absolute()
    return output.parent.name if re.fullmatch(r"seed-\d+", output.name) else output.name


def run_name(config: Config, path: Path) -> str:
    """A run's name among those of its experiment: its folder, with the seed where there are several."""
    seed = path.absolute().parent.name
    return f"{path.name} {seed}" if re.fullmatch(r"seed-\d+", seed) else path.name


def stored_id(path: Path) -> str:
    """The id in RUN/wandb_id; '' where none is yet."""
    file = path / "wandb_id"
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def _ids_beside(path: Path) -> set[str]:
    """Ids of the experiment's other run folders, of all its seeds."""
    folder = path.absolute().parent
    seeds = re.fullmatch(r"seed-\d+", folder.name)
    files = folder.parent.glob("seed-*/*/wandb_id") if seeds else folder.glob("*/wandb_id")
    return {stored_id(file.parent) for file in files if file.parent != path.absolute()}


@contextlib.contextmanager
def _arguments_without_secrets() -> Iterator[None]:
    """Within it the command line is what may be shown: the client keeps it beside a run, settings and all."""
    before = sys.argv
    sys.argv = [without_secrets(one) for one in before]
    try:
        yield
    finally:
        sys.argv = before


class WandbRun:
    """One process's handle on a run; without wandb, or with mode `disabled`, nothing happens.

    An error in it is reported once and ends the logging, not the training.
    `mode`: online, shared, offline, disabled, or absent (the client is not installed).
    """

    unreachable = False  # the server, to this process: its further runs do not wait for it again
    first: Path | None = None  # the run folder that this process opened first: the one that WANDB_RUN_ID speaks of

    def __init__(self, run: Run | None, mode: str, arguments: Arguments | None = None) -> None:
        self._run: Any = run
        self.mode, self._arguments = mode, arguments or {}
        self._recent: deque[tuple[float, Mapping[str, object], int]] = (
            deque()
        )  # what a client that dies may not have written

    @classmethod
    def open(
        cls,
        config: Config,
        path: Path,
        stage: str,
        facts: Mapping[str, object],
        run_id: str = "",
        *,
        shared: bool = False,
    ) -> WandbRun:
        """Begin the run of a run folder, or go on with it.

        Args:
            config: resolved; goes to the run's configuration, with `facts` as its `run`.
            path: the run folder.
            stage: the job type.
            run_id: of the checkpoint that is resumed; else RUN/wandb_id, else, for the first run folder of the
                process, WANDB_RUN_ID, else a new one.
            shared: other nodes will `join`, when it is online.
        """
        mode = chosen_mode(config.wandb)
        if mode == "disabled":
            return cls(None, "disabled")
        chosen = run_id or stored_id(path) or cls._given_id(path) or uuid.uuid4().hex[:8]
        cls.first = cls.first or path.absolute()
        if stored_id(path) != chosen:
            write_text(path / "wandb_id", chosen + "\n")
        arguments = {
            "id": chosen,
            "resume": "allow",
            "config": {**without_secrets(to_dict(config)), **({"run": facts} if facts else {})},
            **_names(config, path, stage),
        }
        if mode == "online" and cls.unreachable:
            mode = "offline"
        out = cls._init("shared" if shared and mode == "online" else mode, arguments)
        if not out.active and out.mode != "absent" and mode == "online":
            cls.unreachable = True
            out = cls._init("offline", arguments)
        out.safely(lambda: _define(out._run))
        if out.active and out.mode == "offline":
            say_once("wandb: runs are kept offline in RUN/wandb; `wandb sync RUN/wandb/offline-run-*` sends one")
        elif out.active:
            say(f"wandb: {out._run.url}")
        return out

    @classmethod
    def _given_id(cls, path: Path) -> str:
        """WANDB_RUN_ID, unless it is another run folder's: the stages of one `tnr run` are runs of their own."""
        given = os.environ.get("WANDB_RUN_ID", "")
        if given and (cls.first not in (None, path.absolute()) or given in _ids_beside(path)):
            say_once(f"wandb: WANDB_RUN_ID={given} is one run folder's; the others get ids of their own")
            return ""
        return given

    @classmethod
    def join(cls, config: Config, path: Path, run_id: str, label: str) -> WandbRun:
        """A further node's part in a run that is open with `shared`: its system metrics, under `label`."""
        names = {
            name: value for name, value in _names(config, path, "").items() if name in ("project", "entity", "dir")
        }
        own = {"x_label": label, "x_primary": False, "x_update_finish_state": False}
        return cls._init("shared", {"id": run_id, **names}, own)

    @classmethod
    def _init(cls, mode: str, arguments: Arguments, settings: Arguments | None = None) -> WandbRun:
        """`wandb.init`; without a run, and with a message, where the client is absent or fails."""
        if mode == "offline":
            # The client reports its own faults over the network, also when it is told to stay offline.
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        ours = {name: value for name, value in _OURS.items() if f"WANDB_{name.upper()}" not in os.environ}
        try:
            import wandb

            known = {name: value for name, value in ours.items() if name in wandb.Settings.model_fields}
        except Exception as error:
            # Not only ImportError: a client that does not fit its protobuf fails with TypeError, and an old one has other
            # settings.
            wrong = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {_one_line(error)}"
            say_once(f"wandb: not logged to ({wrong}); metrics are in metrics.jsonl. `pip install -U wandb` adds it")
            return cls(None, "absent")
        try:
            with _arguments_without_secrets():
                run = wandb.init(
                    mode=mode,  # type: ignore[arg-type]
                    reinit="finish_previous",
                    settings=wandb.Settings(**known, **(settings or {})),
                    **arguments,
                )
        except Exception as error:
            say(f"wandb: {mode} does not work: {_one_line(error)}")
            _leave()  # else the client holds on to the id
            return cls(None, mode)
        return cls(run, mode, arguments)

    @property
    def active(self) -> bool:
        """Whether anything is logged."""
        return self._run is not None

    @property
    def id(self) -> str:
        """The run's id; '' without one."""
        return str(self._run.id) if self._run is not None else ""

    def safely(self, work: Callable[[], T]) -> T | None:
        """Do what touches the run; an error ends the logging with a message.

        A stop request goes to all processes of a job, and the client's own ends at once, whatever session or signal mask it
        has (it asks for TERM itself): it is started again, and gets what it may not have written.
        """
        if self._run is None:
            return None
        try:
            try:
                return work()
            except ConnectionError:
                _leave()
                self._run = self._init(self.mode, self._arguments)._run
                if self._run is None:
                    return None
                for _, record, step in self._recent:
                    self._run.log(record, step=step)
                return work()
        except Exception as error:
            self._run = None
            say(f"wandb: {_one_line(error)}; continuing with metrics.jsonl only")
            if isinstance(error, ConnectionError):
                _leave()
            return None

    def log(
        self, record: Mapping[str, object], step: int, tables: dict[str, Table] | None = None, *, commit: bool = False
    ) -> None:
        """Log a record and tables at a step that never falls: the server leaves out one that it has seen pass by.

        So a record that is made a second time, after a crash, is not shown twice. `commit`: nothing more comes at this step,
        so that the client need not hold the record back until the next one, and lose it if it ends before.
        """
        if not self.active:
            return

        def work() -> None:
            import wandb

            shown = {key: wandb.Table(columns=list(one.columns), data=one.rows) for key, one in (tables or {}).items()}
            # A shared run has no say in its steps: several processes write it.
            if self.mode == "shared":
                self._run.log({**record, **shown})
            else:
                self._run.log({**record, **shown}, step=step, commit=commit)

        self.safely(work)
        self._recent.append((time.monotonic(), record, step))
        self._forget_written()

    def _forget_written(self) -> None:
        """The client may hold a step's records back until one of a later step comes, and writes them moments after it."""
        while self._recent:
            later = next((when for when, _, step in self._recent if step > self._recent[0][2]), None)
            if later is None or later > time.monotonic() - _UNWRITTEN:
                return
            self._recent.popleft()

    def artifact(self, make: Callable[[ModuleType], Artifact]) -> None:
        """Log what `make(wandb)` gives as made by this run."""

        def work() -> None:
            import wandb

            self._run.log_artifact(make(wandb))

        self.safely(work)

    def use(self, make: Callable[[ModuleType], Artifact]) -> None:
        """Log what `make(wandb)` gives as an input of this run."""

        def work() -> None:
            import wandb

            artifact = make(wandb)
            if self.mode != "offline":
                self._run.use_artifact(artifact)
            elif hasattr(self._run, "_log_artifact"):
                # `use_artifact` refuses to work offline, because it waits for the server; the request that it makes can
                # be written all the same, and `wandb sync` then draws the line. Without it the inputs are in the
                # configuration only.
                self._run._log_artifact(artifact, is_user_created=True, use_after_commit=True)

        self.safely(work)

    def finish(self, error: BaseException | None = None) -> None:
        """End the run: finished, failed, or preempted (exit code 75), so that wandb shows that it will be resumed."""
        preempted = isinstance(error, Preempted)
        if preempted:
            self.safely(lambda: self._run.mark_preempting())
        code = _PREEMPTED if preempted else int(error is not None)
        self.safely(lambda: self._run.finish(exit_code=code))
        self._run = None


def _names(config: Config, path: Path, stage: str) -> Arguments:
    """What `wandb.init` is told, where no variable of the environment says it."""
    settings = config.wandb
    wanted: dict[str, tuple[str, object]] = {
        "project": ("WANDB_PROJECT", settings.project),
        "entity": ("WANDB_ENTITY", settings.entity or None),
        "group": ("WANDB_RUN_GROUP", experiment(config)),
        "job_type": ("WANDB_JOB_TYPE", stage),
        "name": ("WANDB_NAME", run_name(config, path)),
        "tags": ("WANDB_TAGS", settings.tags or None),
        "dir": ("WANDB_DIR", str(path)),
    }
    return {name: value for name, (variable, value) in wanted.items() if not os.environ.get(variable)}


def _define(run: Run) -> None:
    """Every curve over samples seen: batch sizes and numbers of ranks then compare."""
    run.define_metric("samples", hidden=True)
    for namespace in _NAMESPACES:
        run.define_metric(f"{namespace}/*", step_metric="samples")


def _leave() -> None:
    """Let go of a client process that has died or failed, so that the next run gets another."""
    import wandb

    with contextlib.suppress(Exception):
        wandb.teardown()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
