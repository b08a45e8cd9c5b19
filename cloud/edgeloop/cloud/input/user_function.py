"""A function of the user by its name, `package.module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from edgeloop.errors import OptionsError, one_line


def function_of(name: str) -> Callable[..., Any]:
    """What `package.module:function` names.

    Raises:
        OptionsError: There is no such module or function, or the module raises when it is imported.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        missing = "function" if module else "module"
        raise OptionsError(f"{name!r} lacks the name of a {missing}", advice="Write package.module:function.")
    try:
        found = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as e:  # whatever the code of the user raises
        raise OptionsError(
            f"{name} cannot be imported ({type(e).__name__}: {one_line(e)})",
            advice="Write package.module:function, found on PYTHONPATH, of a module that can be imported.",
        ) from e
    if not callable(found):
        raise OptionsError(
            f"{name} is of type {type(found).__name__}, expected a function", advice="Write package.module:function."
        )
    return found
