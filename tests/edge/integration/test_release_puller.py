"""A device that fetches its releases: what it takes, refuses, and does not try again. Signatures are OpenSSH's."""

import json
import os
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from devices import eventually, make_key
from matrix_bundles import ENTRY, LABELS, NAME, VARIANT, Deployer, X, matrix_runtime, running, slot, write_bundle
from pulling import agent_here, file_server, head

from edgeloop.bundle import MANIFEST, MANIFEST_SHA256, PROOF, REFERENCE, SIGNATURE, Requirements, proof_hash
from edgeloop.canonical import canonical_json
from edgeloop.edge.on_device.pull import offered_release, release_puller
from edgeloop.edge.on_device.pull.pull_options import PullOptions
from edgeloop.edge.on_device.pull.pull_record import PollResult, read_record
from edgeloop.edge.on_device.pull.release_puller import ReleasePuller
from edgeloop.edge.on_device.pull.release_source import SourceAddress
from edgeloop.edge.on_device.releases import staging
from edgeloop.edge.on_device.releases.protocol import Probation
from edgeloop.edge.on_device.releases.store import read_state
from edgeloop.edge.on_device.variants.variant_choice import DeployConstraints
from edgeloop.errors import DeviceError, IntegrityError
from edgeloop.hashes import digest
from edgeloop.leftovers import OWN
from edgeloop.registry.publish import publish
from edgeloop.registry.versions.version_index import INDEX, VersionIndex, parse_index
from edgeloop.runtime.parity.compare import Parity

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen: install openssh-client")
INSTALLED, NOTHING_NEW, REFUSED, FAILED = PollResult


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    """The keys `ours` and `theirs`."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        make_key(folder / name)
    return folder


@pytest.fixture(autouse=True)
def _litert(monkeypatch):
    """It is installed, and no sync waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    for module in (offered_release, staging):
        monkeypatch.setattr(module, "is_installed", lambda runtime: True)


@pytest.fixture
def home(tmp_path, keys) -> Path:
    """A device that trusts `ours`."""
    key = " ".join((keys / "ours.pub").read_text().split()[:2])
    Deployer(tmp_path / "home").ask("enroll", f"release@example.com {key}\n".encode())
    return tmp_path / "home"


@pytest.fixture
def published(tmp_path, keys):
    """`published(version, ...)`: a new version in the registry `tmp_path/registry`, signed by `key`; its folder."""

    def make(version, key="ours", accuracy=None, **options):
        bundle = write_bundle(tmp_path / "bundles" / f"{version}", version, **options)
        if accuracy is not None:
            add_proof(bundle, accuracy)
        if key:
            command = ["ssh-keygen", "-q", "-Y", "sign", "-f", keys / key, "-n", "edgeloop-bundle", bundle / MANIFEST]
            (bundle / SIGNATURE).unlink(missing_ok=True)
            subprocess.run(command, check=True, capture_output=True, timeout=180)
        return publish(bundle, tmp_path / "registry").folder

    return make


def add_proof(bundle, accuracy):
    """A proof that both variants have this accuracy, under the manifest's hash of it."""
    rows = [
        Parity(id, "litert", "2", "local", "y", 1000, 0.0, 0.0, None, None, accuracy, True) for id in (VARIANT, "other")
    ]
    proof = {"evaluation": {"samples": 1000}, "parity": [asdict(row) for row in rows]}
    manifest = {**json.loads((bundle / MANIFEST).read_bytes()), "proof_sha256": proof_hash(proof)}
    (bundle / MANIFEST).write_bytes(canonical_json(manifest))
    (bundle / PROOF).write_bytes(canonical_json({**proof, MANIFEST_SHA256: digest(bundle / MANIFEST)}))


@pytest.fixture
def pulling(tmp_path, home):
    """`pulling(...)`: a device that follows the registry, `source` a URL or its folder; `.said` is what it told."""

    def start(source=None, runtime=matrix_runtime, probation=None, variant=VARIANT, root_certificate="", **limits):
        options = PullOptions(
            address=SourceAddress(source or str(tmp_path / "registry" / NAME)),
            constraints=DeployConstraints(variant=variant, **limits),
            root_certificate=root_certificate,
            probation=probation or Probation(runs=3),
        )
        said: list[str] = []
        puller = ReleasePuller(options, str(home), said.append, agent_here(home, runtime))
        puller.said = said
        return puller

    return start


