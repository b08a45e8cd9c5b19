"""Which runtimes a device has, told by their metadata: none is loaded. Python 3.9 syntax, the standard library."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from edgeloop.processes.frames import serve
from edgeloop.processes.messages import answering
from edgeloop.runtime.agent.machine.sysfs import UNKNOWN
from edgeloop.runtime.agent.protocol import RuntimesReply, RuntimesRequest
from edgeloop.runtime.agent.runtimes import is_installed
from edgeloop.runtime_table import RUNTIMES


def installed() -> dict[str, str]:
    """{runtime: version} of those that can be found; "unknown" where a package does not say its version."""
    return {name: _version(runtime.package) for name, runtime in RUNTIMES.items() if is_installed(runtime)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # built by hand, or by a system's own package
        return UNKNOWN


def _runtimes(asked: RuntimesRequest, payload: bytes) -> RuntimesReply:
    return RuntimesReply(installed(), platform.python_version())


def main(arguments: list[str]) -> None:
    serve({RuntimesRequest.OP: answering(RuntimesRequest, _runtimes)})
