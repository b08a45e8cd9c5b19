"""How a device's weights travel to the server: as they are, or as a compressed update of the weights that it was sent.

A sparse codec sends the largest values alone. What it leaves out, and the rounding of what it sends, is kept on the
device and added to its next update (error feedback), so that all of it is sent in the end.

Source: Stich et al. 2018, "Sparsified SGD with Memory" (arXiv:1809.07599), algorithm 1
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord

from edgeloop.errors import OptionsError, one_line
from edgeloop.federated.device.compression.codec import CODECS, Codec, decode, encode
from edgeloop.federated.device.round_state import RoundState
from edgeloop.progress import Say

UPDATE = "update"  # the record of a compressed update
COMPRESSION, SHARE, RUN = "compression", "share", "run-id"  # keys of `config`
BASE = "base"  # of `config`, and of an answer: the hash of the weights that the training began with
TRAINED_FROM = "trained-from"  # the record that names it beside weights as they are


@dataclass(frozen=True)
class Training:
    """What a device has made of a round.

    Attributes:
        base: The weights that the server sent, float32 by name.
        weights: Those after the training.
        kept: Names of weights that stay on the device; `weights` has the server's values of them.
        config: What the server asked for.
        device: The label of the device.
    """

    base: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray]
    kept: Sequence[str]
    config: Mapping[str, Any]
    device: int

    def row(self) -> np.ndarray:
        """What the training adds to the weights, float32 [n], in the order of their names."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.concatenate([(self.weights[name] - self.base[name]).reshape(-1) for name in sorted(self.base)])

    def sizes(self) -> list[int]:
        return [self.base[name].size for name in sorted(self.base)]


class Upload:
    """What one device sends of its training.

    Args:
        folder: Where what was left out lies between two rounds.
        say: Tells the owner of the device that it is lost.
    """

    def __init__(self, folder: str, say: Say) -> None:
        self._left_out = RoundState(os.path.join(folder, "left-out.npz"), "What earlier updates left out", say)

    def records(self, done: Training) -> dict[str, Any]:
        """The record of a reply that holds the update. A codec that is unknown here is none.

        Raises:
            OptionsError: The share of a sparse codec is none.
            WriteError: What is left out cannot be stored.
        """
        asked = done.config.get(COMPRESSION)
        codec = Codec(asked) if asked in CODECS else Codec.NONE
        row = None if codec is Codec.NONE else done.row()
        if row is None or not np.isfinite(row).all():  # the server refuses NaN, and says so
            arrays = ArrayRecord({name: Array(array) for name, array in done.weights.items()})
            named = {TRAINED_FROM: ConfigRecord({BASE: str(done.config[BASE])})} if BASE in done.config else {}
            return {"arrays": arrays, **named}
        if codec.sparse:
            record = self._sparse(row, codec, done)
        else:
            seed = (done.config["seed"], done.config["server-round"], done.device, zlib.crc32(row.data))
            record = encode(row, done.sizes(), codec, random=np.random.default_rng(seed))
        return {UPDATE: ConfigRecord({**record, BASE: str(done.config.get(BASE, ""))})}

    def _sparse(self, row: np.ndarray, codec: Codec, done: Training) -> dict[str, Any]:
        share = done.config.get(SHARE)
        if not isinstance(share, float) or not 0 < share <= 1:
            found = one_line(share, 40)
            raise OptionsError(f"the server asks for a share of {found}", advice="It must be above 0, and 1 at most.")
        run, number, sizes = str(done.config.get(RUN, "")), int(done.config["server-round"]), done.sizes()
        before = self._left_out.before(run, number, row.size)
        for name, part in zip(sorted(done.base), np.split(before, np.cumsum(sizes)[:-1])):
            if name in done.kept:
                part[:] = 0  # it was left out before the weight began to stay here
        row += before
        record = encode(row, sizes, codec, share)
        row -= decode(record, sizes, share)
        self._left_out.write(run, number, before, row)
        return record
