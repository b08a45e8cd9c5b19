"""A release in, its model in a child out: real numbers in and out, of any number of samples. Python 3.9 syntax."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.edge.on_device.serving.current_release import ServedRelease, ServeRequest, choose, key
from edgeloop.edge.on_device.serving.model_process import ModelProcess, model_process
from edgeloop.errors import TargetError
from edgeloop.runtime.parity.quantization import from_io, to_io


@dataclass
class LoadedModel:
    """A release in an agent. `batch` None: any; `inputs`, `outputs` as the manifest has them, sizes of the variant."""

    key: tuple[str, int]
    chosen: ServedRelease
    model: ModelProcess
    close: contextlib.ExitStack
    signature: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    batch: int | None

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Real numbers in and out, batch first; cut into batches where the variant has one size only.

        Raises:
            TargetError: The runtime refuses the inputs, or died of them.
            DeviceError: It did not answer in time.
        """
        stored = to_io(inputs, self.chosen.variant.io)
        count = next((len(array) for array in stored.values() if array.ndim), 1)
        if self.batch in (None, count):
            whole = self._call(stored)
        else:
            parts = [self._call(part) for part in _cut(stored, count, self.batch)]
            whole = {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}
        real = {spec.name for spec in self.outputs if spec.dtype.startswith("float")}
        return from_io(whole, {n: q for n, q in self.chosen.variant.io.items() if n in real})

    def _call(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self.model.run(inputs, self.signature).outputs
        missing = [spec.name for spec in self.outputs if spec.name not in found]
        if missing:
            raise TargetError(f"{self.chosen.variant.entry} gave the outputs {sorted(found)} and not {missing[0]!r}.")
        return {spec.name: found[spec.name] for spec in self.outputs}


def load(wanted: ServeRequest, timeout_s: float) -> LoadedModel:
    """The release that is there now, in an agent of its own that has its model open.

    Raises:
        EdgeloopError: As `choose`; TargetError, DeviceError where the runtime refuses it, dies or hangs.
    """
    here = key(wanted.path)
    chosen = choose(wanted)
    with contextlib.ExitStack() as stack:
        entry = chosen.variant.entry
        model = stack.enter_context(model_process(chosen.runtime, chosen.folder, entry, chosen.threads, timeout_s))
        found = model.signatures
        own = chosen.signature if chosen.signature in found else next(iter(found))
        signature = chosen.manifest.signatures[chosen.signature]
        inputs = [_sized(spec, found[own]["inputs"].get(spec.name)) for spec in signature.inputs]
        first = found[own]["inputs"].get(inputs[0].name)
        batch = first["shape"][0] if first and first["shape"] else None
        close = stack.pop_all()
    return LoadedModel(here, chosen, model, close, own, inputs, signature.outputs, batch)


def _sized(spec: TensorSpec, own: dict[str, Any] | None) -> TensorSpec:
    """Sizes that the manifest leaves free and this variant does not; the first axis, the batch, stays as it is."""
    if own is None or len(own["shape"]) != len(spec.shape):
        return spec
    sizes = [s if s is not None or not axis else own["shape"][axis] for axis, s in enumerate(spec.shape)]
    return replace(spec, shape=tuple(sizes))


def _cut(inputs: dict[str, np.ndarray], count: int, batch: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches of the size that the model takes; the last is filled up with its last sample."""
    for start in range(0, count, batch):
        pick = np.minimum(np.arange(start, start + batch), count - 1)
        yield {name: array[pick] for name, array in inputs.items()}
