"""The ONNX model itself, run by ONNX Runtime: the judge of what was imported."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.convert.onnx.external import input_names, load
from edgeloop.convert.onnx.prepare import largest_tensor, replace
from edgeloop.errors import ModelError, one_line
from edgeloop.extras import need

FAILED = re.compile(r"^.*?\bfailed: ?", re.DOTALL)  # what stands before the reason: codes and the path
NEWEST_IR = re.compile(r"max supported IR version: (\d+)")
QUANTIZED = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"})
TOO_LARGE = re.compile(r"Available memory of \d+ is smaller than requested bytes of (\d+)")
# what its tensors may take together in a trial whose sizes only show as it runs, beside its weights and TensorFlow, in
# a child that may have 2 GB. NonZero and a product of all pairs of 32,000: 4.2 GB resident without it, 0.07 with
LIMIT_BYTES = 1_000_000_000
WATCH_S = 0.05  # between two looks at the CPU time of a run
FOLDER = "session.model_external_initializers_file_folder_path"  # of external data, for a model that is no file


class TrialLimitError(ModelError):
    """Generated inputs would take it too long, or too much memory."""


class OriginalModel:
    """An .onnx file loaded by ONNX Runtime, with some of its inputs fixed.

    Attributes:
        inputs: Names of what it takes, in order.
        outputs: Names of what it returns, in order.
        inner: Names of the tensors that nodes of its main graph make, without the outputs.
        is_quantized: It computes some layers in whole numbers.
    """

    def __init__(
        self,
        path: Path,
        model: Any,
        fixed: Mapping[str, np.ndarray],
        also: Sequence[str] = (),
        *,
        limited: bool = False,
    ):
        """Load it.

        Args:
            model: Its ModelProto, which may lack weights.
            fixed: Inputs that are constants, by ONNX's names.
            also: Tensors inside that are returned as further outputs.
            limited: Its tensors may take LIMIT_BYTES.

        Raises:
            ModelError: ONNX Runtime refuses it.
        """
        self._path, self._model, self._fixed = path, model, fixed
        self.inputs = [name for name in input_names(model) if name not in self._fixed]
        self.outputs = [value.name for value in model.graph.output] + list(also)
        made = {name for node in model.graph.node for name in node.output if name}
        self.inner = frozenset(made.difference(self.outputs))
        self.is_quantized = any(node.op_type in QUANTIZED for node in model.graph.node)
        self._limited = limited
        self._session = self._load(self._changed(also) if fixed or also else None)

    def with_outputs(self, names: Sequence[str]) -> OriginalModel:
        """The same model, which returns these tensors after its outputs."""
        return OriginalModel(self._path, self._model, self._fixed, names)

    def limited(self) -> OriginalModel:
        """The same model, which refuses inputs of which its tensors would take more than LIMIT_BYTES."""
        return OriginalModel(self._path, self._model, self._fixed, limited=True)

    def largest_tensor(self, fed: Mapping[str, np.ndarray]) -> tuple[str, int, bool]:
        """As `prepare.largest_tensor`, at the sizes of these inputs."""
        return largest_tensor(self._model, {name: array.shape for name, array in fed.items()})

    def run(self, fed: Mapping[str, np.ndarray], limit_cpu_s: float | None = None) -> list[np.ndarray]:
        """Its answers, in the order of `outputs`.

        Raises:
            TrialLimitError: Not in that CPU time of all threads, or not in the memory that a limited one may take.
            ModelError: ONNX Runtime cannot run it on these inputs.
        """
        options = need("onnxruntime", extra="convert").RunOptions()
        if self._limited:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        try:
            with _ended_after(limit_cpu_s, options):
                return self._session.run(self.outputs, {name: fed[name] for name in self.inputs}, options)
        except Exception as e:  # a family of types of its own
            asked = TOO_LARGE.search(str(e)) if self._limited else None
            reason = f"a tensor of {int(asked[1]) / 1e6:,.0f} MB is too large for a trial" if asked else _reason(e)
            raise (TrialLimitError if asked or options.terminate else ModelError)(
                f"ONNX Runtime cannot run it ({'it takes too long' if options.terminate else reason})",
                advice="Pass inputs of the sizes it was exported for.",
            ) from e

    def _changed(self, also: Sequence[str]) -> bytes:
        model = load(self._path)
        fix_inputs(model, self._fixed)
        model.graph.output.extend(need("onnx", extra="convert").ValueInfoProto(name=name) for name in also)
        return model.SerializeToString()

    def _load(self, content: bytes | None) -> Any:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        os.environ["ALLOW_RELEASED_ONNX_OPSET_ONLY"] = "0"  # an opset that it has in part may be enough
        ort = need("onnxruntime", extra="convert")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # they keep what the largest run took
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would use the CPU
        if self.is_quantized:  # fused, it computes quantized layers in whole numbers, and rounds elsewhere
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if content is not None:
            options.add_session_config_entry(FOLDER, str(self._path.parent.resolve()))
        if self._limited:
            _limit_memory(ort, options)

        def session(source: bytes | str) -> Any:
            return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])

        try:
            try:
                return session(content if content is not None else str(self._path))
            except Exception as e:
                newest = NEWEST_IR.search(str(e))
                if newest is None:
                    raise
                options.add_session_config_entry(FOLDER, str(self._path.parent.resolve()))
                return session(_lowered(content or self._path.read_bytes(), int(newest[1])))
        except Exception as e:  # a family of types of its own
            raise ModelError(
                f"ONNX Runtime cannot load it ({_reason(e)})",
                advice="Check the file with onnx.checker, or export it again for an older opset.",
            ) from e


@contextlib.contextmanager
def _ended_after(limit_cpu_s: float | None, options: Any) -> Iterator[None]:
    """A run with these options ends after that CPU time, between two nodes: on a busy machine it may do as much."""
    if limit_cpu_s is None:
        yield
        return
    end_cpu_s, over = time.process_time() + limit_cpu_s, threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_S):
            if time.process_time() > end_cpu_s:
                options.terminate = True
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _limit_memory(ort: Any, options: Any) -> None:
    """Let a session's tensors lie in an arena of LIMIT_BYTES, which all such sessions of the process share."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    exactly = 1  # what is asked for, not the next power of two
    arena = {"max_mem": LIMIT_BYTES, "arena_extend_strategy": exactly}
    ort.create_and_register_allocator(
        memory, ort.OrtArenaCfg({**arena, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1})
    )
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")  # weights lie outside


def fix_inputs(model: Any, fixed: Mapping[str, np.ndarray]) -> None:
    """Make these inputs of a ModelProto constants."""
    if not fixed:
        return
    from_array = need("onnx.numpy_helper", extra="convert").from_array
    replace(model.graph.input, [value for value in model.graph.input if value.name not in fixed])
    model.graph.initializer.extend(from_array(array, name) for name, array in fixed.items())


def _reason(e: Exception) -> str:
    return one_line(FAILED.sub("", str(e), count=1), 300)


def _lowered(content: bytes, ir_version: int) -> bytes:
    """The model with an older number of its format: the operators stay what they are."""
    model = need("onnx", extra="convert").ModelProto.FromString(content)
    model.ir_version = ir_version
    return model.SerializeToString()
