"""Bundles brought to real devices: this machine and others behind ssh, by the command line as by the library."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from devices import SshDevice, eventually, make_key
from releases import NAME, release, runs_on, version_on

from edgeloop.bundle import SIGNATURE, read_bundle
from edgeloop.cli import run as edgeloop
from edgeloop.edge.deploy.deploy_result import DeployOptions
from edgeloop.edge.deploy.known_devices import FLEET
from edgeloop.edge.deploy.rollout import deploy
from edgeloop.edge.on_device.variants.variant_choice import DeployConstraints
from edgeloop.errors import DataError, IntegrityError
from edgeloop.processes.children import owned
from edgeloop.registry.signatures.sign import sign_bundle, verify_signature
from edgeloop.runtime.agent.paths import HOME
from edgeloop.runtime.device import parse_device

INT8 = DeployOptions(constraints=DeployConstraints(variant="int8", runtime="litert"), timeout_s=60)
FLOAT16 = DeployOptions(constraints=DeployConstraints(variant="float16", runtime="litert"), timeout_s=60)


@pytest.fixture(autouse=True)
def _own_fleet(tmp_path, monkeypatch):
    monkeypatch.setenv(FLEET, str(tmp_path / "fleet.json"))


@pytest.fixture
def local(tmp_path, monkeypatch, device_python):
    """This machine as a device without TensorFlow: (device, its folder)."""
    monkeypatch.setenv(HOME, str(tmp_path / "local-home"))
    return parse_device(f"local:{device_python}"), tmp_path / "local-home"


@pytest.fixture(params=["local", "ssh"])
def device_and_home(request):
    if request.param == "local":
        return request.getfixturevalue("local")
    there: SshDevice = request.getfixturevalue("ssh_device")
    return there.device, there.home


@pytest.fixture
def ask(capfd):
    """`ask(ARGUMENT...)`: the exit code of edgeloop and the JSON document it printed, None where it printed none."""

    def ask(*arguments):
        code = edgeloop([*map(str, arguments), "--json"])
        printed = capfd.readouterr().out
        return code, json.loads(printed) if printed else None

    return ask


@pytest.fixture
def signer(tmp_path):
    """A key, and the allowed_signers file that names it."""
    make_key(tmp_path / "key")
    (tmp_path / "signers").write_text("me@example.org " + (tmp_path / "key.pub").read_text())
    return tmp_path / "key", tmp_path / "signers"


def test_a_release_is_committed_then_unchanged_then_replaced_by_what_changed(device_and_home, tmp_path):
    device, home = device_and_home
    first, second = release(tmp_path, 1), release(tmp_path, 2)
    (outcome,) = deploy(first, [device], INT8)
    assert (outcome.result, outcome.before, outcome.error) == ("committed", None, None)
    assert outcome.p50_ms is not None and outcome.p90_ms >= outcome.p50_ms > 0
    on_device = runs_on(home)
    assert [v.id for v in on_device.variants] == ["int8"] and on_device.manifest.version == 1
    assert outcome.sent_bytes == sum(on_device.manifest.files[name].bytes for name in ("int8.tflite", "reference.npz"))

    (outcome,) = deploy(first, [device], INT8)
    assert (outcome.result, outcome.step, outcome.sent_bytes) == ("unchanged", "begin", 0)

    (outcome,) = deploy(second, [device], FLOAT16)
    assert (outcome.result, outcome.before, version_on(home)) == ("committed", 1, 2)
    assert outcome.sent_bytes == on_device.manifest.files["float16.tflite"].bytes  # reference.npz is there already


def test_an_older_release_is_refused_and_what_runs_there_stays(local, tmp_path):
    device, home = local
    deploy(release(tmp_path, 2), [device], INT8)
    (outcome,) = deploy(release(tmp_path, 1), [device], INT8)
    assert isinstance(outcome.error, IntegrityError) and "--release 3" in outcome.reason
    assert version_on(home) == 2


def test_another_runtime_or_number_of_threads_is_a_change_of_the_same_release(local, tmp_path):
    device, home = local
    path = release(tmp_path, 1)
    deploy(path, [device], INT8)
    for changed in (
        replace(INT8, threads=2),
        replace(INT8, constraints=DeployConstraints(variant="int8", runtime="tflite-runtime")),
    ):
        (outcome,) = deploy(path, [device], changed)
        assert (outcome.result, outcome.sent_bytes, outcome.runtime) == ("committed", 0, changed.constraints.runtime)
        assert deploy(path, [device], changed)[0].result == "unchanged"
    assert version_on(home) == 1


def test_a_release_that_was_damaged_on_the_device_is_repaired(local, tmp_path):
    device, home = local
    bundle = release(tmp_path, 1)
    deploy(bundle, [device], INT8)
    file = (home / "slots" / NAME / "current").resolve() / "int8.tflite"
    data = bytearray(file.read_bytes())
    data[300] ^= 1
    file.write_bytes(data)
    (outcome,) = deploy(bundle, [device], INT8)
    assert (outcome.result, outcome.sent_bytes) == ("committed", len(data))
    assert version_on(home) == 1


def test_wrong_answers_keep_the_old_release_and_exit_with_5(local, tmp_path, ask):
    device, home = local
    deploy(release(tmp_path, 1), [device], INT8)
    code, document = ask("deploy", release(tmp_path, 2, wrong=True), "--to", device.name, "--variant", "int8")
    (row,) = document["devices"]
    assert (code, row["error"]["exit_code"], row["result"], row["step"], row["before"]) == (5, 5, "failed", "trial", 1)
    assert version_on(home) == 1


def test_a_release_over_its_latency_budget_takes_itself_back_and_exits_with_6(device_and_home, tmp_path, ask):
    device, home = device_and_home
    deploy(release(tmp_path, 1), [device], INT8)
    slow = ["--p90-budget-ms", "0.0000001", "--variant", "int8"]
    code, document = ask("deploy", release(tmp_path, 2), "--to", device.name, *slow)
    (row,) = document["devices"]
    assert (code, row["result"], row["before"]) == (6, "rolled back", 1) and "budget" in row["reason"]
    assert version_on(home) == 1
    code, document = ask("deploy", release(tmp_path, 3), "--to", device.name, "--variant", "int8")
    assert (code, document["devices"][0]["result"], version_on(home)) == (0, "committed", 3)


def test_rollback_goes_to_the_kept_release_once_and_names_it(local, tmp_path, ask):
    device, home = local
    deploy(release(tmp_path, 1), [device], INT8)
    code, document = ask("rollback", device.name)
    assert (code, document["devices"][0]["version"]) == (2, None) and version_on(home) == 1
    deploy(release(tmp_path, 2), [device], FLOAT16)
    code, document = ask("rollback", device.name)
    (row,) = document["devices"]
    assert (code, row["slot"], row["before"], row["version"], row["variant"]) == (0, NAME, 2, 1, "int8")
    assert version_on(home) == 1
    code, _ = ask("rollback", device.name, "--slot", "another")
    assert code == 2


def test_devices_says_what_runs_where_and_why_a_device_is_silent(ssh_device, local, tmp_path, ask):
    deploy(release(tmp_path, 1), [ssh_device.device, local[0]], INT8)
    code, document = ask("devices")
    document["devices"].sort(key=lambda row: row["device"], reverse=True)  # whichever was asked first is first
    assert code == 0 and [row["device"] for row in document["devices"]] == [ssh_device.device.name, local[0].name]
    for row in document["devices"]:
        slot = row["slots"][NAME]
        assert (slot["current"], slot["floor"], slot["variant"], slot["state"]) == (1, 1, "int8", "committed")
        assert row["enrolled"] is False and row["machine"]["ram_total_bytes"] > 1e8
    os.kill(ssh_device.sshd.pid, signal.SIGKILL)
    code, document = ask("devices", ssh_device.device.name, local[0].name)
    assert code == 0 and [row["reachable"] for row in document["devices"]] == [False, True]
    assert "cannot reach 127.0.0.1" in document["devices"][0]["error"]["found"]


def test_devices_without_any_says_how_to_name_one(ask):
    assert ask("devices")[0] == 2


def test_an_enrolled_device_takes_only_bundles_of_its_signers(local, tmp_path, signer, ask):
    device, home = local
    key, signers = signer
    assert ask("enroll", device.name, "--signers", signers)[0] == 0
    assert ask("enroll", device.name, "--signers", signers)[0] == 0  # the same again
    make_key(tmp_path / "other")
    (tmp_path / "others").write_text("you@example.org " + (tmp_path / "other.pub").read_text())
    code, document = ask("enroll", device.name, "--signers", tmp_path / "others")
    assert (code, document["devices"][0]["result"]) == (9, "failed")

    path = release(tmp_path, 1)
    (outcome,) = deploy(path, [device], INT8)
    assert isinstance(outcome.error, IntegrityError) and "is not signed" in outcome.reason
    sign_bundle(read_bundle(path), tmp_path / "other")
    (outcome,) = deploy(path, [device], INT8)
    assert isinstance(outcome.error, IntegrityError) and outcome.step == "check"
    assert version_on(home) is None
    sign_bundle(read_bundle(path), key)
    (outcome,) = deploy(path, [device], INT8)
    assert (outcome.result, version_on(home)) == ("committed", 1)


def test_a_wave_that_fails_leaves_later_devices_as_they_are(new_ssh_device, local, tmp_path, ask):
    """The second wave's device trusts nobody who signed this; the third is never asked."""
    left, right = new_ssh_device("left"), new_ssh_device("right")
    make_key(tmp_path / "key")
    (tmp_path / "signers").write_text("me@example.org " + (tmp_path / "key.pub").read_text())
    ask("enroll", right.device.name, "--signers", tmp_path / "signers")
    to = [word for name in (left.device.name, right.device.name, local[0].name) for word in ("--to", name)]
    code, document = ask("deploy", release(tmp_path, 1), *to, "--waves", "1,2,100%", "--variant", "int8")
    rows = document["devices"]
    assert code == 9 and [row["result"] for row in rows] == ["committed", "failed", "not started"]
    assert [row["wave"] for row in rows] == [1, 2, 3]
    assert (version_on(left.home), version_on(right.home), version_on(local[1])) == (1, None, None)
    assert not local[1].exists()


