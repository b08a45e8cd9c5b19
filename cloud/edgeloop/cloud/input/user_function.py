"""A function of the user by its name, `package.module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from edgeloop.errors import OptionsError, one_line


def function_of(name: str) -> Callable[..., Any]:
    """What `package.module:function` names.

    Raises:
        OptionsError: There is no such module or function.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as e:
        raise OptionsError(
            f"{name} cannot be imported ({one_line(e)})", advice="Write package.module:function, found on PYTHONPATH."
        ) from e
    if not callable(found):
        raise OptionsError(
            f"{name} is of type {type(found).__name__}, expected a function", advice="Write package.module:function."
        )
    return found