@pytest.fixture
def web(tmp_path):
    (tmp_path / "registry").mkdir()
    with file_server(tmp_path / "registry") as server:
        yield server


def test_a_release_is_fetched_checked_and_committed_and_the_device_says_so(pulling, published, home):
    published(1)
    device = pulling()
    assert [device.poll(), running(home), device.poll()] == [INSTALLED, 1, NOTHING_NEW]
    told = Deployer(home).told()
    assert (told["state"], told["current"], told["signer"]) == ("committed", 1, "release@example.com")
    pull = told["pull"]
    assert (pull["source"], pull["result"], pull["pulled"]) == (device.options.address.text, "nothing new", True)
    assert pull["reason"] == "release 1 is the newest there, and installed" and 0 <= pull["age_s"] < 600
    published(3)
    assert [device.poll(), running(home)] == [INSTALLED, 3]
    assert Deployer(home).told()["previous"] == 1
    assert device.start_agent.asked.count("activate") == 2


def test_over_http_only_what_is_needed_and_missing_travels(pulling, published, home, web):
    published(1)
    device = pulling(f"{web.url}/{NAME}")
    assert device.poll() is INSTALLED
    files = [INDEX, *(f"0001/{name}" for name in (MANIFEST, SIGNATURE, ENTRY, LABELS, REFERENCE))]
    assert web.paths() == [f"/{NAME}/{name}" for name in files]  # none of the other variant
    web.asked.clear()
    assert device.poll() is NOTHING_NEW
    assert web.asked == [(f"/{NAME}/{INDEX}", 304, "")]
    web.asked.clear()
    published(2)
    assert device.poll() is INSTALLED
    assert f"/{NAME}/0002/{LABELS}" not in web.paths()  # it is here already
    assert (running(home), len(web.asked)) == (2, 5)


def test_a_device_without_signers_follows_nobody(pulling, home):
    shutil.rmtree(home / "trust")
    with pytest.raises(IntegrityError, match="no signers are enrolled on this device"):
        pulling()


def test_an_upload_that_broke_off_goes_on_at_the_next_poll(pulling, published, home, web, monkeypatch):
    noise = np.random.default_rng(0).bytes(300_000)
    published(1, labels=noise)
    monkeypatch.setattr("edgeloop.runtime.agent.send.PIECE_BYTES", 100_000)
    path = f"/{NAME}/0001/{LABELS}"

    def breaks(handler):
        head(handler, 200, Content_Length="300000")
        handler.wfile.write(noise[:150_000])

    web.answers[path] = breaks
    device = pulling(f"{web.url}/{NAME}")
    assert device.poll() is FAILED
    assert "ended after 150000 of 300000 bytes" in device.record.reason
    assert running(home) is None
    web.answers.clear()
    web.asked.clear()
    other = pulling(f"{web.url}/{NAME}")  # the power was cut meanwhile
    assert [other.poll(), running(home)] == [INSTALLED, 1]
    assert (path, 206, "bytes=150000-") in web.asked
    assert f"/{NAME}/0001/{ENTRY}" not in web.paths()  # it was here


def unsigned(published, tmp_path):
    published(2, key=None)


def foreign(published, tmp_path):
    published(2, key="theirs")


def of_another_release(published, tmp_path):
    (published(2) / SIGNATURE).write_bytes((tmp_path / "registry" / NAME / "0001" / SIGNATURE).read_bytes())


def changed_file(published, tmp_path):
    (published(2) / ENTRY).write_bytes(bytes(16))


def longer_file(published, tmp_path):
    with (published(2) / ENTRY).open("ab") as file:
        file.write(b"more")


def changed_manifest(published, tmp_path):
    file = published(2) / MANIFEST
    file.write_bytes(canonical_json({**json.loads(file.read_bytes()), "license": {"model": "none"}}))


def another_manifest_indexed(published, tmp_path):
    changed_manifest(published, tmp_path)
    _index(tmp_path, {2: _digest(tmp_path, "0002")})


def another_version_as_2(published, tmp_path):
    folder = published(3)
    shutil.rmtree(tmp_path / "registry" / NAME / "0002", ignore_errors=True)
    folder.rename(tmp_path / "registry" / NAME / "0002")
    _index(tmp_path, {2: _digest(tmp_path, "0002")})


