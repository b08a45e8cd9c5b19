"""proof.json is read once, by one reader, and nothing in it is believed before it has the form of the format."""

import json
import shutil

import pytest

from edgeloop.bundle import read_bundle
from edgeloop.errors import IntegrityError, ModelError
from edgeloop.runtime.proof import read_proof


@pytest.fixture
def bundle(root, tmp_path):
    """The first bundle that edgeloop wrote: 16 samples, no device and no versions in its records."""
    return read_bundle(shutil.copytree(root / "tests/golden/bundle-1", tmp_path / "bundle"))


def changed(bundle, change):
    proof = json.loads((bundle.path / "proof.json").read_text())
    change(proof)
    (bundle.path / "proof.json").write_text(json.dumps(proof))
    return bundle


def test_the_oldest_proof_is_read_with_the_samples_of_its_evaluation(bundle):
    first, second, *_ = read_proof(bundle)
    assert (first.variant, first.runtime, first.device, first.samples, first.snr_db) == (
        *("float32", "litert", "local", 16, None),
    )
    assert second.snr_db == pytest.approx(141.267, abs=1e-3) and second.passed is True


def test_a_bundle_without_a_proof_has_no_records(bundle):
    (bundle.path / "proof.json").unlink()
    assert read_proof(bundle) == ()


def test_a_field_of_a_later_version_is_ignored(bundle):
    before = read_proof(bundle)
    assert read_proof(changed(bundle, lambda proof: proof["parity"][0].update(colour="red"))) == before


def test_a_proof_of_another_manifest_is_refused(bundle):
    with pytest.raises(IntegrityError, match=r"belongs to another manifest\. Fetch the bundle again"):
        read_proof(changed(bundle, lambda proof: proof.update(manifest_sha256="0" * 64)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda proof: proof.pop("parity"), "KeyError: 'parity'"),
        (lambda proof: proof.update(parity=7), "TypeError"),
        (lambda proof: proof.update(parity=["x"]), "TypeError"),
        (lambda proof: proof["parity"][0].pop("passed"), "KeyError: 'passed'"),
        (lambda proof: proof["parity"][0].update(passed=1), "passed is 1, expected bool"),
        (lambda proof: proof["parity"][0].update(accuracy="high"), r"accuracy is 'high', expected float \| None"),
        (lambda proof: proof["parity"][0].update(samples=True), "samples is True, expected int"),
        (lambda proof: proof["parity"][0].update(variant=None), "variant is None, expected str"),
        (lambda proof: proof["parity"][0].update(worst_layer=[]), r"worst_layer is \[\], expected str \| None"),
    ],
)
def test_what_breaks_the_format_is_refused_by_name(bundle, change, why):
    with pytest.raises(ModelError, match=why):
        read_proof(changed(bundle, change))
