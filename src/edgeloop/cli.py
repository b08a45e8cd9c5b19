"""The command line: finds the verb's folder, runs it, prints its answer, turns errors into exit codes.

Each folder's `command.py` (edge's `commands/`) holds `app`, a Typer with its verbs, imported when one is called. A
verb returns an `CommandResult` and prints nothing itself.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

import click
import typer
import typer.core
import typer.main
import typer.utils

from edgeloop.bundle import Format
from edgeloop.console import Console, own_stderr
from edgeloop.errors import INTERRUPTED, EdgeloopError, OptionsError, WriteError
from edgeloop.result import CommandResult

VERBS = {  # in the order of the loop, which is the order of --help
    "demo": "edgeloop.demo.command",
    "convert": "edgeloop.convert.command",
    "inspect": "edgeloop.edge.commands.inspect",
    "verify": "edgeloop.convert.command",
    "bench": "edgeloop.edge.commands.bench",
    "compare": "edgeloop.edge.commands.compare",
    "enroll": "edgeloop.edge.commands.deploy",
    "deploy": "edgeloop.edge.commands.deploy",
    "rollback": "edgeloop.edge.commands.deploy",
    "devices": "edgeloop.edge.commands.deploy",
    "run": "edgeloop.edge.commands.run",
    "federate": "edgeloop.federated.command",
    "browse": "edgeloop.browser.command",
    "cache": "edgeloop.convert.command",
    "setup": "edgeloop.setup",
}


NO_VERB = getattr(click.exceptions, "NoArgsIsHelpError", ())  # click before 8.2 prints the help by itself
TAKE_MODELS = ("verify", "bench")  # written for bundles; a model is converted into a temporary one first


class Verbs(typer.core.TyperGroup):
    """A group whose commands live in the folders."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        app = importlib.import_module(VERBS[cmd_name]).app
        group = typer.main.get_group(app)
        command = group.commands[cmd_name]
        _restore_help(command)
        _add_json(command)
        if cmd_name in TAKE_MODELS:
            command.params[0].callback = as_bundle
        return command


def _restore_help(command: click.Command) -> None:
    """click 8.5 made `help` a parameter of its own Argument, which overwrites with None what Typer 0.20 set before."""
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        _restore_help(inner)
    declared = typer.utils.get_params_from_function(command.callback) if command.callback is not None else {}
    for parameter in command.params:
        if isinstance(parameter, typer.core.TyperArgument) and parameter.help is None and parameter.name in declared:
            parameter.help = declared[parameter.name].default.help


def _add_json(command: click.Command) -> None:
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _add_json(inner)
        return
    option = click.Option(
        ["--json"],
        is_flag=True,
        expose_value=False,  # `run` looks for it itself: an error before parsing must know it too
        help="One JSON document on stdout instead of tables.",
    )
    command.params.append(option)


def as_bundle(ctx: click.Context, param: click.Parameter, value: str) -> Path:
    """The path as it is, or, for a Keras model or SavedModel (and a .tflite to verify), a bundle made of it that
    lasts as long as the command. Bench measures a .tflite as it is."""
    path = Path(value)
    verify = ctx.command.name == "verify"
    is_tflite = path.suffix == ".tflite"
    if not (path.suffix in (".keras", ".h5") or (path / "saved_model.pb").is_file() or (is_tflite and verify)):
        return path
    from edgeloop.convert.convert import convert
    from edgeloop.convert.options import ConvertOptions

    folder = ctx.with_resource(tempfile.TemporaryDirectory(prefix="edgeloop-"))
    ctx.obj.say(f"{path} is converted first, into a bundle that lasts as long as this command")
    options = ConvertOptions(to=None if verify and not is_tflite else (Format.TFLITE,))
    return convert(path, Path(folder) / path.stem, options, progress=ctx.obj).bundle.path


root = typer.Typer(cls=Verbs, add_completion=False, no_args_is_help=True, rich_markup_mode=None)


@root.callback()
def edgeloop(ctx: typer.Context) -> None:
    """Take a cloud-trained TensorFlow model to every device, prove each form, and bring back what devices learn."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `edgeloop` program. Ends the process."""
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
        with command.make_context("edgeloop", arguments, obj=console) as ctx:
            answer = command.invoke(ctx)
            if isinstance(answer, CommandResult):
                console.show(answer)
        if console.interrupted:
            raise KeyboardInterrupt
        return 0
    except click.exceptions.Exit as e:  # --help
        return e.exit_code
    except NO_VERB as e:
        print(e.format_message(), flush=True)
        return OptionsError.exit_code
    except EdgeloopError as e:
        if console.interrupted:  # what was cut off failed, but not by itself
            return _interrupted(console)
        console.error(str(e))
        return e.exit_code
    except click.ClickException as e:
        console.error(_usage(e))
        return OptionsError.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(console)
    except Exception as e:
        if console.interrupted:  # native code turned it into an error of its own
            return _interrupted(console)
        if isinstance(e, BrokenPipeError) and _reader_left():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return WriteError.exit_code
        console.error(f"a bug in edgeloop; its traceback is in {_bug_report(noise)}. Please report it with that file.")
        return EdgeloopError.exit_code


def _interrupted(console: Console) -> int:
    console.error("interrupted; every process that was started has ended.")
    return INTERRUPTED


def _reader_left() -> bool:
    """Whether nobody reads our stdout any more, as in `edgeloop ... | head`: then that is the pipe that broke."""
    stdout = select.poll()
    stdout.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in stdout.poll(0))


def _bug_report(noise: IO[bytes]) -> str:
    with tempfile.NamedTemporaryFile(
        "w", prefix="edgeloop-bug-", suffix=".txt", delete=False, errors="backslashreplace"
    ) as file:
        traceback.print_exc(file=file)
        noise.seek(0)
        file.write("\nWhat the frameworks said:\n" + noise.read()[-20_000:].decode(errors="replace"))
    return file.name


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


def _usage(e: click.ClickException) -> str:
    message = e.format_message().rstrip(".")
    context = getattr(e, "ctx", None)
    where = context.command_path if context else "edgeloop"
    return f"{message}. See: {where} --help"


if __name__ == "__main__":
    main()
