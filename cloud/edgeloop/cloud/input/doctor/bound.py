"""What a training step waits for, told from measured figures."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import Any

HIDDEN = 1.15  # of the step alone: up to here the input is read while the step computes
BUSY = 0.6  # of what the threads could use: from here reading is limited by the processor, not by the disk
SCARCE = 0.05  # of the memory that is left: below it pages are thrown out and read again
FAULTS_PER_S = 50.0  # major page faults: each is a read from the disk


class Bound(enum.StrEnum):
    """What limits a training."""

    IO = "io"
    CPU = "cpu"
    ACCELERATOR = "accelerator"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured of one training, per batch of `batch` examples, medians.

    Attributes:
        input_s: Seconds to make a batch, with no step.
        step_s: Seconds of a step on one batch that was made before.
        both_s: Seconds of a step together with making its batch.
        input_cpu_share: Share of all cores' time that was used while batches were made, 0 to 1.
        cpu_share: The same, of steps together with their batches.
        faults_per_s: Major page faults of this process.
        memory_left_share: Share of the memory that was available at the end, 0 to 1; None: not known.
        cores: That this process may use.
        threads: That may make batches at once, at most `cores`.
        accelerator: Whether steps run on a GPU or TPU.
    """

    batch: int
    input_s: float
    step_s: float
    both_s: float
    input_cpu_share: float
    cpu_share: float
    faults_per_s: float
    memory_left_share: float | None
    cores: int
    threads: int
    accelerator: bool

    @property
    def waiting_share(self) -> float:
        """Share of a step's time that would be saved if batches cost nothing, 0 to 1."""
        return max(0.0, 1 - self.step_s / self.both_s)

    def to_json(self) -> dict[str, Any]:
        rates = {
            f"{name}_examples_per_s": self.batch / seconds
            for name, seconds in (("input", self.input_s), ("step", self.step_s), ("both", self.both_s))
        }
        return {**asdict(self), **rates, "waiting_share": self.waiting_share}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What limits a training, and the sentence that says by which figures."""

    bound: Bound
    reason: str


def verdict(figures: Figures) -> Verdict:
    """What limits a training with these figures.

    Memory first, for a machine that swaps makes every other figure wrong; then whether a step waits for its batches.
    """
    left = figures.memory_left_share
    if figures.faults_per_s > FAULTS_PER_S or (left is not None and left < SCARCE):
        known = "" if left is None else f", {left:.0%} of the memory is left"
        return Verdict(bound=Bound.MEMORY, reason=f"{figures.faults_per_s:.0f} page faults/s read the disk{known}.")
    share = f"{figures.waiting_share:.0%} of a step's time"
    if figures.both_s <= HIDDEN * figures.step_s:
        what = "the accelerator" if figures.accelerator else "the processor, which computes the step"
        bound = Bound.ACCELERATOR if figures.accelerator else Bound.CPU
        return Verdict(bound=bound, reason=f"Only {share} is spent on its input; the rest is {what}.")
    used = figures.input_cpu_share * figures.cores
    threads = "one thread" if figures.threads == 1 else f"up to {figures.threads} threads"
    computed = f"{share} is spent on its input; {threads} took {used:.1f} of {figures.cores} cores to make it"
    if used >= BUSY * figures.threads or (not figures.accelerator and figures.cpu_share >= BUSY):
        return Verdict(bound=Bound.CPU, reason=f"{computed}.")
    return Verdict(bound=Bound.IO, reason=f"{computed}, and waited for the rest of the time.")
