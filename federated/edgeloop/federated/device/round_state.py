"""What a device carries from one round of a run to its next: a row of numbers, in a file.

The file holds the row before the last round and the row after it. A round that is asked for again (its replies were too
few, or the server was killed and continues the run) begins with the row from before, so it is the same round. The row
begins at zero in another run, after a jump back, and where the file is lost or damaged.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np

from edgeloop.atomic import write_file
from edgeloop.errors import one_line
from edgeloop.progress import Say


class RoundState:
    """The file `path`: two rows, so its size is that of two models. Not thread-safe.

    Args:
        what: What the row is, for the owner of the device.
        say: Tells why it begins at zero, when something else was stored.
    """

    def __init__(self, path: str, what: str, say: Say) -> None:
        self.path, self.what, self.say = path, what, say

    def before(self, run: str, number: int, size: int) -> np.ndarray:
        """The row that round `number` of `run` begins with, float32 [size]."""
        stored = self._read()
        if stored is None:
            return np.zeros(size, np.float32)
        found, last, before, after = stored
        row = before if number == last else after
        if found != run:
            why = "it is of another run"
        elif number < last:
            why = f"it is of round {last}, and the server asks for round {number}"
        elif row.shape != (size,) or row.dtype != np.float32 or not np.isfinite(row).all():
            why = "it does not fit the model"
        else:
            return row
        self.say(f"{self.what} begins at zero: {why}")
        return np.zeros(size, np.float32)

    def write(self, run: str, number: int, before: np.ndarray, after: np.ndarray) -> None:
        """Store both rows of a round.

        Raises:
            WriteError: The disk refuses; what was stored is there as it was.
        """
        packed = io.BytesIO()
        np.savez(packed, run=np.array(run), number=np.array(number), before=before, after=after)
        write_file(self.path, packed.getvalue())

    def _read(self) -> tuple[str, int, np.ndarray, np.ndarray] | None:
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                return str(stored["run"]), int(stored["number"]), stored["before"], stored["after"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, TypeError, KeyError, zipfile.BadZipFile) as e:
            self.say(f"{self.what} begins at zero: {self.path} cannot be read ({one_line(e, 100)})")
            return None
