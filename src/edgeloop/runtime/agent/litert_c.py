"""LiteRT's C interface, as far as a profile needs it: a compiled model, its buffers, its profiler. Python 3.9 syntax.

ai-edge-litert's wheel brings the library and no profiler in Python. This interface promises no stability: the layouts
and calls here were checked with the versions that profiler.py names, on x86-64 and aarch64 (both LP64).

Sources (https://github.com/google-ai-edge/LiteRT)
    event           litert/c/litert_profiler_event.h, and of MemoryUsage the C++ one, tflite/profiling/memory_info.h
    layout          litert/c/litert_layout.h, litert/c/litert_model_types.h
    calls           litert/c/litert_{environment,model,options,compiled_model,tensor_buffer,profiler}.h
    CPU options     litert/c/options/litert_cpu_options.cc: "kernel_mode", "num_threads"
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeloop.errors import TargetError

LIBRARY = "libLiteRt.so"
CPU = 1  # LiteRtHwAccelerators
WRITE = 1  # LiteRtTensorBufferLockMode
RANK = 0x7F
WITHOUT = "Measure it without --profile."

Handle = ctypes.c_void_p
Size = ctypes.c_size_t


class MemoryUsage(ctypes.Structure):
    """Three numbers that are not read; in C's header there are two, in the library as in C++ three."""

    _fields_ = (("footprint", ctypes.c_int64), ("allocated", ctypes.c_size_t), ("in_use", ctypes.c_size_t))


