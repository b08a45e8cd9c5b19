"""Deploying as the host decides it: waves, the choice of a variant, the list of devices, and what each answer of a
device leads to. The device is a stand-in here; test_deploy.py has real ones."""

import base64
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from edgeloop.bundle import read_bundle
from edgeloop.edge.deploy import deploy, known_devices, parallel, rollback, rollout, speed_cache
from edgeloop.edge.deploy.deploy_result import DeployOptions, DeployStatus
from edgeloop.edge.deploy.present import of_deploy
from edgeloop.edge.deploy.waves import failures_allowed, wave_sizes
from edgeloop.edge.on_device.releases.protocol import COMMITTED, ROLLED_BACK, ActivateReply, DeviceStatus, SlotStatus
from edgeloop.edge.on_device.variants.variant_choice import (
    DeployConstraints,
    MeasuredSpeed,
    choose_fastest,
    fitting_variants,
)
from edgeloop.errors import (
    BudgetError,
    DataError,
    DeviceError,
    IntegrityError,
    ModelError,
    OptionsError,
    ParityError,
    TargetError,
    WriteError,
)
from edgeloop.processes.children import owned
from edgeloop.registry.signatures import signers
from edgeloop.runtime.device import Device, parse_device
from edgeloop.runtime.parity.compare import Parity

MACHINE = {"ram_available_bytes": 100_000_000, "cpu_features": ["asimd", "fp"]}


# waves


@pytest.mark.parametrize(
    ("text", "devices", "sizes"),
    [
        ("100%", 3, [3]),
        ("1,10%,100%", 100, [1, 9, 90]),
        ("1,10%,100%", 5, [1, 4]),  # 10% of 5 is 1 device, which the first wave had
        ("1,10%,100%", 1, [1]),
        ("2,5", 4, [2, 2]),  # 5 is more than there are
        ("0.07%,100%", 10_000, [7, 9993]),  # in binary, 0.07 * 10,000 is more than 700
        ("0.5%, 100%", 400, [2, 398]),
        ("34%,100%", 3, [2, 1]),  # 1.02 devices: rounded up
    ],
)
def test_waves_reach_every_device_once(text, devices, sizes):
    assert wave_sizes(text, devices) == sizes


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1,10%", "reaches 2 of 20 devices"),
        ("5,10%,100%", "is 2 of 20 devices, after 5"),
        ("0,100%", "is not above 0 and at most 100%"),
        ("101%", "is not above 0 and at most 100%"),
        ("1.5,100%", "'1.5' in --waves"),
        ("-1,100%", "'-1' in --waves"),
        ("", "'' in --waves"),
        ("half", "'half' in --waves"),
    ],
)
def test_waves_that_fall_end_early_or_are_none_are_refused(text, why):
    with pytest.raises(OptionsError, match=why):
        wave_sizes(text, 20)


@pytest.mark.parametrize(("text", "allowed"), [("0", 0), ("2", 2), ("0%", 0), ("5%", 1), ("9.9%", 1), ("100%", 20)])
def test_failures_are_allowed_as_a_count_or_a_percentage_rounded_down(text, allowed):
    assert failures_allowed(text, 20) == allowed


@pytest.mark.parametrize("text", ["", "-1", "1.5", "half", "nan", "1,2"])
def test_another_form_of_failures_is_refused(text):
    with pytest.raises(OptionsError, match=r"--max-failed is .* Write how many devices may fail"):
        failures_allowed(text, 20)


# the choice


@pytest.fixture
def bundle(root):
    """float32, float16, dynamic, int8 on litert and tflite-runtime, onnx on onnxruntime; proved exactly alike."""
    return read_bundle(root / "tests" / "golden" / "bundle-1")


def ids(fitting):
    return [(fit.variant.id, fit.runtime) for fit in fitting]


def with_proof(bundle, folder, accuracy, samples=1000):
    """The bundle with a proof.json of these accuracies, {variant: share}, beside links to its files."""
    for file in bundle.path.iterdir():
        if file.name != "proof.json":
            (folder / file.name).write_bytes(file.read_bytes())
    rows = [
        asdict(Parity(id, "litert", None, "local", "p", samples, 0.0, 0.0, None, 1.0, share, passed=True))
        for id, share in accuracy.items()
    ]
    proof = {"manifest_sha256": bundle.manifest_sha256, "evaluation": {"samples": samples}, "parity": rows}
    (folder / "proof.json").write_text(json.dumps(proof))
    return read_bundle(folder)


