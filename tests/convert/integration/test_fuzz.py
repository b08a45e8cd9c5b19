"""Mutated model files: a clear error or a correct result; no other exception, no hang, nothing written outside.

EDGELOOP_FUZZ=N makes `make faults` take N mutations of each kind; a failure names its seed.
"""

import json
import os
import random
import shutil
import sys
import time
import zipfile
from pathlib import Path

import hostile_files as made
import pytest
from sweeps import swept

from edgeloop.convert.sources.identify import identify
from edgeloop.convert.sources.safety import check_safety
from edgeloop.errors import EdgeloopError
from edgeloop.files.inspect import inspect
from edgeloop.processes.children import owned

EACH = int(os.environ.get("EDGELOOP_FUZZ", "500"))  # x 9 kinds = 4,500; `make test` takes the first 50 seeds of each
SLOWEST_S = 10.0  # of the CPU for one small file; all take milliseconds, so this is a hang
LOADED = int(os.environ.get("EDGELOOP_FUZZ", "50"))  # of each kind, by the real loaders; `make test` takes 10
RESIDENT_LIMIT_BYTES = 2 << 30
LOADER_LIMIT_S = 120
READ = ["tflite", "int8 tflite", "onnx", "onnx with data beside it", "savedmodel", "keras", "deflated keras", "tfjs"]
WORDS = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x01\0\0\x80", b"\0\0\xc0\x7f", b"\x10\0\0\0"]


def mutated(data, seed):
    """`data` with one to four changes: flipped bits, other bytes, sizes that matter, a cut, a part twice or gone."""
    rng, out = random.Random(seed), bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out)) if out else 0
        change = rng.randrange(7)
        if change == 0 and out:
            out[at] ^= 1 << rng.randrange(8)
        elif change == 1 and out:
            out[at] = rng.randrange(256)
        elif change == 2:
            out[at : at + 4] = rng.choice(WORDS)
        elif change == 3:
            out[at - at % 4 : at - at % 4 + 4] = rng.choice(WORDS)
        elif change == 4 and rng.random() < 0.3:
            del out[at:]
        elif change == 5:
            del out[at : at + rng.randint(1, 16)]
        elif change == 6:
            out[at:at] = out[at : at + rng.randint(1, 64)]
    return bytes(out)


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


# Opens and calls each file that it is told of, one line of JSON a file; whoever kills it knows which one it was.
CHILD = """
import json, math, sys
import numpy as np
from edgeloop.convert.sources.source import open_source
from edgeloop.errors import EdgeloopError
for path in sys.stdin:
    try:
        source = open_source(path.strip())
        shapes = {t.name: ([d or 1 for d in t.shape], t.dtype) for t in source.inputs}
        if all(math.prod(shape) < 1 << 20 for shape, _ in shapes.values()):
            source.call({name: np.zeros(*shape) for name, shape in shapes.items()})
        answer = ["opened", list(shapes)]
    except EdgeloopError as e:
        answer = ["refused", str(e)]
    except BaseException as e:
        answer = ["bug", f"{type(e).__name__}: {e}"]
    print(json.dumps(answer), file=sys.__stdout__, flush=True)
"""


def resident_bytes(pid):
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0  # it has ended


def opened(paths, folder):
    """What open_source did with each file, in children of limited memory and time: a new one after each that died."""
    answers, left, program = [], list(paths), folder / "open.py"
    program.write_text(CHILD)
    while left:
        (folder / "paths").write_text("".join(f"{path}\n" for path in left))
        with (folder / "paths").open() as todo, (folder / "out").open("w") as out, (folder / "err").open("w") as err:
            env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            with owned([sys.executable, program], stdin=todo, stdout=out, stderr=err, env=env, cwd=folder) as child:
                ended = watch(child, folder / "out")
        lines = [json.loads(line) for line in (folder / "out").read_text().splitlines() if line.startswith("[")]
        answers += lines
        if len(lines) < len(left):
            answers.append(["killed", ended])
        left = left[len(lines) + 1 :]
    return answers


def watch(child, out):
    """Wait for the end, or end it: memory over the limit, or no new answer in time. Says how it ended."""
    size, since = 0, time.monotonic()
    while child.poll() is None:
        if out.stat().st_size != size:
            size, since = out.stat().st_size, time.monotonic()
        if resident_bytes(child.pid) > RESIDENT_LIMIT_BYTES:
            return "memory"
        if time.monotonic() - since > LOADER_LIMIT_S:
            return "time"
        time.sleep(0.05)
    return f"ended with {child.returncode}"


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
