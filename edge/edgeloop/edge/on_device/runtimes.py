"""Runtimes on a device, each imported when it is asked for. Python 3.9 syntax."""

from __future__ import annotations

import os

import numpy as np


class TFLite:
    """A .tflite through the `Interpreter` that ai-edge-litert and tflite-runtime share."""

    def __init__(self, module, package):
        from importlib import import_module
        from importlib.metadata import version

        self.module = import_module(module)
        self.version = version(package)

    def load(self, path, threads, keep=False):
        options = {}
        if keep:  # XNNPACK takes whole runs of operators, and the tensors between them are then never written
            plain = self.module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            options = {"experimental_preserve_all_tensors": True, "experimental_op_resolver_type": plain}
        self.interpreter = self.module.Interpreter(model_path=path, num_threads=threads, **options)
        self.runners = {
            name: self.interpreter.get_signature_runner(name) for name in self.interpreter.get_signature_list()
        }
        if self.runners:
            return {
                name: {
                    "inputs": _specs(r.get_input_details().items()),
                    "outputs": _specs(r.get_output_details().items()),
                }
                for name, r in self.runners.items()
            }
        self.interpreter.allocate_tensors()
        ends = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        return {"": {side: _specs((d["name"], d) for d in part) for side, part in zip(("inputs", "outputs"), ends)}}

    def call(self, signature, inputs):
        if not signature and len(self.runners) == 1:
            (signature,) = self.runners
        if not signature:
            return self._call_by_tensor(inputs)
        return self.runners[signature](**inputs)

    def tensors(self, signature, inputs, graph, indices):
        self.call(signature, inputs)
        return {str(i): self.interpreter.get_tensor(i, graph) for i in indices}

    def _call_by_tensor(self, inputs):
        details = self.interpreter.get_input_details()
        for detail in details:
            if tuple(detail["shape"]) != inputs[detail["name"]].shape:
                self.interpreter.resize_tensor_input(detail["index"], inputs[detail["name"]].shape)
        self.interpreter.allocate_tensors()
        for detail in details:
            self.interpreter.set_tensor(detail["index"], inputs[detail["name"]])
        self.interpreter.invoke()
        return {d["name"]: self.interpreter.get_tensor(d["index"]) for d in self.interpreter.get_output_details()}


def _specs(details):
    """What a caller must pass: a free dimension is null."""
    specs = {}
    for name, detail in details:
        shape = detail.get("shape_signature")
        shape = detail["shape"] if shape is None or len(shape) == 0 else shape
        specs[name] = {"shape": [None if d < 0 else int(d) for d in shape], "dtype": np.dtype(detail["dtype"]).name}
    return specs


class Onnx:
    """A .onnx through ONNX Runtime's CPU provider."""

    def __init__(self):
        # 1.31 reports sessions to its makers from the moment it is imported, and leaves a .ses in the temporary folder
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        self.ort = onnxruntime
        self.version = onnxruntime.__version__

    def load(self, path, threads, keep=False):
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = self.ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return {
            "": {"inputs": self._specs(self.session.get_inputs()), "outputs": self._specs(self.session.get_outputs())}
        }

    @staticmethod
    def _specs(nodes):
        kinds = {"tensor(float)": "float32", "tensor(double)": "float64"}
        return {
            n.name: {
                "shape": [d if isinstance(d, int) else None for d in n.shape],
                "dtype": kinds.get(n.type, n.type[len("tensor(") : -1]),
            }
            for n in nodes
        }

    def call(self, signature, inputs):
        names = [t.name for t in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, inputs)))


RUNTIMES = {
    "litert": lambda: TFLite("ai_edge_litert.interpreter", "ai-edge-litert"),
    "tflite-runtime": lambda: TFLite("tflite_runtime.interpreter", "tflite-runtime"),
    "onnxruntime": Onnx,
}