def with_requires(bundle, **changed):
    """The bundle, its int8 variant requiring something else."""
    variants = tuple(
        replace(v, requires=replace(v.requires, **changed)) if v.id == "int8" else v for v in bundle.manifest.variants
    )
    return replace(bundle, manifest=replace(bundle.manifest, variants=variants))


def test_a_variant_fits_only_on_runtimes_that_proved_it(bundle):
    pairs = ids(fitting_variants(bundle, MACHINE, DeployConstraints()))
    assert ("int8", "litert") in pairs and ("onnx", "onnxruntime") in pairs and len(pairs) == 9
    assert ids(fitting_variants(bundle, MACHINE, DeployConstraints(variant="onnx"))) == [("onnx", "onnxruntime")]
    assert ids(fitting_variants(bundle, MACHINE, DeployConstraints(runtime="onnxruntime"))) == [("onnx", "onnxruntime")]
    with pytest.raises(TargetError, match=r"no proof of variant 'onnx' on litert; proved are: onnx on onnxruntime"):
        fitting_variants(bundle, MACHINE, DeployConstraints(variant="onnx", runtime="litert"))
    with pytest.raises(TargetError, match="proved are: none"):
        fitting_variants(with_requires(bundle, runtimes=()), MACHINE, DeployConstraints(variant="int8"))
    with pytest.raises(ModelError, match="no variant 'int7'"):
        fitting_variants(bundle, MACHINE, DeployConstraints(variant="int7"))


def test_a_variant_that_trains_is_taken_only_by_name(bundle):
    variants = tuple(
        replace(v, signatures=("infer", "train")) if v.id == "int8" else v for v in bundle.manifest.variants
    )
    trains = replace(bundle, manifest=replace(bundle.manifest, variants=variants))
    assert "int8" not in dict(ids(fitting_variants(trains, MACHINE, DeployConstraints())))
    assert "int8" in dict(ids(fitting_variants(trains, MACHINE, DeployConstraints(variant="int8"))))


def test_memory_and_cpu_features_that_are_lacking_rule_a_variant_out(bundle):
    for requires in ({"ram_bytes": 100_000_001}, {"cpu_features": ("asimd", "dotprod")}):
        poor = with_requires(bundle, **requires)
        assert "int8" not in dict(ids(fitting_variants(poor, MACHINE, DeployConstraints())))
        with pytest.raises(TargetError, match=r"int8 needs (100 MB of memory|the CPU features dotprod)"):
            fitting_variants(poor, MACHINE, DeployConstraints(variant="int8"))
    rich = with_requires(bundle, ram_bytes=100_000_000, cpu_features=("asimd",))
    assert "int8" in dict(ids(fitting_variants(rich, MACHINE, DeployConstraints())))
    assert "int8" not in dict(ids(fitting_variants(rich, MACHINE, DeployConstraints(max_ram_bytes=99_999_999))))
    unknown = {"ram_available_bytes": "unknown", "cpu_features": "unknown"}
    assert "int8" in dict(
        ids(fitting_variants(rich, unknown, DeployConstraints()))
    )  # the device checks again, and cannot be wrong about itself


def test_a_variant_may_lose_one_point_of_the_best_floats_accuracy(bundle, tmp_path):
    scored = with_proof(bundle, tmp_path, {"float32": 0.95, "float16": 0.96, "dynamic": 0.95, "int8": 0.949})
    assert {id for id, _ in ids(fitting_variants(scored, MACHINE, DeployConstraints()))} == {
        "float32",
        "float16",
        "dynamic",
    }
    assert {id for id, _ in ids(fitting_variants(scored, MACHINE, DeployConstraints(min_accuracy=0.949)))} == {
        "float32",
        "float16",
        "dynamic",
        "int8",
    }
    assert {id for id, _ in ids(fitting_variants(scored, MACHINE, DeployConstraints(variant="int8")))} == {"int8"}
    with pytest.raises(BudgetError, match=r"96.0% accuracy; the minimum is 97.0%"):
        fitting_variants(scored, MACHINE, DeployConstraints(min_accuracy=0.97))
    with pytest.raises(BudgetError, match=r"94.9% accuracy; the minimum is 95.0%"):
        fitting_variants(scored, MACHINE, DeployConstraints(variant="int8", min_accuracy=0.95))


