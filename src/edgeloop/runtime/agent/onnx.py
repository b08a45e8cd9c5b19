"""A .onnx through ONNX Runtime's CPU provider. Python 3.9 syntax."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.errors import OptionsError
from edgeloop.runtime.agent.machine.sysfs import UNKNOWN
from edgeloop.runtime.agent.profiler import unsupported
from edgeloop.runtime.agent.runtimes import Arrays, Call, Signatures

DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}  # of the rest, NumPy's name stands in brackets


class Onnx:
    """Its one signature is named ""."""

    delegated = None

    def __init__(self) -> None:
        # 1.31 reports sessions to its makers from the moment it is imported, and leaves a .ses in the temporary folder
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        self.ort: Any = onnxruntime
        self.version: str = onnxruntime.__version__

    def load(
        self, path: str, threads: int, keep: bool = False, delegate: Mapping[str, Any] | None = None
    ) -> Signatures:
        """Open a model; `keep` changes nothing.

        Raises:
            OptionsError: A delegate.
            Exception: The runtime refuses the model.
        """
        if delegate is not None:
            raise OptionsError(
                f"ONNX Runtime takes no TFLite delegate such as {delegate['library']}", advice="Leave it out."
            )
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = self.ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return {"": {"inputs": _specs(self.session.get_inputs()), "outputs": _specs(self.session.get_outputs())}}

    def ready(self, signature: str, inputs: Arrays) -> Call:
        """It reads inputs where they lie, and makes the arrays of the outputs in each run."""
        names = [t.name for t in self.session.get_outputs()]
        last: list[np.ndarray] = []

        def invoke() -> None:
            last[:] = self.session.run(names, inputs)

        return Call(invoke, lambda: dict(zip(names, last)))

    def profile(self, signature: str, inputs: Arrays, runs: int, xnnpack: bool) -> dict[str, Any]:
        return unsupported("of ONNX Runtime edgeloop has no time of an operator")

    def arena_bytes(self) -> int | str:
        return UNKNOWN


def _specs(nodes: Sequence[Any]) -> dict[str, Any]:
    """{tensor: {shape, dtype}}; a free dimension is null."""
    return {
        node.name: {
            "shape": [d if isinstance(d, int) else None for d in node.shape],
            "dtype": DTYPES.get(node.type, node.type[len("tensor(") : -1]),
        }
        for node in nodes
    }