def another_model(published, tmp_path):
    folder = published(2, name="other")
    target = tmp_path / "registry" / NAME / "0002"
    shutil.copytree(folder, target)
    _index(tmp_path, {2: _digest(tmp_path, "0002")})


def half_copied(published, tmp_path):
    (published(2) / REFERENCE).unlink()


def _digest(tmp_path, folder):
    return digest(tmp_path / "registry" / NAME / folder / MANIFEST)


def _index(tmp_path, versions):
    (tmp_path / "registry" / NAME / INDEX).write_bytes(VersionIndex(NAME, versions).to_bytes())


HOSTILE = {
    unsigned: "manifest.json.sig cannot be read",
    foreign: "manifest.json.sig is not by a known signer",
    of_another_release: "is not a valid signature of this manifest",
    changed_file: "arrived damaged",
    longer_file: "has 20 bytes, and its manifest says 16",
    changed_manifest: "manifest.json of version 2 is another than the index says",
    another_manifest_indexed: "is not a valid signature of this manifest",
    another_version_as_2: "the index offers version 2, and the manifest there is of 3",
    another_model: "the manifest is of 'other' and the slot of 'tiny'",
    half_copied: "reference.npz cannot be read",
}


@pytest.mark.parametrize("attack", HOSTILE, ids=lambda attack: attack.__name__)
def test_what_is_not_authentic_is_not_installed_and_the_next_good_release_is(
    attack, pulling, published, home, tmp_path
):
    published(1)
    device = pulling()
    device.poll()
    attack(published, tmp_path)
    assert device.poll() is FAILED
    assert HOSTILE[attack] in device.record.reason
    assert (running(home), device.record.failures) == (1, 1)
    assert device.start_agent.asked.count("trial") == 1  # of release 1
    _index(tmp_path, {1: _digest(tmp_path, "0001")})
    published(9)
    assert [device.poll(), running(home)] == [INSTALLED, 9]
    assert device.record.failures == 0


def test_an_old_version_that_is_offered_again_is_refused_without_a_request_for_it(
    pulling, published, home, web, tmp_path
):
    published(1)
    published(2)
    device = pulling(f"{web.url}/{NAME}")
    device.poll()
    (tmp_path / "registry" / NAME / INDEX).write_bytes(VersionIndex(NAME, {1: _digest(tmp_path, "0001")}).to_bytes())
    web.asked.clear()
    assert [device.poll(), running(home), len(web.asked)] == [REFUSED, 2, 1]
    assert device.record.reason.startswith("release 1 is offered, which is not above release 2")


def test_an_alias_is_followed_instead_of_the_newest(pulling, published, home, tmp_path):
    published(1)
    publish(tmp_path / "bundles" / "1", tmp_path / "registry", aliases=["stable"])
    published(2)
    device = pulling(f"{tmp_path}/registry/{NAME}#stable")
    assert [device.poll(), running(home), device.poll()] == [INSTALLED, 1, NOTHING_NEW]
    publish(tmp_path / "bundles" / "2", tmp_path / "registry", aliases=["stable"])
    assert [device.poll(), running(home)] == [INSTALLED, 2]


def test_a_release_that_computes_something_wrong_is_tried_once(pulling, published, home):
    published(1)
    published(2, answers=-X)
    device = pulling()
    assert [device.poll() for _ in range(4)] == [REFUSED] * 4
    assert (device.start_agent.asked.count("trial"), device.start_agent.asked.count("activate")) == (1, 0)
    assert running(home) is None
    assert (
        "release 2 failed on this device, and is not tried again: float32 on litert: output 'y' has SNR"
        in device.said[0]
    )
    assert len(device.said) == 1  # said once, not at every poll
    again = pulling()  # the service was started again
    assert [again.poll(), again.start_agent.asked] == [REFUSED, []]
    published(3)
    assert [again.poll(), running(home)] == [INSTALLED, 3]


def test_a_release_that_is_too_slow_is_rolled_back_and_tried_again_only_under_other_demands(pulling, published, home):
    published(1)
    pulling().poll()
    published(2)
    hurried = Probation(64, p90_budget_ms=0.5)  # a Matrix says that it takes 1 ms
    device = pulling(probation=hurried)
    assert [device.poll(), running(home), device.poll()] == [REFUSED, 1, REFUSED]
    assert device.start_agent.asked.count("activate") == 1
    assert "p90 latency is 1 ms, above the budget of 0.5 ms" in device.record.reason
    assert Deployer(home).told()["last"]["result"] == "rolled back"
    assert pulling(probation=hurried).poll() is REFUSED
    assert [pulling(probation=Probation(64, p90_budget_ms=1.5)).poll(), running(home)] == [INSTALLED, 2]