def test_one_sample_of_few_is_no_loss(bundle, tmp_path):
    # 7, because in binary 1 - 1 / 7 is more than 6 / 7
    few = with_proof(bundle, tmp_path, {"float32": 1.0, "int8": 6 / 7, "dynamic": 5 / 7}, samples=7)
    assert {id for id, _ in ids(fitting_variants(few, MACHINE, DeployConstraints()))} == {"float32", "int8"}


def test_an_accuracy_asked_of_a_bundle_without_labels_is_refused(bundle):
    with pytest.raises(OptionsError, match="Convert with --eval"):
        fitting_variants(bundle, MACHINE, DeployConstraints(min_accuracy=0.9))


def with_metrics(bundle, folder, metrics, samples=1000):
    """The bundle with a proof.json of these metrics, {variant: {name: value}}; accuracy is null."""
    scored = with_proof(bundle, folder, dict.fromkeys(metrics), samples)
    proof = json.loads((folder / "proof.json").read_text())
    for row in proof["parity"]:
        row.update(top1_agreement=None, **metrics[row["variant"]])
    (folder / "proof.json").write_text(json.dumps(proof))
    return scored


def test_a_variants_rmse_may_be_a_twentieth_above_the_best_floats(bundle, tmp_path):
    errors = {"float32": 2.0, "float16": 2.01, "dynamic": 2.1, "int8": 2.11}
    scored = with_metrics(bundle, tmp_path, {id: {"rmse": e, "r2": 0.9} for id, e in errors.items()})

    def fitting(**constraints):
        return {id for id, _ in ids(fitting_variants(scored, MACHINE, DeployConstraints(**constraints)))}

    assert fitting() == {"float32", "float16", "dynamic"}
    assert fitting(max_rmse=2.11) == {*errors} and fitting(max_rmse=2.0) == {"float32"}
    assert fitting(variant="int8") == {"int8"}
    with pytest.raises(BudgetError, match=r"the RMSE is 2 at least; the maximum is 1\.9\. Raise --max-rmse"):
        fitting(max_rmse=1.9)
    with pytest.raises(OptionsError, match=r"has no accuracy to compare. Use --max-rmse instead"):
        fitting(min_accuracy=0.9)


def test_an_rmse_of_a_hundredth_of_the_labels_spread_is_as_good_as_none(bundle, tmp_path):
    metrics = {"float32": {"rmse": 1e-7, "r2": 1.0}, "float16": {"rmse": 1e-3, "r2": 0.99995},
               "int8": {"rmse": 0.1, "r2": 0.9998}}  # fmt: skip
    scored = with_metrics(bundle, tmp_path, metrics)
    assert {id for id, _ in ids(fitting_variants(scored, MACHINE, DeployConstraints()))} == {"float32", "float16"}


def test_where_labels_rate_scores_the_auc_takes_accuracys_place(bundle, tmp_path):
    areas = {"float32": 0.95, "float16": 0.95, "dynamic": 0.94, "int8": 0.93}
    scored = with_metrics(bundle, tmp_path, {id: {"auc": area} for id, area in areas.items()})
    assert "int8" not in dict(ids(fitting_variants(scored, MACHINE, DeployConstraints())))
    assert "dynamic" in dict(ids(fitting_variants(scored, MACHINE, DeployConstraints())))
    assert "int8" in dict(ids(fitting_variants(scored, MACHINE, DeployConstraints(min_accuracy=0.93))))
    with pytest.raises(BudgetError, match=r"95.0% AUC; the minimum is 96.0%"):
        fitting_variants(scored, MACHINE, DeployConstraints(min_accuracy=0.96))


def test_a_variant_has_the_rmse_of_its_worst_runtime(bundle, tmp_path):
    scored = with_metrics(bundle, tmp_path, {"float32": {"rmse": 2.0}, "int8": {"rmse": 2.0}})
    proof = json.loads((tmp_path / "proof.json").read_text())
    proof["parity"].append({**proof["parity"][1], "runtime": "tflite-runtime", "rmse": 3.0})
    (tmp_path / "proof.json").write_text(json.dumps(proof))
    assert "int8" not in dict(ids(fitting_variants(scored, MACHINE, DeployConstraints())))


def test_an_rmse_asked_of_a_bundle_without_such_labels_is_refused(bundle, tmp_path):
    with pytest.raises(OptionsError, match=r"has no RMSE to compare. Convert with --eval F.npz, which holds numbers"):
        fitting_variants(bundle, MACHINE, DeployConstraints(max_rmse=1.0))
    scored = with_proof(bundle, tmp_path, {"float32": 0.9})
    with pytest.raises(OptionsError, match=r"has no RMSE to compare. Use --min-accuracy instead"):
        fitting_variants(scored, MACHINE, DeployConstraints(max_rmse=1.0))


