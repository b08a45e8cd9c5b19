"""The command line: runs a verb, prints its answer, turns errors into exit codes.

The verbs stand in `verbs.py`. One returns a `CommandResult` and prints nothing itself.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import select
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from types import FrameType
from typing import IO, Annotated, Any

import typer
import typer.main

from edgeloop import help_page
from edgeloop.console import Console, own_stderr
from edgeloop.disk_errors import DISK, write_error
from edgeloop.errors import INTERRUPTED, EdgeloopError, OptionsError, WriteError
from edgeloop.leftovers import TMPDIR, temporary_folder
from edgeloop.result import CommandResult
from edgeloop.verb_group import VerbGroup
from edgeloop.verb_logging import VERBOSE, logged

USAGE_ERROR: Any = typer.BadParameter.__base__  # Typer exports some of its usage errors, not what they have in common
COMPLETION = "_EDGELOOP_COMPLETE"  # set by the shell that completes a command line
NEAR = 0.75  # share of letters in common: --lables is near --labels, --release is not near --threads
log = logging.getLogger(__name__)

root = typer.Typer(
    cls=VerbGroup, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}, name="edgeloop"
)


def show_version(value: bool) -> None:
    """Print the version and end the command."""
    if value:
        print(f"edgeloop {version('edgeloop')}", flush=True)
        raise typer.Exit


@root.callback(invoke_without_command=True)
def edgeloop(
    ctx: typer.Context,
    show: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version of edgeloop.")
    ] = False,
    verbose: Annotated[int, VERBOSE] = 0,
) -> None:
    """Convert a trained TensorFlow model for every device, check each file against the original, deploy and measure
    it, and train it further on the devices.

    Each verb has its own help, e.g. edgeloop convert --help.
    """
    if ctx.invoked_subcommand is None:
        raise OptionsError("edgeloop lacks a verb", advice="See: edgeloop --help.")
    if verbose:
        ctx.with_resource(logged(verbose, ctx.obj.stderr))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `edgeloop` program. Ends the process."""
    if COMPLETION in os.environ:
        typer.main.get_command(root)(prog_name="edgeloop")
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code. Prints; never raises, never ends the process."""
    with own_stderr() as (ours, noise):
        console = Console(json="--json" in arguments, stderr=ours)
        with _interruptible(console):
            try:
                return _run(arguments, console, noise)
            finally:
                console.close()


def _run(arguments: list[str], console: Console, noise: IO[bytes]) -> int:
    try:
        command = typer.main.get_command(root)
        # Not command.main: it takes every broken pipe for that of stdout, and ends the process without a word
        with command.make_context("edgeloop", arguments, obj=console) as ctx, _own_temporary_folder():
            answer = command.invoke(ctx)
            if isinstance(answer, CommandResult):
                console.show(answer)
                if answer.error is not None:
                    raise answer.error
        if console.interrupted:
            raise KeyboardInterrupt
        return 0
    except typer.Exit as e:  # --help, --version
        return e.exit_code
    except EdgeloopError as e:
        if console.interrupted:  # what was cut off failed, but not by itself
            return _interrupted(console)
        log.debug("the error was raised here:", exc_info=e)
        console.error(e)
        return e.exit_code
    except USAGE_ERROR as e:
        console.error(_usage(e))
        return OptionsError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(console)
    except Exception as e:
        if console.interrupted:  # native code turned it into an error of its own
            return _interrupted(console)
        if isinstance(e, BrokenPipeError) and _reader_left():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return WriteError.exit_code
        error = _disk_error(e) or _bug(noise)
        console.error(error)
        return error.exit_code


def _interrupted(console: Console) -> int:
    console.error(Interruption("interrupted; every process that was started has ended."))
    return INTERRUPTED


class Interruption(EdgeloopError):
    """Ctrl-C or SIGTERM."""

    exit_code = INTERRUPTED


def _reader_left() -> bool:
    """Whether nobody reads our stdout any more, as in `edgeloop ... | head`: then that is the pipe that broke."""
    stdout = select.poll()
    stdout.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in stdout.poll(0))


def _disk_error(e: Exception) -> WriteError | None:
    """What a full or read-only disk, a temporary folder's as a rule, did to a library."""
    if isinstance(e, FileNotFoundError) and e.filename is None:  # tempfile: nowhere can a file be made
        return WriteError(str(e.strerror), advice="Make room in one of them, or set TMPDIR to another folder.")
    if isinstance(e, OSError) and e.errno in DISK:
        return write_error(e.filename or tempfile.gettempdir(), e)
    return None


def _bug(noise: IO[bytes]) -> EdgeloopError:
    report = _bug_report(noise)
    return EdgeloopError(f"a bug in edgeloop; its traceback is in {report}", advice="Please report it with that file.")


def _bug_report(noise: IO[bytes]) -> str:
    with tempfile.NamedTemporaryFile(
        "w", prefix="edgeloop-bug-", suffix=".txt", delete=False, errors="backslashreplace"
    ) as file:
        traceback.print_exc(file=file)
        noise.seek(0)
        file.write("\nOutput of the frameworks:\n" + noise.read()[-20_000:].decode(errors="replace"))
    return file.name


@contextlib.contextmanager
def _own_temporary_folder() -> Iterator[None]:
    """One folder for the temporary files of this command and of what it starts, removed with all that a child which was
    killed left in it. Where none can be made, whoever needs one says so."""
    with contextlib.ExitStack() as stack:
        before = tempfile.tempdir, os.environ.get(TMPDIR)
        with contextlib.suppress(WriteError):
            tempfile.tempdir = os.environ[TMPDIR] = stack.enter_context(temporary_folder())
        try:
            yield
        finally:
            tempfile.tempdir = before[0]
            if before[1] is None:
                os.environ.pop(TMPDIR, None)
            else:
                os.environ[TMPDIR] = before[1]


@contextlib.contextmanager
def _interruptible(console: Console) -> Iterator[None]:
    """SIGTERM ends edgeloop as Ctrl-C does: children first.

    A KeyboardInterrupt that is raised inside a callback of native code is lost (seen while TensorFlow traced a
    function): the console remembers it and raises again at the next step that is reported.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        console.interrupted = True
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield
        return
    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _usage(e: Any) -> OptionsError:
    """What Typer refused, e.g. an unknown option, as an error of ours."""
    context = getattr(e, "ctx", None)
    where = context.command_path if context else "edgeloop"
    found, suggestion = e.format_message().partition("\n")[0], ""
    missing = getattr(e, "param", None) if type(e).__name__ == "MissingParameter" else None
    if missing is not None:
        flag = f"{missing.opts[0]} " if missing.param_type_name == "option" else ""
        found = f"{where} lacks {flag}{help_page.metavar(missing)}"
    if hasattr(e, "possibilities"):  # an option that does not exist
        known = [flag for parameter in context.command.params for flag in parameter.opts] if context else []
        known.append("--help")
        near = [flag for flag in known if e.option_name.startswith(f"{flag}-")]
        near = near or difflib.get_close_matches(e.option_name, known, n=1, cutoff=NEAR)
        found, suggestion = f"{where} has no option {e.option_name}", f"Did you mean {near[0]}? " if near else ""
    return OptionsError(found, advice=f"{suggestion}See: {where} --help.")


if __name__ == "__main__":
    main()
