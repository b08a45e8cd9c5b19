"""Signed bundles and enrolled devices, with OpenSSH's own ssh-keygen."""

import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from devices import make_key
from matrix_bundles import NAME, Deployer, running, slot, write_bundle
from sweeps import swept

from edgeloop.bundle import MANIFEST, SIGNATURE
from edgeloop.edge.on_device.releases import trust
from edgeloop.errors import IntegrityError, OptionsError
from edgeloop.registry.signatures import verify

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen: install openssh-client")


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    """The keys `ours` and `theirs`."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        make_key(folder / name)
    return folder


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "home"


def signer(keys: Path, name: str = "ours", options: str = "", principal: str = "release@example.com") -> bytes:
    """One line of an allowed_signers file."""
    key = " ".join((keys / f"{name}.pub").read_text().split()[:2])
    return f"{principal} {options} {key}\n".encode()


def sign(bundle: Path, key: Path, namespace: str = "edgeloop-bundle") -> Path:
    (bundle / SIGNATURE).unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", namespace, bundle / MANIFEST]
    subprocess.run(command, check=True, capture_output=True, timeout=180)
    return bundle


@pytest.fixture
def enrolled(home, keys) -> Deployer:
    """A device that trusts `ours`."""
    device = Deployer(home)
    device.ask("enroll", b"# who signs releases\n\n" + signer(keys))
    return device


def test_an_enrolled_device_takes_what_its_signer_signed_and_says_who(enrolled, home, keys, tmp_path):
    bundle = sign(write_bundle(tmp_path / "b"), keys / "ours")
    assert enrolled.deploy(bundle)["result"] == "committed"
    assert running(home) == 1
    assert enrolled.told()["signer"] == "release@example.com"
    assert enrolled.ask("status")["enrolled"] is True
    assert enrolled.deploy(bundle)["result"] == "unchanged"


def test_a_signer_of_many_names_and_limits_is_found(home, keys, tmp_path):
    line = signer(
        keys, options='namespaces="other,edgeloop-bundle",valid-after="20200101"', principal="a@x,*@example.com"
    )
    device = Deployer(home)
    device.ask("enroll", signer(keys, "theirs") + line)
    assert device.deploy(sign(write_bundle(tmp_path / "b"), keys / "ours"))["result"] == "committed"
    assert device.told()["signer"] == "a@x"


def test_a_device_that_nobody_enrolled_takes_unsigned_bundles(home, tmp_path):
    device = Deployer(home)
    assert device.deploy(write_bundle(tmp_path / "b"))["result"] == "committed"
    assert device.told()["signer"] is None
    assert device.ask("status")["enrolled"] is False


def _unsigned(bundle: Path, keys: Path) -> None:
    pass


def _by_another(bundle: Path, keys: Path) -> None:
    sign(bundle, keys / "theirs")


def _for_another_purpose(bundle: Path, keys: Path) -> None:
    sign(bundle, keys / "ours", namespace="git")


def _of_another_manifest(bundle: Path, keys: Path) -> None:
    sign(bundle, keys / "ours")
    signature = (bundle / SIGNATURE).read_bytes()
    write_bundle(bundle, version=2)
    (bundle / SIGNATURE).write_bytes(signature)


def _cut(bundle: Path, keys: Path) -> None:
    sign(bundle, keys / "ours")
    os.truncate(bundle / SIGNATURE, 100)


def _of_no_form(bundle: Path, keys: Path) -> None:
    (bundle / SIGNATURE).write_bytes(b"trust me\n")


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (_unsigned, r"has no manifest\.json\.sig"),
        (_by_another, "is not by a known signer"),
        (_for_another_purpose, "is not a valid signature of this manifest"),
        (_of_another_manifest, "is not a valid signature of this manifest"),
        (_cut, "is damaged"),
        (_of_no_form, "is damaged"),
    ],
)
def test_what_is_not_signed_by_an_enrolled_signer_is_refused_at_every_gate(enrolled, home, keys, tmp_path, made, why):
    bundle = write_bundle(tmp_path / "b")
    made(bundle, keys)
    enrolled.stage(bundle)
    for op in (enrolled.check, enrolled.trial):
        with pytest.raises(IntegrityError, match=why):
            op()
    assert running(home) is None


@pytest.mark.parametrize("time", ['valid-before="20200101"', 'valid-after="29990101"'], ids=["expired", "not yet"])
def test_a_signer_whose_time_it_is_not_is_refused(home, keys, tmp_path, time):
    device = Deployer(home)
    device.ask("enroll", signer(keys, options=time))
    device.stage(sign(write_bundle(tmp_path / "b"), keys / "ours"))
    with pytest.raises(IntegrityError, match=r"key has expired|key is not yet valid") as error:
        device.check()
    assert re.search(r"a key that is listed and valid on \d{4}-\d\d-\d\d, the day by the clock", error.value.advice)


def test_a_signer_that_expires_after_the_trial_is_refused_at_activation(home, keys, tmp_path, monkeypatch):
    device = Deployer(home)
    device.ask("enroll", signer(keys))
    device.stage(sign(write_bundle(tmp_path / "b"), keys / "ours"))
    device.trial()
    Path(trust.signers_file(str(home))).write_bytes(signer(keys, options='valid-before="20200101"'))
    with pytest.raises(IntegrityError, match="key has expired"):
        device.ask("activate", slot=NAME)
    assert running(home) is None


def test_a_device_enrolled_later_wants_signatures_from_then_on(home, keys, tmp_path):
    device, bundle = Deployer(home), write_bundle(tmp_path / "b")
    device.deploy(bundle)
    device.ask("enroll", signer(keys))
    with pytest.raises(IntegrityError, match="has no manifest"):
        device.deploy(bundle)
    assert device.deploy(sign(bundle, keys / "ours"))["result"] == "committed"
    assert device.told()["signer"] == "release@example.com"


def test_an_enrolled_device_does_not_go_back_to_an_unsigned_release(home, keys, tmp_path):
    device = Deployer(home)
    device.deploy(write_bundle(tmp_path / "1", 1))
    device.ask("enroll", signer(keys))
    device.deploy(sign(write_bundle(tmp_path / "2", 2), keys / "ours"))
    with pytest.raises(IntegrityError, match="release 1 was installed before signers were enrolled"):
        device.ask("rollback", slot=NAME)
    assert running(home) == 2


def test_signers_are_enrolled_once(enrolled, home, keys):
    file = Path(trust.signers_file(str(home)))
    before = file.read_bytes()
    enrolled.ask("enroll", before)  # the same is no other
    with pytest.raises(IntegrityError, match="holds other signers"):
        enrolled.ask("enroll", signer(keys, "theirs"))
    assert file.read_bytes() == before


def test_what_is_no_list_of_signers_is_not_enrolled(home, keys):
    device = Deployer(home)
    public, private = (keys / "ours.pub").read_bytes(), (keys / "ours").read_bytes()
    kind, key = public.split()[:2]
    other_kind = b"me ecdsa-sha2-nistp256 " + key
    for wrong in (b"", b"# nobody\n", public, private, b"me " + kind + b" AAAA\n", other_kind, b"\xff\0" * 40):
        with pytest.raises(OptionsError, match="allowed_signers file"):
            device.ask("enroll", wrong)
    with pytest.raises(OptionsError, match="allowed_signers file"):
        device.ask("enroll", signer(keys) * 1000)
    assert device.ask("status")["enrolled"] is False


def test_an_enrolled_device_without_ssh_keygen_refuses_and_says_so(enrolled, home, keys, tmp_path, monkeypatch):
    enrolled.stage(sign(write_bundle(tmp_path / "b"), keys / "ours"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert enrolled.ask("status")["ssh_keygen"] is False
    with pytest.raises(IntegrityError, match="ssh-keygen is not installed"):
        enrolled.check()


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """`stand_in(script)`: another ssh-keygen."""

    def put(script: str) -> None:
        program = tmp_path / "bin" / "ssh-keygen"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return put


def test_the_verifier_sees_nothing_of_the_environment(enrolled, keys, tmp_path, stand_in, monkeypatch):
    enrolled.stage(sign(write_bundle(tmp_path / "b"), keys / "ours"))
    stand_in(f"export -p >{tmp_path}/seen; exit 1")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/a/secret")
    with pytest.raises(IntegrityError):
        enrolled.check()
    seen = {line.split("=")[0].split()[-1] for line in (tmp_path / "seen").read_text().splitlines()}
    assert seen - {"PWD", "OLDPWD", "SHLVL", "_"} <= {"PATH", "LC_ALL", "TZ"}  # the shell's own taken away


def test_a_verifier_that_hangs_is_ended_and_the_bundle_refused(enrolled, keys, tmp_path, stand_in, monkeypatch):
    enrolled.stage(sign(write_bundle(tmp_path / "b"), keys / "ours"))
    stand_in(f"exec {shutil.which('sleep')} 60")
    monkeypatch.setattr(verify, "TIMEOUT_S", 0.2)
    with pytest.raises(IntegrityError, match=r"did not end within 0\.2 s"):
        enrolled.check()


@swept("changes", 40, 200)
def test_every_changed_byte_is_refused(enrolled, home, keys, tmp_path, changes):
    enrolled.stage(sign(write_bundle(tmp_path / "b"), keys / "ours"))
    staged = sorted(path for path in Path(slot(home).staging).rglob("*") if path.is_file())
    chance, refused, touched = random.Random(4), 0, set()
    for _ in range(changes):
        file = chance.choice(staged)
        whole = file.read_bytes()
        place = chance.randrange(len(whole))
        file.write_bytes(whole[:place] + bytes([whole[place] ^ chance.randrange(1, 256)]) + whole[place + 1 :])
        with pytest.raises(IntegrityError):
            enrolled.check()
        refused += 1
        touched.add(file.name)
        file.write_bytes(whole)
    assert refused == changes
    assert touched == {"manifest.json", "manifest.json.sig", "float32.tflite", "en.txt", "reference.npz"}
    assert enrolled.check()["signer"] == "release@example.com"  # nothing but the change was the reason
