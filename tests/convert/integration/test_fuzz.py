"""Mutated model files: a clear error or a correct result; no other exception, no hang, nothing written outside.

EDGELOOP_FUZZ=N makes `make faults` take N mutations of each kind; a failure names its seed.
"""

import os
import shutil
import time
import zipfile

import hostile_files as made
import pytest
from mutated_files import mutated, opened
from sweeps import swept

from edgeloop.convert.sources.identify import identify
from edgeloop.convert.sources.safety import check_safety
from edgeloop.errors import EdgeloopError
from edgeloop.files.inspect import inspect

EACH = int(os.environ.get("EDGELOOP_FUZZ", "500"))  # x 9 kinds = 4,500; `make test` takes the first 50 seeds of each
SLOWEST_S = 10.0  # of the CPU for one small file; all take milliseconds, so this is a hang
LOADED = int(os.environ.get("EDGELOOP_FUZZ", "50"))  # of each kind, by the real loaders; `make test` takes 10
READ = ["tflite", "int8 tflite", "onnx", "onnx with data beside it", "savedmodel", "keras", "deflated keras", "tfjs"]


def file_of(path):
    return path / "saved_model.pb" if path.is_dir() else path


def listed(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def damage(path, seed):
    """Mutate a file, or the graph of a SavedModel."""
    file = file_of(path)
    file.write_bytes(mutated(file.read_bytes(), seed))


def damage_entry(path, name, seed):
    """Mutate what a .keras file holds under `name`, so that its checksum still fits."""
    with zipfile.ZipFile(path) as archive:
        entries = {n: archive.read(n) for n in archive.namelist()}
    entries[name] = mutated(entries[name], seed)
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in entries.items():
            archive.writestr(entry, data)


@swept("each", 50, EACH)
@pytest.mark.parametrize("kind", [*READ, "config"])
def test_a_mutated_file_is_read_or_refused_and_nothing_else(tmp_path, kind, each):
    path = made.honest(tmp_path)["keras" if kind == "config" else kind]
    file, before = file_of(path), listed(tmp_path)
    data, refused, slowest = file.read_bytes(), 0, 0.0
    for seed in range(each):
        file.write_bytes(data)
        if kind == "config":
            damage_entry(path, "config.json", seed)
        else:
            damage(path, seed)
        for read in (inspect, look):
            start = time.process_time()
            try:
                read(path)
            except EdgeloopError as e:
                refused += read is look
                assert "\n" not in str(e), f"{kind} with seed {seed}: {e}"
            except BaseException as e:
                raise AssertionError(f"{kind} with seed {seed}: {type(e).__name__}: {e}") from e
            slowest = max(slowest, time.process_time() - start)
    assert slowest < SLOWEST_S, f"{kind}: one file took {slowest:.1f} s of the CPU"
    assert listed(tmp_path) == before
    assert each / 4 < refused < each, f"{refused} of {each} refused: the mutations miss what is read, or break it all"


def look(path):
    check_safety(path, identify(path))


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Files that the loaders do open: a dense net in every format."""
    keras, tf = pytest.importorskip("keras"), pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("real")
    net = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(2, name="d")])
    net.save(folder / "m.keras")
    net.save(folder / "m.h5")

    class Double(tf.Module):
        def __init__(self):
            self.w = tf.Variable([[1.0, 2.0], [3.0, 4.0]], name="w")

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
        def serve(self, x):
            return {"y": x @ self.w}

    module = Double()
    tf.saved_model.save(module, folder / "m", signatures={"serve": module.serve})
    (folder / "m.tflite").write_bytes(made.tflite())
    return folder


SPOILT = {
    "zip": ("m.keras", damage),
    "config": ("m.keras", lambda path, seed: damage_entry(path, "config.json", seed)),
    "weights": ("m.keras", lambda path, seed: damage_entry(path, "model.weights.h5", seed)),
    "h5": ("m.h5", damage),
    "graph": ("m", damage),
    "index": ("m", lambda path, seed: damage(path / "variables" / "variables.index", seed)),
    "tflite": ("m.tflite", damage),
}


@swept("loaded", 10, LOADED)
def test_the_real_loaders_of_mutated_files_answer_or_die_in_their_child(real, tmp_path, loaded):
    paths = [real / name for name in ("m.keras", "m.h5", "m", "m.tflite")]
    for kind, (name, spoil) in SPOILT.items():
        for seed in range(loaded):
            copy = tmp_path / f"{kind}-{seed}" / name
            copy.parent.mkdir()
            (shutil.copytree if (real / name).is_dir() else shutil.copyfile)(real / name, copy)
            spoil(copy, seed)
            paths.append(copy)
    (tmp_path / "work").mkdir()
    before = [name for name in listed(tmp_path) if not name.startswith(str(tmp_path / "work"))]
    answers = opened(paths, tmp_path / "work")
    assert [what for what, _ in answers[:4]] == ["opened"] * 4, answers[:4]
    wrong = [(str(p), a) for p, a in zip(paths, answers, strict=True) if a[0] == "bug" or a == ["killed", "time"]]
    assert not wrong, wrong
    assert sum(what == "refused" for what, _ in answers) > loaded
    assert [name for name in listed(tmp_path) if not name.startswith(str(tmp_path / "work"))] == before
    assert sorted(p.name for p in (tmp_path / "work").iterdir()) == ["err", "open.py", "out", "paths"]
    died = {str(p): a[1] for p, a in zip(paths, answers, strict=True) if a[0] == "killed"}
    print(f"{len(paths)} files, {len(died)} ended their child: {died}")
