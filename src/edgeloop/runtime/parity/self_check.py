"""A loaded model and a bundle's reference in, how far it is from the source on this very runtime out.

A device checks itself with it before it takes a release: Python 3.9 syntax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgeloop.bundle import INFERENCE, Quantization, Scheme
from edgeloop.runtime.parity.answers import stacked
from edgeloop.runtime.parity.compare import Parity, RunContext, compare, floor_of, is_classifier
from edgeloop.runtime.parity.quantization import from_io, to_io


class RunOutputs(Protocol):
    """What one run gave."""

    @property
    def outputs(self) -> Mapping[str, np.ndarray]: ...


class RunnableModel(Protocol):
    """A loaded model: an agent seen from the host, or a child seen from the device."""

    def run(self, inputs: Mapping[str, np.ndarray], signature: str) -> RunOutputs: ...


@dataclass(frozen=True)
class Reference:
    """Real inputs {name: [n, ...]} and the source's answers to them, as reference.npz holds them; `io` the variant's.

    Where a reference is in real numbers and the variant's own end in integers, the numbers are converted there.
    `whole`: the model has no batch axis, and each sample is all that one call takes. `bounded`: as `floor_of`.
    """

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    scheme: Scheme
    io: Mapping[str, Quantization]
    whole: bool = False
    bounded: Sequence[str] = ()

    def feed(self, index: int, batch: int) -> dict[str, np.ndarray]:
        """Sample `index`, repeated to a batch where the model has one, as the variant takes it."""
        if self.whole:
            return to_io({name: np.array(array[index]) for name, array in self.inputs.items()}, self.io)
        one = {name: np.repeat(array[index : index + 1], batch, axis=0) for name, array in self.inputs.items()}
        return to_io(one, self.io)

    def read(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The variant's answer, of a batch the first, in the numbers of the reference."""
        own = {n: np.asarray(outputs[n]) if self.whole else outputs[n][:1] for n in self.outputs if n in outputs}
        return from_io(own, {n: q for n, q in self.io.items() if n in own and self.outputs[n].dtype.kind == "f"})


def self_check(
    running: RunnableModel, where: RunContext, reference: Reference, signature: str, batch: int
) -> list[Parity]:
    """Every reference sample through `signature`, one at a time: a device may have memory for no more.

    Raises:
        TargetError: The runtime refuses an input.
        DeviceError: It died or did not answer in time.
    """
    count = len(next(iter(reference.inputs.values())))
    answers = [reference.read(running.run(reference.feed(i, batch), signature).outputs) for i in range(count)]
    got = stacked(answers)
    if not reference.whole:
        got = {name: value.reshape(-1, *value.shape[2:]) for name, value in got.items()}
    return compare(
        where,
        floor_of(reference.scheme, bounded=reference.bounded),
        reference.outputs,
        got,
        classifier=is_classifier(reference.outputs, False),
    )


def inference(signatures: Mapping[str, dict], reference: Reference | None) -> tuple[str, dict[str, dict]]:
    """The signature that takes the sample's inputs, with their specs; without a sample, `infer`, `serving_default`, or
    the first."""
    for name, spec in signatures.items():
        if reference is not None and set(spec["inputs"]) == set(reference.inputs):
            return name, spec["inputs"]
    name = next((n for n in INFERENCE if n in signatures), next(iter(signatures)))
    return name, signatures[name]["inputs"]


def batch_of(specs: Mapping[str, dict]) -> int:
    """The model's own batch; 1 where it is free, or where there is none, or no input."""
    first = next(iter(specs.values()), {"shape": [1]})
    return (first["shape"][:1] or [1])[0] or 1


def sample(specs: Mapping[str, dict], reference: Reference | None) -> dict[str, np.ndarray]:
    """One sample, repeated where the model's own batch is larger; made up where none is given."""
    if reference is not None and set(specs) == set(reference.inputs):
        return reference.feed(0, batch_of(specs))
    rng = np.random.default_rng(0)
    arrays = {}
    for name, spec in specs.items():
        shape = [1 if d is None else d for d in spec["shape"]]
        made_up = rng.random(shape) if np.dtype(spec["dtype"]).kind == "f" else rng.integers(0, 2, shape)
        arrays[name] = made_up.astype(spec["dtype"])
    return arrays
