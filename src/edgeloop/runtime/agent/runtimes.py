"""Runtimes on a device by name, each imported when it is asked for. Python 3.9 syntax, the standard library.

A runtime has `version`, and once `load` has opened a model:

    delegated -> indices of the first graph's operators that a delegate took, None without one
    ready(signature, inputs) -> a `Call`
    tensors(signature, inputs, graph, indices) -> inner tensors after one run (.tflite alone)
    profile(signature, inputs, runs, xnnpack) -> time of each operator, or "unsupported" (profiler.py)
    arena_bytes() -> memory planned for tensors, or "unknown"
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from edgeloop.errors import TargetError
from edgeloop.runtime_table import RUNTIMES, Runtime

if TYPE_CHECKING:
    import numpy as np

Arrays = Mapping[str, Any]  # NumPy arrays by the name of their tensor
Signatures = Mapping[str, Mapping[str, Any]]  # {signature: {inputs, outputs: {tensor: {shape, dtype}}}}


class Call:
    """A signature with its inputs in place: `invoke()` runs once and costs what the runtime itself does, `outputs()`
    copies out what the last run made."""

    def __init__(self, invoke: Callable[[], object], outputs: Callable[[], dict[str, np.ndarray]]) -> None:
        self.invoke, self.outputs = invoke, outputs


def is_installed(runtime: Runtime) -> bool:
    """Whether this Python has it; nothing of it is loaded."""
    return importlib.util.find_spec(runtime.module) is not None


def check_numpy(runtime: Runtime) -> None:
    """Raises TargetError where the runtime is installed, and a NumPy that is too new for it."""
    if runtime.numpy_below is None or not is_installed(runtime):
        return
    import numpy

    if int(numpy.__version__.partition(".")[0]) >= runtime.numpy_below:
        needed = f"numpy<{runtime.numpy_below}"
        raise TargetError(
            f"{runtime.name} needs {needed} there, and NumPy {numpy.__version__} is installed",
            advice=f"Run there: {sys.executable} -m pip install '{needed}'",
        )


def _load(runtime: Runtime) -> Any:
    check_numpy(runtime)
    if runtime.interpreter:
        from edgeloop.runtime.agent.tflite import TfliteRuntime

        return TfliteRuntime(runtime.interpreter, runtime.package)
    from edgeloop.runtime.agent.onnx import Onnx

    return Onnx()


LOADERS: dict[str, Callable[[], Any]] = {name: partial(_load, runtime) for name, runtime in RUNTIMES.items()}
