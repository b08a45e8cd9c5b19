"""Every page of help, as it is printed: whole at any width."""

import importlib
import os
import subprocess
import sys

import pytest

from edgeloop import cli, help_page
from edgeloop.verb_loader import verb_command
from edgeloop.verbs import GROUPS, VERBS, Panel

PAGES = ["", *GROUPS, *VERBS]


def printed(capfd, *arguments: str) -> str:
    assert cli.run(list(arguments)) == 0
    out, err = capfd.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("name", PAGES, ids=lambda name: name or "edgeloop")
def test_a_page_shows_every_text_whole_at_every_width(name, width, monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", str(width))
    page = printed(capfd, *name.split(), "--help")
    words = " ".join(page.split())
    assert f"Usage: {' '.join(['edgeloop', *name.split()])} " in words
    if name in VERBS:
        command = verb_command(name)
        for parameter in command.params:
            flags = parameter.opts if parameter.param_type_name == "option" else [parameter.metavar or ""]
            assert all(flag in words for flag in flags)
            declared = command.declared.get(parameter.name, parameter)
            assert declared.help in words
        for choice in command.choices.values():
            assert f"of: {', '.join(member.value for member in choice)}." in words
        assert " ".join(command.help.split()) in words
    else:
        shown = {path: verb for path, verb in VERBS.items() if not name or path.startswith(f"{name} ")}
        for path, verb in shown.items():
            assert verb.summary in words or GROUPS[path.split()[0]] in words
    too_long = [line for line in page.splitlines() if len(line) > width]
    assert [line for line in too_long if len(line.split()) > 1] == [], (
        "only a word of its own may be wider than the page"
    )


def test_help_is_the_same_for_h_and_help(capfd):
    assert printed(capfd, "bench", "-h") == printed(capfd, "bench", "--help")


@pytest.mark.parametrize("name", VERBS)
def test_the_table_of_verbs_says_what_the_function_says(name):
    module, _, function = VERBS[name].function.partition(":")
    docstring = getattr(importlib.import_module(module), function).__doc__
    assert VERBS[name].summary == docstring.splitlines()[0]


def test_the_verbs_stand_in_panels_in_the_order_of_the_loop(capfd):
    page = printed(capfd, "--help")
    places = [page.index(f"\n{panel.value}:") for panel in Panel]
    assert places == sorted(places)
    names = [line.split()[0] for line in page.splitlines() if line.startswith("  ") and not line.startswith("   ")]
    assert [name for name in names if not name.startswith("-")] == list(dict.fromkeys(n.split()[0] for n in VERBS))


HELP = """
import sys
from edgeloop.cli import run
assert run(['--help']) == 0
print(*sorted(m for m in sys.modules if m.startswith('edgeloop.')), file=sys.stderr)
"""


def test_the_page_of_all_verbs_imports_none_of_them():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=180)
    own = set(done.stderr.split())
    allowed = {
        "cli",
        "console",
        "disk_errors",
        "errors",
        "help_page",
        "leftovers",
        "result",
        "settings",
        "temporary_bundle",
        "verb_command",
        "verb_group",
        "verb_loader",
        "verb_logging",
        "verbs",
    }
    assert own - {f"edgeloop.{name}" for name in allowed} == set()


def test_completion_of_a_verb_imports_none_of_them():
    env = {**os.environ, "_EDGELOOP_COMPLETE": "complete_bash", "COMP_WORDS": "edgeloop de", "COMP_CWORD": "1"}
    program = "import atexit, sys; from edgeloop.cli import main\n"
    program += (
        "atexit.register(lambda: print(*[m for m in sys.modules if m.startswith('edgeloop.')], file=sys.stderr))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program + "main([])"], capture_output=True, text=True, timeout=180, env=env
    )
    assert done.stdout.split() == ["demo", "deploy", "devices"]
    assert not {"edgeloop.edge.commands.deploy", "edgeloop.demo.command"} & set(done.stderr.split())


def test_a_long_name_stands_above_its_text_and_a_short_one_beside_it():
    rows = {"Options": [("--a", "One two."), ("--" + "b" * 40, "Three.")]}
    lines = help_page.page("x", "", rows, width=100).splitlines()
    assert "  --a" + " " * 29 + "One two." in lines
    assert "  --" + "b" * 40 in lines and " " * 34 + "Three." in lines
