"""Every error has an exit code of its own and a line in the tree; every verb is there."""

import re

import click
import pytest

from edgeloop import cli, errors

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
