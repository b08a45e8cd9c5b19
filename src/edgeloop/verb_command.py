"""A verb's function as a Typer command: its help page, `--config`, choices with commas, and the options of every verb.

Only what Typer documents and exports is used: since 0.26 it carries a click of its own, before it needed the package.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import inspect
import logging
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Any

import typer
import typer.core
import typer.main

from edgeloop import help_page, settings
from edgeloop.errors import OptionsError
from edgeloop.temporary_bundle import as_bundle
from edgeloop.verbs import GROUPS, VERBS, Panel

EVERY_VERB = "Options of every verb"
log = logging.getLogger(__name__)
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


VERBOSE: Any = typer.Option(
    "-v", "--verbose", count=True, show_default=False, rich_help_panel=EVERY_VERB, help="Log to stderr; -vv logs more."
)


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


class VerbCommand(typer.core.TyperCommand):
    """One verb. `hints` are the types of its parameters, by name."""

    hints: Mapping[str, Any] = {}

    @property
    def declared(self) -> dict[str, Any]:
        """What the function says of each parameter: its `typer.Option` or `typer.Argument`."""
        return {name: typing.get_args(hint)[1] for name, hint in self.hints.items()}

    @property
    def choices(self) -> dict[str, type[enum.Enum]]:
        """The fixed choices, by the name of their parameter."""
        return {name: choice for name, hint in self.hints.items() if (choice := settings.choice_of(hint))}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # which is completion: half a command line
            args = self._read([*self._from_file(args), *args])
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        words = []
        for p in self.params:
            value = help_page.metavar(p)
            if p.param_type_name == "argument":
                words.append(value if p.required else f"[{value}]")
            elif p.required:
                words.append(f"{p.opts[0]} {value}")
        texts = {name: said.help for name, said in self.declared.items()}  # click 8.5 forgets those of arguments
        sections = help_page.parameter_rows(self.get_params(ctx), texts, self.choices)
        last = sections.pop(EVERY_VERB)
        usage = " ".join([ctx.command_path, *words, "[OPTIONS]"])
        formatter.write(help_page.page(usage, self.help or "", {**sections, EVERY_VERB: last}))

    def _options(self) -> dict[str, Any]:
        """Parameters by each of their flags."""
        return {flag: p for p in self.params for flag in p.opts if p.param_type_name == "option"}

    def _from_file(self, args: Sequence[str]) -> list[str]:
        """The options of the file that --config names, as words; those that are given in `args` too are left out."""
        named = [word for k, word in enumerate(args) if k and args[k - 1] == "--config"]
        named += [word.removeprefix("--config=") for word in args if word.startswith("--config=")]
        if not named:
            return []
        path = Path(named[-1])
        own = {flag: p for flag, p in self._options().items() if flag.startswith("--") and p.name in self.hints}
        expected = {flag.removeprefix("--"): self.hints[p.name] for flag, p in own.items()}
        values = settings.checked(expected, settings.read_toml(path), str(path))
        given = {word.partition("=")[0] for word in args}
        words: list[str] = []
        for key, value in values.items():
            if given.isdisjoint(own[f"--{key}"].opts):
                words += _words(f"--{key}", value)
        return words

    def _read(self, args: Sequence[str]) -> list[str]:
        """The words with `--to a,b` as `--to a --to b`, each value one that its option can have.

        Raises:
            OptionsError: It is none of the choices, no number, or a number out of range.
        """
        options = self._options()
        words: list[str] = []
        rest = iter(args)
        for word in rest:
            flag, equals, value = word.partition("=")
            if word == "--":
                return [*words, word, *rest]
            if flag not in options or options[flag].name not in self.hints or not _takes_value(options[flag]):
                words.append(word)
                continue
            if not equals:
                following = next(rest, None)
                if following is None:
                    raise OptionsError(
                        f"{flag} has no value", advice=f"Write {flag} {help_page.metavar(options[flag])}."
                    )
                value = following
            name = options[flag].name
            choice, said = self.choices.get(name), self.declared[name]
            for part in value.split(",") if choice and options[flag].multiple else [value]:
                if choice is not None:
                    settings.member(choice, part.strip(), flag)
                else:
                    _number(settings.plain(self.hints[name]), part, flag, said.min, said.max)
                words += [flag, part.strip()]
        return words


def _takes_value(option: Any) -> bool:
    return not (option.is_flag or option.count)


def _number(kind: Any, text: str, flag: str, least: float | None, most: float | None) -> None:
    """See that a text is a number of this kind, where the kind is one.

    Raises:
        OptionsError: It is not, or is out of range.
    """
    if kind not in (int, float):
        return
    whole = "whole " if kind is int else ""
    limits = (f" from {least:g}" if least is not None else "") + (
        f" to {most:g}" if most is not None else " on" if least is not None else ""
    )
    try:
        number = kind(text)
    except ValueError as e:
        raise OptionsError(f"{flag} is {text!r}", advice=f"It must be a {whole}number{limits}.") from e
    if (least is not None and number < least) or (most is not None and number > most):
        raise OptionsError(f"{flag} is {text}", advice=f"It must be a {whole}number{limits}.")


def _words(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag] if value else []
    parts = value if isinstance(value, tuple) else (value,)
    return [word for part in parts for word in (flag, str(part.value if isinstance(part, enum.Enum) else part))]


class VerbGroup(typer.core.TyperGroup):
    """The verbs below `prefix` in the table; a module is imported when its verb is called."""

    prefix = ""
    listing = False  # while completion lists verbs, no module is needed

    def list_commands(self, ctx: Any) -> list[str]:
        below = [name.removeprefix(self.prefix) for name in VERBS if name.startswith(self.prefix)]
        return list(dict.fromkeys(name.split()[0] for name in below))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        name = self.prefix + cmd_name
        if name in GROUPS:
            group = VerbGroup(name=cmd_name, help=GROUPS[name])
            group.prefix = f"{name} "
            return group
        if name not in VERBS:
            return None
        if self.listing:
            return typer.core.TyperCommand(cmd_name, help=VERBS[name].summary)
        return verb_command(name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if not ctx.resilient_parsing and args[0] not in known and not args[0].startswith("-"):
            raise OptionsError(
                f"{ctx.command_path} has no verb {args[0]!r}", advice=settings.suggestion(args[0], known)
            )
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            print(self.get_help(ctx), flush=True)
            raise typer.Exit(OptionsError.exit_code)
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        self.listing = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self.listing = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[help_page.Row]] = {}
        for name in self.list_commands(ctx):
            verb = VERBS.get(self.prefix + name)
            panel = verb.panel if verb else next(v.panel for path, v in VERBS.items() if path.startswith(f"{name} "))
            heading = "Verbs" if self.prefix else panel.value
            sections.setdefault(heading, []).append((name, verb.summary if verb else GROUPS[name]))
        if not self.prefix:
            sections = {panel.value: sections[panel.value] for panel in Panel if panel.value in sections}
        sections.update(help_page.parameter_rows(self.get_params(ctx)))
        if not self.prefix:
            common = as_command("verb", _no_options).params
            sections[EVERY_VERB] = help_page.parameter_rows(common)[EVERY_VERB]
        formatter.write(help_page.page(f"{ctx.command_path} VERB [OPTIONS]", self.help or "", sections))


def verb_command(name: str) -> VerbCommand:
    """The command of a verb, e.g. `federate run`; imports its module."""
    module, _, function = VERBS[name].function.partition(":")
    return as_command(name, getattr(importlib.import_module(module), function))


def _no_options(ctx: typer.Context) -> None:
    """A verb that has but the options of every verb."""


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
            first = own[1].name
            values[first] = as_bundle(values[first], name, ctx.obj, ctx.with_resource)
        return function(**{key: value for key, value in values.items() if key in hints})

    call.__doc__ = function.__doc__
    call.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in (*own, *common)}
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name.split()[-1], cls=VerbCommand)(call)
    command = typing.cast(VerbCommand, typer.main.get_command(app))
    command.hints = {key: hint for key, hint in hints.items() if key not in ("ctx", "return")}
    return command


@contextlib.contextmanager
def logged(verbosity: int, stream: IO[str]) -> Iterator[None]:
    """Show what is logged under `edgeloop.*`: 0 warnings, 1 what is done, 2 everything."""
    logger, handler = logging.getLogger("edgeloop"), logging.StreamHandler(stream)
    if logger.handlers:  # `edgeloop -v VERB`, or a program that listens itself
        yield
        return
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logger.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
