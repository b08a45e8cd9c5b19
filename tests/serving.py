"""For tests of `edgeloop run`: a tiny classifier, its two releases in a slot, the program that answers with them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgeloop.atomic import make_folder
from edgeloop.bundle import MANIFEST, REFERENCE, Format, Scheme, parse_manifest
from edgeloop.canonical import canonical_json
from edgeloop.convert.convert import convert
from edgeloop.convert.forms.recipes import Io
from edgeloop.convert.options import ConvertOptions
from edgeloop.edge.on_device.releases.recover import point
from edgeloop.edge.on_device.releases.store import Release, Slot, SlotState, write_state
from edgeloop.runtime.connection import connect
from edgeloop.runtime.device import parse_device

LABELS = ("cat", "dog", "eel")
RELEASES = {1: "float32", 2: "int8-io"}  # by the same weights: what they answer differs by int8's roundings


@pytest.fixture(scope="session")
def tiny(made_once) -> Path:
    """A bundle: images of 8 x 8 grey pixels of 0..1, three classes; float32, int8 with integer ends, ONNX."""
    return made_once("serving", make_tiny) / "tiny"


def make_tiny(folder: Path) -> None:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    stack = [
        keras.Input((8, 8, 1), name="image"),
        layers.Conv2D(4, 3, activation="relu", name="conv"),
        layers.Flatten(),
        layers.Dense(3, activation="softmax", name="p"),
    ]
    keras.Sequential(stack, name="tiny").save(folder / "tiny.keras")
    np.savez(folder / "c.npz", x=np.random.default_rng(0).random((32, 8, 8, 1), np.float32))
    options = ConvertOptions(
        calibration=folder / "c.npz",
        to=(Format.TFLITE, Format.ONNX),
        schemes=(Scheme.FLOAT32, Scheme.INT8),
        io=(Io.INT8,),
        labels=LABELS,
    )
    convert(folder / "tiny.keras", folder / "tiny", options)


def golden(bundle: Path) -> tuple[np.ndarray, np.ndarray]:
    """The bundle's real images [n, 8, 8, 1], and what Keras answered to them [n, 3]."""
    with np.load(bundle / REFERENCE) as arrays:
        return arrays["in/image"], arrays["out/p"]


@dataclass
class Deployed:
    """A slot with two installed releases. `to(2)` makes the second current, as a deploy or a rollback does."""

    home: Path
    slot: Slot
    releases: dict[int, Release]

    def to(self, version: int) -> None:
        other = self.releases[3 - version]
        write_state(self.slot, SlotState(floor=2, current=self.releases[version], previous=other))
        point(self.slot, self.releases[version])


def deployed(bundle: Path, home: Path, name: str = "tiny") -> Deployed:
    """Both releases laid out as `keep` lays them out; the first is current."""
    slot, found = Slot(str(home), name), {}
    for version, variant in RELEASES.items():
        folder = Path(slot.releases) / str(version)
        make_folder(str(folder))
        raw = json.loads((bundle / MANIFEST).read_bytes())
        data = canonical_json({**raw, "version": version})
        (folder / MANIFEST).write_bytes(data)
        files = next(v.files for v in parse_manifest(data).variants if v.id == variant)
        for file in (*files, REFERENCE):
            shutil.copy(bundle / file, folder / file)
        found[version] = Release(str(version), version, variant, "litert", 1, hashlib.sha256(data).hexdigest(), None)
    made = Deployed(home, slot, found)
    made.to(1)
    return made


@contextlib.contextmanager
def program(python: Path, log: Path, *arguments: str) -> Iterator:
    """The `answer` part in a process of its own, on this machine, that has said it started; its news in `log`."""
    with (
        connect(parse_device(f"local:{python}")) as device,
        log.open("wb") as words,
        device.start(["edge.on_device.serving.serve", *arguments], words) as child,
    ):
        assert json.loads(child.stdout.readline()) == {"started": 1}
        yield child
