"""A model where a verb takes a bundle: converted into one that lasts as long as the command."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeloop.console import Console


def as_bundle(path: Path, verb: str, console: Console, keep: Any) -> Path:
    """The path as it is, or, for a Keras model or SavedModel (and a .tflite to verify), a bundle made of it. Bench
    measures a .tflite as it is.

    Args:
        keep: Takes a context manager and closes it when the command ends.
    """
    verify = verb == "verify"
    is_tflite = path.suffix == ".tflite"
    if not (path.suffix in (".keras", ".h5") or (path / "saved_model.pb").is_file() or (is_tflite and verify)):
        return path
    from edgeloop.bundle import Format  # here, for this module is loaded by `edgeloop --help` too
    from edgeloop.convert.convert import convert
    from edgeloop.convert.options import ConvertOptions

    folder = keep(tempfile.TemporaryDirectory(prefix="edgeloop-"))
    console.say(f"{path} is converted into a temporary bundle first.")
    options = ConvertOptions(to=None if verify and not is_tflite else (Format.TFLITE,))
    made = convert(path, Path(folder) / path.stem, options, progress=console)
    if made.notes:
        console.say("Notes on this conversion; the options in them are those of edgeloop convert:")
    for note in made.notes:
        console.say(note)
    return made.bundle.path
