"""Names that every format takes."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence

SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")  # what TensorFlow takes as the name of a scope

LOOKUP = (
    "Look words up before the model: convert the part behind its lookup layer, and keep the words of "
    "layer.get_vocabulary() beside it."
)


def identifiers(names: Sequence[str]) -> list[str]:
    """Names that every format takes, one for each of `names` and no two the same.

    A TensorFlow signature wants Python identifiers, and loses an underscore that an input's name begins with:
    "/x.1" becomes "x_1", "495" becomes "t495".
    """
    clean = [re.sub(r"\W", "_", name, flags=re.ASCII).lstrip("_") for name in names]
    clean = [name if name[:1].isidentifier() else f"t{name}" for name in clean]
    unique: list[str] = []
    for i, name in enumerate(clean):
        while clean.count(name) > 1 or name in unique:
            name = f"{name}_{i}"
        unique.append(name)
    return unique


def arguments(names: Sequence[str]) -> list[str]:
    """As `identifiers`, for inputs, which TensorFlow takes as arguments of a function: "class" becomes "class_"."""
    return identifiers([f"{name}_" if keyword.iskeyword(name) else name for name in identifiers(names)])


def scope(name: str) -> str:
    """The name as TensorFlow takes it for a scope, unchanged where it does: "my größe" becomes "my_gr__e"."""
    return name if SCOPE.fullmatch(name) else identifiers([name])[0]
