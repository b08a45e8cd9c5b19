"""What is done with a command line before a verb sees it: --config, choices, numbers, suggestions, --json errors."""

import json
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated

import pytest
import typer

from edgeloop import cli, temporary_bundle
from edgeloop.bundle import Format, Scheme
from edgeloop.errors import BudgetError
from edgeloop.result import CommandResult, Table
from edgeloop.verbs import VERBS


def probe(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(help="Take this model.")],
    to: Annotated[list[Format] | None, typer.Option(metavar="FORMAT", help="Write these formats.")] = None,
    scheme: Annotated[Scheme, typer.Option(metavar="SCHEME", help="Write this scheme.")] = Scheme.FLOAT32,
    rounds: Annotated[int, typer.Option(min=1, max=9, metavar="N", help="Run N rounds.")] = 3,
    max_drop: Annotated[float, typer.Option(metavar="PP", help="Allow this drop.")] = 0.0,
    labels: Annotated[Path | None, typer.Option(metavar="F", help="Read labels from this file.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Run fast.")] = False,
) -> CommandResult:
    """Return what it was given."""
    logging.getLogger("edgeloop.probe").info("probing %s", model)
    logging.getLogger("edgeloop.probe").debug("in detail")
    if model.name == "half":
        return CommandResult(
            {"done": 1}, [Table("", ("done",), [("1",)])], error=BudgetError("2 failed", advice="Try.")
        )
    given = {"to": [f.value for f in to or ()], "scheme": scheme.value, "rounds": rounds, "max_drop": max_drop}
    return CommandResult({**given, "labels": str(labels), "fast": fast, "model": str(model)})


@pytest.fixture(autouse=True)
def verb(monkeypatch):
    """`edgeloop compare` is `probe`."""
    module = ModuleType("probe")
    module.probe = probe
    monkeypatch.setitem(sys.modules, "probe", module)
    monkeypatch.setitem(VERBS, "compare", VERBS["compare"]._replace(function="probe:probe"))


def asked(capfd, *words) -> dict:
    code = cli.run(["compare", "--json", *map(str, words)])
    out, err = capfd.readouterr()
    assert code == 0, err
    return json.loads(out)


def refused(capfd, *words) -> tuple[int, dict]:
    """Exit code and error; standard output is that one document, standard error one line that says the same."""
    verb, *rest = map(str, words)
    code = cli.run([verb, "--json", *rest] if verb == "compare" else [verb, *rest, "--json"])
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    error = json.loads(out)["error"]
    assert set(error) == {"type", "exit_code", "found", "advice"} and error["exit_code"] == code
    assert line == f"edgeloop: {error['found']} {error['advice']}".rstrip()
    return code, error


def test_choices_are_repeated_or_stand_between_commas(capfd):
    assert asked(capfd, "m", "--to", "tflite,onnx", "--to=tfjs", "--scheme=int8")["to"] == ["tflite", "onnx", "tfjs"]
    assert asked(capfd, "m", "--to", "tflite, onnx")["to"] == ["tflite", "onnx"]
    assert asked(capfd, "--", "--to")["model"] == "--to"


