"""Releases on a device: what is taken, what is refused, what is kept, and what comes back."""

import contextlib
import errno
import json
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matrix_bundles import (
    ENTRY,
    LABELS,
    NAME,
    VARIANT,
    Deployer,
    Matrix,
    matrix,
    running,
    slot,
    write_bundle,
)

from edgeloop.bundle import MANIFEST, REFERENCE, SIGNATURE, Requirements, Variant, read_bundle
from edgeloop.edge.on_device.percentiles import percentile
from edgeloop.edge.on_device.releases import lock, staging, store
from edgeloop.edge.on_device.releases.recover import recover
from edgeloop.edge.on_device.releases.requirements import check_requirements
from edgeloop.edge.on_device.releases.store import Slot, read_state, slots, write_state
from edgeloop.edge.on_device.serving.served_release import ServeRequest, select_release
from edgeloop.errors import (
    DeviceError,
    IntegrityError,
    ModelError,
    OptionsError,
    ParityError,
    TargetError,
    WriteError,
)


@pytest.fixture(autouse=True)
def _no_power_cut(monkeypatch):
    """A sync takes milliseconds on a quiet disk and seconds on a busy one; what is synced is an integration test."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def short_wait(monkeypatch):
    """For who asks while another deployer holds the slot: it holds it for longer than any wait."""
    monkeypatch.setattr(lock, "LOCK_S", 0.05)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def bundle(tmp_path):
    """`bundle(version, ...)`: a new bundle."""
    made = iter(range(100))
    return lambda version=1, **options: write_bundle(tmp_path / f"bundle-{next(made)}", version, **options)


@pytest.fixture
def deployer(home):
    return Deployer(home)


def releases(home: Path) -> list[str]:
    return sorted(os.listdir(slot(home).releases))


def test_a_deploy_is_committed_and_raises_the_floor(deployer, bundle, home):
    assert deployer.deploy(bundle(3))["result"] == "committed"
    assert running(home) == 3
    told = deployer.told()
    assert (told["state"], told["current"], told["previous"], told["floor"]) == ("committed", 3, None, 3)
    assert (told["variant"], told["runtime"], told["signer"]) == (VARIANT, "litert", None)


def test_the_release_before_is_kept_and_none_before_that(deployer, bundle, home):
    for version in (1, 2, 3):
        deployer.deploy(bundle(version))
    assert releases(home) == ["2", "3"]
    assert deployer.told()["previous"] == 2


def test_a_device_holds_one_variant_and_the_reference(deployer, bundle, home):
    deployer.deploy(bundle())
    held = {p.relative_to(slot(home).current).as_posix() for p in Path(slot(home).current).rglob("*") if p.is_file()}
    assert held == {MANIFEST, ENTRY, LABELS, REFERENCE}


def test_the_same_deploy_again_changes_nothing(deployer, bundle, home):
    same = bundle()
    deployer.deploy(same)
    before = Path(slot(home).state).stat().st_mtime_ns
    assert deployer.deploy(same) == {"result": "unchanged"}
    assert Path(slot(home).state).stat().st_mtime_ns == before
    assert not Path(slot(home).staging).exists()


def test_an_unchanged_deploy_writes_nothing_and_waits_for_nobody(deployer, bundle, home):
    same = bundle()
    deployer.deploy(same)
    before = {path: path.lstat().st_mtime_ns for path in home.rglob("*")}
    with lock.locked(slot(home).path, "another"):
        held = {path: path.lstat().st_mtime_ns for path in home.rglob("*")}
        assert deployer.deploy(same) == {"result": "unchanged"}
        assert held == {path: path.lstat().st_mtime_ns for path in home.rglob("*")}
    assert before.keys() == held.keys()


def test_a_release_that_this_python_cannot_run_is_not_unchanged(deployer, bundle, monkeypatch):
    same = bundle()
    deployer.deploy(same)
    monkeypatch.setattr(staging, "is_installed", lambda runtime: False)
    assert deployer.deploy(same) != {"result": "unchanged"}  # it is tried again, and what lacks is named then


def test_only_changed_files_travel(deployer, bundle):
    deployer.deploy(bundle(1))
    assert deployer.stage(bundle(2))["missing"] == [ENTRY, REFERENCE]  # the labels are here


@pytest.mark.usefixtures("short_wait")
def test_an_upload_that_broke_off_goes_on_and_is_no_release_before_it_is_whole(deployer, bundle, home):
    new = bundle(labels=b"0123456789")
    begun = {"slot": NAME, "variant": VARIANT}
    deployer.ask("begin", (new / MANIFEST).read_bytes(), **begun)
    files = json.loads((new / MANIFEST).read_bytes())["files"]
    asked = {"slot": NAME, "path": LABELS, "size": 10, "sha256": files[LABELS]["sha256"]}
    deployer.ask("push", b"0123", **asked, offset=0)
    with pytest.raises(IntegrityError):
        deployer.check()
    again = Deployer(home)
    with pytest.raises(DeviceError, match="another deploy is running"):
        again.ask("begin", (new / MANIFEST).read_bytes(), **begun)
    deployer.end()
    again.ask("begin", (new / MANIFEST).read_bytes(), **begun)
    assert again.ask("push", **asked)["have"] == 4
    assert again.deploy(new)["result"] == "committed"


def test_an_older_version_is_refused_before_anything_travels(deployer, bundle, home):
    deployer.deploy(bundle(5))
    for version in (4, 5):  # another manifest of version 5
        with pytest.raises(IntegrityError, match=rf"release {version} is not above release 5.*--release 6"):
            deployer.stage(bundle(version, labels=b"other"))
    assert running(home) == 5


def test_the_floor_outlives_the_releases(deployer, bundle):
    deployer.deploy(bundle(1))
    two = bundle(2)
    deployer.deploy(two)
    deployer.ask("rollback", slot=NAME)
    assert deployer.told()["floor"] == 2
    with pytest.raises(IntegrityError, match="not above release 2"):
        deployer.stage(two)


def test_a_damaged_release_is_repaired_by_its_own_bundle(deployer, bundle, home):
    deployer.deploy(bundle(1))
    two = bundle(2)
    deployer.deploy(two)
    (Path(slot(home).current) / ENTRY).write_bytes(b"\0" * 16)
    assert deployer.ask("begin", (two / MANIFEST).read_bytes(), slot=NAME, variant=VARIANT)["missing"] == [ENTRY]
    assert deployer.deploy(two)["result"] == "committed"
    assert running(home) == 2
    assert (deployer.told()["previous"], releases(home)) == (1, ["1", "2.1"])


def test_another_variant_of_the_same_version_can_be_gone_back_from(deployer, bundle, home):
    same = bundle(reference=False)  # which no two of these variants agree with
    for variant in (VARIANT, "other"):
        assert deployer.deploy(same, variant)["result"] == "committed"
    told = deployer.told()
    assert (told["variant"], told["current"], told["previous"], told["floor"]) == ("other", 1, 1, 1)
    assert deployer.ask("rollback", slot=NAME) == {"version": 1, "variant": VARIANT}
    assert running(home) == 1


def test_a_rollback_goes_to_the_release_before_and_no_further(deployer, bundle, home):
    deployer.deploy(bundle(1))
    deployer.deploy(bundle(2))
    assert deployer.ask("rollback", slot=NAME) == {"version": 1, "variant": VARIANT}
    assert (running(home), releases(home)) == (1, ["1"])
    with pytest.raises(OptionsError, match="no previous release"):
        deployer.ask("rollback", slot=NAME)
    with pytest.raises(OptionsError, match="the device has no slot 'other'"):
        deployer.ask("rollback", slot="other")


def test_a_rollback_to_a_changed_release_is_refused(deployer, bundle, home):
    deployer.deploy(bundle(1))
    deployer.deploy(bundle(2))
    (Path(slot(home).releases) / "1" / LABELS).write_bytes(b"up\ndown\n")
    with pytest.raises(IntegrityError, match="changed or damaged"):
        deployer.ask("rollback", slot=NAME)
    assert running(home) == 2


def test_wrong_answers_fail_the_trial_and_what_failed_is_not_activated(deployer, bundle, home):
    deployer.stage(bundle(1, answers=np.ones((3, 2), np.float32)))
    with pytest.raises(ParityError, match="output 'y' has SNR"):
        deployer.trial()
    with pytest.raises(OptionsError, match="had no trial"):
        deployer.ask("activate", slot=NAME)
    assert running(home) is None


def test_what_begins_again_is_tried_again(deployer, bundle):
    new = bundle()
    deployer.stage(new)
    deployer.trial()
    deployer.stage(new)
    with pytest.raises(OptionsError, match="had no trial"):
        deployer.ask("activate", slot=NAME)


class Turning:
    """Loads the staged model rightly, and does `then` on every later start: of a probation, that is."""

    def __init__(self, then) -> None:
        self.then, self.starts = then, 0

    @contextlib.contextmanager
    def __call__(self, runtime, folder, entry, threads, timeout_s):
        self.starts += 1
        if self.starts == 1:
            yield Matrix(Path(folder) / entry, 1.0)
        else:
            yield self.then(Path(folder) / entry)


def _dies(file):
    raise TargetError("the child died of SIGILL")


def _is_wrong(file):
    model = Matrix(file, 1.0)
    model.matrix = -model.matrix
    return model


@pytest.mark.parametrize(
    ("then", "cause", "reason", "runs"),
    [
        (_dies, "TargetError", "SIGILL", 0),
        (_is_wrong, "ParityError", "SNR", 3),  # one pass over the reference shows it
        (lambda file: Matrix(file, 5.5), "BudgetError", "p90 latency is 5.5 ms, above the budget of 5 ms", 66),
    ],
    ids=["dies", "wrong answers", "too slow"],
)
def test_a_failed_probation_is_rolled_back_by_itself(home, bundle, then, cause, reason, runs):
    Deployer(home).deploy(bundle(1))
    two = bundle(2)
    done = Deployer(home, Turning(then)).deploy(two, runs=64, p90_budget_ms=5.0)
    assert (done["result"], done["failure"]["type"], done["runs"]) == ("rolled back", cause, runs)
    assert reason in done["failure"]["found"]
    assert ("--p90-budget-ms" in done["failure"]["advice"]) == (cause == "BudgetError")
    assert (running(home), releases(home)) == (1, ["1"])
    told = Deployer(home).told()
    assert (told["floor"], told["last"]["result"], told["last"]["version"]) == (1, "rolled back", 2)
    assert Deployer(home).deploy(two)["result"] == "committed"  # its version was never committed


def test_a_first_release_that_fails_its_probation_leaves_nothing(home, bundle):
    assert Deployer(home, Turning(_dies)).deploy(bundle())["result"] == "rolled back"
    assert running(home) is None
    assert Deployer(home).told()["state"] == "empty"


def test_a_bug_in_the_probation_leaves_the_old_release(home, bundle):
    def bug(file):
        raise KeyError("a bug")

    Deployer(home).deploy(bundle(1))
    with pytest.raises(KeyError):
        Deployer(home, Turning(bug)).deploy(bundle(2))
    assert (running(home), releases(home), Deployer(home).told()["state"]) == (1, ["1"], "committed")


def test_percentiles_are_given_where_the_runs_support_them(deployer, bundle):
    deployer.stage(bundle())
    assert deployer.trial()["p90_ms"] == 1.0  # 66 runs of 1 ms are quick
    assert deployer.ask("activate", slot=NAME, probation={"runs": 10})["p50_ms"] == 1.0  # 12: whole passes over 3
    assert percentile([*range(11, -1, -1)], 50) == 6  # rank 5.5 of 0 to 11: the higher neighbour
    assert percentile(list(range(1, 65)), 90) == 58  # rank 56.7 of 0 to 63


def test_a_slow_model_is_tried_for_a_median_only(home, bundle):
    slow = contextlib.contextmanager(lambda *how: iter([Matrix(Path(how[1]) / how[2], 40.0)]))
    deployer = Deployer(home, slow)  # 64 runs of 40 ms are 2.6 s
    deployer.stage(bundle())
    seen = deployer.trial()
    assert (seen["p50_ms"], seen["p90_ms"], seen["runs"]) == (40.0, None, 12)


def test_a_budget_that_the_runs_cannot_show_is_refused_before_anything_changes(deployer, bundle, home):
    deployer.stage(bundle())
    deployer.trial()
    with pytest.raises(OptionsError, match="--probation is 63, too few runs for a 90th percentile"):
        deployer.ask("activate", slot=NAME, probation={"runs": 63, "p90_budget_ms": 5})
    with pytest.raises(OptionsError, match="--probation is 0"):
        deployer.ask("activate", slot=NAME, probation={"runs": 0})
    assert running(home) is None


def test_without_a_reference_the_outputs_must_at_least_be_numbers(home, bundle):
    bare = bundle(reference=False)
    deployer = Deployer(home)
    deployer.stage(bare)
    assert deployer.trial()["parity"] == []
    assert deployer.ask("activate", slot=NAME, probation={"runs": 3})["result"] == "committed"

    def nan(file):
        model = Matrix(file, 1.0)
        model.matrix = model.matrix * np.float32("nan")
        return model

    done = Deployer(home, Turning(nan)).deploy(bundle(2, reference=False))
    assert done["failure"]["found"] == "output 'y' holds NaN or infinity for a random input."


def test_a_manifest_goes_to_the_slot_of_its_name_only(deployer, bundle, home):
    with pytest.raises(IntegrityError, match="the manifest is of 'other' and the slot of 'tiny'"):
        deployer.stage(bundle(name="other"))
    assert not Path(slot(home).path).exists()


def test_a_variant_the_manifest_does_not_have_is_refused(deployer, bundle):
    with pytest.raises(ModelError, match=r"no variant 'int4'\. Choose one of: float32, other"):
        deployer.stage(bundle(), "int4")


def test_only_listed_files_with_their_listed_hash_are_taken(deployer, bundle, home):
    new = bundle()
    deployer.stage(new)
    for path in ("other.tflite", "evil.sh", "../../evil.sh", "/etc/passwd"):
        with pytest.raises(IntegrityError, match="not in the manifest"):
            deployer.ask("push", b"x", slot=NAME, path=path, size=1, sha256="0" * 64, offset=0)
    (new / LABELS).write_bytes(b"changed")
    with pytest.raises(IntegrityError, match="not in the manifest"):
        deployer.push(new, LABELS)
    with pytest.raises(IntegrityError, match=r"manifest\.json\.sig has 70000 bytes"):
        deployer.ask("push", b"", slot=NAME, path=SIGNATURE, size=70_000, sha256="0" * 64, offset=0)


def test_a_flipped_byte_on_the_way_is_refused_and_not_kept(deployer, bundle, home):
    new = bundle()
    deployer.ask("begin", (new / MANIFEST).read_bytes(), slot=NAME, variant=VARIANT)
    data = bytearray((new / ENTRY).read_bytes())
    sha256 = json.loads((new / MANIFEST).read_bytes())["files"][ENTRY]["sha256"]
    data[5] ^= 1
    with pytest.raises(IntegrityError, match="arrived damaged"):
        deployer.ask("push", bytes(data), slot=NAME, path=ENTRY, size=16, sha256=sha256, offset=0)
    assert os.listdir(slot(home).staging) == [MANIFEST]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda staging: (staging / "more.bin").write_bytes(b""), "does not list"),
        (
            lambda staging: (staging / "other.tflite").write_bytes(matrix(-1).tobytes()),
            "which is not of variant 'float32'",
        ),
        (lambda staging: (staging / LABELS).unlink(), "lacks 'labels/en.txt'"),
        (lambda staging: (staging / REFERENCE).unlink(), "lacks 'reference.npz'"),
        (lambda staging: (staging / MANIFEST).unlink(), "has no manifest.json"),
        (lambda staging: _edit(staging / MANIFEST, b"0" * 64, b"1" * 64), "changed after it was sent"),
        (lambda staging: (staging / "link").symlink_to("/etc/passwd"), "is a link"),
        (lambda staging: (staging / f"{ENTRY}.part").touch(), "does not list"),
        (lambda staging: os.truncate(staging / ENTRY, 15), "changed or damaged"),
    ],
    ids=[
        "unlisted",
        "of another variant",
        "missing",
        "no reference",
        "no manifest",
        "other manifest",
        "link",
        "part",
        "truncated",
    ],
)
def test_staging_that_is_not_exactly_the_manifest_is_refused(deployer, bundle, home, change, why):
    deployer.stage(bundle())
    deployer.trial()
    change(Path(slot(home).staging))
    for op in (deployer.check, deployer.trial, lambda: deployer.ask("activate", slot=NAME)):
        with pytest.raises(IntegrityError, match=why):
            op()
    assert running(home) is None


def test_staging_carried_to_another_slot_or_overtaken_by_the_floor_is_refused(deployer, bundle, home):
    deployer.stage(bundle(3))
    deployer.end()
    other = Slot(str(home), "other")
    shutil.copytree(slot(home).path, other.path)
    with pytest.raises(IntegrityError, match="the manifest is of 'tiny' and the slot of 'other'"):
        Deployer(home).ask("check", slot="other", runtime="litert")
    write_state(slot(home), replace(read_state(slot(home)), floor=3))
    with pytest.raises(IntegrityError, match="release 3 is not above release 3"):
        Deployer(home).check()


def _edit(file: Path, old: bytes, new: bytes) -> None:
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new))


@pytest.mark.parametrize("again", [1, 2], ids=["the same bundle", "another"])
def test_what_an_earlier_upload_left_does_not_stay(deployer, bundle, home, again):
    deployer.stage(bundle(1))
    (Path(slot(home).staging) / SIGNATURE).write_bytes(b"of an earlier attempt")
    (Path(slot(home).staging) / "more").write_bytes(b"unlisted")
    (Path(slot(home).staging) / "labels" / "link").symlink_to(home)
    new = bundle(again)
    deployer.stage(new)
    assert sorted(os.listdir(slot(home).staging)) == [ENTRY, "labels", MANIFEST, REFERENCE]
    assert deployer.deploy(new)["result"] == "committed"


@pytest.mark.usefixtures("short_wait")
def test_one_deployer_at_a_time_works_on_a_slot(home, bundle):
    first, second = Deployer(home), Deployer(home)
    one = bundle()
    first.stage(one)
    for op in ("check", "trial", "activate", "rollback"):
        with pytest.raises(DeviceError, match="another deploy is running"):
            second.ask(op, slot=NAME, runtime="litert")
    second.ask("status")  # whoever asks may
    first.trial()
    assert first.ask("activate", slot=NAME, probation={"runs": 3})["result"] == "committed"
    assert second.deploy(bundle(2))["result"] == "committed"


def test_who_is_overtaken_while_it_takes_over_says_so(tmp_path, monkeypatch):
    """It ends the deploy that holds the slot, and a third one is there before it."""
    monkeypatch.setattr(lock, "LOCK_S", 0.05)
    monkeypatch.setattr(lock, "_end_holder", lambda path: True)
    with (
        lock.locked(str(tmp_path), NAME),
        pytest.raises(DeviceError, match=r"another deploy took over there at the same time. Try again"),
        lock.locked(str(tmp_path), NAME, take_over=True),
    ):
        pass


def test_a_deployer_that_lets_go_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LOCK_S", 60.0)
    held = threading.Event()

    def hold():
        with lock.locked(str(tmp_path), NAME):
            held.set()
            time.sleep(0.2)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    with lock.locked(str(tmp_path), NAME):
        holder.join(60)
    assert not holder.is_alive()


@pytest.mark.usefixtures("short_wait")
def test_a_probation_of_a_living_deployer_is_left_alone(home, bundle):
    seen = []

    def looks(file):
        seen.append(Deployer(home).told())
        return Matrix(file, 1.0)

    Deployer(home).deploy(bundle(1))
    assert Deployer(home, Turning(looks)).deploy(bundle(2))["result"] == "committed"
    assert (seen[0]["state"], seen[0]["current"], seen[0]["floor"]) == ("probation", 1, 1)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../../etc", "mon modèle", "%2E", ".hidden", "-rf", "\n", "CON"])
def test_a_slot_of_any_name_lies_in_a_folder_of_its_own(tmp_path, name):
    place = Slot(str(tmp_path), name)
    assert Path(os.path.normpath(place.path)).parent == tmp_path / "slots"
    Path(place.path).mkdir(parents=True)
    assert [found.name for found in slots(str(tmp_path))] == [name]


@pytest.mark.parametrize("name", ["", "x" * 201, "é" * 40])
def test_a_name_that_no_folder_can_have_is_refused(tmp_path, name):
    with pytest.raises(OptionsError, match="does not fit a folder's"):
        Slot(str(tmp_path), name)


def test_a_folder_beside_the_slots_is_none_and_stops_nothing(deployer, bundle, home):
    deployer.deploy(bundle(1))
    for name in (".tmp", "a b", "%FF", "x" * 250, os.fsdecode(b"\xff")):
        (home / "slots" / name).mkdir()
    assert [one.name for one in slots(str(home))] == [NAME]
    assert list(deployer.ask("status")["slots"]) == [NAME]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_on_a_disk_that_takes_nothing_what_runs_is_told_and_a_deploy_says_why_not(bundle, home, monkeypatch, error):
    Deployer(home).deploy(bundle(1))
    state = read_state(slot(home))
    write_state(slot(home), replace(state, probation=replace(state.current, folder="2", version=2)))  # interrupted

    def refuse(path, data):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(store, "replace_file", refuse)
    recover(str(home))
    assert running(home) == 1
    deployer = Deployer(home)
    assert deployer.ask("status")["slots"][NAME]["current"] == 1
    with pytest.raises(WriteError, match=os.strerror(error)):
        deployer.stage(bundle(2))
    monkeypatch.undo()
    assert Deployer(home).deploy(bundle(3))["result"] == "committed"


def test_what_is_no_release_among_them_is_removed_whatever_it_is(deployer, bundle, home):
    deployer.deploy(bundle(1))
    deployer.end()
    folder = Path(slot(home).releases)
    (folder / "file").write_bytes(b"x")
    (folder / "link").symlink_to(home)
    (folder / "7").mkdir()
    recover(str(home))
    assert releases(home) == ["1"] and running(home) == 1


def test_room_is_made_before_an_interrupted_probation_is_noted(bundle, home, monkeypatch):
    Deployer(home).deploy(bundle(1))
    state, left = read_state(slot(home)), Path(slot(home).releases) / "2"
    write_state(slot(home), replace(state, probation=replace(state.current, folder="2", version=2)))
    left.mkdir()
    wrote, real = [], store.replace_file
    monkeypatch.setattr(store, "replace_file", lambda path, data: (wrote.append(left.exists()), real(path, data)))
    recover(str(home))
    assert wrote == [False]


@pytest.mark.parametrize("sha256", ["", "/../../../../../a", "0" * 63, "0" * 64 + "\n", "A" * 64])
def test_a_hash_that_is_none_becomes_no_part_of_a_path(deployer, bundle, home, sha256):
    made = bundle(1)
    deployer.ask("begin", (made / MANIFEST).read_bytes(), slot=NAME, variant=VARIANT)
    before = sorted(home.rglob("*"))
    with pytest.raises(ValueError, match="no sha256"):
        deployer.ask("push", b"x", slot=NAME, path=SIGNATURE, size=1, sha256=sha256, offset=0)
    assert sorted(home.rglob("*")) == before


def test_only_what_a_deploy_installed_is_answered_with(deployer, bundle, home, tmp_path):
    deployer.deploy(bundle(1))
    found = ServeRequest(slot(home))
    installed = Path(os.path.realpath(found.path))

    manifest = installed / MANIFEST
    old = manifest.read_bytes()
    manifest.write_bytes(old.replace(b'"version":1', b'"version":9'))  # every listed hash still holds
    with pytest.raises(IntegrityError, match="was changed"):
        select_release(found)
    manifest.write_bytes(old)

    shutil.copytree(installed, tmp_path / "1")  # under the same name elsewhere
    current = Path(found.path)
    current.unlink()
    current.symlink_to(tmp_path / "1")
    with pytest.raises(IntegrityError, match="which edgeloop did not install"):
        select_release(found)


def test_a_damaged_state_is_told_and_nothing_is_guessed(deployer, bundle, home):
    deployer.deploy(bundle(1))
    for damage in (b"{", b"{}", b"[]", b'{"floor": 1, "current": {}}'):
        Path(slot(home).state).write_bytes(damage)
        told = Deployer(home).told()
        assert told["state"] == "damaged"
        assert "state.json is damaged" in told["reason"]
        with pytest.raises(IntegrityError, match=r"state\.json is damaged"):
            Deployer(home).stage(bundle(2))
    assert running(home) == 1


@pytest.fixture
def device(tmp_path):
    """`device(features, mib)`: the root of a machine's /proc."""

    def make(features: str | None, mib: int) -> str:
        (tmp_path / "proc").mkdir()
        if features is not None:
            (tmp_path / "proc" / "cpuinfo").write_text(f"Features\t: {features}\n")
        (tmp_path / "proc" / "meminfo").write_text(f"MemTotal: {mib * 1024} kB\nMemAvailable: {mib * 1024} kB\n")
        return str(tmp_path)

    return make


