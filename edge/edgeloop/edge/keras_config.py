"""The configuration of a Keras model, as JSON holds it: which of its layers are Python code."""

from __future__ import annotations

from typing import Any

CODE = ("Lambda", "__lambda__")


def code_layers(config: Any) -> list[str]:
    """Names of the layers that carry Python code, sorted, wherever they are: in a model, a wrapper or an argument.

    A function inside a layer counts as that layer; one inside nothing with a name is "?".
    """
    found = set()
    open_ = [(config, "?")]
    while open_:
        value, owner = open_.pop()
        if isinstance(value, dict):
            inner = value.get("config")
            if isinstance(inner, dict) and isinstance(inner.get("name"), str):
                owner = inner["name"]
            if value.get("class_name") in CODE:
                found.add(owner)
        if isinstance(value, (dict, list)):
            open_ += [(item, owner) for item in (value.values() if isinstance(value, dict) else value)]
    return sorted(found)
