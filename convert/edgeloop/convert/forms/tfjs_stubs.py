"""tensorflowjs 4.22, loaded beside TensorFlow 2.21.

It imports decision forests, hub, jax and tf-keras at module level, though a frozen graph needs none of them; stubs
stand in for them while it loads, and are gone before anything else could take one for the real package. One that is
loaded already stays as it is.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

from edgeloop.errors import MissingExtra
from edgeloop.extras import need


def check_tensorflowjs() -> None:
    """Imports nothing.

    Raises:
        MissingExtra: tensorflowjs is not installed.
    """
    if importlib.util.find_spec("tensorflowjs") is None:
        raise MissingExtra(
            "'tensorflowjs' is not installed", advice="Run: edgeloop setup tfjs, or leave tfjs out of --to."
        )


def load_converter() -> Any:
    """tensorflowjs's frozen-graph converter, `tensorflowjs.converters.tf_saved_model_conversion_v2`.

    Raises:
        MissingExtra: tensorflowjs, or something it really needs, is not installed.
    """
    check_tensorflowjs()
    need("keras", extra="convert")  # goes first: it would take the jax stub for the real one
    stubs: dict[str, dict[str, object]] = {
        "tensorflow_decision_forests": {},
        "tensorflow_hub": {"Module": _absent, "resolve": _absent},
        "tf_keras": {},
        "jax": {},
        "jax.experimental": {},
        "jax.experimental.jax2tf": {"convert": _absent},
    }
    standing_in = [name for name in stubs if name.split(".")[0] not in sys.modules]
    for name in standing_in:
        module = types.ModuleType(name)
        module.__dict__.update(stubs[name], __path__=[])
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    try:
        return need("tensorflowjs.converters.tf_saved_model_conversion_v2", extra="convert")
    finally:
        for name in standing_in:
            sys.modules.pop(name, None)


def _absent(*_args: object, **_kwargs: object) -> None:
    raise ImportError("not installed: a stub that edgeloop put here while tensorflowjs loads")
