"""proof.json is read once, by one reader, and nothing in it is believed before it has the form of the format."""

import json
import shutil
from dataclasses import replace

import pytest

from edgeloop.bundle import MANIFEST, PROOF, proof_hash, read_bundle
from edgeloop.canonical import canonical_json
from edgeloop.errors import IntegrityError, ModelError
from edgeloop.hashes import digest_of
from edgeloop.runtime.parity.proof import read_proof


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


@pytest.fixture
def signed_proof(bundle):
    """The bundle as today's writer makes it: the manifest has the hash of the proof."""
    proof = json.loads(bundle.file(PROOF).read_bytes())
    data = replace(bundle.manifest, proof_sha256=proof_hash(proof)).to_bytes()
    bundle.file(MANIFEST).write_bytes(data)
    proof["manifest_sha256"] = digest_of(data)
    bundle.file(PROOF).write_bytes(canonical_json(proof))
    return read_bundle(bundle.path)


def test_the_manifests_hash_is_of_what_the_proof_says_not_of_its_white_space(signed_proof):
    before = read_proof(signed_proof)
    assert len(before) > 5
    signed_proof.file(PROOF).write_text(json.dumps(json.loads(signed_proof.file(PROOF).read_bytes()), indent=2))
    assert read_proof(read_bundle(signed_proof.path)) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda proof: proof["parity"][0].update(accuracy=1.0),
        lambda proof: proof["parity"].pop(),
        lambda proof: proof["evaluation"].update(samples=10000),
        lambda proof: proof["host"].update(machine="riscv64"),
        lambda proof: proof.update(added=None),
        lambda proof: proof.update(added=1 << 60),
    ],
)
def test_a_proof_whose_manifest_names_another_is_refused(signed_proof, change):
    changed(signed_proof, change)
    with pytest.raises(
        IntegrityError, match=r"proof\.json has the hash .*, its manifest says .*fetch the bundle again"
    ):
        read_bundle(signed_proof.path)


def test_a_proof_that_is_no_json_any_more_is_refused(signed_proof):
    signed_proof.file(PROOF).write_bytes(signed_proof.file(PROOF).read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="has the hash none"):
        read_bundle(signed_proof.path)


def test_the_part_of_a_bundle_that_a_device_holds_needs_no_proof_and_a_decision_by_it_does(signed_proof):
    signed_proof.file(PROOF).unlink()
    with pytest.raises(IntegrityError, match=r"lacks proof\.json\. Fetch the bundle again"):
        read_proof(read_bundle(signed_proof.path))


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