def test_a_proof_of_another_manifest_is_refused(bundle, tmp_path):
    scored = with_proof(bundle, tmp_path, {"float32": 1.0})
    (tmp_path / "proof.json").write_text(
        (tmp_path / "proof.json").read_text().replace(bundle.manifest_sha256, "0" * 64)
    )
    with pytest.raises(IntegrityError, match="another manifest"):
        fitting_variants(scored, MACHINE, DeployConstraints())


def test_a_removed_proof_passes_no_limit_on_accuracy(bundle, tmp_path):
    scored = with_proof(bundle, tmp_path, {"float32": 0.97, "int8": 0.20})
    (tmp_path / "proof.json").unlink()
    bare = replace(scored, manifest=replace(bundle.manifest, proof_sha256="0" * 64))
    with pytest.raises(IntegrityError, match=r"lacks proof\.json"):
        fitting_variants(bare, MACHINE, DeployConstraints())


def test_the_fastest_that_was_measured_is_taken(bundle):
    fitting = fitting_variants(bundle, MACHINE, DeployConstraints())
    speeds = {
        ("float32", "litert"): MeasuredSpeed(ms=2.0, rss_peak_bytes=30_000_000),
        ("int8", "litert"): MeasuredSpeed(ms=1.0, rss_peak_bytes=60_000_000),
        ("int8", "tflite-runtime"): MeasuredSpeed(ms=9.0, rss_peak_bytes=20_000_000),
    }
    fit, why = choose_fastest(fitting, speeds, DeployConstraints())
    assert (fit.variant.id, fit.runtime, why) == ("int8", "litert", "the fastest of 3 measured there: 1 ms per sample")
    fit, _ = choose_fastest(fitting, speeds, DeployConstraints(max_ram_bytes=59_999_999))
    assert (fit.variant.id, fit.runtime) == ("float32", "litert")
    with pytest.raises(TargetError, match="takes 20 MB on the device, and --max-ram-mb is 10"):
        choose_fastest(fitting, speeds, DeployConstraints(max_ram_bytes=10_000_000))
    with pytest.raises(DeviceError, match="--variant ID"):
        choose_fastest(fitting, {}, DeployConstraints())


@pytest.mark.parametrize(
    "wrong",
    [{"runtime": "tfjs"}, {"min_accuracy": 97.0}, {"min_accuracy": -0.1}, {"max_rmse": -1.0}, {"max_ram_bytes": 0}],
)
def test_wishes_that_nothing_meets_are_refused(wrong):
    with pytest.raises(OptionsError):
        DeployConstraints(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"threads": 0}, {"probation": 0}, {"timeout_s": 0}, {"p90_budget_ms": 0}, {"p90_budget_ms": 1.0, "probation": 63}],
)
def test_options_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(OptionsError):
        DeployOptions(**wrong)


# what was measured is remembered


@pytest.fixture
def measurements(monkeypatch, tmp_path):
    """Counts what is measured; every runtime is on the device."""
    seen = []

    def measure(bundle, device, fitting, threads, timeout_s, progress):
        seen.append(ids(fitting))
        return {pair: MeasuredSpeed(ms=1.0, rss_peak_bytes=None) for pair in ids(fitting)}

    monkeypatch.setattr(speed_cache, "_measure", measure)
    monkeypatch.setattr(
        speed_cache, "available_runtimes", lambda device, names: [n for n in names if n != "tflite-runtime"]
    )
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "cache"))
    return seen


def test_a_device_is_measured_once_for_a_manifest_and_a_number_of_threads(bundle, measurements):
    left, right = parse_device("ssh://left"), parse_device("ssh://right")
    fitting = fitting_variants(bundle, MACHINE, DeployConstraints())
    first = speed_cache.measure_speeds(bundle, left, fitting, 1, 60.0)
    assert speed_cache.measure_speeds(bundle, left, fitting, 1, 60.0) == first
    assert len(measurements) == 1 and ("int8", "litert") in first and ("int8", "tflite-runtime") not in first
    speed_cache.measure_speeds(bundle, right, fitting, 1, 60.0)
    speed_cache.measure_speeds(bundle, left, fitting, 2, 60.0)
    speed_cache.measure_speeds(replace(bundle, manifest_sha256="0" * 64), left, fitting, 1, 60.0)
    assert len(measurements) == 4


