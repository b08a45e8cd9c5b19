"""docs/bundle.md is enough: a reader written from it alone, with json, hashlib and NumPy, reads our bundles."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from edgeloop.bundle import (
    FileEntry,
    Format,
    Manifest,
    Scheme,
    Signature,
    TensorSpec,
    Variant,
    file_entries,
    proof_hash,
)
from edgeloop.canonical import canonical_json


# ---- the reader: 45 lines that import nothing of edgeloop
def read(folder: Path) -> dict:
    def unique(pairs):
        assert len(dict(pairs)) == len(pairs), "a key appears twice"
        return dict(pairs)

    data = (folder / "manifest.json").read_bytes()
    assert len(data) <= 16 << 20
    manifest = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    assert manifest["format"] == "edgeloop-bundle/1", "another format"
    for name in manifest["files"]:
        path = PurePosixPath(name)
        assert not path.is_absolute() and ".." not in path.parts and str(path) == name, "an unsafe path"
    listed = {"manifest.json", "manifest.json.sig", "proof.json", *manifest["files"]}
    present = set()
    for path in folder.rglob("*"):
        assert not path.is_symlink(), "a link"
        if path.is_file():
            present.add(path.relative_to(folder).as_posix())
    assert present <= listed, "an unlisted file"
    for name in present & set(manifest["files"]):
        content = (folder / name).read_bytes()
        entry = manifest["files"][name]
        assert len(content) == entry["bytes"], "another size"
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], "another hash"
    known = []
    for variant in manifest["variants"]:
        if variant["format"] not in ("tflite", "onnx", "tfjs", "savedmodel"):
            continue
        have = set(variant["files"]) & present
        assert not have or have == set(variant["files"]), "half a variant"
        known.append(variant)
    if "proof_sha256" in manifest and "proof.json" in present:
        proof = json.loads((folder / "proof.json").read_bytes(), object_pairs_hook=unique)
        assert proof.pop("manifest_sha256") == hashlib.sha256(data).hexdigest(), "the proof of another manifest"
        canonical = json.dumps(proof, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert hashlib.sha256(canonical).hexdigest() == manifest["proof_sha256"], "another proof"
    reference = {}
    if "reference.npz" in present:
        with np.load(folder / "reference.npz", allow_pickle=False) as arrays:
            reference = {name: arrays[name] for name in arrays.files}
    return {"manifest": manifest, "variants": known, "reference": reference}


# ---- its end


@pytest.fixture
def bundle(tmp_path):
    """A small bundle as edgeloop's own types write it."""
    (tmp_path / "float32.tflite").write_bytes(b"\0\0\0\0TFL3")
    np.savez(tmp_path / "reference.npz", **{"in/x": np.ones((2, 3), np.float32), "out/y": np.zeros((2, 1), np.float32)})
    spec = TensorSpec("x", (None, 3), "float32", range=(0.0, 0.5)), TensorSpec("y", (None, 1), "float32")
    manifest = Manifest(
        name="tiny",
        version=3,
        source={"file": "tiny.keras", "format": "keras", "sha256": "0" * 64},
        files=file_entries(tmp_path),
        signatures={"infer": Signature((spec[0],), (spec[1],))},
        variants=(
            Variant("float32", "float32.tflite", ("float32.tflite",), Format.TFLITE, Scheme.FLOAT32, ("infer",)),
        ),
    )
    proof = {"host": {"system": "Linux"}, "parity": [{"variant": "float32", "passed": True, "snr_db": 99.25}]}
    data = replace(manifest, proof_sha256=proof_hash(proof)).to_bytes()
    (tmp_path / "manifest.json").write_bytes(data)
    proof["manifest_sha256"] = hashlib.sha256(data).hexdigest()
    (tmp_path / "proof.json").write_bytes(canonical_json(proof))
    return tmp_path


def test_a_reader_written_from_the_document_reads_a_bundle(bundle):
    got = read(bundle)
    assert [v["id"] for v in got["variants"]] == ["float32"]
    assert got["manifest"]["signatures"]["infer"]["inputs"][0]["shape"] == [None, 3]
    assert got["manifest"]["signatures"]["infer"]["inputs"][0]["range"] == [0, 0.5]
    assert got["reference"]["in/x"].shape == (2, 3)


def test_the_reader_refuses_a_flipped_byte(bundle):
    (bundle / "float32.tflite").write_bytes(b"\0\0\0\1TFL3")
    with pytest.raises(AssertionError, match="another hash"):
        read(bundle)


def test_the_reader_refuses_a_changed_proof(bundle):
    proof = json.loads((bundle / "proof.json").read_bytes())
    proof["parity"][0]["snr_db"] = 120.5
    (bundle / "proof.json").write_bytes(canonical_json(proof))
    with pytest.raises(AssertionError, match="another proof"):
        read(bundle)


def test_the_reader_refuses_a_file_the_manifest_does_not_list(bundle):
    (bundle / "extra").write_bytes(b"")
    with pytest.raises(AssertionError, match="an unlisted file"):
        read(bundle)


def test_the_document_names_every_key_that_is_written(root, bundle):
    text = (root / "docs" / "bundle.md").read_text()
    manifest = json.loads((bundle / "manifest.json").read_bytes())

    def keys(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield key
                yield from keys(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from keys(inner)

    own = set(keys({k: v for k, v in manifest.items() if k not in ("files", "signatures")}))
    own |= set(keys(list(manifest["signatures"].values()))) | set(FileEntry.__dataclass_fields__)
    assert [key for key in sorted(own) if key not in text] == []


def test_no_document_has_a_place_that_was_never_filled(root):
    pages = [*root.glob("*.md"), *root.glob("*/README.md"), *root.glob("docs/*.md")]
    assert len(pages) > 8
    assert [page.name for page in pages if "@" + "@" in page.read_text()] == []
