"""A release in, its model in a child process out: real numbers in and out, any number of samples. Python 3.9 syntax."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.edge.on_device.serving.model_process import ModelProcess, model_process
from edgeloop.edge.on_device.serving.served_release import ServedRelease, ServeRequest, release_key, select_release
from edgeloop.errors import TargetError
from edgeloop.runtime.parity.quantization import from_io, to_io


@dataclass
class LoadedModel:
    """A release whose model is loaded in a process.

    Attributes:
        key: What named the release when it was loaded (`release_key`).
        batch: Samples of one call; None: any number.
        inputs, outputs: As the manifest has them, with the variant's sizes.
        close: Ends the process.
    """

    key: tuple[str, int]
    release: ServedRelease
    process: ModelProcess
    close: contextlib.ExitStack
    signature: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    batch: int | None

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Real numbers in and out, batch first; cut into batches where the variant has a fixed one.

        Raises:
            TargetError: The runtime refuses the inputs, or died of them.
            DeviceError: It did not answer in time.
        """
        stored = to_io(inputs, self.release.variant.io)
        count = next((len(array) for array in stored.values() if array.ndim), 1)
        if self.batch in (None, count):
            whole = self._call(stored)
        else:
            parts = [self._call(part) for part in _batches(stored, count, self.batch)]
            whole = {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}
        real = {spec.name for spec in self.outputs if spec.dtype.startswith("float")}
        return from_io(whole, {n: q for n, q in self.release.variant.io.items() if n in real})

    def samples(self, inputs: dict[str, np.ndarray]) -> int | None:
        """How many samples the inputs are; None: they cannot be cut, as the first axis of some tensor is no batch."""
        shapes = [spec.shape for spec in (*self.inputs, *self.outputs)]
        if not all(shape and shape[0] in (None, self.batch) for shape in shapes):
            return None
        return len(next(iter(inputs.values())))

    def _call(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self.process.run(inputs, self.signature).outputs
        missing = [spec.name for spec in self.outputs if spec.name not in found]
        if missing:
            raise TargetError(
                f"{self.release.variant.entry} returned the outputs {sorted(found)}, and its manifest names "
                f"{missing[0]!r}",
                advice="Convert the model again.",
            )
        return {spec.name: found[spec.name] for spec in self.outputs}


def load_model(request: ServeRequest, timeout_s: float) -> LoadedModel:
    """The release that is there now, loaded in a process of its own.

    Raises:
        EdgeloopError: As `select_release`; TargetError, DeviceError where the runtime refuses it, dies or hangs.
    """
    key = release_key(request.path)
    release = select_release(request)
    with contextlib.ExitStack() as stack:
        entry = release.variant.entry
        process = stack.enter_context(model_process(release.runtime, release.folder, entry, release.threads, timeout_s))
        found = process.signatures
        own = release.signature if release.signature in found else next(iter(found))
        signature = release.manifest.signatures[release.signature]
        inputs = [_sized(spec, found[own]["inputs"].get(spec.name)) for spec in signature.inputs]
        first = found[own]["inputs"].get(inputs[0].name)
        batch = first["shape"][0] if first and first["shape"] else None
        close = stack.pop_all()
    return LoadedModel(key, release, process, close, own, inputs, signature.outputs, batch)


def _sized(spec: TensorSpec, own: dict[str, Any] | None) -> TensorSpec:
    """Sizes that the manifest leaves free and this variant does not; the first axis, the batch, stays as it is."""
    if own is None or len(own["shape"]) != len(spec.shape):
        return spec
    sizes = [s if s is not None or not axis else own["shape"][axis] for axis, s in enumerate(spec.shape)]
    return replace(spec, shape=tuple(sizes))


def _batches(inputs: dict[str, np.ndarray], count: int, batch: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches of the size that the model takes; the last is filled up with its last sample."""
    for start in range(0, count, batch):
        pick = np.minimum(np.arange(start, start + batch), count - 1)
        yield {name: array[pick] for name, array in inputs.items()}