def test_a_damaged_memory_of_measurements_is_measured_anew(bundle, measurements, tmp_path):
    fitting = fitting_variants(bundle, MACHINE, DeployConstraints(variant="onnx"))
    speed_cache.measure_speeds(bundle, parse_device("ssh://left"), fitting, 1, 60.0)
    for file in (tmp_path / "cache" / "speeds").iterdir():
        file.write_text("{")
    speed_cache.measure_speeds(bundle, parse_device("ssh://left"), fitting, 1, 60.0)
    assert len(measurements) == 2


# signers

KEY = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"me@x ssh-ed25519 {KEY}\n",
        f"# a comment\n\nme@x,*@y ssh-ed25519 {KEY} a comment with blanks\n",
        f'me@x namespaces="edgeloop-bundle" ssh-ed25519 {KEY}',
        f'me@x namespaces="git,edgeloop-bundle",valid-before="20300101" ssh-ed25519 {KEY}',
        f'old@x namespaces="git" ssh-ed25519 {KEY}\nme@x ssh-ed25519 {KEY}\n',
    ],
)
def test_lines_of_an_allowed_signers_file_are_taken_as_they_are(tmp_path, text):
    (tmp_path / "signers").write_text(text)
    assert signers.read_signers(tmp_path / "signers") == text.encode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "lists no key"),
        ("# nobody\n", "lists no key"),
        (f'me@x namespaces="git" ssh-ed25519 {KEY}', "lists no key for the namespace edgeloop-bundle"),
        (f"ssh-ed25519 {KEY} me@x", "line 1, has no signer's name before the key, as in a .pub file"),
        (f"me@x ssh-ed25519 {KEY}\nme@x ssh-dss {KEY}", "line 2, has no key of a type"),
        (f"me@x ssh-ed25519 {KEY[:-8]}", "line 1, has a damaged key"),
        (f"me@x ssh-rsa {KEY}", "line 1, has a damaged key"),
        (f"me@x a b ssh-ed25519 {KEY}", "line 1, has a damaged key or spaces before it"),
        ("me@x ssh-ed25519", "line 1, has no key of a type"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1\n", "holds a PRIVATE key"),
        ("x" * 70_000, "more than 65536 bytes"),
        (None, "cannot be read"),
    ],
)
def test_what_would_lock_a_device_or_give_a_secret_away_is_no_list_of_signers(tmp_path, text, why):
    if text is not None:
        (tmp_path / "signers").write_text(text)
    with pytest.raises(DataError, match=why) as refused:
        signers.read_signers(tmp_path / "signers")
    assert "b3BlbnNzaC1" not in str(refused.value)


# the list of devices


@pytest.fixture
def own_fleet(tmp_path, monkeypatch):
    monkeypatch.setenv(known_devices.FLEET, str(tmp_path / "fleet" / "fleet.json"))
    return tmp_path / "fleet" / "fleet.json"


def test_devices_are_remembered_once_and_in_order(own_fleet, tmp_path):
    assert known_devices.known_devices() == []
    one, two = parse_device("ssh://me@one:22/usr/bin/python3"), parse_device("local")
    known_devices.add_devices([one])
    known_devices.add_devices([two, one])
    assert known_devices.known_devices() == [one, two]
    gone = Device("local:gone/python", tmp_path / "gone" / "python")
    known_devices.add_devices([gone])
    assert known_devices.known_devices()[2] == Device(
        f"local:{gone.python}", gone.python
    )  # from anywhere, and though it is gone


