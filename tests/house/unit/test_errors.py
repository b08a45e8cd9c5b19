"""Every error has an exit code of its own and a line in the tree."""

import ast
import json
import os
import re
import subprocess
import sys
from types import ModuleType

import pytest
import typer

from edgeloop import cli, errors
from edgeloop.verbs import VERBS

PORTIONS = ("src", "convert", "edge", "federated", "browser", "cloud")
CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


def test_every_error_has_an_exit_code_of_its_own():
    codes = [error.exit_code for error in CLASSES]
    assert sorted(codes) == list(range(1, 12))  # 0 is success, 130 an interruption
    assert errors.INTERRUPTED == 130


def raised(root):
    """(place, text of what was found, names of the keywords) of every error that is made in the sources."""
    for portion in PORTIONS:
        for path in sorted((root / portion / "edgeloop").rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in errors.ERRORS:
                    found = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)]
                    place = f"{path.relative_to(root)}:{node.lineno}"
                    yield place, " ".join(map(str, found)), {keyword.arg for keyword in node.keywords}


def test_every_error_advises_and_does_so_in_the_field_of_that_name(root):
    made = list(raised(root))
    assert len(made) > 500  # the control
    assert [place for place, _, keywords in made if "advice" not in keywords] == []
    assert [place for place, found, _ in made if re.search(r"\b(Expected|Choose|Run|Pass)\b|\w\. [A-Z]", found)] == []


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_stands_in_the_tree_with_its_code(error):
    assert issubclass(error, errors.EdgeloopError)
    assert re.search(rf"{error.__name__} +{error.exit_code}   \w", errors.__doc__), (
        "the docstring of errors.py draws the tree"
    )


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

    def demo(ctx: typer.Context) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    module.demo = demo
    monkeypatch.setitem(sys.modules, "broken", module)
    monkeypatch.setitem(VERBS, "demo", VERBS["demo"]._replace(function="broken:demo"))
    monkeypatch.setattr(cli.tempfile, "tempdir", str(tmp_path))
    assert cli.run(["demo"]) == 1
    assert "a bug in edgeloop" in capfd.readouterr().err
    assert "BrokenPipeError" in next(tmp_path.glob("edgeloop-bug-*")).read_text()
