"""Releases of a tiny model, made from the golden bundle, and a look at what a device holds of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeloop.bundle import MANIFEST, REFERENCE, Bundle, FileEntry, Format, Requirements, read_bundle
from edgeloop.processes.frames import pack, unpack

GOLDEN = Path(__file__).parent / "golden" / "bundle-1"
NAME = "linear"  # of the bundle, and so of its slot on a device


def release(folder: Path, version: int, *, wrong: bool = False, padding_bytes: int = 0, proved: bool = False) -> Path:
    """The golden bundle again under another version, at `folder`/VERSION, without a proof.

    Args:
        wrong: The source's answers in reference.npz are others, so that every variant computes something wrong.
        proved: Every .tflite was proved on LiteRT, so that a device may choose among them.
        padding_bytes: Noise after the end of int8.tflite, which no runtime reads, so that an upload takes a while.
    """
    golden, made = read_bundle(GOLDEN), folder / str(version)
    made.mkdir(parents=True)
    contents = {name: golden.file(name).read_bytes() for name in golden.manifest.files}
    if wrong:
        arrays = unpack(contents[REFERENCE])
        contents[REFERENCE] = pack({name: a[:, ::-1] if name.startswith("out/") else a for name, a in arrays.items()})
    contents["int8.tflite"] += np.random.default_rng(version).bytes(padding_bytes)
    for name, data in contents.items():
        (made / name).write_bytes(data)
    files = {name: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()}
    variants = golden.manifest.variants
    if proved:
        on = Requirements(("litert",))
        variants = tuple(replace(v, requires=on) if v.format is Format.TFLITE else v for v in variants)
    (made / MANIFEST).write_bytes(replace(golden.manifest, version=version, files=files, variants=variants).to_bytes())
    return made


def runs_on(home: Path) -> Bundle | None:
    """What `current` of the device's slot leads to, every hash checked, a variant whole; None: nothing."""
    current = home / "slots" / NAME / "current"
    if not current.exists():
        return None
    bundle = read_bundle(current.resolve())
    assert bundle.variants, f"{current} holds no whole variant"
    return bundle


def version_on(home: Path) -> int | None:
    """The version of it."""
    bundle = runs_on(home)
    return bundle.manifest.version if bundle else None
