"""The program that runs a model on a device: one file, the standard library, NumPy and one runtime. Python 3.9 syntax.

    python agent.py RUNTIME ROOT        RUNTIME: litert | tflite-runtime | onnxruntime; models are opened below ROOT

It answers frames on stdin with frames on stdout. A frame is one JSON line {"v": 1, "id", "op", "bytes", ...} of at
most 1 MiB, then `bytes` bytes of payload (a NumPy .npz of named arrays, or nothing). It ends when stdin does.

    probe    -> {python, runtime, version, machine, cpus}
    prepare  {path, threads, keep}
             -> {import_ms, load_ms, signatures: {name: {inputs, outputs: {tensor: {shape, dtype}}}}}
    run      {signature, warmup, runs} + npz -> {wall_ms: [...], cpu_ms: [...], rss_peak_bytes} + npz of the last run
    tensors  {signature, graph, indices} + npz -> npz of those tensors after a run, by index (a .tflite with `keep`)
    close

An answer with "error" carries {type, message} and leaves the agent running. What a runtime prints goes to stderr.
"""

from __future__ import annotations

import io
import json
import os
import platform
import sys
import time
import zipfile
import zlib

import numpy as np

HEADER_LIMIT_BYTES = 1 << 20
PAYLOAD_LIMIT_BYTES = 1 << 31


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


class Agent:
    def __init__(self, runtime, root):
        self.name, self.root, self.runtime = runtime, os.path.realpath(root), None
        self.import_ms = 0.0

    def _runtime(self):
        if self.runtime is None:
            start = time.perf_counter()
            self.runtime = RUNTIMES[self.name]()
            self.import_ms = (time.perf_counter() - start) * 1e3
        return self.runtime

    def probe(self, header, payload):
        return {
            "python": platform.python_version(),
            "runtime": self.name,
            "version": self._runtime().version,
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "tensorflow": "tensorflow" in sys.modules,
        }, b""

    def prepare(self, header, payload):
        path = os.path.realpath(os.path.join(self.root, header["path"]))
        if os.path.commonpath([path, self.root]) != self.root:
            raise ValueError(f"{header['path']!r} leads out of the agent's root")
        runtime = self._runtime()
        start = time.perf_counter()
        signatures = runtime.load(path, int(header.get("threads", 1)), bool(header.get("keep")))
        load_ms = (time.perf_counter() - start) * 1e3
        return {"import_ms": self.import_ms, "load_ms": load_ms, "signatures": signatures}, b""

    def run(self, header, payload):
        inputs = unpack(payload)
        signature, outputs = header.get("signature") or "", {}
        for _ in range(int(header.get("warmup", 0))):
            outputs = self.runtime.call(signature, inputs)
        wall_ms, cpu_ms = [], []
        for _ in range(int(header.get("runs", 1))):
            wall, cpu = time.perf_counter_ns(), time.process_time_ns()
            outputs = self.runtime.call(signature, inputs)
            cpu_ms.append((time.process_time_ns() - cpu) / 1e6)
            wall_ms.append((time.perf_counter_ns() - wall) / 1e6)
        return {"wall_ms": wall_ms, "cpu_ms": cpu_ms, "rss_peak_bytes": rss_peak_bytes()}, pack(outputs)

    def tensors(self, header, payload):
        indices = [int(i) for i in header["indices"]]
        found = self.runtime.tensors(header.get("signature") or "", unpack(payload), int(header["graph"]), indices)
        return {}, pack(found)


def rss_peak_bytes():
    """This process's own peak. getrusage's ru_maxrss survives exec and would report the parent's; VmHWM does not."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:  # no procfs on this system: unknown, and said so
        return None
    return None


def pack(arrays):
    """Named arrays as the bytes of an .npz. Not np.savez: to it, a tensor named `file` is its own first parameter."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, value in arrays.items():
            with archive.open(name + ".npy", "w", force_zip64=True) as entry:  # an entry may exceed 2 GiB
                np.lib.format.write_array(entry, np.asarray(value), allow_pickle=False)
    return packed.getvalue()


def unpack(data):
    """Named arrays of the bytes of an .npz. ValueError for anything else, and for pickles."""
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                with archive.open(name) as entry:
                    array = np.lib.format.read_array(entry, allow_pickle=False)
                arrays[name[: -len(".npy")] if name.endswith(".npy") else name] = array
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, MemoryError) as e:
        raise ValueError(f"{type(e).__name__}: {e}") from e  # RuntimeError: encrypted, or an unknown compression
    return arrays


def read_frame(stream):
    """Header and payload, or None at the end of the stream. ValueError for anything that is no frame."""
    line = stream.readline(HEADER_LIMIT_BYTES + 1)
    if not line:
        return None
    if len(line) > HEADER_LIMIT_BYTES or not line.endswith(b"\n"):
        raise ValueError("a frame header is one line of at most 1 MiB")
    header = json.loads(line)
    size = header.get("bytes", 0)
    if not isinstance(size, int) or not 0 <= size <= PAYLOAD_LIMIT_BYTES:
        raise ValueError(f"a payload of {size!r} bytes")
    payload = stream.read(size)
    if len(payload) != size:
        raise ValueError("the payload ended early")
    return header, payload


def write_frame(stream, header, payload=b""):
    stream.write(json.dumps(dict(header, v=1, bytes=len(payload))).encode() + b"\n" + payload)
    stream.flush()


def main():
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # before a runtime loads: its prints must not land between frames
    agent = Agent(sys.argv[1], sys.argv[2])
    while True:
        frame = read_frame(requests)
        if frame is None or frame[0].get("op") == "close":
            return
        header, payload = frame
        operations = {"probe": agent.probe, "prepare": agent.prepare, "run": agent.run, "tensors": agent.tensors}
        try:
            answer, data = operations[header["op"]](header, payload)
        except Exception as error:  # every failure travels to the host, which names and raises it
            answer, data = {"error": {"type": type(error).__name__, "message": str(error)}}, b""
        write_frame(answers, dict(answer, id=header.get("id"), op=header.get("op")), data)


if __name__ == "__main__":
    main()
