"""Every error edgeloop raises on purpose, and the exit code each one becomes.

An error says what was found and what was expected, with the user's own values, and advises what to do. Code that needs
a part of that reads the field, never the text. Library code raises; only `edgeloop.cli` turns an error into an exit
code. The tree:

    EdgeloopError         1   a bug, when nothing narrower fits
    |- OptionsError       2   options that contradict each other or do not exist
    |- MissingExtra       3   a package, runtime or browser that is not installed
    |- ModelError         4   a model or bundle refused: unreadable, hostile, unsupported, over a limit
    |- ParityError        5   a variant does not compute what its source computes
    |- BudgetError        6   a budget is not met: of accuracy, or of time
    |- TargetError        7   the target cannot run this model
    |- DeviceError        8   a device or server failed or cannot be reached; a port is in use
    |- IntegrityError     9   a hash or a signature does not hold
    |- DataError         10   data refused
    `- WriteError        11   cannot write: disk or permission

A device imports this file alone, so it is Python 3.9 and needs nothing but the standard library.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeVar

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
LINE_LIMIT = 300  # letters of a foreign program's words in one message
FIELD_LIMIT = 2000  # letters of one field of an error that came from another process

Error = TypeVar("Error", bound="EdgeloopError")


class EdgeloopError(Exception):
    """Root of the tree. `str` of it is one line: `where: found. advice`.

    `found` may be a whole message, and `advice` empty: the text then stands as it is.

    Attributes:
        exit_code: What the command line ends with.
        advice: What to do, in whole sentences.
        where: What the sentence is about, a device or a file; empty where `found` names it.
    """

    exit_code = 1

    def __init__(self, found: object = "", *, advice: str = "", where: str = "") -> None:
        super().__init__(one_line(found, None))
        self.advice, self.where = advice, where

    @property
    def found(self) -> str:
        """What was found and what was expected, without the full stop at its end: fit for the middle of a sentence."""
        return self.args[0].removesuffix(".")

    @property
    def sentence(self) -> str:
        """`where: found`, with its full stop: all but the advice."""
        text = f"{self.where}: {self.args[0]}" if self.where else self.args[0]
        return f"{text}." if self.advice and not text.endswith((".", "?", "!", "…")) else text

    @property
    def clause(self) -> str:
        """`where: found` for the middle of another sentence: without its full stop."""
        return self.sentence.removesuffix(".")

    def __str__(self) -> str:
        return f"{self.sentence} {self.advice}" if self.advice else self.sentence

    def told_beside(self, where: str) -> str:
        """The text for a reader who sees beside it `where` it happened."""
        return str(type(self)(self.args[0], advice=self.advice)) if self.where == where else str(self)

    def at(self: Error, where: str) -> Error:
        """The same error, of a thing inside of `where`."""
        return type(self)(self.sentence, advice=self.advice, where=where)

    def to_json(self) -> dict[str, Any]:
        """{type, exit_code, found, advice}: what `--json` prints, and what crosses from one process to another."""
        return error_to_json(self)


class OptionsError(EdgeloopError):
    exit_code = 2


class MissingExtra(EdgeloopError):
    exit_code = 3


class ModelError(EdgeloopError):
    exit_code = 4


class ParityError(EdgeloopError):
    exit_code = 5


class BudgetError(EdgeloopError):
    exit_code = 6


class TargetError(EdgeloopError):
    exit_code = 7


class DeviceError(EdgeloopError):
    exit_code = 8


class IntegrityError(EdgeloopError):
    exit_code = 9


class DataError(EdgeloopError):
    exit_code = 10


class WriteError(EdgeloopError):
    exit_code = 11


def error_to_json(error: BaseException) -> dict[str, Any]:
    """{type, exit_code, found, advice} of an error of this tree, or of any other exception (exit code 1)."""
    document = {"type": type(error).__name__, "exit_code": EdgeloopError.exit_code, "found": str(error), "advice": ""}
    if isinstance(error, EdgeloopError):
        document.update(exit_code=error.exit_code, found=error.sentence, advice=error.advice)
    if isinstance(error, ModuleNotFoundError):
        document["advice"] = install_line(error)
    return document


def install_line(error: ModuleNotFoundError) -> str:
    """What installs a package that this Python lacks; the names of those that edgeloop uses differ in dashes alone."""
    package = (error.name or "the package").partition(".")[0].replace("_", "-")
    return f"Run there: {sys.executable} -m pip install {package}"


def error_from_json(
    document: object, foreign: type[EdgeloopError] = DeviceError, where: str = "", doing: str = ""
) -> EdgeloopError:
    """The error that `error_to_json` described in another process, which may be hostile.

    Args:
        foreign: The class of an exception that is none of this tree; it is named in the message.
        where: The process, a device or a file.
        doing: What it failed at, for a foreign exception.
    """
    fields: Mapping[str, Any] = document if isinstance(document, dict) else {"found": document}
    name, found = str(fields.get("type") or "an error"), one_line(fields.get("found") or "", FIELD_LIMIT)
    advice = one_line(fields.get("advice") or "", FIELD_LIMIT)
    kind = ERRORS.get(name)
    if kind is not None:
        return kind(found or "no reason given", advice=advice, where=where)
    failed = f"{doing} failed with" if doing else "failed with"
    return foreign(f"{failed} {one_line(name, 80)}: {found or 'no reason given'}", advice=advice, where=where)


def one_line(text: object, limit: int | None = LINE_LIMIT) -> str:
    """Foreign words for the middle of a sentence: white space is one space each, at most `limit` letters, … if cut."""
    line = " ".join(str(text).split())
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def last_line(words: bytes | str, limit: int = LINE_LIMIT) -> str:
    """The last line that a program wrote, fit for a terminal and for the middle of a sentence; empty: it wrote none."""
    text = words.decode(errors="replace") if isinstance(words, bytes) else words
    lines = text.strip().splitlines()
    last = one_line(lines[-1] if lines else "", limit).removesuffix(".")
    return "".join(letter if letter.isprintable() else "?" for letter in last)


ERRORS: dict[str, type[EdgeloopError]] = {c.__name__: c for c in EdgeloopError.__subclasses__()}
ERRORS[EdgeloopError.__name__] = EdgeloopError
