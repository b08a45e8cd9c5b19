"""`edgeloop convert`, `verify` and `cache` as a user has them: small models in, bundles and exit codes out."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from edgeloop import cli
from edgeloop.bundle import MANIFEST, PROOF, Format, Scheme, read_bundle
from edgeloop.canonical import canonical_json
from edgeloop.convert import convert as parent
from edgeloop.convert.convert import convert
from edgeloop.convert.forms.tflite_file import stored_scheme
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.proof import prove
from edgeloop.errors import MissingExtra, ModelError
from edgeloop.files.flatbuffer import float_operators, read_tflite
from edgeloop.files.metadata import read_metadata

FLOAT32 = ConvertOptions(to=(Format.TFLITE,), schemes=(Scheme.FLOAT32,), cache=False)
HEIGHT, WIDTH = 9, 7  # of what devices give; the net takes 8 x 8


def litert(path, signature="infer", **inputs):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=str(path)).get_signature_runner(signature)(**inputs)


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def command(*arguments, **more):
    """`edgeloop ...` in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "edgeloop.cli", *map(str, arguments)], text=True, **more)


def document(capfd, *arguments):
    """What `edgeloop ... --json` says."""
    assert cli.run([*map(str, arguments), "--json"]) == 0, capfd.readouterr().err
    return json.loads(capfd.readouterr().out)


def refusal(capfd, *arguments):
    """The exit code of a command that fails, and its one line."""
    code = cli.run([*map(str, arguments)])
    said = capfd.readouterr()
    lines = [line for line in said.err.splitlines() if not line.endswith(": done")]
    assert code != 0 and len(lines) == 1 and lines[0].startswith("edgeloop: ") and not said.out
    return code, lines[0]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """net.keras, a classifier of images [8, 8, 1]; sine.keras; wants255.keras, which divides by 255 itself; many/, a
    SavedModel with several signatures; and data for each."""
    keras = pytest.importorskip("keras")
    tf = pytest.importorskip("tensorflow")
    keras.utils.set_random_seed(4)
    layers, rng = keras.layers, np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("models")

    net = [layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3, activation="softmax", name="p")]
    net = keras.Sequential([keras.Input((8, 8, 1), name="image"), *net])
    net.save(folder / "net.keras")
    images = rng.random((64, 8, 8, 1), np.float32)
    np.savez(folder / "images.npz", image=images)
    np.savez(folder / "labelled.npz", image=images, y=np.argmax(net(images), -1))
    np.savez(folder / "photos.npz", image=rng.integers(0, 256, (32, HEIGHT, WIDTH, 1)).astype(np.float32))
    (folder / "names.txt").write_text("cat\ndog\nfish\n")

    x = keras.Input((4,), name="x")
    keras.Model(x, layers.Dense(3, name="y")(keras.ops.sin(layers.Dense(8)(x)))).save(folder / "sine.keras")
    np.savez(folder / "x.npz", x=rng.random((32, 4), np.float32))

    scaled = keras.Sequential([keras.Input((8, 8, 1), name="image"), layers.Rescaling(1 / 255), *net.layers])
    scaled.save(folder / "wants255.keras")

    class Many(tf.Module):
        def __init__(self):
            self.kernel = tf.Variable(rng.standard_normal((3, 3, 3, 4)).astype(np.float32))
            self.calls = tf.Variable(tf.zeros([]))

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, name="image")])
        def anysize(self, image):
            return {"map": tf.nn.conv2d(image, self.kernel, 1, "SAME"), "mean": tf.reduce_mean(image, [1, 2])}

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name=name) for name in "edcba"])
        def five(self, e, d, c, b, a):
            w = tf.constant([[1.0, 2.0], [3.0, 4.0]])
            return {"sum": tf.matmul(a + 2 * b, w), "rest": tf.matmul(c - d, w) * e}

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
        def counts(self, x):
            return {"y": x + self.calls.assign_add(1.0)}

    many = Many()
    signatures = {name: getattr(many, name) for name in ("anysize", "five", "counts")}
    tf.saved_model.save(many, folder / "many", signatures=signatures)
    return folder