def test_two_at_once_lose_no_device(own_fleet):
    names = [f"ssh://device-{n}" for n in range(24)]
    threads = [
        threading.Thread(target=lambda name=name: known_devices.add_devices([parse_device(name)])) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(device.name for device in known_devices.known_devices()) == sorted(names)


@pytest.mark.parametrize("text", ["{", "[]", '{"devices": 1}', '{"devices": ["telnet://x"]}'])
def test_a_damaged_list_of_devices_is_refused_and_kept(own_fleet, text):
    own_fleet.parent.mkdir()
    own_fleet.write_text(text)
    with pytest.raises(DataError):
        known_devices.known_devices()
    assert own_fleet.read_text() == text


def test_a_list_that_cannot_be_written_is_a_write_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(known_devices.FLEET, str(tmp_path / "file" / "fleet.json"))
    with pytest.raises((WriteError, DataError)):
        known_devices.add_devices([parse_device("local")])


# one device, step by step


class StandIn:
    """A `keep` that answers as told, and notes what it was asked."""

    def __init__(self, status, missing=(), verdict=None, error=None, at=""):
        self.answer, self.missing, self.verdict, self.error, self.at = status, missing, verdict, error, at
        self.asked = []

    def _ask(self, op, answer=None):
        self.asked.append(op)
        if op == self.at:
            raise self.error
        return answer

    def status(self):
        return self._ask("status", self.answer)

    def begin(self, slot, variant, runtime, threads, manifest, take_over=False):
        return self._ask("begin", self.missing)

    def push(self, slot, file, path, sent):
        self._ask(f"push {path}")
        sent(file.stat().st_size)

    def check(self, slot, runtime):
        self._ask("check")

    def trial(self, slot, runtime, threads):
        self._ask("trial")

    def activate(self, slot, runs, p90_budget_ms):
        return self._ask("activate", self.verdict)


KEPT = ActivateReply(COMMITTED, p50_ms=1.0, p90_ms=2.0, runs=64)
EMPTY = DeviceStatus(enrolled=False, machine=MACHINE, slots={})


def test_a_rollback_where_nothing_is_deployed_says_how_to_deploy():
    with pytest.raises(OptionsError, match=r"no bundle is deployed .* Run: edgeloop deploy BUNDLE --to local$"):
        rollback._only(parse_device("local"), EMPTY)


ONLY_INT8 = DeployOptions(constraints=DeployConstraints(variant="int8", runtime="litert"))
ALL_STEPS = ["status", "begin", "push int8.tflite", "check", "trial", "activate"]


def held(bundle, **changed):
    """A device that runs this bundle's int8 already, or what `changed` says."""
    slot = SlotStatus(
        current=1,
        previous=None,
        floor=1,
        variant="int8",
        runtime="litert",
        threads=1,
        manifest_sha256=bundle.manifest_sha256,
        state="committed",
        last={},
    )
    return DeviceStatus(enrolled=False, machine=MACHINE, slots={"linear": replace(slot, **changed)})


@pytest.fixture
def stand_in(monkeypatch, own_fleet):
    """`stand_in(device name, keep)`: the keep that answers there; an error instead of one is raised on connecting."""
    keeps = {}

    @contextlib.contextmanager
    def keeper(device, timeout_s):
        keep = keeps[device.name]
        if isinstance(keep, Exception):
            raise keep
        yield keep

    monkeypatch.setattr(deploy, "release_client", keeper)
    return keeps.__setitem__


def one(stand_in, bundle, keep, options=ONLY_INT8):
    stand_in("ssh://one", keep)
    device = parse_device("ssh://one")
    return deploy.deploy_to(
        bundle, device, options, lambda *step: None, lambda device: known_devices.add_devices([device])
    )


def test_a_new_release_goes_through_every_step_in_order(stand_in, bundle):
    keep = StandIn(EMPTY, ["int8.tflite"], KEPT)
    outcome = one(stand_in, bundle, keep)
    assert keep.asked == ALL_STEPS
    assert (outcome.result, outcome.before, outcome.variant, outcome.runtime) == ("committed", None, "int8", "litert")
    assert (outcome.p50_ms, outcome.p90_ms, outcome.sent_bytes, outcome.error) == (1.0, 2.0, 1512, None)
    assert [device.name for device in known_devices.known_devices()] == ["ssh://one"]


def test_a_clock_that_is_years_off_is_remarked_however_the_deploy_ends(stand_in, bundle):
    early = replace(EMPTY, clock_s=1_000_000_000.0)  # 2001-09-09
    well = one(stand_in, bundle, StandIn(early, ["int8.tflite"], KEPT))
    failed = one(stand_in, bundle, StandIn(early, [], KEPT, IntegrityError("no signer"), "check"))
    assert (well.result, failed.result) == ("committed", "failed")
    for outcome in (well, failed):
        shown = of_deploy([outcome])
        assert [note for note in shown.notes if "ssh:one: the device's clock says 2001-09-09, " in note]
        assert shown.document["devices"][0]["remarks"][0].endswith("Run there: sudo timedatectl set-ntp true")
    assert one(stand_in, bundle, StandIn(replace(EMPTY, clock_s=time.time()), ["int8.tflite"], KEPT)).remarks == []


def test_a_release_that_is_there_already_costs_two_questions(stand_in, bundle):
    keep = StandIn(held(bundle), missing=None)
    outcome = one(stand_in, bundle, keep, DeployOptions())
    assert keep.asked == ["status", "begin"]
    assert (outcome.result, outcome.variant, outcome.sent_bytes) == ("unchanged", "int8", 0)


@pytest.mark.parametrize(
    "changed", [{"variant": "gone"}, {"state": "probation"}, {"manifest_sha256": "0" * 64, "floor": 0}]
)
def test_what_runs_there_is_kept_only_if_it_still_fits(stand_in, bundle, measurements, changed):
    keep = StandIn(held(bundle, **changed), [], KEPT)
    assert one(stand_in, bundle, keep, DeployOptions()).result == "committed"
    assert len(measurements) == 1


def test_what_is_measured_for_a_deploy_has_the_time_of_its_steps(stand_in, bundle, measurements, monkeypatch):
    bounds = []
    monkeypatch.setattr(
        speed_cache,
        "_measure",
        lambda bundle, device, fitting, threads, timeout_s, progress: bounds.append(timeout_s) or {},
    )
    one(stand_in, bundle, StandIn(EMPTY), DeployOptions(timeout_s=77))
    assert bounds == [77]


def test_the_signature_travels_with_every_release_that_has_one(stand_in, bundle, tmp_path):
    for file in bundle.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "manifest.json.sig").write_text("signed")
    keep = StandIn(replace(EMPTY, enrolled=True), [], KEPT)
    assert one(stand_in, read_bundle(tmp_path), keep).result == "committed"
    assert keep.asked == ["status", "begin", "push manifest.json.sig", "check", "trial", "activate"]


