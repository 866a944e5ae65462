"""`tnr`: its commands, and how it ends.

Exit codes: 0 ok, 2 bad input or configuration, 75 preempted, 69 passing trouble such as a lost rank, 1 otherwise.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer
import typer.core

from tnr_dist import __version__
from tnr_dist.cli import data, score, tools, train
from tnr_dist.cli.init import init
from tnr_dist.cli.options import SCORES, STOPS
from tnr_dist.stages.methods import METHODS
from tnr_dist.util.ends import Output, end
from tnr_dist.util.errors import InputError, Preempted, Unavailable, one_line, os_error_advice
from tnr_dist.util.progress import say
from tnr_dist.util.redaction import without_arguments_secrets


class _EarlyEnd(Exception):
    """An EOFError under a name that typer does not take for the user's Ctrl-D."""


class _Commands(typer.core.TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise _EarlyEnd(f"EOFError: {str(error) or 'a file or a stream ends too early'}") from error


app = typer.Typer(
    cls=_Commands,
    help="Train small, fast news recommenders distilled from large language models (Tiny-NewsRec).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        print(f"tnr_dist {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Before the command: show the traceback of an error.")
    ] = False,
) -> None:
    from tnr_dist.util.hardware import check_platform

    check_platform()
    if verbose:
        os.environ["TNR_TRACEBACK"] = "1"  # of the ranks that this process starts too


# Name, function, and what stands below the options.
_COMMANDS: list[tuple[str, Callable[..., None], str | None]] = [
    *((method.command, train.command_of(method), STOPS) for method in METHODS),
    ("baseline", train.baseline, STOPS),
    ("evaluate", score.evaluate, SCORES),
    ("predict", score.predict, SCORES),
    ("export", score.export, None),
    ("run", train.run, STOPS),
    ("reproduce", train.reproduce, STOPS),
    ("report", tools.report, None),
    ("dashboard", tools.dashboard, None),
    ("doctor", tools.doctor, None),
    ("init", init, None),
]
for _name, _function, _epilog in _COMMANDS:
    app.command(_name, epilog=_epilog)(_function)
app.command("bench", cls=tools.BenchCommand)(tools.bench)
app.add_typer(data.app, name="data")
app.add_typer(tools.plm_app, name="plm")


def main() -> None:
    """Entry point: errors that a user can mend are one line."""
    # Two processes a machine and more: tokenizers' own threads would only fight the ranks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the locale's encoding cannot say is still shown
            stream.reconfigure(errors="backslashreplace")
    try:
        # Without standalone mode an Exit's code comes back as the value.
        with contextlib.redirect_stdout(Output(sys.stdout)) if sys.stdout else contextlib.nullcontext():
            code = app(standalone_mode=False)
            end(code if isinstance(code, int) else 0)
    except InputError as error:
        fail(str(error), 2)
    except Preempted as error:
        fail(str(error), 75)
    except Unavailable as error:
        fail(str(error), 69)
    except typer.Abort:
        end(130)
    except _EarlyEnd as error:
        fail(f"{error} (tnr -v … shows the traceback)", 1)
    except Exception as error:
        # Typer brings its own copy of click, so usage errors are known by what they offer, not by their class.
        if hasattr(error, "format_message"):
            if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help
                print(error.format_message(), file=sys.stderr)
                end(2)
            fail(f"{error.format_message()} (see tnr --help)", 2)
        if message := os_error_advice(error):
            fail(message, 2)
        fail(f"{type(error).__name__}: {error} (tnr -v … shows the traceback)", 1)


def fail(message: str, code: int) -> None:
    """Say why on stderr, once for all ranks, and end with `code`."""
    from tnr_dist.launch.local import is_first_report

    if os.environ.get("TNR_TRACEBACK"):
        with contextlib.suppress(OSError):
            traceback.print_exc()
    # A crash is said by every rank that it meets.
    if code != 2 or is_first_report(message):
        say(one_line(f"tnr: {without_arguments_secrets(message, sys.argv[1:])}"), dated=False)
    end(code)


if __name__ == "__main__":
    main()
