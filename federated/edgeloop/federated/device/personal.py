"""Personal layers: weights that stay on a device. Each round the rest of the model comes from the server; these do not.

Source: Arivazhagan et al. 2019, "Federated Learning with Personalization Layers" (arXiv:1912.00818)
"""

from __future__ import annotations

import fnmatch
import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.atomic import write_file
from edgeloop.bundle import Manifest
from edgeloop.errors import DataError, OptionsError, one_line
from edgeloop.hashes import digest_of

HEAD = "head"  # the last layer


@dataclass(frozen=True)
class PersonalLayers:
    """What stays on this device.

    Attributes:
        folder: Where they are stored, a file for each model.
        patterns: `head`, or patterns of weight names (w006) or of the paths that Keras gives them (dense_1/*).
    """

    folder: str
    patterns: tuple[str, ...] = ()

    def names(self, weights: Sequence[str], manifest: Manifest | None) -> tuple[str, ...]:
        """The weights, in `get_weights` order, that stay here.

        Raises:
            OptionsError: A pattern that fits no weight.
        """
        paths = {weight.name: weight.keras_path for weight in manifest.weights} if manifest else {}
        found: set[str] = set()
        for pattern in self.patterns:
            fits = _head(weights, paths) if pattern == HEAD else _matching(pattern, weights, paths)
            if not fits:
                known = sorted(set(paths.values())) or list(weights)
                raise OptionsError(
                    f"--keep-local {pattern} names no weight of this model",
                    advice=f"Choose {HEAD}, or among: {', '.join(known[:20])}.",
                )
            found.update(fits)
        return tuple(name for name in weights if name in found)

    def read(self, model: str) -> dict[str, np.ndarray]:
        """What is stored for the model of that name; nothing before its first round.

        Raises:
            DataError: What is stored is damaged: training from the server's values instead would lose it for good.
        """
        path = self._file(model)
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as e:
            raise DataError(
                f"the personal weights in {path} cannot be read ({one_line(e, 100)})",
                advice="Restore the file, or delete it to begin anew with the server's weights.",
            ) from e

    def write(self, model: str, weights: Mapping[str, np.ndarray]) -> None:
        """Store them.

        Raises:
            WriteError: The disk refuses.
        """
        packed = io.BytesIO()
        np.savez(packed, **dict[str, Any](weights))
        write_file(self._file(model), packed.getvalue())

    def _file(self, model: str) -> str:
        return os.path.join(self.folder, f"{digest_of(model.encode())[:16]}.npz")


def _head(weights: Sequence[str], paths: Mapping[str, str]) -> list[str]:
    """The weights of the last layer; without paths, a kernel and its bias."""
    if not paths:
        return list(weights[-2:])
    last = paths[weights[-1]].rpartition("/")[0]
    return [name for name in weights if paths.get(name, "").rpartition("/")[0] == last]


def _matching(pattern: str, weights: Sequence[str], paths: Mapping[str, str]) -> list[str]:
    return [
        name
        for name in weights
        if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(paths.get(name, ""), pattern)
    ]