WRONG = {
    "verb": (["comprae"], "edgeloop has no verb 'comprae'.", "Did you mean compare?"),
    "verb of a group": (["setup", "devce"], "edgeloop setup has no verb 'devce'.", "Did you mean device?"),
    "choice of one": (
        ["compare", "m", "--scheme", "int9"],
        "--scheme 'int9' is not known.",
        "Did you mean int8? Choose",
    ),
    "choice of several": (["compare", "m", "--to=tflite,onx"], "--to 'onx' is not known.", "Did you mean onnx? Choose"),
    "no value": (["compare", "m", "--to"], "--to has no value.", "Write --to FORMAT."),
    "option": (
        ["compare", "m", "--round", "2"],
        "edgeloop compare has no option --round.",
        "Did you mean --rounds? See",
    ),
    "far option": (["compare", "m", "--qqq"], "edgeloop compare has no option --qqq.", "See: edgeloop compare --help."),
    "nearly help": (["compare", "m", "--help-me"], "edgeloop compare has no option --help-me.", "Did you mean --help?"),
    "missing": (["compare"], "edgeloop compare lacks MODEL.", "See: edgeloop compare --help."),
    "too many words": (
        ["compare", "m", "n", "o"],
        "edgeloop compare does not take 'n', 'o'.",
        "See: edgeloop compare --help.",
    ),
    "words after --": (
        ["compare", "m", "--", "--to"],
        "edgeloop compare does not take '--to'.",
        "See: edgeloop compare",
    ),
    "an option of another verb": (
        ["compare", "m", "--release", "2"],
        "edgeloop compare has no option --release.",
        "See: edgeloop compare --help.",
    ),
    "no file": (["compare", "m", "--config"], "--config has no value.", "Write --config F.toml."),
    "a value of a flag": (["compare", "m", "--fast=1"], "--fast takes no value, and got '1'.", "Write --fast alone."),
    "a word": (["compare", "m", "--rounds", "x"], "--rounds is 'x'.", "It must be a whole number from 1 to 9."),
    "too many": (["compare", "m", "--rounds=10"], "--rounds is 10.", "It must be a whole number from 1 to 9."),
    "not a number": (["compare", "m", "--max-drop", "x"], "--max-drop is 'x'.", "It must be a number."),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_known_is_named_with_the_nearest_that_is(capfd, case):
    words, found, advice = WRONG[case]
    code, error = refused(capfd, *words)
    assert (code, error["type"], error["found"]) == (2, "OptionsError", found)
    assert error["advice"].startswith(advice)


def test_options_without_a_verb_are_refused(capfd):
    assert cli.run(["-v"]) == 2
    assert capfd.readouterr().err == "edgeloop: edgeloop lacks a verb. See: edgeloop --help.\n"


def test_a_file_gives_options_and_the_command_line_wins(capfd, tmp_path):
    file = tmp_path / "o.toml"
    file.write_text(
        'to = ["tflite", "onnx"]\nrounds = 5\nmax-drop = 1\nlabels = "l.txt"\nfast = true\nscheme = "int8"\n'
    )
    expected = {
        "to": ["tflite", "onnx"],
        "rounds": 5,
        "max_drop": 1.0,
        "labels": "l.txt",
        "fast": True,
        "scheme": "int8",
    }
    assert asked(capfd, "m", "--config", file) == {**expected, "model": "m"}
    over = asked(capfd, "m", f"--config={file}", "--to", "tfjs", "--rounds", 2)
    assert over == {**expected, "to": ["tfjs"], "rounds": 2, "model": "m"}


@pytest.mark.parametrize(
    ("line", "found", "advice"),
    [
        ("round = 5", "round is not known.", "Did you mean rounds? Choose from to, scheme, rounds"),
        ("json = true", "json is not known.", "Choose from to"),
        ('rounds = "5"', "rounds is '5'.", "It must be a whole number."),
        ("fast = 1", "fast is 1.", "It must be true or false."),
        ('to = ["tflit"]', "to[0] 'tflit' is not known.", "Did you mean tflite?"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_the_file(capfd, tmp_path, line, found, advice):
    (tmp_path / "o.toml").write_text(line)
    code, error = refused(capfd, "compare", "m", "--config", tmp_path / "o.toml")
    assert (code, error["found"]) == (2, f"{tmp_path / 'o.toml'}: {found}")
    assert error["advice"].startswith(advice)


def test_a_failure_beside_an_answer_is_in_the_same_document(capfd):
    assert cli.run(["compare", "half", "--json"]) == 6
    error = {"type": "BudgetError", "exit_code": 6, "found": "2 failed.", "advice": "Try."}
    out, err = capfd.readouterr()
    assert json.loads(out) == {"done": 1, "error": error}
    assert err == "edgeloop: 2 failed. Try.\n"
    assert cli.run(["compare", "half"]) == 6
    assert "done" in capfd.readouterr().out


def test_a_bug_is_a_json_error_too(capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(cli.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys.modules["probe"], "probe", lambda ctx: 1 / 0)
    code, error = refused(capfd, "compare")
    assert code == 1 and "a bug in edgeloop" in error["found"]


@pytest.mark.parametrize(("words", "lines"), [([], 0), (["-v"], 2), (["-vv"], 3), (["--verbose"], 2)])
def test_v_logs_to_standard_error_while_the_verb_runs(words, lines, capfd):
    assert cli.run(["compare", "m", *words, "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["model"] == "m" and len(err.splitlines()) == lines
    assert ("INFO edgeloop.probe: probing m" in err) == bool(words)
    logging.getLogger("edgeloop.probe").warning("nobody listens")
    assert capfd.readouterr().err.count("nobody") <= 1  # Python's own last resort, no handler of ours
    assert logging.getLogger("edgeloop").handlers == []


def test_v_before_the_verb_does_the_same(capfd):
    assert cli.run(["-v", "compare", "m", "--json"]) == 0
    assert len(capfd.readouterr().err.splitlines()) == 2
    assert logging.getLogger("edgeloop").handlers == []


def test_an_interruption_is_a_json_error_too(capfd, monkeypatch):
    def interrupted(ctx: typer.Context) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["probe"], "probe", interrupted)
    code, error = refused(capfd, "compare")
    assert (code, error["found"]) == (130, "interrupted; every process that was started has ended.")


def test_the_version_is_printed(capfd):
    from importlib.metadata import version

    assert cli.run(["--version"]) == 0
    assert capfd.readouterr().out == f"edgeloop {version('edgeloop')}\n"


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
    module, wanted = ModuleType("convert"), []

    def convert(path, out, options, progress):
        wanted.append(options.to)
        return SimpleNamespace(bundle=SimpleNamespace(path=out), notes=["int8 was not written."])

    module.convert = convert
    monkeypatch.setitem(sys.modules, "edgeloop.convert.convert", module)
    kept = []

    def keep(manager):
        kept.append(manager)
        return manager.__enter__()

    said = []
    path = temporary_bundle.as_bundle(Path(name), VERBS[verb].converts, SimpleNamespace(say=said.append), keep)
    assert said == (
        []
        if to == "as it is"
        else [
            f"{name} is converted into a temporary bundle first.",
            "Notes on this conversion; the options in them are those of edgeloop convert:",
            "int8 was not written.",
        ]
    )
    assert (path == Path(name), wanted) == ((True, []) if to == "as it is" else (False, [to]))
    for manager in kept:
        manager.__exit__(None, None, None)
