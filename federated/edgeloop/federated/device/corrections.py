"""What a strategy adds to the steps of a device: the proximal term of FedProx, or the control variates of SCAFFOLD.

A step of plain SGD is linear in the gradient, so a further term of the gradient may be taken off after the step, and
the sum is the same: w - lr * (g + term) = (w - lr * g) - lr * term, up to the rounding to float32.

Sources
    FedProx   Li et al. 2018 (arXiv:1812.06127), the term mu * (w - w0), taken at the weights before the step
    SCAFFOLD  Karimireddy et al. 2020 (arXiv:1910.06378), algorithm 1: the term c - c_i, and option II
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.errors import OptionsError, one_line
from edgeloop.federated.device.control_variate import ControlVariate

MU = "proximal-mu"  # key of `config`, as Flower's FedProx sends it
CONTROL = "control"  # the record of the server's control variate
COUNTED = "counted"  # key of `config`: by label of a device, the last round that counted its update; 0: none did

Weights = Mapping[str, np.ndarray]


class Plain:
    """Nothing is added."""

    step = None

    def finish(self, trained: Weights, steps: int) -> None:
        """Nothing is kept."""


class Proximal:
    """Pulls the weights `names` back to `base`, those of the server."""

    def __init__(self, base: Weights, names: Sequence[str], mu: float, lr: float) -> None:
        if not (math.isfinite(mu) and mu >= 0):
            raise OptionsError(f"{MU} is {one_line(mu, 40)}", advice="It must be 0 or more.")
        self._base, self._pull = {name: base[name] for name in names}, np.float32(lr * mu)

    def step(self, before: Weights, after: Weights) -> Weights:
        pulled = {name: after[name] - self._pull * (before[name] - base) for name, base in self._base.items()}
        return {**after, **pulled}

    def finish(self, trained: Weights, steps: int) -> None:
        """Nothing is kept."""


class Controlled:
    """Corrects steps by control variates, and stores the device's own new one, c_i+ = c_i - c + (x - y) / (steps * lr).

    Args:
        base: The server's weights, x.
        control: The server's control variate c, of the weights that it is for.
        number, counted: This round, and the last one that counted an update of this device.
        own: Where the device's variate c_i lies.
    """

    def __init__(
        self, base: Weights, control: Weights, lr: float, run: str, number: int, counted: int, own: ControlVariate
    ) -> None:
        self._base, self._control, self._lr, self._own = base, control, lr, own
        self._round = run, number, counted
        self._variate = own.before(run, counted, {name: array.shape for name, array in control.items()})
        self._shift = {name: np.float32(lr) * (self._variate[name] - array) for name, array in control.items()}

    def step(self, before: Weights, after: Weights) -> Weights:
        return {**after, **{name: after[name] + shift for name, shift in self._shift.items()}}

    def finish(self, trained: Weights, steps: int) -> None:
        rate = np.float32(1 / (steps * self._lr))
        moved = {
            name: self._variate[name] - array + rate * (self._base[name] - trained[name])
            for name, array in self._control.items()
        }
        self._own.write(*self._round, self._variate, moved)


def correction_of(
    config: Mapping[str, Any], control: Weights, base: Weights, names: Sequence[str], device: int, own: ControlVariate
) -> Plain | Proximal | Controlled:
    """What the server asks for.

    Args:
        control: The server's control variate; empty where the strategy has none.
        names: Weights that are trained and do not stay on the device.

    Raises:
        OptionsError: What it asks for makes no sense.
        DataError: The device's own variate is lost.
    """
    if control:
        counted, held = list(config.get(COUNTED, ())), {name: control[name] for name in names if name in control}
        if not 0 <= device < len(counted) or any(array.shape != base[name].shape for name, array in held.items()):
            raise OptionsError(
                f"the server's control variate is not for device {device} or not for this model",
                advice="Take scaffold for devices with numbers of their own.",
            )
        run, number = str(config.get("run-name", "")), int(config["server-round"])
        return Controlled(base, held, float(config["lr"]), run, number, int(counted[device]), own)
    mu = config.get(MU, 0.0)
    return Proximal(base, names, float(mu), float(config["lr"])) if mu else Plain()
