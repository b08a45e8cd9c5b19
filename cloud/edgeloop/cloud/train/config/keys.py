"""What the fields of a table hold, for those who read and write it."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from edgeloop import settings


def names_path(field: dataclasses.Field, value: Any) -> bool:
    """Whether a text is a path of this machine: a .keras file, or the folder of a field that may also be an address."""
    folder = field.metadata.get("folder") and value and "://" not in value
    return field.type == "str" and bool(folder or value.endswith(".keras"))


def hints(kind: type) -> list[tuple[dataclasses.Field, Any]]:
    """The fields of a table with the type of each, `None` left out of it."""
    hints = typing.get_type_hints(kind)
    return [(one, settings.plain(hints[one.name])) for one in dataclasses.fields(kind)]
