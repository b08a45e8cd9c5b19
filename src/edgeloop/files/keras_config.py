"""The configuration of a Keras model, as JSON holds it: what in it is code, or makes a loader fetch some.

Keras 3 and tf_keras build every object that a config names: with its class, its module, its arguments. Some of those
are Python code as text, some are names of functions that read files, and some are modules to be imported.
"""

from __future__ import annotations

import builtins
from typing import Any

LAMBDA = frozenset({"lambda", "__lambda__"})
# layers that load what lies outside of the config
LOADERS = {
    "TFSMLayer": "loads a SavedModel from a path",
    "TorchModuleWrapper": "unpickles a PyTorch module",
    "JaxLayer": "holds a function as code",
    "FlaxLayer": "holds a function as code",
    "ClassMethod": "calls a TensorFlow class by name",
}
LOOKUPS = frozenset({"StringLookup", "IntegerLookup", "IndexLookup", "TextVectorization"})
PACKAGES = frozenset({"keras", "tf_keras", "keras_hub", "keras_cv", "keras_nlp", "builtins"})
NOT_LAYERS = frozenset({"utils", "config", "saving", "export", "datasets", "tools"})  # of Keras
# classes of TF-MOT that wrap a layer while it is trained
TFMOT = "tensorflow_model_optimization.python.core"
WRAPPERS = tuple(f"{TFMOT}.{part}.keras." for part in ("quantization", "sparsity", "clustering"))
# a TFOpLambda calls tf.NAME: mathematics below these, or an array function of one word
TF_MODULES = frozenset({"math", "nn", "linalg", "signal", "image", "bitwise", "__operators__"})
TF_FORBIDDEN = frozenset(
    {"py_function", "numpy_function", "load_library", "load_op_library", "import_graph_def", "print", "function"}
)


def code_in(config: Any) -> list[str]:
    """What in a config runs code or reads a file when it is loaded: one phrase each, sorted, with the layer's name.

    Found wherever it is: in a model inside a model, in a wrapper, in an argument.
    """
    return sorted({what for _, what in _found(config)})


def code_layers(config: Any) -> list[str]:
    """Names of the layers that `code_in` is about, sorted; "?" is something inside nothing that has a name."""
    return sorted({layer for layer, _ in _found(config)})


def _found(config: Any) -> list[tuple[str, str]]:
    found = []
    open_: list[tuple[Any, str]] = [(config, "?")]
    while open_:
        value, owner = open_.pop()
        if isinstance(value, dict):
            inner = value.get("config")
            if isinstance(inner, dict) and isinstance(inner.get("name"), str):
                owner = inner["name"]
            what = _code(value, owner)
            if what:
                found.append((owner, what))
        if isinstance(value, (dict, list)):
            open_ += [(item, owner) for item in (value.values() if isinstance(value, dict) else value)]
    return found


def _code(value: dict[str, Any], owner: str) -> str | None:
    kind, module, inner = value.get("class_name"), value.get("module"), value.get("config")
    if not isinstance(kind, str):
        return None
    plain = kind.replace(">", ".").split(".")[-1]  # a registered class is "package>name"
    if plain.lower() in LAMBDA:
        return f"the Lambda layer {owner!r}, which is Python code"
    if plain in LOADERS:
        return f"the layer {owner!r} ({plain}), which {LOADERS[plain]}"
    if plain in LOOKUPS and isinstance(inner, dict) and isinstance(inner.get("vocabulary"), str):
        return f"the layer {owner!r} ({plain}), which reads the file {inner['vocabulary']!r}"
    if plain == "TFOpLambda" and isinstance(inner, dict) and not _is_mathematics(inner.get("function")):
        return f"the layer {owner!r}, which calls tf.{inner.get('function')}"
    if isinstance(module, str):
        parts = module.split(".")
        known = parts[0] in PACKAGES or (kind != "function" and module.startswith(WRAPPERS))
        if not known or NOT_LAYERS.intersection(parts):
            named = inner if kind == "function" else plain
            return f"{named!r} of the module {module!r} in {owner!r}, which would be imported"
        if parts == ["builtins"] and (inner if kind == "function" else kind) in vars(builtins):
            return f"Python's own {inner if kind == 'function' else kind!r} in {owner!r}"
    return None


def _is_mathematics(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    parts = name.split(".")
    return not TF_FORBIDDEN.intersection(parts) and (len(parts) == 1 or parts[0] in TF_MODULES)
