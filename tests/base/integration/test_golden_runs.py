"""The committed bundle still computes what it did, on the runtimes of today."""

from edgeloop.convert.proof.verify import verify


def test_every_variant_of_the_golden_bundle_agrees_with_its_source(root):
    rows = verify(root / "tests" / "golden" / "bundle-1").parity
    assert {(row.variant, row.runtime) for row in rows} >= {
        ("float32", "litert"),
        ("float16", "litert"),
        ("dynamic", "litert"),
        ("int8", "litert"),
        ("onnx", "onnxruntime"),
    }
