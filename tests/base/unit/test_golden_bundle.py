"""A bundle that was written in November 2026 and is committed: whatever changes, it stays readable, byte for byte.

Its model is p = softmax(x @ W), W[i, j] = (3 i + j) / 10.
"""

import hashlib
import json

import numpy as np
import pytest

from edgeloop.bundle import MANIFEST, PROOF, parse_manifest, read_bundle
from edgeloop.files.flatbuffer import float_operators, read_tflite
from edgeloop.runtime.parity.reference import read_reference


@pytest.fixture
def bundle(root):
    return read_bundle(root / "tests" / "golden" / "bundle-1")


def test_every_variant_of_the_golden_bundle_is_read(bundle):
    assert [v.id for v in bundle.variants] == ["float32", "float16", "dynamic", "int8", "onnx"]
    assert bundle.manifest.signatures["infer"].outputs[0].labels == ("a", "b", "c")


def test_reading_and_writing_the_golden_manifest_gives_the_same_bytes(bundle):
    data = bundle.file(MANIFEST).read_bytes()
    assert parse_manifest(data).to_bytes() == data


def test_the_golden_proof_is_about_the_golden_manifest(bundle):
    proof = json.loads(bundle.file(PROOF).read_bytes())
    assert proof["manifest_sha256"] == hashlib.sha256(bundle.file(MANIFEST).read_bytes()).hexdigest()
    assert all(row["passed"] for row in proof["parity"])


def test_the_golden_answers_are_softmax_of_the_product_by_numpy(bundle):
    inputs, outputs = read_reference(bundle)
    z = np.exp(inputs["x"].astype(np.float64) @ (np.arange(12).reshape(4, 3) / 10))
    # float32 against float64: one product of four terms and a softmax, some ten roundings of 2^-24
    np.testing.assert_allclose(outputs["p"], z / z.sum(-1, keepdims=True), atol=1e-6)


def test_the_golden_int8_file_has_no_float_operator_and_the_float_file_has(bundle):
    assert float_operators(bundle.file("int8.tflite").read_bytes()) == []
    assert float_operators(bundle.file("float32.tflite").read_bytes()) == ["FULLY_CONNECTED", "SOFTMAX"]
    (signature,) = read_tflite(bundle.file("float32.tflite").read_bytes()).signatures
    assert (signature.name, list(signature.inputs), list(signature.outputs)) == ("infer", ["x"], ["p"])
