"""Rounds that become releases: what is refused, what blocks one, and that nothing of it ends a run. No framework."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from releases import GOLDEN, NAME, release

from edgeloop import settings
from edgeloop.bundle import (
    TRAINABLE,
    FileEntry,
    Format,
    Manifest,
    Scheme,
    Signature,
    TensorSpec,
    Variant,
    Weight,
    parse_manifest,
    read_bundle,
)
from edgeloop.convert.build import kept_options
from edgeloop.convert.forms.preprocess import Preprocessing
from edgeloop.convert.forms.recipes import Io
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.training.losses import Loss
from edgeloop.convert.training.optimizers import Optimizer
from edgeloop.convert.training.trainable import TrainableOptions
from edgeloop.edge.on_device.pull.folder_source import FolderSource
from edgeloop.errors import BudgetError, DataError, ModelError, OptionsError, ParityError, error_to_json
from edgeloop.federated.fold_back import fold_back
from edgeloop.federated.fold_back.conversion import release_options
from edgeloop.federated.fold_back.fold_back import FoldBack
from edgeloop.federated.fold_back.gate import Verdict, check_replaces, verdict_of
from edgeloop.federated.fold_back.options import CloudOptions
from edgeloop.federated.fold_back.present import FoldBackTold
from edgeloop.federated.fold_back.records import (
    FoldBackRecord,
    Outcome,
    forget_from,
    is_open,
    read_records,
    write_record,
)
from edgeloop.federated.rounds import run_rounds
from edgeloop.federated.rounds.options import RoundsOptions
from edgeloop.federated.rounds.privacy.options import PrivacyMode, PrivacyOptions
from edgeloop.federated.rounds.records import RoundRecord, is_due, models_folder
from edgeloop.federated.rounds.shards import CheckedShard
from edgeloop.processes.job import WorkerBug
from edgeloop.registry.versions.version_index import parse_index


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "eval is missing"),
        ({"every": 0}, r"\[cloud\] every is 0. It must be 1 or more"),
        ({"max-drop": -1.0}, "max-drop is -1. It must be 0 or more"),
        ({"max-drop": float("nan")}, "max-drop is nan"),
        ({"launch": "2"}, r'launch needs data to train on. Add train = "train.toml"'),
        ({"distill": 3}, "distill needs data to train on"),
        ({"train": "t.toml", "launch": "2", "distill": 3}, "distill trains in one process, and launch starts several"),
        ({"convert": {"release": 3}}, r"\[cloud.convert\] has release, which the run sets itself"),
        ({"convert": {"evaluation": "e.npz"}}, "has evaluation, which the run sets itself. Use .cloud. eval"),
        ({"convert": {"schemes": ["int7"]}}, "int7' is not known. Did you mean int4|int8"),
        ({"evry": 2}, "evry is not known. Did you mean every"),
    ],
    ids=str,
)
def test_a_table_that_contradicts_itself_is_refused(table, said):
    given = {"eval": "test.npz", **table} if table else {}
    with pytest.raises(OptionsError, match=said):
        settings.build(CloudOptions, given)


def test_every_nth_round_is_due_and_the_last_one():
    assert [n for n in range(1, 9) if is_due(n, 3, 8)] == [3, 6, 8]


@pytest.mark.parametrize(
    ("metric", "source", "value", "drop"),
    [
        ("accuracy", 0.925, 0.92, 0.5),
        ("accuracy", 0.9, 0.91, -1.0),
        ("auc", 0.8, 0.77, 3.0),
        ("rmse", 2.0, 2.05, 2.5),  # per cent: 0.05 / 2
    ],
)
def test_a_drop_is_in_points_or_in_per_cent_of_an_error(metric, source, value, drop):
    verdict = Verdict(metric=metric, source=source, variants={"int8": value}, unit=source if metric == "rmse" else 1.0)
    assert verdict.drop("int8") == pytest.approx(drop, abs=1e-12)
    verdict.check(drop)  # exactly as much as allowed, whatever the subtraction rounds
    with pytest.raises(BudgetError, match="int8 has"):
        verdict.check(drop - 0.01)


def test_the_worst_variant_blocks_a_release():
    verdict = Verdict(metric="accuracy", source=0.95, variants={"float16": 0.95, "int8": 0.93, "dynamic": 0.945})
    with pytest.raises(BudgetError) as error:
        verdict.check(1.0)
    assert error.value.found == (
        "int8 has accuracy 93.00%, 2.00 points below the source's 95.00%, and 1 points of accuracy may be lost"
    )


def test_rounds_are_folded_back_once_and_failed_ones_again_until_a_later_one_ended():
    records = [
        FoldBackRecord(round=2, outcome=Outcome.RELEASED),
        FoldBackRecord(round=4, outcome=Outcome.FAILED),
    ]
    assert [n for n in (2, 4, 6) if is_open(n, records)] == [4, 6]
    records.append(FoldBackRecord(round=6, outcome=Outcome.BLOCKED))
    assert [n for n in (2, 4, 6, 8) if is_open(n, records)] == [8]


def test_a_row_takes_the_place_of_an_earlier_one_of_its_round(tmp_path):
    assert read_records(tmp_path) == ()
    good = FoldBackRecord(round=2, outcome=Outcome.RELEASED, version=2, source=0.5, variants={"int8": 0.5}, told=("a",))
    for record in (
        FoldBackRecord(round=4, outcome=Outcome.FAILED, error=error_to_json(OSError(28, "full"))),
        replace(good, told=()),
        good,
    ):
        write_record(tmp_path, record)
    assert [record.round for record in read_records(tmp_path)] == [2, 4] and read_records(tmp_path)[0] == good
    (tmp_path / "cloud.json").write_text("{}")
    with pytest.raises(DataError, match="expected edgeloop-cloud/1"):
        read_records(tmp_path)


def manifest(*schemes: Scheme, trainable: int | None = None, labels=(), batch=8) -> Manifest:
    x, y = TensorSpec("x", (None, 4), "float32"), TensorSpec("y", (None, 2), "float32", labels=labels)
    variants = [Variant(s.value, f"{s.value}.tflite", (), Format.TFLITE, s, ("infer",)) for s in schemes]
    signatures = {"infer": Signature((x,), (y,))}
    weights, options = (), {}
    if trainable is not None:
        variants.append(Variant(TRAINABLE, "t.tflite", (), Format.TFLITE, Scheme.FLOAT32, ("train",)))
        signatures["train"] = Signature((TensorSpec("x", (batch, 4), "float32"),), ())
        weights = tuple(Weight(f"w{k:03}", f"w{k}", (4,), "float32", k >= trainable) for k in range(2))
        options = {TRAINABLE: {"batch": batch, "optimizer": "adam", "loss": "mse", "train_last": None}}
    return Manifest("net", 1, {}, {}, signatures, tuple(variants), weights, options=options)


def holding(one: Manifest):
    return SimpleNamespace(path=Path("net"), manifest=one)


def test_a_release_is_converted_as_the_bundle_was():
    options = CloudOptions(eval=Path("e.npz"), convert=settings.build(CloudOptions, CALIBRATED).convert)
    both = manifest(Scheme.FLOAT32, Scheme.INT8, trainable=0, labels=("no", "yes"))
    int8_io = Variant("int8-io", "i.tflite", (), Format.TFLITE, Scheme.INT8, ("infer",))
    onnx = Variant("onnx", "m.onnx", (), Format.ONNX, Scheme.FLOAT32, ("infer",))
    found = release_options(options, holding(replace(both, variants=(*both.variants, int8_io, onnx))), 7)
    assert (found.schemes, found.to) == ((Scheme.FLOAT32, Scheme.INT8), (Format.TFLITE, Format.ONNX))
    assert found.io == (Io.FLOAT32, Io.INT8)
    assert found.trainable == TrainableOptions(batch=8, optimizer=Optimizer.ADAM, loss=Loss.MSE)
    assert found.labels == ("no", "yes")
    assert (found.release, found.name, found.evaluation, found.calibration.name) == (7, "net", Path("e.npz"), "c.npz")
    assert not found.reference  # the bundle has none
    plain = release_options(options, holding(manifest(Scheme.FLOAT32)), 2)
    assert plain.trainable is None and plain.schemes == (Scheme.FLOAT32,)


def test_a_release_preprocesses_its_inputs_as_the_bundle_does():
    one = manifest(Scheme.FLOAT32, trainable=0)
    mean = Preprocessing(mean=(128.0,), std=(64.0,), resize=(4, 4))
    trainable = TrainableOptions(optimizer=Optimizer.MOMENTUM, train_last=1)
    kept = kept_options(ConvertOptions(preprocess=mean, trainable=trainable))
    named = (replace(variant, files=(variant.entry,)) for variant in one.variants)
    files = {variant.entry: FileEntry(0, "") for variant in one.variants}
    raw = holding(parse_manifest(replace(one, options=kept, variants=tuple(named), files=files).to_bytes()))
    assert release_options(CloudOptions(eval=Path("e.npz")), raw, 2).trainable == trainable
    for own in (None, mean):
        options = CloudOptions(eval=Path("e.npz"), convert=ConvertOptions(preprocess=own))
        assert release_options(options, raw, 2).preprocess == mean
    for bundle, own in ((raw, Preprocessing(mean=(1.0,))), (holding(one), mean)):
        with pytest.raises(OptionsError, match=r"preprocess is not what the variants of net do to their inputs"):
            release_options(CloudOptions(eval=Path("e.npz"), convert=ConvertOptions(preprocess=own)), bundle, 2)


def test_a_bundle_that_does_not_say_how_it_was_converted_is_refused():
    old = holding(replace(manifest(Scheme.FLOAT32, trainable=0), options={}))
    with pytest.raises(OptionsError, match="net does not say how it was converted"):
        release_options(CloudOptions(eval=Path("e.npz")), old, 2)


CALIBRATED = {"eval": "e.npz", "convert": {"calibration": "c.npz"}}


def test_int8_asks_for_real_inputs_before_the_first_round():
    with pytest.raises(OptionsError, match=r'scheme int8, whose ranges.*Add \[cloud.convert\] calibration = "F.npz"'):
        release_options(CloudOptions(eval=Path("e.npz")), holding(manifest(Scheme.INT8)), 2)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"schemes": ["float32"]}, "schemes leaves out int8, which devices of this bundle may run. Add int8"),
        ({"to": ["onnx"]}, "to leaves out tflite"),
    ],
)
def test_a_release_keeps_the_formats_and_schemes_of_the_bundle(table, said):
    given = {"eval": "e.npz", "convert": {"calibration": "c.npz", **table}}
    with pytest.raises(OptionsError, match=said):
        release_options(settings.build(CloudOptions, given), holding(manifest(Scheme.FLOAT32, Scheme.INT8)), 2)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (manifest(Scheme.FLOAT32, trainable=0), "would lack the variant int8"),
        (manifest(Scheme.FLOAT32, Scheme.INT8), "would lack the variant trainable"),
        (manifest(Scheme.FLOAT32, Scheme.INT8, trainable=1), "would not train the same weights"),
        (manifest(Scheme.FLOAT32, Scheme.INT8, trainable=0, batch=16), "the signature train of the release"),
        (manifest(Scheme.FLOAT32, Scheme.INT8, trainable=0, labels=("a", "b")), "the signature infer of the release"),
    ],
)
def test_a_release_that_cannot_take_the_place_of_the_bundle_is_refused(new, said):
    old = manifest(Scheme.FLOAT32, Scheme.INT8, trainable=0)
    check_replaces(holding(old), holding(old))
    with pytest.raises(ModelError, match=said):
        check_replaces(holding(old), holding(new))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(K, outcome)`: round K of a run whose training and conversion are played; what is published is real. Its
    folder is a link."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to("disk")
    folder = FoldBack(CloudOptions(eval=Path("e.npz")), Path("m.keras"), read_bundle(GOLDEN), tmp_path / "run", 9)
    played = SimpleNamespace(error=None, values={"int8": 0.9})

    def converted(model, out, options):
        if played.error is not None:
            raise played.error
        shutil.copytree(release(tmp_path / f"{out.parent.name}-{len(jobs)}", options.release), out)
        return SimpleNamespace(bundle=read_bundle(out), parity=())

    jobs = []

    def trained(job, say):
        jobs.append(job)
        return {"model": str((job.place / "model.keras").resolve()), "told": ["as it is"]}

    monkeypatch.setattr(fold_back, "run_training", trained)
    monkeypatch.setattr(fold_back, "release_options", lambda *given: SimpleNamespace(release=given[2]))
    monkeypatch.setattr(fold_back, "convert", converted)
    monkeypatch.setattr(
        fold_back, "verdict_of", lambda *given: Verdict(metric="accuracy", source=0.9, variants=played.values)
    )
    heard = []

    def run(number, error=None, attempt=1, **values):
        played.error, played.values = error, values or {"int8": 0.9}
        record = RoundRecord(number, f"rounds/round-{number}.npz", (), attempt=attempt)
        folder.after(lambda record, weights: heard.append(record.round))(record, {})
        return {record.round: record for record in read_records(tmp_path / "run")}.get(number)

    run.heard, run.out, run.jobs, run.folder = heard, tmp_path / "run", jobs, folder
    return run


def test_what_passes_is_a_new_version_in_a_registry_that_devices_read(run):
    first, second = run(1), run(2)
    assert (first.outcome, first.version, first.release) == (Outcome.RELEASED, 2, f"releases/{NAME}/0002")
    assert (second.version, second.signed, run.heard) == (3, False, [1, 2])
    raw, _ = FolderSource(str(run.out / "releases" / NAME)).index(None)
    assert (index := parse_index(raw)).find().version == 3 and sorted(index.versions) == [2, 3]
    assert read_bundle(run.out / first.release).manifest.version == 2
    assert first.model == "cloud/round-1/model.keras" and not (run.out / "cloud" / "round-1" / "bundle").exists()


def test_a_blocked_release_is_kept_beside_and_not_offered(run):
    blocked = run(1, int8=0.88)
    assert blocked.outcome is Outcome.BLOCKED and "2.00 points below" in blocked.reason
    assert not (run.out / "releases").exists()
    assert read_bundle(run.out / "cloud" / "round-1" / "bundle").manifest.version == 2
    told = FoldBackTold(read_records(run.out))
    assert told.tables()[0].rows == [("1", "blocked", "accuracy", "0.9", "int8 0.88", "none")]
    assert (told.error().exit_code, told.error().where) == (6, "round 1 is not released")
    assert run(1, int8=0.9).outcome is Outcome.BLOCKED  # of the same options nothing else would come
    run.folder.options = replace(run.folder.options, max_drop=3.0)
    assert run(1, int8=0.88).version == 2  # the number was not given away
    assert run(2).version == 3
    assert FoldBackTold(read_records(run.out)).error() is None  # a later round is released


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ParityError("int8 does not agree", advice="Do."), Outcome.BLOCKED),
        (ModelError("the converter crashed", advice="Do."), Outcome.FAILED),
        (OSError(28, "No space left on device"), Outcome.FAILED),
        (WorkerBug("Traceback\nZeroDivisionError: division by zero"), Outcome.FAILED),
    ],
    ids=["parity", "model", "disk", "bug"],
)
def test_no_failure_ends_the_run(run, error, outcome):
    found = run(1, error)
    assert found.outcome is outcome and str(error).splitlines()[-1] in found.reason and run.heard == [1]
    assert json.loads((run.out / "cloud.json").read_text())["rounds"][0]["outcome"] == outcome.value
    assert run(2).version == 2


def test_device_models_are_the_teachers_until_their_round_has_ended(run):
    run.folder.options = replace(run.folder.options, train=Path("t.toml"), distill=2)
    names = [models_folder(run.out, number, attempt) for number, attempt in ((1, 1), (1, 2), (2, 1))]
    for folder in names:
        folder.mkdir(parents=True)
        (folder / "7.npz").write_bytes(b"weights")
    assert run(1, attempt=2, int8=0.88).outcome is Outcome.BLOCKED
    run.folder.options = replace(run.folder.options, max_drop=3.0)
    assert run(1, attempt=2, int8=0.88).outcome is Outcome.RELEASED
    assert run.jobs[-1].teachers == (names[1] / "7.npz",)
    assert [folder.exists() for folder in names] == [False, False, True]
    lost = run(3)
    assert lost.outcome is Outcome.FAILED and "holds no device models of round 3" in lost.reason
    run.folder.went_back_to = 3  # whose device models have taught once
    assert run(3).outcome is Outcome.RELEASED
    assert (run.jobs[-1].teachers, run.jobs[-1].options.train) == ((), None)


def test_a_run_that_went_back_releases_that_round_at_once_under_a_higher_number(run):
    assert [run(number).version for number in (1, 2, 3)] == [2, 3, 4]
    forget_from(run.out, 2)  # of the run that went back to round 2
    run.folder.went_back_to, run.folder.options = 2, replace(run.folder.options, every=4)
    assert [record.round for record in read_records(run.out)] == [1]
    assert (run(1).version, run(2).version, run(3)) == (2, 5, None)  # round 3 is not due any more


def test_the_last_round_that_the_privacy_budget_allowed_is_folded_back(run):
    run.folder.options = replace(run.folder.options, every=5)
    assert run(7) is None  # of 9: another may follow
    run.folder.end(RoundRecord(7, "rounds/round-7.npz", ()))
    assert [(record.round, record.version) for record in read_records(run.out)] == [(7, 2)]
    run(9)
    run.folder.end(RoundRecord(9, "rounds/round-9.npz", ()))
    assert [record.version for record in read_records(run.out)] == [2, 3]


@pytest.mark.parametrize(("mode", "every"), [(PrivacyMode.NONE, 5), (PrivacyMode.LOCAL, 1)])
def test_any_round_of_a_private_run_may_be_the_last_one_and_keeps_its_teachers(tmp_path, mode, every):
    (keras := tmp_path / "m.keras").touch()
    cloud = CloudOptions(eval=Path("e.npz"), every=5, train=Path("t.toml"), distill=2)
    bounds = {} if mode is PrivacyMode.NONE else {"clipping_norm": 1.0, "noise_multiplier": 1.0, "delta": 1e-5}
    privacy = PrivacyOptions(mode=mode, **bounds)
    options = RoundsOptions(shards=(Path("a.npz"),), out=Path("out"), cloud=cloud, keras=keras, privacy=privacy)
    job = json.loads(run_rounds._job(Path("t.tflite"), options, (CheckedShard(Path("a.npz"), 1, ""),), {}))
    assert (job["kept_updates"], job["kept_every"]) == (2, every)


def test_an_rmse_that_is_no_error_blocks_nothing(tmp_path):
    """Labels of deviation 1: one of 0.001 is held to 1% of 0.01, as that of a conversion is."""
    np.savez(tmp_path / "e.npz", y=np.array([-1.0, 1.0]))
    rows = [SimpleNamespace(variant="int8", accuracy=None, auc=None, rmse=0.0011)]
    (tmp_path / "proof.json").write_text('{"evaluation": {"metric": "rmse", "source": {"rmse": 0.001}}}')
    bundle = SimpleNamespace(file=lambda name: tmp_path / name)
    verdict = verdict_of(bundle, rows, tmp_path / "e.npz")
    assert verdict.drop("int8") == pytest.approx(1.0)  # 0.0001 of 0.01
    verdict.check(1.0)


def test_a_round_is_not_released_twice(run):
    assert run(1).version == 2
    assert run(1).version == 2  # as --resume tells of it again
    assert sorted(path.name for path in (run.out / "releases" / NAME).glob("0*")) == ["0002"]


def test_what_would_fail_later_is_refused_before_the_first_round(tmp_path):
    np.savez(tmp_path / "e.npz", x=np.zeros(3))
    for table, said in (
        ({"eval": "none.npz"}, "eval .*none.npz does not exist"),
        ({"eval": "e.npz", "train": "none.toml"}, "train .*none.toml does not exist"),
        ({"eval": "e.npz", "sign": "key"}, "sign .*key does not exist"),
    ):
        given = {**table, "convert": {"calibration": str(tmp_path / "e.npz")}}
        options = settings.anchored(settings.build(CloudOptions, given), tmp_path)
        with pytest.raises(OptionsError, match=said):
            FoldBack(options, Path("m.keras"), read_bundle(GOLDEN), tmp_path, 3).check()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda run: (run / "key").write_text("no key"), "cannot sign with .*key"),
        (lambda run: (run / "releases" / NAME / "index.json").write_text("{"), "index"),
    ],
    ids=["key", "index"],
)
def test_what_no_release_could_be_signed_or_numbered_with_is_refused_before_the_first_round(
    tmp_path, monkeypatch, damage, said
):
    monkeypatch.setattr(fold_back, "run_training", lambda *given: {})
    monkeypatch.setattr(fold_back, "check_shards", lambda *given: ())
    np.savez(tmp_path / "e.npz", x=np.zeros(3))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    (tmp_path / "releases" / NAME).mkdir(parents=True)
    options = CloudOptions(
        eval=tmp_path / "e.npz", sign=tmp_path / "key", convert=ConvertOptions(calibration=tmp_path / "e.npz")
    )
    folding = FoldBack(options, Path("m.keras"), read_bundle(GOLDEN), tmp_path, 3)
    folding.check()
    damage(tmp_path)
    with pytest.raises(DataError, match=said):
        folding.check()
