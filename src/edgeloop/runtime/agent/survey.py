"""Which runtimes a device has, told by their metadata: none is loaded. Python 3.9 syntax, the standard library.

runtimes -> {python, runtimes: {name: version}}
"""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgeloop.processes.frames import serve
from edgeloop.runtime.agent.machine.sysfs import UNKNOWN

# by the runtime's name: what is imported, and what is installed
PACKAGES = {
    "litert": ("ai_edge_litert", "ai-edge-litert"),
    "tflite-runtime": ("tflite_runtime", "tflite-runtime"),
    "onnxruntime": ("onnxruntime", "onnxruntime"),
    "tensorflow": ("tensorflow", "tensorflow"),
}


def installed() -> dict[str, str]:
    """{runtime: version} of those that can be found; "unknown" where a package does not say its version."""
    return {name: _version(package) for name, (module, package) in PACKAGES.items() if importlib.util.find_spec(module)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # built by hand, or by a system's own package
        return UNKNOWN


def _runtimes(header: Mapping[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
    return {"python": platform.python_version(), "runtimes": installed()}, b""


def main(arguments: list[str]) -> None:
    serve({"runtimes": _runtimes})