def test_what_the_device_would_refuse_anyway_is_neither_measured_nor_sent(stand_in, bundle):
    keep = StandIn(replace(EMPTY, enrolled=True))
    outcome = one(stand_in, bundle, keep)
    assert keep.asked == ["status"] and isinstance(outcome.error, IntegrityError) and "is not signed" in outcome.reason
    keep = StandIn(held(bundle, manifest_sha256="0" * 64, floor=4))
    outcome = one(stand_in, bundle, keep)
    assert keep.asked == ["status"] and "Convert with --release 5" in outcome.reason


@pytest.mark.parametrize(
    ("named", "error"),
    [("ParityError", ParityError), ("TargetError", TargetError), ("DeviceError", DeviceError), ("Odd", TargetError)],
)
def test_a_probation_that_failed_is_an_error_of_its_own_kind(stand_in, bundle, named, error):
    verdict = ActivateReply(ROLLED_BACK, {"type": named, "found": "too slow"}, runs=64)
    outcome = one(stand_in, bundle, StandIn(held(bundle, variant="float32"), [], verdict))
    assert (outcome.result, type(outcome.error)) == ("rolled back", error) and "too slow" in outcome.reason
    assert "it runs release 1 again" in str(outcome.error)


@pytest.mark.parametrize("at", ALL_STEPS)
def test_whatever_fails_at_a_step_is_the_outcomes_error_with_that_step(stand_in, bundle, at):
    keep = StandIn(EMPTY, ["int8.tflite"], KEPT, WriteError("disk full"), at)
    outcome = one(stand_in, bundle, keep)
    assert keep.asked[-1] == at and outcome.result == "failed" and isinstance(outcome.error, WriteError)
    assert outcome.step == {"status": "connect"}.get(at, at.split()[0])
    assert ("edgeloop devices" in outcome.reason) == (at == "activate")  # the one step whose end may be unknown


# many devices


def fleet_of(stand_in, keeps):
    for number, keep in enumerate(keeps):
        stand_in(f"ssh://d{number}", keep)
    return [parse_device(f"ssh://d{number}") for number in range(len(keeps))]


def good():
    return StandIn(EMPTY, [], KEPT)


def test_a_gate_that_stays_shut_keeps_later_waves_from_starting(stand_in, bundle):
    bad = StandIn(EMPTY, [], KEPT, ParityError("wrong"), "trial")
    keeps = [good(), good(), bad, good(), good()]
    outcomes = rollout.deploy(bundle.path, fleet_of(stand_in, keeps), ONLY_INT8, "1,80%,100%")
    assert [outcome.result for outcome in outcomes] == ["committed", "committed", "failed", "committed", "not started"]
    assert [outcome.wave for outcome in outcomes] == [1, 2, 2, 2, 3]
    assert keeps[3].asked[-1] == "activate" and keeps[4].asked == []