def test_the_fastest_variant_is_measured_there_once(ssh_device, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "cache"))
    path = release(tmp_path, 1)
    (outcome,) = deploy(path, [ssh_device.device], DeployOptions())
    assert outcome.result == "committed" and "fastest of 8 measured there" in outcome.reason
    (file,) = (tmp_path / "cache" / "speeds").iterdir()
    speeds = {(row["variant"], row["runtime"]): row["ms"] for row in json.loads(file.read_text())["speeds"]}
    assert (outcome.variant, outcome.runtime) == min(speeds, key=speeds.get)
    written = file.stat().st_mtime_ns
    assert deploy(path, [ssh_device.device], DeployOptions())[0].result == "unchanged"
    assert file.stat().st_mtime_ns == written


def test_ctrl_c_ends_the_children_and_says_what_state_each_device_is_in(ssh_device, local, tmp_path):
    """Interrupted as soon as one of them stages what comes, wherever the other one is then."""
    path = release(tmp_path, 1, padding_bytes=30 << 20)
    command = [sys.executable, "-m", "edgeloop", "deploy", path, "--to", ssh_device.device.name, "--to", local[0].name]
    with (
        (tmp_path / "err").open("wb") as err,
        owned([*map(str, command), "--variant", "int8", "--runtime", "litert"], stderr=err) as child,
    ):
        staging = [home / "slots" / NAME / "staging" for home in (ssh_device.home, local[1])]
        assert eventually(lambda: any(folder.exists() for folder in staging), 60)
        os.kill(child.pid, signal.SIGINT)
        assert child.wait(90) == 130
    said = (tmp_path / "err").read_text()
    assert "interrupted; every process that was started has ended" in said
    assert ssh_device.device.name in said and local[0].name in said
    assert eventually(lambda: not ssh_device.processes())
    assert [outcome.error for outcome in deploy(path, [ssh_device.device, local[0]], INT8)] == [None, None]


