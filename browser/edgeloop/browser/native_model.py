"""A variant of a bundle in, the same variant loaded on its runtime on this machine out: no browser takes part.

As `edgeloop bench` measures it: an agent of its own, the first reference input.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgeloop.bundle import Bundle
from edgeloop.errors import TargetError
from edgeloop.runtime.client import RuntimeClient
from edgeloop.runtime.parity.reference import read_reference, reference_of
from edgeloop.runtime.parity.self_check import inference, sample
from edgeloop.runtime.runners import AGENT_RUNNERS
from edgeloop.runtime_table import those_of

ANSWER_S = 30.0  # for one answer of an agent


@dataclass(frozen=True)
class NativeStart:
    """What runs where, and what came before the measured runs, once each, in milliseconds."""

    runtime: str
    version: str | None
    device: str
    threads: int
    import_ms: float
    load_ms: float
    first_ms: float


@dataclass(frozen=True)
class NativeModel:
    """A loaded variant.

    Attributes:
        run: So many runs one after another, the milliseconds of each.
        interrupt: End its process from any thread: `run` then raises DeviceError in its own.
        close: End its process and what belongs to it, while nothing runs.
    """

    start: NativeStart
    run: Callable[[int], list[float]]
    interrupt: Callable[[], None]
    close: Callable[[], None]


def load_native(bundle: Bundle, name: str, threads: int = 1) -> NativeModel:
    """Load a variant on the first runtime that it was proved on, else on the first of its format.

    Raises:
        TargetError: Only a browser runs its format, or the runtime refuses the file.
        MissingExtra: The runtime is not installed.
        DeviceError: The agent died or did not answer in time.
    """
    variant = bundle.variant(name)
    runtimes = those_of(variant.format)
    if not runtimes:
        raise TargetError(f"only a browser runs {variant.format.value} files", advice="Choose another variant.")
    proved = [runtime for runtime in runtimes if runtime.name in variant.requires.runtimes]
    runner = AGENT_RUNNERS[(proved or runtimes)[0].name]
    with contextlib.ExitStack() as stack:
        device = runner.device()
        agent = stack.enter_context(runner.start(device, bundle.path, variant.entry, ANSWER_S))
        version = agent.probe().version
        prepared = agent.prepare(variant.entry, threads)
        real = read_reference(bundle)
        reference = reference_of(bundle, variant, real) if real else None
        signature, specs = inference(prepared.signatures or {}, reference)
        inputs = sample(specs, reference)
        first_ms = agent.run(inputs, signature).wall_ms[0]
        start = NativeStart(runner.name, version, device.label, threads, prepared.import_ms, prepared.load_ms, first_ms)
        runs = _runs(agent, inputs, signature)
        return NativeModel(start, runs, agent.child.terminate, stack.pop_all().close)


def _runs(agent: RuntimeClient, inputs: Mapping[str, np.ndarray], signature: str) -> Callable[[int], list[float]]:
    return lambda runs: list(agent.run(inputs, signature, runs=runs).wall_ms)
