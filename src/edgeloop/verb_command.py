"""A verb as a Typer command: its help page, its options from `--config`, and choices with commas between them.

Only what Typer documents and exports is used: since 0.26 it carries a click of its own, before it needed the package.
"""

from __future__ import annotations

import enum
import math
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer.core

from edgeloop import help_page, settings
from edgeloop.errors import OptionsError

EVERY_VERB = "Options of every verb"


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
        ctx.allow_extra_args = True  # else Typer refuses them in words of its own
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            raise OptionsError(
                f"{ctx.command_path} does not take {', '.join(map(repr, rest))}",
                advice=f"See: {ctx.command_path} --help.",
            )
        return rest

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
            if flag not in options:
                words.append(word)
                continue
            if not _takes_value(options[flag]):
                if equals:
                    raise OptionsError(f"{flag} takes no value, and got {value!r}", advice=f"Write {flag} alone.")
                words.append(word)
                continue
            if not equals:
                following = next(rest, None)
                if following is None:
                    raise OptionsError(
                        f"{flag} has no value", advice=f"Write {flag} {help_page.metavar(options[flag])}."
                    )
                value = following
            if options[flag].name not in self.hints:  # --config, which is read already
                words += [flag, value]
                continue
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
        OptionsError: It is not, is not finite, or is out of range.
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
    if not math.isfinite(number) or (least is not None and number < least) or (most is not None and number > most):
        raise OptionsError(f"{flag} is {text}", advice=f"It must be a {whole}number{limits}.")


def _words(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag] if value else []
    parts = value if isinstance(value, tuple) else (value,)
    return [word for part in parts for word in (flag, str(part.value if isinstance(part, enum.Enum) else part))]
