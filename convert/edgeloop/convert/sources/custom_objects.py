"""A user's Python file with the classes of a model's own layers, run in the child before Keras loads the model."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from edgeloop.errors import OptionsError, one_line
from edgeloop.extras import need


def import_layers(path: Path) -> str:
    """Run the file, make its layers and models known to Keras by their names, and say so in a sentence.

    A class that `keras.saving.register_keras_serializable` registers is known by its registered name too.

    Raises:
        OptionsError: No such Python file, or running it fails.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path) if path.suffix == ".py" else None
    if spec is None or spec.loader is None or not path.is_file():
        raise OptionsError(f"--import is {path}, which is no Python file", advice="Pass the .py file with the layers.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # a file that names its module finds the classes there
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:
        words = f": {one_line(e)}" if str(e) else ""
        raise OptionsError(
            f"--import {path.name} cannot be run ({type(e).__name__}{words})",
            advice="Run it with Python first.",
        ) from e
    keras, tf_keras = need("keras", extra="convert"), sys.modules.get("tf_keras")
    for name, value in _defined(module).items():
        if issubclass(value, (keras.Layer, keras.Model)):
            keras.saving.get_custom_objects().setdefault(name, value)
        elif tf_keras is not None and issubclass(value, tf_keras.layers.Layer):
            tf_keras.utils.get_custom_objects().setdefault(name, value)
    return f"--import: the Python code of {path.name} was run, with the rights of --allow-unsafe."


def _defined(module: Any) -> dict[str, type]:
    return {n: v for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__}