def test_a_device_that_cannot_be_reached_is_a_shut_gate_too(stand_in, bundle):
    keeps = [DeviceError("no route"), good()]
    outcomes = rollout.deploy(bundle.path, fleet_of(stand_in, keeps), ONLY_INT8, "1,2")
    assert [(o.result, o.step) for o in outcomes] == [("failed", "connect"), ("not started", None)]
    assert known_devices.known_devices() == []  # it was never there


def test_a_damaged_bundle_reaches_no_device(stand_in, bundle, tmp_path):
    for file in bundle.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "int8.tflite").write_bytes(b"TFL3")
    keep = good()
    with pytest.raises(IntegrityError):
        rollout.deploy(tmp_path, fleet_of(stand_in, [keep]), ONLY_INT8)
    assert keep.asked == []


def test_one_machine_is_named_once():
    for names in (["ssh://a", "ssh://a/usr/bin/python3.9"], ["local", f"local:{Path('/bin/sh')}"], []):
        with pytest.raises(OptionsError):
            parallel.refuse_twice([parse_device(name) for name in names])
    parallel.refuse_twice([parse_device(name) for name in ("local", "ssh://a", "ssh://b@a", "ssh://a:2222")])


def test_a_rollout_names_one_machine_once(stand_in, bundle):
    with pytest.raises(OptionsError, match="the same machine"):
        rollout.deploy(bundle.path, fleet_of(stand_in, [good()]) * 2, ONLY_INT8)


def test_ctrl_c_leaves_devices_alone_whose_turn_has_not_come(monkeypatch):
    monkeypatch.setattr(parallel, "AT_ONCE", 1)

    def work(device, step):
        step("first")
        with contextlib.suppress(DeviceError):  # as soon as the interrupt has arrived
            while True:
                step("next")
                time.sleep(0.01)
        return device.name

    def tell(device, name, done, total):
        raise KeyboardInterrupt

    with pytest.raises(parallel.InterruptedRun) as interrupted:
        parallel.run_on_all([parse_device(f"ssh://{name}") for name in "abc"], work, tell)
    assert interrupted.value.results == ["ssh://a"]


def test_an_error_nobody_expects_ends_the_call_after_the_others(stand_in, bundle):
    keeps = [StandIn(EMPTY, [], KEPT, ZeroDivisionError("a bug"), "trial"), good()]
    with pytest.raises(ZeroDivisionError):
        rollout.deploy(bundle.path, fleet_of(stand_in, keeps), ONLY_INT8)
    assert keeps[1].asked[-1] == "activate"


def test_ctrl_c_ends_the_children_of_every_thread_and_says_how_far_each_device_came(monkeypatch):
    """Both workers wait for a child; the interrupt arrives with the news of the second."""
    started = []

    def work(device, step):
        try:
            step("first")
            with owned(["sleep", "60"], stdin=subprocess.PIPE) as child:
                started.append(child)
                step("second")
                child.wait(30)
            step("third")
        except DeviceError as e:
            return f"{device.name} {e}"
        return "came to its end"

    def tell(device, name, done, total):
        if [name, len(started)] == ["second", 2]:
            raise KeyboardInterrupt

    with pytest.raises(parallel.InterruptedRun) as interrupted:
        parallel.run_on_all([parse_device("ssh://a"), parse_device("ssh://b")], work, tell)
    assert [child.returncode for child in started] == [-signal.SIGTERM] * 2
    assert all("interrupted before" in result for result in interrupted.value.results)


def test_an_interrupted_rollout_has_an_outcome_for_every_device(stand_in, bundle, monkeypatch):
    devices = fleet_of(stand_in, [good(), good(), good()])

    def progress(what, done, total):
        if "d1" in what:
            raise KeyboardInterrupt

    with pytest.raises(parallel.InterruptedRun) as interrupted:
        rollout.deploy(bundle.path, devices, ONLY_INT8, "1,2,3", progress)
    results = interrupted.value.results
    assert [o.device for o in results] == devices
    assert (results[0].result, results[2].result) == ("committed", DeployStatus.NOT_STARTED)


def test_the_verbs_load_neither_a_framework_nor_what_measures():
    """A deploy that changes nothing shall take as long as its connection: TensorFlow takes seconds to load."""
    code = "import sys, edgeloop.edge.commands.deploy; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=180).stdout.split()
    heavy = (b"tensorflow", b"matplotlib", b"ai_edge_litert", b"onnxruntime", b"edgeloop.edge.measure.bench")
    assert not {name for name in loaded if name.startswith(heavy)}
