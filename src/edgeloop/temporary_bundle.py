"""A model where a verb takes a bundle: converted into one that lasts as long as the command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.leftovers import temporary_folder

if TYPE_CHECKING:
    from edgeloop.console import Console


def as_bundle(path: Path, formats: Mapping[str, str | None], console: Console, keep: Any) -> Path:
    """The path as it is, or, where it is a model of one of these kinds, a bundle made of it.

    Args:
        formats: As `verbs.Verb.converts`.
        keep: Takes a context manager and closes it when the command ends.
    """
    kind = "" if (path / "saved_model.pb").is_file() else path.suffix or "no model"
    if kind not in formats:
        return path
    from edgeloop.bundle import Format  # here, for this module is loaded by `edgeloop --help` too
    from edgeloop.convert.convert import convert
    from edgeloop.convert.options import ConvertOptions

    folder = keep(temporary_folder())
    console.say(f"{path} is converted into a temporary bundle first.")
    wanted = formats[kind]
    options = ConvertOptions(to=None if wanted is None else (Format(wanted),))
    made = convert(path, Path(folder) / path.stem, options, progress=console)
    if made.notes:
        console.say("Notes on this conversion; the options in them are those of edgeloop convert:")
    for note in made.notes:
        console.say(note)
    return made.bundle.path
