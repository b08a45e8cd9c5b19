"""Every runtime that edgeloop's own agent drives, said once; the order of RUNTIMES is the order of preference.

What else runs models (TF.js, LiteRT.js) joins on the host through entry points: runtime/runners.py. Python 3.9 syntax,
the standard library: a device looks up here what it has, trains and serves with.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.formats import Format


@dataclass(frozen=True)
class Runtime:
    """One runtime.

    Attributes:
        name: As users and manifests write it.
        module: What is imported of it; installed is where this is found.
        package: What its version is asked of.
        interpreter: The module of its `Interpreter`; empty where `module` itself runs models.
        trains: It runs the five signatures of a trainable .tflite.
        xnnpack: It computes with XNNPACK, which packs a copy of the weights.
        base_bytes: Resident memory of a process before its model; None: not known, so nothing is estimated for it.
        comparison: No runtime for devices, but something to compare them with: used only when asked for by name.
        numpy_below: The first major version of NumPy that it does not work with; None: it works with all.
        install: The line that installs it.
    """

    name: str
    formats: frozenset[Format]
    module: str
    package: str
    interpreter: str = ""
    trains: bool = False
    xnnpack: bool = False
    base_bytes: int | None = None
    comparison: bool = False
    numpy_below: int | None = None
    install: str = "edgeloop setup device"


TFLITE = frozenset({Format.TFLITE})

# base_bytes: with the smallest models Python 3.11 and NumPy 1.26 on x86-64 take 52.5 and 44.5 million, LiteRT with
# NumPy 2.4 45 million, and a fresh environment with the same packages 57 on LiteRT. The rest is for other builds.
LITERT = Runtime(
    name="litert",
    formats=TFLITE,
    module="ai_edge_litert",
    package="ai-edge-litert",
    interpreter="ai_edge_litert.interpreter",
    trains=True,
    xnnpack=True,
    base_bytes=62_000_000,
    install="pip install 'edgeloop[edge]'",
)
# after LiteRT: 2.14 computes int8 some 20 times slower (it has no XNNPACK for it)
TFLITE_RUNTIME = Runtime(
    name="tflite-runtime",
    formats=TFLITE,
    module="tflite_runtime",
    package="tflite-runtime",
    interpreter="tflite_runtime.interpreter",
    trains=True,
    base_bytes=53_000_000,
    numpy_below=2,  # with it `Interpreter()` raises SystemError
)
ONNXRUNTIME = Runtime(
    name="onnxruntime",
    formats=frozenset({Format.ONNX}),
    module="onnxruntime",
    package="onnxruntime",
    install="pip install 'edgeloop[edge]'",
)
TENSORFLOW = Runtime(
    name="tensorflow",
    formats=TFLITE,
    module="tensorflow",
    package="tensorflow",
    interpreter="tensorflow.lite.python.interpreter",
    comparison=True,
    install="pip install 'edgeloop[convert]'",
)
RUNTIMES = {runtime.name: runtime for runtime in (LITERT, TFLITE_RUNTIME, ONNXRUNTIME, TENSORFLOW)}
DEVICE_RUNTIMES = {name: runtime for name, runtime in RUNTIMES.items() if not runtime.comparison}


def those_of(format: Format) -> tuple[Runtime, ...]:
    """The runtimes of devices that run files of this format, best first."""
    return tuple(runtime for runtime in DEVICE_RUNTIMES.values() if format in runtime.formats)
