"""Run as a program by `tfjs.py`: reads one job (a JSON line) from stdin and writes a TF.js graph model.

tensorflowjs imports decision forests, hub and jax at module level, though a frozen graph needs none of them; stubs
stand in for those that are absent while it loads. Keras goes first: it would take the jax stub for the real one.
"""

import importlib.util
import json
import os
import sys
import types
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _absent(*_args: object, **_kwargs: object) -> None:
    raise ImportError("not installed: a stub that edgeloop put here while tensorflowjs loads")


def load_converter() -> types.ModuleType:
    """tensorflowjs's frozen-graph converter."""
    import keras  # noqa: F401
    import tf_keras  # noqa: F401

    stubs: dict[str, dict[str, object]] = {
        "tensorflow_decision_forests": {},
        "tensorflow_hub": {"Module": _absent, "resolve": _absent},
        "jax": {},
        "jax.experimental": {},
        "jax.experimental.jax2tf": {"convert": _absent},
    }
    missing = [name for name in stubs if importlib.util.find_spec(name.split(".")[0]) is None]
    for name in missing:
        module = types.ModuleType(name)
        module.__dict__.update(stubs[name], __path__=[])
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    try:
        from tensorflowjs.converters import tf_saved_model_conversion_v2
    finally:
        for name in missing:
            del sys.modules[name]
    return tf_saved_model_conversion_v2


def main() -> None:
    converter = load_converter()
    job = json.loads(sys.stdin.readline() or "null")
    if job is None:  # the parent gave up before it had a graph
        return
    Path(job["folder"]).mkdir(parents=True, exist_ok=True)
    converter.convert_tf_frozen_model(job["graph"], ",".join(job["outputs"]), job["folder"])


if __name__ == "__main__":
    main()
