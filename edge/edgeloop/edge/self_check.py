"""A loaded model and a bundle's reference in, how far it is from the source on this very runtime out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeloop.bundle import Quantization, Scheme
from edgeloop.edge.client import Agent
from edgeloop.edge.parity import Parity, Where, compare, floor_of, is_classifier
from edgeloop.edge.quantization import from_io, to_io


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Real inputs {name: [n, ...]} and the source's answers to them, as reference.npz holds them; `io` the variant's.

    Where a reference is in real numbers and the variant's own end in integers, the numbers are converted there.
    """

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    scheme: Scheme
    io: Mapping[str, Quantization]

    def feed(self, index: int, batch: int) -> dict[str, np.ndarray]:
        """Sample `index`, repeated to a batch, as the variant takes it."""
        one = {name: np.repeat(array[index : index + 1], batch, axis=0) for name, array in self.inputs.items()}
        return to_io(one, self.io)

    def read(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The variant's first answer of a batch, in the numbers of the reference."""
        own = {name: outputs[name][:1] for name in self.outputs if name in outputs}
        return from_io(own, {n: q for n, q in self.io.items() if n in own and self.outputs[n].dtype.kind == "f"})


def self_check(running: Agent, where: Where, reference: Reference, signature: str, batch: int) -> list[Parity]:
    """Every reference sample through `signature`, one at a time: a device may have memory for no more.

    Raises:
        TargetError: The runtime refuses an input.
        DeviceError: It died or did not answer in time.
    """
    count = len(next(iter(reference.inputs.values())))
    answers = [reference.read(running.run(reference.feed(i, batch), signature).outputs) for i in range(count)]
    got = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
    return compare(
        where, floor_of(reference.scheme), reference.outputs, got, classifier=is_classifier(reference.outputs, False)
    )
