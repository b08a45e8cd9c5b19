"""A .tflite through the `Interpreter` that ai-edge-litert, tflite-runtime and TensorFlow share. Python 3.9 syntax."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from edgeloop.errors import TargetError
from edgeloop.runtime.agent import delegates
from edgeloop.runtime.agent.machine.sysfs import UNKNOWN
from edgeloop.runtime.agent.runtimes import Arrays, Call, Signatures


class TfliteRuntime:
    """`module` holds the interpreter, `package` is what was installed."""

    def __init__(self, module: str, package: str) -> None:
        self.module: Any = import_module(module)
        self.version = _version(module, package)
        self.interpreter: Any = None
        self.delegated: list[int] | None = None
        self.ends: dict[str, tuple[int, dict[str, int], dict[str, int]]] = {}

    def load(
        self, path: str, threads: int, keep: bool = False, delegate: Mapping[str, Any] | None = None
    ) -> Signatures:
        """Open a model; what a `delegate` {library, options, allow_cpu_ops} leaves is refused, unless allowed.

        Raises:
            ValueError, RuntimeError: The runtime refuses the model.
            DeviceError, TargetError: As delegates.py says.
        """
        self.path, self.threads = path, threads
        options: dict[str, Any] = {"model_path": path, "num_threads": threads}
        if keep:  # XNNPACK takes whole runs of operators, and the tensors between them are then never written
            plain = self.module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            options |= {"experimental_preserve_all_tensors": True, "experimental_op_resolver_type": plain}
        self.interpreter = self.delegated = None  # a model loaded before goes first, while its delegate is still there
        self.ends = {}  # and where this one is refused, there is none to run
        if delegate is None:
            self.interpreter = self.module.Interpreter(**options)
        else:
            self._delegate(delegate, options)
        return self._describe()

    def ready(self, signature: str, inputs: Arrays) -> Call:
        """As `SignatureRunner.__call__`, which copies in, invokes and copies out at once, in its three parts.

        It is the one public way to a signature of another graph than the first. The calls below are those it makes of
        the wrapper in ai-edge-litert 2.3, tflite-runtime 2.14 and TensorFlow 2.21. No runtime changes its inputs while
        it runs, in place or not: they are set once.
        """
        if not signature and len(self.ends) == 1:
            (signature,) = self.ends
        if signature not in self.ends:
            raise ValueError(f"no signature {signature!r}; the model has {sorted(self.ends)}")
        graph, feeds, results = self.ends[signature]
        if set(inputs) != set(feeds):
            raise ValueError(f"the inputs are {sorted(inputs)}, the model takes {sorted(feeds)}")
        wrapper = self.interpreter._interpreter
        for name, value in inputs.items():
            wrapper.ResizeInputTensor(feeds[name], np.array(value.shape, np.int32), False, graph)
        wrapper.AllocateTensors(graph)
        for name, value in inputs.items():
            wrapper.SetTensor(feeds[name], value, graph)

        def outputs() -> dict[str, np.ndarray]:
            return {name: wrapper.GetTensor(index, graph) for name, index in results.items()}

        return Call(partial(wrapper.Invoke, graph), outputs)

    def tensors(self, signature: str, inputs: Arrays, graph: int, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Inner tensors after one run, by their index in `graph`."""
        self.ready(signature, inputs).invoke()
        return {str(i): self.interpreter.get_tensor(i, graph) for i in indices}

    def profile(self, signature: str, inputs: Arrays, runs: int, xnnpack: bool) -> dict[str, Any]:
        """As profiler.py says."""
        from edgeloop.runtime.agent import profiler

        self.ready(signature, inputs)  # refuses what it does not take, in words
        package, _, _ = self.module.__name__.partition(".")
        if package != "ai_edge_litert" or self.version not in profiler.VERIFIED:
            return profiler.unsupported(f"{package} {self.version} has no profiler that edgeloop knows")
        if self.delegated is not None:
            return profiler.unsupported("LiteRT's profiler runs no external delegate")
        folder = os.path.dirname(self.module.__file__)
        found = profiler.profile(folder, self.path, signature, inputs, runs, self.threads, xnnpack)
        return dict(found, source=f"LiteRT {self.version}, C profiler")

    def arena_bytes(self) -> int | str:
        return UNKNOWN  # neither the wheels' Python nor their C interface tells it

    def _delegate(self, delegate: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        library, partly = delegate["library"], delegate.get("allow_cpu_ops")
        loaded = delegates.load(self.module, delegate)
        try:
            self.interpreter = self.module.Interpreter(experimental_delegates=[loaded], **options)
            self.delegated, names = delegates.taken(self.interpreter._interpreter)
            if not partly:
                delegates.all_taken(library, self.delegated, names)
            self.interpreter.allocate_tensors()
        except RuntimeError as e:
            raise delegates.refused(library, e) from e
        graphs = {self._graph(name) for name in self.interpreter.get_signature_list()}
        if not partly and graphs - {0}:
            raise TargetError(
                "a signature has a graph of its own, and LiteRT does not report which of its operators the "
                "delegate runs",
                advice="Convert the model with one signature, or measure without --delegate.",
            )

    def _describe(self) -> Signatures:
        """What a caller must pass, and beside it `ends`: {signature: (graph, {input: index}, {output: index})}.

        A model without signatures has one named "", its tensors under their own names.
        """
        self.ends, told = {}, {}
        for name in self.interpreter.get_signature_list():
            runner = self.interpreter.get_signature_runner(name)
            told[name] = self._side(name, self._graph(name), runner.get_input_details(), runner.get_output_details())
        if not told:
            self.interpreter.allocate_tensors()
            sides = self.interpreter.get_input_details(), self.interpreter.get_output_details()
            told[""] = self._side("", 0, *({detail["name"]: detail for detail in side} for side in sides))
        return told

    def _graph(self, signature: str) -> int:
        return self.interpreter._interpreter.GetSubgraphIndexFromSignature(signature)

    def _side(
        self, name: str, graph: int, inputs: Mapping[str, Any], outputs: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        feeds, results = ({tensor: detail["index"] for tensor, detail in side.items()} for side in (inputs, outputs))
        self.ends[name] = graph, feeds, results
        return {"inputs": _specs(inputs), "outputs": _specs(outputs)}


def _version(module: str, package: str) -> str:
    """That of a loaded runtime, from itself: the package's metadata would load another 2 MB of the standard library."""
    own = getattr(sys.modules[module.partition(".")[0]], "__version__", None)
    if own is not None:
        return str(own)
    from importlib.metadata import version

    return version(package)


def _specs(details: Mapping[str, Any]) -> dict[str, Any]:
    """{tensor: {shape, dtype}}; a free dimension is null."""
    specs = {}
    for name, detail in details.items():
        shape = detail.get("shape_signature")
        shape = detail["shape"] if shape is None or len(shape) == 0 else shape
        specs[name] = {"shape": [None if d < 0 else int(d) for d in shape], "dtype": np.dtype(detail["dtype"]).name}
    return specs