class Event(ctypes.Structure):
    """ProfiledEventData, 104 bytes. metadata: index of the operator, and of its graph."""

    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("begin", MemoryUsage),
        ("end", MemoryUsage),
        ("metadata1", ctypes.c_uint64),
        ("metadata2", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


class Layout(ctypes.Structure):
    """LiteRtLayout, 68 bytes. head: the rank in its lower 7 bits, and in the eighth whether strides are set."""

    _fields_ = (("head", ctypes.c_uint32), ("dimensions", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8))

    def shape(self) -> tuple[int, ...]:
        return tuple(self.dimensions[: self.head & RANK])


class RankedTensorType(ctypes.Structure):
    """LiteRtRankedTensorType, 72 bytes."""

    _fields_ = (("element_type", ctypes.c_int), ("layout", Layout))


class CompiledModel:
    """A compiled model with its profiler and its buffers. What it holds is released by `stack`.

    Raises, as all of its methods do:
        TargetError: LiteRT refuses, with the number of its status (litert/c/litert_common.h).
    """

    def __init__(
        self, package: str, stack: contextlib.ExitStack, path: str, signature: str, threads: int, kernels: str
    ) -> None:
        self.library = ctypes.CDLL(os.path.join(package, LIBRARY))
        self.stack = stack
        self.environment = self._owned("CreateEnvironment", 0, None)
        self.model = self._owned("CreateModelFromFile", self.environment, os.fsencode(path))
        options = self._owned("CreateOptions")
        self._call("SetOptionsHardwareAccelerators", options, CPU)
        self._option(options, "runtime_options_string", "enable_profiling = true\n")
        self._option(options, "xnnpack", f'kernel_mode = "{kernels}"\nnum_threads = {threads}\n')
        self.compiled = self._owned("CreateCompiledModel", self.environment, self.model, options)
        self.profiler = self._new("CompiledModelGetProfiler", self.compiled)
        self.index, self.signature = self._find(signature)

    def feed(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Make the buffers, and fill those of the inputs; a shape that is not the model's resizes it."""
        names = [self._text("GetSignatureInputName", self.signature, Size(i)) for i in range(self._count("Input"))]
        for i, name in enumerate(names):
            shape = inputs[name].shape
            if shape != self._type("Input", i).layout.shape():
                dimensions = (ctypes.c_int * len(shape))(*shape)
                resize = (Size(self.index), Size(i), dimensions, Size(len(shape)))
                self._call("CompiledModelResizeInputTensorNonStrict", self.compiled, *resize)
        shapes = self._output_shapes()  # asked for, it also gives the outputs their room
        ins = [self._buffer("Input", i, inputs[name].shape) for i, name in enumerate(names)]
        outs = [self._buffer("Output", i, shape) for i, shape in enumerate(shapes)]
        for buffer, name in zip(ins, names):
            self._write(buffer, np.ascontiguousarray(inputs[name]))
        self.inputs, self.outputs = (Handle * len(ins))(*ins), (Handle * len(outs))(*outs)

    def run(self) -> None:
        ends = (Size(len(self.inputs)), self.inputs, Size(len(self.outputs)), self.outputs)
        self._call("RunCompiledModel", self.compiled, Size(self.index), *ends)

    def start_profiler(self) -> None:
        """Forget what was, and begin."""
        self._call("ResetProfiler", self.profiler)
        self._call("StartProfiler", self.profiler)

    def stop_profiler(self) -> list[tuple[str, int, int, int, int]]:
        """(name, kind, index, graph, microseconds) of each event since the start, in order."""
        self._call("StopProfiler", self.profiler)
        count = ctypes.c_int()
        self._call("GetNumProfilerEvents", self.profiler, ctypes.byref(count))
        events = (Event * count.value)()
        self._call("GetProfilerEvents", self.profiler, count, events)
        return [
            ((e.tag or b"").decode(errors="replace"), e.kind, e.metadata1, e.metadata2, e.elapsed_us) for e in events
        ]

    def _find(self, signature: str) -> tuple[int, Handle]:
        """Index and handle of a signature; "": the first. LiteRT gives a model without signatures one of its own."""
        count = Size()
        self._call("GetNumModelSignatures", self.model, ctypes.byref(count))
        for index in range(count.value):
            handle = self._new("GetModelSignature", self.model, Size(index))
            if not signature or self._text("GetSignatureKey", handle) == signature:
                return index, handle
        raise TargetError(
            f"LiteRT's profiler finds no signature {signature!r} in the model", advice="Choose one that the model has."
        )

    def _count(self, side: str) -> int:
        count = Size()
        self._call(f"GetNumSignature{side}s", self.signature, ctypes.byref(count))
        return count.value

    def _type(self, side: str, index: int) -> Any:
        ranked = RankedTensorType()
        tensor = self._new(f"GetSignature{side}TensorByIndex", self.signature, Size(index))
        self._call("GetRankedTensorType", tensor, ctypes.byref(ranked))
        return ranked

    def _output_shapes(self) -> list[tuple[int, ...]]:
        """As they are for these inputs: in the model they may be free."""
        layouts = (Layout * self._count("Output"))()
        asked = (Size(self.index), Size(len(layouts)), layouts, True)
        self._call("GetCompiledModelOutputTensorLayouts", self.compiled, *asked)
        return [layout.shape() for layout in layouts]

    def _buffer(self, side: str, index: int, shape: tuple[int, ...]) -> Handle:
        ranked = self._type(side, index)
        ranked.layout.dimensions[: len(shape)] = shape
        needs = self._new(f"GetCompiledModel{side}BufferRequirements", self.compiled, Size(self.index), Size(index))
        made = ("CreateManagedTensorBufferFromRequirements", self.environment, ctypes.byref(ranked), needs)
        return self._owned(*made, kind="TensorBuffer")

    def _write(self, buffer: Handle, array: np.ndarray) -> None:
        size, address = Size(), Handle()
        self._call("GetTensorBufferSize", buffer, ctypes.byref(size))
        if array.nbytes > size.value:
            raise TargetError(
                f"LiteRT's profiler has {size.value} bytes for an input of {array.nbytes}", advice=WITHOUT
            )
        self._call("LockTensorBuffer", buffer, ctypes.byref(address), WRITE)
        ctypes.memmove(address, array.ctypes.data, array.nbytes)
        self._call("UnlockTensorBuffer", buffer)

    def _option(self, options: Handle, name: str, toml: str) -> None:
        """Options of a part of the runtime, as text that it frees itself."""
        libc = ctypes.CDLL(None)
        libc.strdup.restype = Handle
        payload, free = Handle(libc.strdup(toml.encode())), ctypes.cast(libc.free, Handle)
        self._call("AddOpaqueOptions", options, self._new("CreateOpaqueOptions", name.encode(), payload, free))

    def _text(self, function: str, *arguments: Any) -> str:
        text = ctypes.c_char_p()
        self._call(function, *arguments, ctypes.byref(text))
        return (text.value or b"").decode()

    def _owned(self, function: str, *arguments: Any, kind: str = "") -> Handle:
        """As `_new`; released with the stack by the function that destroys its kind."""
        handle = self._new(function, *arguments)
        kind = kind or function[len("Create") :].replace("FromFile", "")
        self.stack.callback(getattr(self.library, f"LiteRtDestroy{kind}"), handle)
        return handle

    def _new(self, function: str, *arguments: Any) -> Handle:
        handle = Handle()
        self._call(function, *arguments, ctypes.byref(handle))
        return handle

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self.library, f"LiteRt{function}")(*arguments)
        if status:
            raise TargetError(f"LiteRT refuses to profile this model: {function} gives status {status}", advice=WITHOUT)
