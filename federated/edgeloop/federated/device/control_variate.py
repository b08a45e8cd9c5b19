"""The control variate of a device between rounds: how its gradient differs from that of all devices, for SCAFFOLD.

The file holds it before and after the last round that the device trained in. The server says which of the two goes on,
for only it knows whether the update counted: it names the last round of the device that did. So a round that is
repeated, or whose reply came too late, changes nothing.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeloop.atomic import write_file
from edgeloop.errors import DataError, one_line

Shapes = Mapping[str, tuple[int, ...]]


class ControlVariate:
    """The file `path`, as large as two models."""

    def __init__(self, path: str) -> None:
        self.path = path

    def before(self, run: str, counted: int, shapes: Shapes) -> dict[str, np.ndarray]:
        """What the device begins a round of `run` with, if `counted` is the last round that counted its update.

        Raises:
            DataError: The server's mean has a part of this device that is not here, or is damaged.
        """
        if counted == 0:
            return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        stored = self._read()
        which = {str(stored.get("number")): "after", str(stored.get("counted")): "before"}.get(str(counted))
        found = {name: stored.get(f"{which}/{name}", np.empty(0)) for name in shapes}
        fits = all(found[name].shape == shape and found[name].dtype == np.float32 for name, shape in shapes.items())
        if str(stored.get("run")) != run or which is None or not fits:
            raise self._lost(f"it has no control variate of round {counted} of {one_line(run, 60)}")
        return found

    def write(
        self, run: str, number: int, counted: int, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
    ) -> None:
        """Store what round `number` began with, which is of round `counted`, and what it ended with.

        Raises:
            WriteError: The disk refuses; what was stored is there as it was.
        """
        packed = io.BytesIO()
        arrays: dict[str, Any] = {"run": np.array(run), "number": np.array(number), "counted": np.array(counted)}
        arrays.update({f"before/{name}": array for name, array in before.items()})
        arrays.update({f"after/{name}": array for name, array in after.items()})
        np.savez(packed, **arrays)
        write_file(self.path, packed.getvalue())

    def _read(self) -> dict[str, np.ndarray]:
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as e:
            raise self._lost(one_line(e, 100)) from e

    def _lost(self, why: str) -> DataError:
        return DataError(
            f"{self.path} cannot be used: {why}",
            advice="Restore the folder of the device. Without it the run goes on without the device.",
        )