def test_a_release_that_takes_the_device_down_is_tried_three_times(pulling, published, home):
    published(1)

    class PowerCut(BaseException):
        pass

    def dies(*model):
        raise PowerCut

    for _ in range(3):
        with pytest.raises(PowerCut):
            pulling(runtime=dies).poll()
    device = pulling()
    assert [device.poll(), running(home)] == [REFUSED, None]
    assert device.record.reason.endswith("its trial began 3 times, and never ended")


def test_a_trial_that_only_this_moment_cannot_end_is_tried_again(pulling, published, home):
    published(1)

    def busy(*model):
        raise DeviceError("no process can be started", advice="Free memory there.")

    assert [pulling(runtime=busy).poll(), pulling().poll(), running(home)] == [FAILED, INSTALLED, 1]


def test_the_variant_is_the_one_named_else_the_one_before_else_the_smallest(pulling, published, home):
    published(1, reference=False)  # to which `other` would give other answers
    assert pulling(variant=None).poll() is INSTALLED
    assert Deployer(home).told()["variant"] == "other"  # it has no labels
    assert [pulling().poll(), Deployer(home).told()["variant"]] == [INSTALLED, VARIANT]
    published(2, reference=False)
    assert [pulling(variant=None).poll(), Deployer(home).told()["variant"]] == [INSTALLED, VARIANT]
    published(3, reference=False)
    assert pulling(variant="none").poll() is FAILED


def test_a_release_that_is_not_accurate_enough_is_not_fetched_nor_one_whose_proof_was_changed(
    pulling, published, home, web, tmp_path
):
    published(1, accuracy=0.95)
    source = f"{web.url}/{NAME}"
    strict = pulling(source, min_accuracy=0.97)
    assert [strict.poll(), strict.poll()] == [REFUSED, REFUSED]
    assert "has 95.0% accuracy; the minimum is 97.0%" in strict.record.reason
    assert web.paths()[3:] == [f"/{NAME}/0001/{PROOF}", f"/{NAME}/{INDEX}"]
    proof = tmp_path / "registry" / NAME / "0001" / PROOF
    data = proof.read_bytes()
    proof.write_bytes(data.replace(b"0.95", b"0.99"))
    device = pulling(source, min_accuracy=0.98)
    assert device.poll() is FAILED
    assert "proof.json has the hash" in device.record.reason
    proof.write_bytes(data)
    assert [pulling(source, min_accuracy=0.94).poll(), running(home)] == [INSTALLED, 1]


def test_what_the_device_cannot_run_is_not_fetched(pulling, published, home, web):
    published(1, requires=Requirements(("litert",), ram_bytes=10**15))
    device = pulling(f"{web.url}/{NAME}")
    assert device.poll() is FAILED
    assert "needs 1000000000 MB of memory" in device.record.reason
    assert len(web.asked) == 3  # index, manifest and signature


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(pulling, published, home, web, monkeypatch):
    published(1)
    monkeypatch.setattr(staging, "free_bytes", lambda folder: 10)
    device = pulling(f"{web.url}/{NAME}")
    assert device.poll() is FAILED
    assert "bytes are free" in device.record.reason and len(web.asked) == 3
    assert running(home) is None


def test_a_release_that_the_disk_has_damaged_is_fetched_again(pulling, published, home):
    published(1)
    pulling().poll()
    (Path(slot(home).current) / ENTRY).write_bytes(bytes(16))
    device = pulling()
    device.start()
    assert eventually(lambda: read_state(slot(home)).current.folder == "1.1")
    device.close()
    assert running(home) == 1
    assert Deployer(home).told()["previous"] is None  # what was damaged is nothing to go back to


def test_an_index_of_another_model_is_refused(pulling, published, home, tmp_path):
    published(1)
    (tmp_path / "registry" / NAME / INDEX).write_bytes(VersionIndex("other", {1: "0" * 64}).to_bytes())
    device = pulling()
    assert device.poll() is FAILED
    assert "the registry's folder holds the model 'other', and --follow names 'tiny'" in device.record.reason


