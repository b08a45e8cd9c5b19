"""A value in, its TOML out. Python 3.9 syntax, the standard library."""

from __future__ import annotations

import json


def toml_value(value: object) -> str:
    """A TOML value without an inner quote: Flower's --node-config ends a value at the next one, escaped or not."""
    if not isinstance(value, str):
        return json.dumps(value)
    inner = json.dumps(value, ensure_ascii=False)[1:-1].replace('\\"', "\\u0022")
    return f'"{inner}"'
