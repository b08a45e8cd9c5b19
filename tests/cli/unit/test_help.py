"""What `--help` says, read from the commands themselves."""

import click
import pytest
import typer

from edgeloop import cli


def _arguments(command, path):
    if isinstance(command, click.Group):
        return [found for name, inner in command.commands.items() for found in _arguments(inner, f"{path} {name}")]
    return [(path, p.name, p.help) for p in command.params if isinstance(p, click.Argument)]


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_positional_argument_says_what_it_is(verb):
    root = typer.main.get_command(cli.root)
    command = root.get_command(click.Context(root), verb)
    assert [(path, name) for path, name, help in _arguments(command, verb) if not help] == []
