"""A JSON text, read value by value: what does not fit ends the reading, and other threads run between two values.

The standard library's decoder holds the interpreter for the whole text: 30 MB of `[1, 1, ...]` took 0.7 s and 120 MB
before the first value could be looked at, and other clients waited for it. Here it decodes one element of a list at a
time. Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from edgeloop.canonical import refuse_constant

SPACE = re.compile(r"[ \t\n\r]*")
STRING_CHARS = 1 << 10  # of a key
decode = json.JSONDecoder(parse_constant=refuse_constant).raw_decode


class JsonText:
    """A position in a text. Its methods raise ValueError where the text is not JSON, RecursionError where it is too
    deep."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, SPACE.match(text).end()  # type: ignore[union-attr]  # it matches everywhere

    def next(self) -> str:
        """The next character that is no space; empty at the end."""
        return self.text[self.at : self.at + 1]

    def value(self, limit_chars: int | None = None) -> Any:
        """The value here, which may have `limit_chars` characters; None: any number."""
        if limit_chars is None:
            found, end = decode(self.text, self.at)
        else:
            piece = self.text[self.at : self.at + limit_chars]
            try:
                found, end = decode(piece)
            except ValueError as e:
                if len(piece) < limit_chars:
                    raise
                raise ValueError(f"a value at character {self.at} is longer than {limit_chars} characters") from e
            end += self.at
        self._go(end)
        return found

    def elements(self) -> Iterator[int]:
        """The list here: the number of each element, which the caller reads before it asks for the next."""
        self._expect("[")
        if self._take("]"):
            return
        number = 0
        while True:
            yield number
            number += 1
            if self._take("]"):
                return
            self._expect(",")

    def members(self) -> Iterator[str]:
        """The object here: the key of each member, whose value the caller reads before it asks for the next."""
        self._expect("{")
        if self._take("}"):
            return
        while True:
            if self.next() != '"':
                raise ValueError(f"expected a key in quotes at character {self.at}")
            key = self.value(STRING_CHARS)
            self._expect(":")
            yield key
            if self._take("}"):
                return
            self._expect(",")

    def end(self) -> None:
        """Nothing may follow."""
        if self.at < len(self.text):
            raise ValueError(f"something follows the document at character {self.at}")

    def _expect(self, character: str) -> None:
        if not self._take(character):
            raise ValueError(f"expected {character!r} at character {self.at}")

    def _take(self, character: str) -> bool:
        found = self.next() == character
        if found:
            self._go(self.at + 1)
        return found

    def _go(self, position: int) -> None:
        self.at = SPACE.match(self.text, position).end()  # type: ignore[union-attr]