@pytest.mark.parametrize(
    ("requires", "runtime", "why"),
    [
        (Requirements(("litert",)), "tflite-runtime", "not proved on tflite-runtime. Choose one of: litert"),
        (Requirements(("litert",)), "onnxruntime", "onnxruntime does not run float32, a tflite file"),
        (Requirements((), ("asimddp", "fp")), "litert", "needs the CPU features asimddp, which this device lacks"),
        (Requirements((), (), 129 << 20), "litert", "needs 135266304 bytes of memory, and 134217728 are free"),
    ],
    ids=["runtime", "format", "cpu", "ram"],
)
def test_a_device_that_has_less_than_a_variant_needs_is_the_wrong_target(bundle, device, requires, runtime, why):
    variant = _variant(bundle(requires=requires))
    with pytest.raises(TargetError, match=why):
        check_requirements(variant, runtime, device("fp asimd", 128))


def test_a_device_that_does_not_tell_its_features_is_none_that_has_them(bundle, device):
    with pytest.raises(TargetError, match="may lack: it does not tell"):
        check_requirements(_variant(bundle(requires=Requirements((), ("asimd",)))), "litert", device(None, 128))


def test_memory_that_a_device_does_not_tell_is_left_to_the_trial(bundle, tmp_path):
    check_requirements(_variant(bundle(requires=Requirements((), (), 1 << 40))), "litert", str(tmp_path))


def test_a_device_that_has_what_a_variant_needs_takes_it(bundle, device):
    requires = Requirements(("litert", "tflite-runtime"), ("asimd",), 128 << 20)
    check_requirements(_variant(bundle(requires=requires)), "tflite-runtime", device("fp asimd", 128))


def _variant(folder: Path) -> Variant:
    return read_bundle(folder).variant(VARIANT)


def test_needs_are_checked_on_the_device_before_anything_runs(home, bundle):
    def never(*how):
        raise AssertionError("it was run")

    deployer = Deployer(home, never)
    deployer.stage(bundle(requires=Requirements((), ("a-feature-of-tomorrow",))))
    with pytest.raises(TargetError, match="a-feature-of-tomorrow"):
        deployer.trial()
