"""What `--help` prints: plain text that wraps between words at any width, the same with every version of Typer.

Typer's own pages read `[...]` in a text as markup, crop option names in a narrow terminal, and differ by version.
"""

from __future__ import annotations

import enum
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

from edgeloop.errors import one_line

NARROW = 76  # below it, a text stands under its option instead of beside it
WIDEST = 120  # longer lines are hard to read
LEFT = 30  # letters of the left column, at most

TIED = "\u00a0"  # a blank at which no line ends

Row = tuple[str, str]


def page(usage: str, text: str, sections: Mapping[str, Sequence[Row]], width: int | None = None) -> str:
    """A page of help.

    Args:
        usage: The command line, e.g. `edgeloop run TARGET [OPTIONS]`.
        text: What the command does: paragraphs.
        sections: By heading, names and what each one means.
        width: Columns; None: of the terminal.
    """
    columns = min(width or shutil.get_terminal_size().columns, WIDEST)
    parts = [textwrap.fill(f"Usage: {usage}", columns, subsequent_indent=" " * 9, **WORDS)]
    parts += [textwrap.fill(one_line(paragraph, None), columns, **WORDS) for paragraph in text.split("\n\n")]
    for heading, rows in sections.items():
        if rows:
            left = min(LEFT, max(len(name) for name, _ in rows))
            lines = [_row(name, said, columns, left) for name, said in rows]
            parts.append("\n".join([_styled(f"{heading}:", bold=True), *lines]))
    return "\n\n".join(parts).replace(TIED, " ") + "\n"


WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def _row(name: str, said: str, columns: int, left: int) -> str:
    shown = _styled(name, fg="cyan")
    if columns < NARROW:
        return f"  {shown}\n" + textwrap.fill(said, columns, initial_indent=" " * 6, subsequent_indent=" " * 6, **WORDS)
    margin = " " * (left + 4)
    lines = textwrap.fill(said, columns, initial_indent=margin, subsequent_indent=margin, **WORDS)
    if len(name) > left:
        return f"  {shown}\n{lines}"
    return f"  {shown}{' ' * (left + 2 - len(name))}{lines[len(margin) :]}"


def parameter_rows(
    parameters: Iterable[Any],
    texts: Mapping[str, str] | None = None,
    choices: Mapping[str, type[enum.Enum]] | None = None,
) -> dict[str, list[Row]]:
    """Rows of arguments and options, by heading.

    Args:
        texts: What each parameter means, by its name, where the parameter itself does not say.
        choices: The fixed ones, by the name of the parameter.
    """
    sections: dict[str, list[Row]] = {"Arguments": [], "Options": []}
    for parameter in parameters:
        if getattr(parameter, "hidden", False):
            continue
        is_argument = parameter.param_type_name == "argument"
        heading = "Arguments" if is_argument else getattr(parameter, "rich_help_panel", None) or "Options"
        text = (texts or {}).get(parameter.name) or getattr(parameter, "help", None) or ""
        said = " ".join([text, *_facts(parameter, (choices or {}).get(parameter.name))])
        name = metavar(parameter) if is_argument else _flags(parameter)
        sections.setdefault(heading, []).append((name, said))
    return sections


def metavar(parameter: Any) -> str:
    """What stands for the value in a usage line, e.g. `MODEL` or `DEVICE...`."""
    name = parameter.metavar or parameter.name.upper().replace("_", "-")
    return f"{name}..." if parameter.nargs == -1 and not name.endswith("...") else name


def _flags(option: Any) -> str:
    flags = ", ".join(sorted([*option.opts, *option.secondary_opts], key=lambda flag: flag.startswith("--")))
    takes_none = getattr(option, "is_flag", False) or getattr(option, "count", False)
    return flags if takes_none else f"{flags} {metavar(option)}"


def _facts(parameter: Any, choice: type[enum.Enum] | None) -> list[str]:
    """The choices; then in brackets what is left."""
    several = getattr(parameter, "multiple", False)
    facts = []
    if choice is not None:
        how = "Any" if several else "One"
        facts.append(f"{how} of: {', '.join(str(member.value) for member in choice)}.")
    if parameter.required:
        if parameter.param_type_name == "option":  # an argument's brackets in the usage say it
            facts.append("[required]")
    elif (default := _default(parameter)) is not None and getattr(parameter, "show_default", True):
        facts.append(f"[default:{TIED if len(default) < 16 else ' '}{default}]")
    if several:
        facts.append("[repeatable, or with commas]" if choice is not None else "[repeatable]")
    return facts


def _default(parameter: Any) -> str | None:
    value = parameter.default
    if isinstance(getattr(parameter, "show_default", None), str):
        return str(parameter.show_default)
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, bool) or value == "" or not isinstance(value, str | int | float | os.PathLike):
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)


def _styled(text: str, **style: Any) -> str:
    return text if os.environ.get("NO_COLOR") or not sys.stdout.isatty() else typer.style(text, **style)
