"""Every error has an exit code of its own and a line in the tree; every verb is there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import click
import pytest
import typer

from edgeloop import cli, errors
from edgeloop.bundle import Format

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


def test_every_error_has_an_exit_code_of_its_own():
    codes = [error.exit_code for error in CLASSES]
    assert sorted(codes) == list(range(1, 12))  # 0 is success, 130 an interruption
    assert errors.INTERRUPTED == 130


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_stands_in_the_tree_with_its_code(error):
    assert issubclass(error, errors.EdgeloopError)
    assert re.search(rf"{error.__name__} +{error.exit_code}   \w", errors.__doc__), (
        "the docstring of errors.py draws the tree"
    )


def leaves(command: click.Command, path: str):
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from leaves(inner, f"{path} {name}")
    else:
        yield path, command


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_is_found_says_what_it_does_and_speaks_json(verb):
    command = cli.Verbs(name="edgeloop").get_command(click.Context(click.Command("edgeloop")), verb)
    assert command is not None and command.get_short_help_str()
    for path, leaf in leaves(command, verb):
        assert leaf.help, f"{path} has no docstring"
        assert "--json" in [option for param in leaf.params for option in param.opts], path


def test_an_unknown_verb_is_exit_2_in_one_line(capfd):
    assert cli.run(["frobnicate"]) == 2
    printed = capfd.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert "frobnicate" in printed.err


@pytest.mark.parametrize("group", [[], ["setup"], ["federate"]], ids=["edgeloop", "setup", "federate"])
def test_a_missing_verb_is_exit_2_with_the_help_on_stdout(group, capfd):
    assert cli.run(group) == 2
    printed = capfd.readouterr()
    assert printed.err == ""
    assert "Usage: " in printed.out and len(printed.out.splitlines()) > 5


def test_a_path_that_is_no_utf_8_is_named_in_one_line():
    command = [sys.executable, "-m", "edgeloop", "inspect", b"/nowhere/\xff.keras"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (4, "", 1)
    assert "/nowhere/\\udcff.keras does not exist" in done.stderr


@pytest.mark.parametrize("as_json", [True, False])
def test_an_answer_about_such_a_path_is_printed(as_json):
    program = (
        "import sys; from edgeloop.result import *; from edgeloop.console import Console\n"
        "path = 'é' + chr(0xDCFF) + chr(0x1F600)\n"
        f"console = Console(json={as_json}, stderr=sys.stderr)\n"
        "console.show(CommandResult({'file': path}, [Table(path, (path,), [(path,)])], [path]))"
    )
    for encoding in ("utf-8", "ascii"):
        env = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=env)
        assert done.returncode == 0, done.stderr
        if as_json:
            assert json.loads(done.stdout) == {"file": "é\udcff\U0001f600"}
        else:
            assert done.stdout.count("\\udcff") == 4


def test_a_reader_of_stdout_that_left_is_exit_11_and_no_bug():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stdout:
        command = [sys.executable, "-m", "edgeloop", "--help"]
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (11, "")


def test_another_pipe_that_breaks_is_a_bug_and_says_so(monkeypatch, tmp_path, capfd):
    module = ModuleType("broken")
    module.app = typer.Typer()

    def demo(ctx: typer.Context) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    module.app.command()(demo)
    monkeypatch.setitem(sys.modules, "broken", module)
    monkeypatch.setitem(cli.VERBS, "demo", "broken")
    monkeypatch.setattr(cli.tempfile, "tempdir", str(tmp_path))
    assert cli.run(["demo"]) == 1
    assert "a bug in edgeloop" in capfd.readouterr().err
    assert "BrokenPipeError" in next(tmp_path.glob("edgeloop-bug-*")).read_text()


@pytest.mark.parametrize(
    ("verb", "name", "to"),
    [
        ("bench", "m.keras", (Format.TFLITE,)),
        ("bench", "m.tflite", "as it is"),
        ("verify", "m.keras", None),
        ("verify", "m.tflite", (Format.TFLITE,)),
        ("verify", "m", "as it is"),
    ],
)
def test_a_model_is_converted_into_what_the_verb_needs(monkeypatch, verb, name, to):
    module, asked = ModuleType("convert"), []

    def convert(path, out, options, progress):
        asked.append(options.to)
        return SimpleNamespace(bundle=SimpleNamespace(path=out))

    module.convert = convert
    monkeypatch.setitem(sys.modules, "edgeloop.convert.convert", module)
    with click.Context(click.Command(verb), obj=SimpleNamespace(say=lambda line: None)) as ctx:
        path = cli.as_bundle(ctx, click.Argument(["path"]), name)
    assert (path == Path(name), asked) == ((True, []) if to == "as it is" else (False, [to]))
