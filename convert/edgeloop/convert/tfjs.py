"""A frozen graph in, a TF.js graph model folder out, through tensorflowjs in a child process.

tensorflowjs 4.22 imports packages that do not resolve beside TensorFlow 2.21; stubs for them exist in the child only
(`tfjs_child.py`). The child loads TensorFlow while the parent still traces and quantizes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.bundle import TensorSpec
from edgeloop.convert.source import Source
from edgeloop.edge.process import owned
from edgeloop.errors import MissingExtra, ModelError

CHILD = Path(__file__).with_name("tfjs_child.py")


@dataclass(frozen=True, slots=True)
class TfjsConverter:
    """A child that has loaded tensorflowjs, or is about to, and converts one graph."""

    child: subprocess.Popen
    log: Any

    def convert(self, frozen: Any, source: Source, folder: Path, timeout_s: float = 300.0) -> None:
        """Write model.json and its shards into `folder`, with the source's signature.

        Raises:
            ModelError: tensorflowjs refuses the graph or takes longer than `timeout_s`.
        """
        with tempfile.TemporaryDirectory() as scratch:
            graph = Path(scratch) / "frozen.pb"
            graph.write_bytes(frozen.graph.as_graph_def().SerializeToString(deterministic=True))
            outputs = [t.op.name for t in frozen.outputs]
            job = {"graph": str(graph), "outputs": outputs, "folder": str(folder)}
            try:
                self.child.communicate(json.dumps(job).encode() + b"\n", timeout=timeout_s)
            except subprocess.TimeoutExpired as e:
                raise ModelError(f"{source.path}: tensorflowjs did not finish in {timeout_s:g} s.") from e
        if self.child.returncode != 0:
            self.log.seek(0)
            last = self.log.read().decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
            raise ModelError(f"{source.path} does not convert to TF.js: {last[0][:300]}")
        _finish(folder, frozen, source)


@contextlib.contextmanager
def tfjs_converter() -> Iterator[TfjsConverter]:
    """Start the child.

    Raises:
        MissingExtra: tensorflowjs is not installed.
    """
    if importlib.util.find_spec("tensorflowjs") is None:
        raise MissingExtra("'tensorflowjs' is not installed. Run: edgeloop setup tfjs, or leave tfjs out of --to.")
    with (
        tempfile.TemporaryFile() as log,
        owned([sys.executable, "-I", str(CHILD)], stdin=subprocess.PIPE, stdout=log, stderr=log) as child,
    ):
        yield TfjsConverter(child, log)


def _finish(folder: Path, frozen: Any, source: Source) -> None:
    """Sorted keys (protobuf maps come in any order) and the names that people know the tensors by."""
    path = folder / "model.json"
    model = json.loads(path.read_text())
    model["signature"] = {
        "inputs": _tensors(source.inputs, frozen.inputs),
        "outputs": _tensors(source.outputs, frozen.outputs),
    }
    path.write_text(json.dumps(model, sort_keys=True, separators=(",", ":")))


def _tensors(specs: tuple[TensorSpec, ...], tensors: list[Any]) -> dict[str, Any]:
    return {
        spec.name: {
            "name": tensor.name,
            "dtype": f"DT_{'FLOAT' if spec.dtype == 'float32' else spec.dtype.upper()}",
            "tensorShape": {"dim": [{"size": str(-1 if d is None else d)} for d in spec.shape]},
        }
        for spec, tensor in zip(specs, tensors, strict=True)
    }
