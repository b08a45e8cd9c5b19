"""Delegates: which device is there, load one, and see to it that it took the whole model. Python 3.9 syntax.

A model that a delegate left in part to the CPU runs, many times slower, and nothing says so; here that is an error.

Sources
    interface       tensorflow/lite/delegates/external/external_delegate_interface.h
    USB ids         https://coral.ai/docs/accelerator/get-started: 1a6e:089a before its first use, 18d1:9302 after
    PCIe nodes      https://coral.ai/docs/m2/get-started: /dev/apex_0, ...
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from edgeloop.errors import DeviceError, TargetError
from edgeloop.runtime.agent.machine.sysfs import UNKNOWN, UNSUPPORTED, text

EDGETPU = "edgetpu"
EDGETPU_LIBRARY = "libedgetpu.so.1"
EDGETPU_USB = (("1a6e", "089a"), ("18d1", "9302"))
NODE = "DELEGATE"  # what the interpreter calls a node that stands for what a delegate took
RESTORED = "Restored original execution plan after delegate application failure."  # true of a model nobody will run


def edge_tpus(root: str = "/") -> list[str] | str:
    """["usb:1-1", "pci:apex_0", ...], "unsupported" where there is none, "unknown" where no bus can be read."""
    nodes = sorted(glob.glob(os.path.join(glob.escape(root), "dev/apex_[0-9]*")))
    found = [f"pci:{os.path.basename(node)}" for node in nodes]
    bus = os.path.join(root, "sys/bus")
    ports = sorted(glob.glob(os.path.join(glob.escape(bus), "usb/devices/*")))
    for port in ports:
        ids = tuple(text(os.path.join(port, name)) for name in ("idVendor", "idProduct"))
        if ids in EDGETPU_USB:
            found.append(f"usb:{os.path.basename(port)}")
    # a kernel without USB has no such folder, but it has other buses; without sysfs nothing is known
    return found or (UNSUPPORTED if os.path.isdir(bus) else UNKNOWN)


def load(module: Any, wanted: Mapping[str, Any], root: str = "/") -> Any:
    """`{library, options}` through the runtime's own `load_delegate`; the library "edgetpu" is Coral's.

    Raises:
        DeviceError: No Edge TPU on this device; the library cannot be loaded, or refuses.
    """
    library = str(wanted["library"])
    if library == EDGETPU:
        if edge_tpus(root) == UNSUPPORTED:
            raise DeviceError(
                "no Edge TPU on this device: neither a USB device 1a6e:089a or 18d1:9302 nor /dev/apex_0",
                advice="Plug one in, or measure without --delegate.",
            )
        library = EDGETPU_LIBRARY
    try:
        return module.load_delegate(library, dict(wanted.get("options") or {}))
    except OSError as e:
        raise DeviceError(f"the delegate {library} cannot be loaded ({e})", advice="Expected a shared library.") from e
    except AttributeError as e:
        raise DeviceError(f"{library} is not a delegate ({e})", advice="Expected a TFLite external delegate.") from e
    except ValueError as e:  # "Failed to load delegate from LIBRARY\nREASON", and libedgetpu's reason is empty
        reason = " ".join(str(e).split("\n")[1:]).strip().rstrip(".")
        reason = reason or "it gives no reason; most often its device is missing, busy or not permitted"
        raise DeviceError(
            f"the delegate {library} refuses: {reason}", advice="Mend that, or measure without --delegate."
        ) from e


def refused(library: str, error: Exception) -> TargetError:
    """What a delegate's failing Prepare is to a caller."""
    reason = str(error).replace(RESTORED, "").strip().rstrip(".") or "it gives no reason"
    return TargetError(
        f"the delegate {library} fails to prepare this model: {reason}", advice="Run it without the delegate."
    )


def taken(wrapper: Any) -> tuple[list[int], list[str]]:
    """Of the first graph, before XNNPACK gets what is left: indices of the operators a delegate took, and all names.

    The interpreter keeps the operators in its list and adds a node for each run of them that was taken. That node has
    the run's inputs and outputs, and the way back from these to those leads through just the operators of the run.
    """
    names = [wrapper.NodeName(i) for i in range(wrapper.NumNodes())]
    operators = [i for i, name in enumerate(names) if name != NODE]
    producer = {int(tensor): i for i in operators for tensor in wrapper.NodeOutputs(i)}
    found: set[int] = set()
    for node in set(range(len(names))) - set(operators):
        inputs = {int(tensor) for tensor in wrapper.NodeInputs(node)}
        ahead = [int(tensor) for tensor in wrapper.NodeOutputs(node)]
        while ahead:
            tensor = ahead.pop()
            operator = producer.get(tensor)
            if tensor in inputs or operator is None or operator in found:
                continue
            found.add(operator)
            ahead += [int(source) for source in wrapper.NodeInputs(operator)]
    return sorted(found), [names[i] for i in operators]


def all_taken(library: str, indices: list[int], names: list[str]) -> None:
    """Raises TargetError where an operator stays on the CPU, naming them."""
    left = [i for i in range(len(names)) if i not in set(indices)]
    if not left:
        return
    counts = ", ".join(f"{count} {name}" for name, count in Counter(names[i] for i in left).most_common())
    which = ", ".join(map(str, left[:20])) + (", ..." if len(left) > 20 else "")
    raise TargetError(
        f"the delegate {library} leaves {len(left)} of {len(names)} operators on the CPU: {counts} (operator {which})",
        advice="Convert the model for it, or allow operators on the CPU.",
    )