def test_an_index_that_is_damaged_for_a_moment_is_read_again(pulling, published, home, web, tmp_path):
    published(1)
    index = tmp_path / "registry" / NAME / INDEX
    whole = index.read_bytes()
    index.write_bytes(whole[:20])
    device = pulling(f"{web.url}/{NAME}")
    assert device.poll() is FAILED
    index.write_bytes(whole)
    assert device.poll() is INSTALLED
    assert parse_index(whole).find().version == 1


def test_a_record_of_another_source_is_none(pulling, published, tmp_path, home):
    published(1, answers=-X)
    device = pulling()
    device.poll()
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "registry", moved)
    other = pulling(str(moved / NAME))
    assert other.record.result == "" and other.poll() is REFUSED  # but what failed here fails from there, too
    assert read_record(slot(home)).source == str(moved / NAME)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_a_server_must_show_a_certificate_of_the_authority_that_was_named(pulling, published, home, tmp_path):
    published(1)

    def certificate(name, subject):
        file = tmp_path / name
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "2", "-subj", "/CN=registry", "-addext", f"subjectAltName={subject}"]
        subprocess.run(
            [*command, "-keyout", file, "-out", tmp_path / "c"], check=True, capture_output=True, timeout=180
        )
        file.write_bytes(file.read_bytes() + (tmp_path / "c").read_bytes())
        return file

    ours, theirs = certificate("ours.pem", "IP:127.0.0.1"), certificate("theirs.pem", "DNS:elsewhere.example")
    with file_server(tmp_path / "registry", tls=ours) as web:
        source = f"{web.url}/{NAME}"
        for other in ("", str(theirs)):
            device = pulling(source, root_certificate=other)
            assert device.poll() is FAILED
            assert "certificate" in device.record.reason and "--root-certificate" in device.record.reason
        assert pulling(source, root_certificate=str(ours)).poll() is INSTALLED
    with file_server(tmp_path / "registry", tls=theirs) as web:  # trusted, and of another host
        device = pulling(f"{web.url}/{NAME}", root_certificate=str(theirs))
        assert device.poll() is FAILED
    assert running(home) == 1


@pytest.mark.parametrize("attack", [unsigned, foreign, of_another_release], ids=lambda attack: attack.__name__)
def test_nothing_but_a_manifest_and_its_signature_is_read_before_that_is_verified(
    attack, pulling, published, web, tmp_path
):
    published(1)
    attack(published, tmp_path)
    assert pulling(f"{web.url}/{NAME}").poll() is FAILED
    assert web.paths() == [f"/{NAME}/{path}" for path in (INDEX, f"0002/{MANIFEST}", f"0002/{SIGNATURE}")]


def test_a_service_that_ends_while_its_agent_starts_begins_no_trial(pulling, published, home):
    published(1)
    device = pulling()
    start = device.start_agent

    def starts_late(timeout_s):
        device.close()
        return start(timeout_s)

    device.start_agent = starts_late
    assert device.poll() is FAILED and "the service is ending" in device.record.reason
    assert start.asked == [] and device.record.failed == {} and running(home) is None


def test_a_service_that_ends_when_a_release_was_fetched_begins_no_trial(pulling, published, home, monkeypatch):
    published(1)
    device, stage = pulling(), release_puller.stage

    def stages(*words):
        staged = stage(*words)
        device.close()
        return staged

    monkeypatch.setattr(release_puller, "stage", stages)
    assert device.poll() is FAILED and "the service is ending" in device.record.reason
    assert "trial" not in device.start_agent.asked and device.record.failed == {} and running(home) is None


def test_what_a_killed_fetch_leaves_has_the_name_that_the_next_one_sweeps(pulling, published, home):
    published(1)
    device = pulling()
    version = parse_index(device.source.index(None)[0]).find()
    with offered_release.offered_release(device.source, slot(home), version) as offered:
        assert OWN.fullmatch(offered.bundle.path.name)


def test_a_trial_that_the_end_of_the_service_cuts_short_is_none(pulling, published, home):
    published(1)

    def told_to_end(*model):
        device.close()
        raise DeviceError("the agent ended during self_check (signal SIGTERM)", advice="Try again.")

    for _ in range(4):
        device = pulling(runtime=told_to_end)
        assert device.poll() is FAILED
    assert [pulling().poll(), running(home)] == [INSTALLED, 1]