@pytest.fixture(scope="module")
def full(models, tmp_path_factory):
    """The command line of a conversion with nearly everything, and what it said: (arguments, document)."""
    arguments = [
        *("convert", models / "net.keras", "-o", tmp_path_factory.mktemp("full") / "new" / "b"),
        *("--calibration", models / "photos.npz", "--labels", models / "names.txt", "--name", "pets"),
        *("--schemes", "float32,float16,dynamic,int8,int16x8,int4", "--io", "float32,int8"),
        *("--tfjs-weights", "uint8", "--tfjs-shard-mb", 0.0002, "--trainable", "--train-batch", 4),
        *("--input-range", "0,255", "--mean", 0.5, "--std", 0.25, "--resize", f"{HEIGHT},{WIDTH}", "--json"),
    ]
    running = command(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    return arguments, json.loads(out)


@pytest.fixture
def bundle(full, tmp_path):
    """A copy of that bundle, to be damaged."""
    shutil.copytree(full[1]["bundle"], tmp_path / "copy")
    return read_bundle(tmp_path / "copy")


def test_everything_at_once_gives_every_variant_that_was_asked_for(full):
    ids = [row["id"] for row in full[1]["variants"]]
    tflite = ["float32", "float16", "dynamic", "int8", "int8-io", "int16x8", "int4"]
    assert ids == [*tflite, "onnx", "onnx-int8", "tfjs", "trainable"]
    assert [note[:40] for note in full[1]["notes"]] == ["reference.npz holds 16 real inputs. Pass"]


def test_the_scheme_of_a_variant_is_what_its_flatbuffer_holds(full):
    bundle = read_bundle(full[1]["bundle"])
    for variant in bundle.variants:
        if variant.format is Format.TFLITE:
            data = bundle.file(variant.entry).read_bytes()
            assert stored_scheme(data) is variant.scheme, variant.id
    integer = bundle.file("int8-io.tflite").read_bytes()
    graph = read_tflite(integer).graphs[0]
    assert {graph.tensors[i].dtype for i in (*graph.inputs, *graph.outputs)} == {"int8"}
    assert float_operators(integer) == float_operators(bundle.file("int16x8.tflite").read_bytes()) == []


def test_tfjs_weights_are_bytes_in_shards_of_the_size_that_was_asked_for(full):
    folder = Path(full[1]["bundle"]) / "tfjs"
    shards = [path.stat().st_size for path in folder.glob("*.bin")]
    assert len(shards) > 1 and max(shards) <= 0.0002 * 2**20
    groups = json.loads((folder / "model.json").read_bytes())["weightsManifest"]
    stored = {w.get("quantization", {}).get("dtype", w["dtype"]) for group in groups for w in group["weights"]}
    assert "uint8" in stored and "float32" not in stored


def test_every_variant_answers_raw_images_as_the_model_answers_prepared_ones(models, full):
    """By TensorFlow's own resize and Keras' own model, not by the proof; float32 alone, as the proof holds the rest."""
    keras = pytest.importorskip("keras")
    tf = pytest.importorskip("tensorflow")
    raw = np.load(models / "photos.npz")["image"]
    prepared = (np.asarray(tf.image.resize(raw, (8, 8))) / 255 - 0.5) / 0.25
    expected = np.asarray(keras.models.load_model(models / "net.keras")(prepared))
    got = litert(Path(full[1]["bundle"]) / "float32.tflite", image=raw)["p"]
    np.testing.assert_allclose(got, expected, atol=1e-5)  # some hundred float32 roundings of values below 2
    trained = litert(Path(full[1]["bundle"]) / "trainable.tflite", image=raw[:4])["p"]
    np.testing.assert_allclose(trained, expected[:4], atol=1e-5)


def test_what_json_says_the_manifest_and_the_proof_say_too(full):
    _, said = full
    bundle = read_bundle(said["bundle"])
    proof = json.loads(bundle.file(PROOF).read_bytes())
    assert proof["parity"] == said["proof"] and proof["manifest_sha256"] == bundle.manifest_sha256
    for variant, row in zip(bundle.variants, said["variants"], strict=True):
        records = [r for r in proof["parity"] if r["variant"] == variant.id]
        passed = {r["runtime"] for r in records} - {r["runtime"] for r in records if not r["passed"]}
        assert set(variant.requires.runtimes) == set(row["runtimes"]) == passed and passed


def test_names_and_labels_are_read_back_from_the_file_alone(full):
    for name in ("float32", "int8", "trainable"):
        found = read_metadata((Path(full[1]["bundle"]) / f"{name}.tflite").read_bytes())
        assert found.name == "pets"
        assert [t.labels for t in found.outputs if t.name == "p"] == [("cat", "dog", "fish")]
    (output,) = read_bundle(full[1]["bundle"]).manifest.signatures["infer"].outputs
    assert output.labels == ("cat", "dog", "fish")


def test_an_unchanged_command_starts_no_worker_and_loads_no_framework(full):
    arguments, before = full
    code = (
        "import json, sys\n"
        "from edgeloop.convert import convert\n"
        "convert.WORKER = ('-c', 'raise SystemExit(1)')\n"
        "from edgeloop.cli import run\n"
        f"code = run({[*map(str, arguments)]!r})\n"
        "heavy = {'tensorflow', 'keras', 'onnx', 'onnxruntime', 'ai_edge_litert', 'h5py'} & sys.modules.keys()\n"
        "print(json.dumps([code, sorted(heavy)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    said, end = done.stdout.rsplit("\n", 2)[0], done.stdout.splitlines()[-1]
    assert json.loads(end) == [0, []], done.stderr
    assert json.loads(said) == before


def test_the_cache_is_listed_and_pruned_and_one_changed_byte_is_another_conversion(
    models, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "m.tflite"
    convert(models / "net.keras", tmp_path / "b", replace(FLOAT32, reference=False))
    shutil.copy(tmp_path / "b" / "float32.tflite", source)
    started = []
    real = parent.run_job
    monkeypatch.setattr(parent, "run_job", lambda *a, **k: (started.append(1), real(*a, **k))[1])
    shutil.copy(models / "images.npz", tmp_path / "data.npz")
    line = ["convert", source, "-o", tmp_path / "b", "--to", "tflite", "--calibration", tmp_path / "data.npz"]
    line += ["--schemes", "float32"]
    document(capfd, *line)
    document(capfd, *line)
    assert len(started) == 1
    with (tmp_path / "b" / "float32.tflite").open("r+b") as file:  # damaged output: the cache mends it
        file.write(b"X")
    document(capfd, *line)
    assert len(started) == 1 and cli.run(["verify", str(tmp_path / "b")]) == 0
    capfd.readouterr()
    np.savez(tmp_path / "data.npz", image=np.load(models / "images.npz")["image"] * np.float32(0.999))
    document(capfd, *line)
    assert len(started) == 2
    document(capfd, *line, "--release", "2")
    assert len(started) == 3
    document(capfd, *line, "--release", "2", "--no-cache")
    assert len(started) == 4
    kept = document(capfd, "cache", "--kind", "conversions")["entries"]
    assert [row["of"] for row in kept] == ["m.tflite"] * 3
    victim = next((tmp_path / "cache" / "conversions" / kept[0]["name"] / "bundle").glob("*.tflite"))
    victim.write_bytes(b"damaged")  # what the cache holds itself: converted again, and mended
    document(capfd, *line, "--release", "2")
    assert len(started) == 5
    document(capfd, *line, "--release", "2")
    assert len(started) == 5
    assert len(document(capfd, "cache", "--kind", "conversions", "--prune")["removed"]) == 3
    assert document(capfd, "cache", "--kind", "conversions")["entries"] == []


def test_verify_repeats_the_proof_and_ends_with_9_for_a_flipped_byte(bundle, capfd):
    said = document(capfd, "verify", bundle.path)
    assert [row["id"] for row in said["variants"]] == [variant.id for variant in bundle.variants]
    data = bytearray(bundle.file("int8.tflite").read_bytes())
    data[len(data) // 2] ^= 1
    bundle.file("int8.tflite").write_bytes(data)
    code, line = refusal(capfd, "verify", bundle.path)
    assert code == 9 and "int8.tflite has sha256" in line


def test_verify_ends_with_9_for_a_changed_or_removed_proof(bundle, capfd):
    proof = json.loads(bundle.file(PROOF).read_bytes())
    proof["parity"][0]["max_abs"] = 0.0
    proof["parity"][0]["accuracy"] = 1.0
    bundle.file(PROOF).write_bytes(canonical_json(proof))
    code, line = refusal(capfd, "verify", bundle.path)
    assert code == 9 and "proof.json has the hash" in line
    bundle.file(PROOF).unlink()
    code, line = refusal(capfd, "verify", bundle.path)
    assert code == 9 and "lacks proof.json" in line


def test_verify_ends_with_5_where_a_listed_runtime_disagrees(bundle, capfd):
    """int4 is refused by tflite-runtime 2.14; a manifest that lists it there does not hold."""
    proof = json.loads(bundle.file(PROOF).read_bytes())
    tried = {row["runtime"] for row in proof["parity"] if row["variant"] == "int4"}
    if "tflite-runtime" not in tried:
        pytest.skip("no device environment with tflite-runtime: run make setup")
    manifest = json.loads(bundle.file(MANIFEST).read_bytes())
    del manifest["proof_sha256"]
    for variant in manifest["variants"]:
        if variant["id"] == "int4":
            variant["requires"]["runtimes"] = ["litert", "tflite-runtime"]
    bundle.file(MANIFEST).write_bytes(canonical_json(manifest))
    bundle.file(PROOF).unlink()
    code, line = refusal(capfd, "verify", bundle.path)
    assert code == 5 and "int4 on tflite-runtime" in line


def test_one_more_device_is_on_record_and_a_missing_runtime_is_3_or_a_mark(
    bundle, device_python, tmp_path, capfd, monkeypatch
):
    monkeypatch.setenv("EDGELOOP_DEVICE_PYTHON", str(tmp_path / "none"))  # LiteRT is here all the same
    source, out = bundle.file("dynamic.tflite"), tmp_path / "b"
    said = document(capfd, "convert", source, "-o", out, "--prove-on", f"local:{device_python}", "--no-cache")
    where = {(row["runtime"], row["device"]) for row in said["proof"]}
    label = f"local:{device_python.parent.parent.name}"
    assert {("litert", "local"), ("tflite-runtime", label)} <= where
    assert set(said["variants"][0]["runtimes"]) == {"litert", "tflite-runtime"}
    code, line = refusal(capfd, "convert", source, "-o", out, "--prove-on", "local:/no/python", "--no-cache")
    assert code == 8 and "/no/python" in line

    class Absent(prove.AgentRunner):
        def device(self):
            raise MissingExtra(f"{self.name} is not installed here. Run: edgeloop setup device")

    absent = {n: Absent(r.runtime) for n, r in prove.runners().items() if n in ("litert", "tflite-runtime")}
    before = out.joinpath(MANIFEST).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(prove, "runners", lambda: absent)
        code, line = refusal(capfd, "convert", source, "-o", out, "--no-cache")
        assert code == 3 and "edgeloop setup device" in line
        assert out.joinpath(MANIFEST).read_bytes() == before
        said = document(capfd, "convert", source, "-o", out, "--unproved", "tflite", "--no-cache")
        assert said["variants"][0]["runtimes"] == [] == said["proof"]
        assert read_bundle(out).variants[0].requires.runtimes == ()
        assert document(capfd, "verify", out)["proof"] == []  # nothing was claimed


def test_sizes_that_are_free_stay_free_in_every_format(models, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    tf = pytest.importorskip("tensorflow")
    formats = (Format.TFLITE, Format.ONNX, Format.TFJS) if find_spec("tensorflowjs") else (Format.TFLITE, Format.ONNX)
    options = replace(FLOAT32, to=formats, signature="anysize")
    bundle = convert(models / "many", tmp_path / "b", options).bundle
    assert list(bundle.manifest.signatures) == ["anysize"]
    loaded = tf.saved_model.load(str(models / "many"))
    session = onnxruntime.InferenceSession(bundle.file("model.onnx"), providers=["CPUExecutionProvider"])
    for shape in ((1, 5, 6, 3), (2, 11, 4, 3)):
        image = np.random.default_rng(1).random(shape, np.float32)
        expected = {n: v.numpy() for n, v in loaded.signatures["anysize"](image=tf.constant(image)).items()}
        answers = [litert(bundle.file("float32.tflite"), "anysize", image=image)]
        answers.append(dict(zip(["map", "mean"], session.run(["map", "mean"], {"image": image}), strict=True)))
        if Format.TFJS in formats:
            with prove.runners()["tfjs"].open(bundle.path, "tfjs/model.json") as page:
                answers.append(page.infer({"image": image}, None))
        for answer in answers:
            for name, value in expected.items():
                np.testing.assert_allclose(answer[name], value, atol=1e-5)  # sums of 27 products below 3


def test_a_signature_with_state_is_refused_by_its_name(models, tmp_path):
    with pytest.raises(ModelError, match=r"the signature 'counts' keeps state .*AssignAddVariableOp"):
        convert(models / "many", tmp_path / "b", replace(FLOAT32, signature="counts"))
    assert tree(tmp_path) == []


def test_three_processes_write_the_same_bytes(models, tmp_path):
    """Five inputs, whose order TensorFlow keeps in a set: by chance it is the same twice once in 120 times.

    The seeds are those of the parents, which prove the files and write the manifests; whatever they are, the workers
    that make the files hash alike (test_job.py).
    """
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "c.npz", **{name: rng.random((32, 2), np.float32) for name in "abcde"})
    line = ["convert", models / "many", "--signature", "five", "--calibration", tmp_path / "c.npz", "--no-cache"]
    line += ["--to", "tflite,onnx", "--schemes", "float32,int8"]
    found = []
    for seed in "012":
        running = command(
            *line, "-o", tmp_path / seed, env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.DEVNULL
        )
        assert running.wait(timeout=120) == 0
        found.append((tmp_path / seed / MANIFEST).read_bytes())
    assert found[0] == found[1] == found[2]
    (signature,) = json.loads(found[0])["signatures"].values()
    assert [t["name"] for t in signature["inputs"]] == ["a", "b", "c", "d", "e"]


def test_what_int8_leaves_in_float_is_named_and_fails_only_where_int8_was_asked_for(models, tmp_path):
    options = ConvertOptions(to=(Format.TFLITE, Format.ONNX), calibration=models / "x.npz", cache=False)
    made = convert(models / "sine.keras", tmp_path / "b", options)
    schemes = {v.id: v.scheme.value for v in made.bundle.variants}
    assert list(schemes) == ["float32", "float16", "dynamic", "onnx"]
    notes = {note.split()[0]: note for note in made.notes}
    assert "SIN of" in notes["int8"] and "replace it by values" in notes["int8"]
    for id in ("mixed", "onnx-int8"):
        assert notes[id].startswith(f"{id} was not written: not smaller than the float32 file (")
    before = tree(tmp_path)
    with pytest.raises(ModelError, match=r"cannot be fully int8: SIN of .*Sin.* stayed in float"):
        convert(models / "sine.keras", tmp_path / "b", replace(options, schemes=(Scheme.INT8,)))
    assert tree(tmp_path) == before


def test_a_scheme_that_changes_nothing_is_not_written_under_its_name(tmp_path):
    keras = pytest.importorskip("keras")
    x = keras.Input((2,), name="x")
    keras.Model(x, keras.layers.ReLU(name="y")(x)).save(tmp_path / "m.keras")
    made = convert(tmp_path / "m.keras", tmp_path / "b", replace(FLOAT32, schemes=None))
    assert [v.id for v in made.bundle.variants] == ["float32"]
    assert sum("no operator of this model becomes" in note for note in made.notes) == 2
    with pytest.raises(ModelError, match=r"becomes float16: the file would be float32\. Leave float16 out"):
        convert(tmp_path / "m.keras", tmp_path / "b", replace(FLOAT32, schemes=(Scheme.FLOAT16,)))


def test_a_pruned_model_says_so(models, tmp_path, capfd):
    line = ["convert", models / "net.keras", "-o", tmp_path / "b", "--to", "tflite", "--schemes", "float32"]
    said = document(capfd, *line, "--prune", "0.5", "--train-data", models / "labelled.npz")
    bundle = read_bundle(tmp_path / "b")
    assert "0.5" in bundle.manifest.source["compressed"]
    assert bundle.manifest.source["sha256"] == parent.source_digest(models / "net.keras")  # of what the user gave
    assert any("Compressed with gzip, the weights shrink from" in note for note in said["notes"])
    code, line = refusal(capfd, *line, "--prune", "0.5")
    assert code == 2 and "--train-data" in line


def test_a_killed_search_goes_on_and_leaves_its_report_beside_the_bundle(models, tmp_path, capfd):
    out, journal = tmp_path / "b", tmp_path / "b.search.jsonl"
    line = ["convert", models / "net.keras", "-o", out, "--to", "tflite", "--schemes", "auto", "--max-drop", "2"]
    line += ["--calibration", models / "images.npz", "--eval", models / "labelled.npz"]
    running = command(*line, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait(timeout=10)
    assert not out.exists()
    time.sleep(0.3)  # its worker dies with it
    lines = journal.read_bytes().count(b"\n")
    assert lines
    said = document(capfd, *line)
    assert said["search"]["resumed"] == lines <= said["search"]["evaluations"]
    assert not journal.exists()
    assert json.loads((tmp_path / "b.search.json").read_bytes()) == said["search"]
    assert "<svg" in (tmp_path / "b.report.html").read_text()
    best = said["search"]["tried"][said["search"]["best"]]
    assert best["holds"] and said["variants"][-1]["scheme"] in (best["scheme"], "mixed")
    (tmp_path / "b.report.html").unlink()
    assert document(capfd, *line) == said  # from the cache, report and all
    assert (tmp_path / "b.report.html").exists()


def test_a_budget_that_nothing_holds_ends_with_6_and_leaves_the_old_bundle(tmp_path, capfd):
    """Two sums of the same 300 numbers in another order: which is larger is decided by the last bit, and TensorFlow's
    last bit is not LiteRT's."""
    keras = pytest.importorskip("keras")
    x, rng = keras.Input((300,), name="x"), np.random.default_rng(0)
    one, two = keras.layers.Dense(1), keras.layers.Dense(1)
    net = keras.Model(x, keras.layers.Concatenate(name="p")([one(x), keras.layers.Rescaling(3.0)(two(x))]))
    weights = rng.random((300, 1), np.float32)
    one.set_weights([weights, np.zeros(1, np.float32)])
    two.set_weights([weights / 3, np.zeros(1, np.float32)])
    net.save(tmp_path / "tie.keras")
    values = rng.random((256, 300), np.float32)
    np.savez(tmp_path / "tie.npz", x=values, y=np.argmax(net.predict(values, verbose=0), -1))
    line = [
        "convert",
        tmp_path / "tie.keras",
        "-o",
        tmp_path / "b",
        "--to",
        "tflite",
        "--schemes",
        "auto",
        "--no-cache",
    ]
    shutil.copytree(Path(__file__).parents[2] / "golden" / "bundle-1", tmp_path / "b")
    before = (tmp_path / "b" / MANIFEST).read_bytes()
    data = tmp_path / "tie.npz"
    code, said = refusal(capfd, *line, "--max-drop", "0.1", "--calibration", data, "--eval", data)
    assert code == 6 and "no mix of schemes is within the budget of 0.1 points" in said
    assert (tmp_path / "b" / MANIFEST).read_bytes() == before
    assert not [name for name in tree(tmp_path) if "report" in name or "/." in name or name.startswith(".")]


def test_data_of_another_range_is_refused_and_the_mismatch_named(models, tmp_path, capfd):
    line = ["convert", models / "wants255.keras", "-o", tmp_path / "b", "--to", "tflite"]
    code, said = refusal(capfd, *line, "--calibration", models / "images.npz", "--eval", models / "labelled.npz")
    assert code == 10 and "255" in said
    assert tree(tmp_path) == []


def test_labels_that_do_not_fit_end_with_2(bundle, tmp_path, capfd):
    (tmp_path / "two.txt").write_text("cat\ndog\n")
    line = ["convert", bundle.file("float32.tflite"), "-o", tmp_path / "b", "--to", "tflite"]
    assert refusal(capfd, *line, "--labels", tmp_path / "two.txt")[0] == 2
    code, said = refusal(capfd, *line, "--labels", tmp_path / "none.txt")
    assert code == 10 and "none.txt" in said
    assert not (tmp_path / "b").exists()


def test_ctrl_c_ends_every_process_and_writes_nothing(models, tmp_path):
    line = ["convert", models / "net.keras", "-o", tmp_path / "new" / "b", "--no-cache"]
    running = command(*line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    tasks = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    deadline = time.monotonic() + 30
    while not (worker := tasks.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(1.0)  # amid the import of TensorFlow
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert err.splitlines()[-1] == "edgeloop: interrupted; every process that was started has ended."
    assert worker and not Path(f"/proc/{worker[0]}").exists()
    assert tree(tmp_path) == []


def test_an_onnx_file_with_data_beside_it_becomes_everything_and_that_data_counts(tmp_path, capfd, monkeypatch):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "cache"))
    make, rng = onnx.helper.make_node, np.random.default_rng(3)
    kernel, head = rng.standard_normal((4, 3, 3, 3)), rng.standard_normal((48, 5))
    nodes = [
        make("Conv", ["image", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        make("Relu", ["c"], ["r"]),
        make("MaxPool", ["r"], ["a"], kernel_shape=[2, 2], strides=[2, 2]),
        make("Flatten", ["a"], ["f"]),
        make("MatMul", ["f", "head"], ["y"]),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("image", ["n", 3, 8, 6]), ("y", ["n", 5]))
    ]

    def save(scale):
        weights = {"kernel": scale * kernel, "head": head}
        tensors = [onnx.numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()]
        graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
        (tmp_path / "w.bin").unlink(missing_ok=True)  # onnx appends to it
        onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
        return (tmp_path / "m.onnx").read_bytes()

    image = rng.random((32, 3, 8, 6), np.float32)
    np.savez(tmp_path / "c.npz", image=image)
    small = save(1.0)
    line = ["convert", tmp_path / "m.onnx", "-o", tmp_path / "b", "--calibration", tmp_path / "c.npz"]
    said = document(capfd, *line)
    tfjs = ["tfjs"] if find_spec("tensorflowjs") else []
    ids = [row["id"] for row in said["variants"]]
    assert ids == ["float32", "float16", "dynamic", "int8", "onnx", *tfjs]  # onnx-int8 would not be smaller
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    got = litert(tmp_path / "b" / "float32.tflite", image=image)["y"]
    np.testing.assert_allclose(got, session.run(None, {"image": image})[0], rtol=1e-4, atol=1e-4)

    def started(*arguments, **more):
        raise ModelError("the worker was started.")

    monkeypatch.setattr(parent, "run_job", started)
    assert document(capfd, *line) == said  # from the cache
    assert save(2.0) == small  # the .onnx is the same to the byte
    assert refusal(capfd, *line) == (4, "edgeloop: the worker was started.")


def test_a_cache_that_cannot_be_written_costs_a_note_and_not_the_bundle(bundle, tmp_path, capfd, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "deep"):
        monkeypatch.setenv("EDGELOOP_CACHE", str(folder))
        said = document(capfd, "convert", bundle.file("int8.tflite"), "-o", tmp_path / "b")
        assert said["notes"][-1].startswith(
            f"The conversion was not kept in the cache: cannot write the cache {folder} ("
        )
        assert read_bundle(tmp_path / "b")
        assert document(capfd, "cache", "--kind", "conversions")["entries"] == []


WORDS = {
    "--memory-mb nan": "--memory-mb is nan. It must be",
    "--memory-mb inf": "--memory-mb is inf",
    "--tfjs-shard-mb -1": "--tfjs-shard-mb is -1. It must be",
    "--tfjs-shard-mb inf": "--tfjs-shard-mb is inf",
    "--optimizer adam": "Add --trainable.",
    "--train-last 1": "Add --trainable.",
    "--input-range=": "--input-range is ''. Write one number",
    "--schemes int9": "Did you mean int8? Choose from float32",
    "--schemes auto": "Pass it alone, with --max-drop PP",
    "--schemes auto,int8 --max-drop 1": "Pass it alone",
    "--to savedmodel": "Choose from tflite, onnx, tfjs.",
    "--io int8 --schemes float32 --calibration none.npz": "Add --schemes int8",
}


@pytest.mark.parametrize("words", WORDS)
def test_words_that_mean_nothing_end_with_2_and_are_named(tmp_path, capfd, words):
    code, line = refusal(capfd, "convert", tmp_path / "m.keras", "-o", tmp_path / "b", *words.split())
    assert code == 2 and WORDS[words] in line
