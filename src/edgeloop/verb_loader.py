"""The name of a verb in, its command out: the function that the table of verbs names, and the options of every verb."""

from __future__ import annotations

import importlib
import inspect
import logging
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main

from edgeloop.temporary_bundle import as_bundle
from edgeloop.verb_command import EVERY_VERB, VerbCommand
from edgeloop.verb_logging import VERBOSE, logged
from edgeloop.verbs import VERBS

log = logging.getLogger(__name__)


def common_options(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="F.toml",
            rich_help_panel=EVERY_VERB,
            help="Read options from this TOML file, by their long names; the command line wins.",
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", rich_help_panel=EVERY_VERB, help="Print one JSON document on stdout instead of tables."),
    ] = False,
    verbose: Annotated[int, VERBOSE] = 0,
) -> None:
    """The options that every verb has."""


def verb_command(name: str) -> VerbCommand:
    """The command of a verb, e.g. `federate run`; imports its module."""
    module, _, function = VERBS[name].function.partition(":")
    return as_command(name, getattr(importlib.import_module(module), function))


def as_command(name: str, function: Callable[..., Any]) -> VerbCommand:
    """A function with Typer's annotations as a command with the options that every verb has."""
    hints = typing.get_type_hints(function, include_extras=True)
    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(function).parameters.values()]
    common_hints = typing.get_type_hints(common_options, include_extras=True)
    common = [
        p.replace(annotation=common_hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for p in inspect.signature(common_options).parameters.values()
    ]

    def call(**values: Any) -> Any:
        ctx = values["ctx"]
        ctx.with_resource(logged(values["verbose"], ctx.obj.stderr))
        log.info(
            "%s %s",
            name,
            {key: str(value) for key, value in values.items() if key in hints and value not in (None, "", ctx)},
        )
        if name in VERBS and VERBS[name].converts:
            first = own[1].name  # after `ctx`: what the verb is about
            values[first] = as_bundle(values[first], VERBS[name].converts, ctx.obj, ctx.with_resource)
        return function(**{key: value for key, value in values.items() if key in hints})

    call.__doc__ = function.__doc__
    call.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in (*own, *common)}
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name.split()[-1], cls=VerbCommand)(call)
    command = typing.cast(VerbCommand, typer.main.get_command(app))
    command.hints = {key: hint for key, hint in hints.items() if key not in ("ctx", "return")}
    return command