def test_a_signature_holds_for_one_manifest_and_the_signers_of_today(tmp_path, signer):
    key, signers = signer
    bundle = read_bundle(release(tmp_path, 1))
    with pytest.raises(IntegrityError, match="it is not signed"):
        verify_signature(bundle, signers)
    sign_bundle(bundle, key)
    assert verify_signature(bundle, signers) == "me@example.org"
    line = signers.read_text()
    for other in (
        line.replace("me@example.org ", 'me@example.org valid-before="20200101" '),
        line.replace("me@example.org ", 'me@example.org namespaces="git" '),
        "",
    ):
        signers.write_text(other)
        with pytest.raises(IntegrityError):
            verify_signature(bundle, signers)
    signers.write_text(line)
    another = read_bundle(release(tmp_path, 2))
    another.file(SIGNATURE).write_bytes(bundle.file(SIGNATURE).read_bytes())
    with pytest.raises(IntegrityError):
        verify_signature(another, signers)


def test_a_key_that_cannot_sign_says_why_and_nothing_is_asked(tmp_path, signer):
    bundle = read_bundle(release(tmp_path, 1))
    locked = tmp_path / "locked"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "a secret", "-f", locked]
    subprocess.run(command, check=True, timeout=180)
    (tmp_path / "no-key").write_text("nothing")
    signer[0].chmod(0o644)
    reasons = {
        locked: "passphrase, and edgeloop never asks",
        signer[0]: "other users can read it",
        tmp_path / "missing": "does not exist",
        tmp_path / "no-key": "Expected an OpenSSH key file",
    }
    for key, reason in reasons.items():
        with pytest.raises(DataError, match=reason) as refused:
            sign_bundle(bundle, key)
        assert "\n" not in str(refused.value)
    assert not bundle.file(SIGNATURE).exists()
