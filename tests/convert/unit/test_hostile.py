"""Every malformed file is answered by one clear error, from code that loads no framework and writes nothing."""

import json
import os
import stat
import tracemalloc
import zipfile
from pathlib import Path

import hostile_files as made
import numpy as np
import pytest

from edgeloop.bundle import TensorSpec
from edgeloop.convert.read_samples import read_samples
from edgeloop.convert.sources import finite, tfjs_files
from edgeloop.convert.sources.finite import refuse_not_finite
from edgeloop.convert.sources.forbidden_ops import FORBIDDEN_OPS, FORBIDDEN_WHEN, RESTORING, SAVING
from edgeloop.convert.sources.identify import SourceKind, identify, model_of
from edgeloop.convert.sources.safety import check_safety
from edgeloop.errors import DataError, ModelError
from edgeloop.files.flatbuffer import read_tflite


def look(path, allow_unsafe=False):
    return check_safety(path, identify(path), allow_unsafe)


@pytest.mark.parametrize("case", made.HOSTILE)
def test_a_hostile_file_is_refused_in_one_line_that_names_what_was_found(tmp_path, case):
    make, message = made.HOSTILE[case]
    path = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ModelError, match=message) as refused:
        look(path)
    assert "\n" not in str(refused.value) and str(path.parent) in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "kind", ["tflite", "int8 tflite", "onnx", "onnx with data beside it", "savedmodel", "keras", "tfjs"]
)
def test_an_honest_file_passes(tmp_path, kind):
    assert look(made.honest(tmp_path)[kind]) == ()


def test_a_packed_keras_file_and_an_h5_pass(tmp_path):
    files = made.honest(tmp_path)
    assert [look(files[kind]) for kind in ("deflated keras", "h5")] == [(), ()]


def test_every_kind_is_known_by_its_bytes_whatever_its_name(tmp_path):
    files = made.honest(tmp_path)
    for kind, expected in (
        ("tflite", "tflite"),
        ("onnx", "onnx"),
        ("keras", "keras"),
        ("h5", "keras"),
        ("tfjs", "tfjs"),
    ):
        assert identify(files[kind].rename(tmp_path / "model.bin")) is SourceKind(expected)
    assert identify(files["savedmodel"]) is SourceKind.SAVEDMODEL


def test_a_run_folder_stands_for_its_model_and_no_other_folder_does(tmp_path):
    (tmp_path / "model.keras").touch()
    assert model_of(tmp_path) == tmp_path  # no training wrote it
    (tmp_path / "config.toml").touch()
    assert model_of(tmp_path) == tmp_path / "model.keras"
    for other in ("saved_model.pb", "model.json"):
        (tmp_path / other).touch()
        assert model_of(tmp_path) == tmp_path
        (tmp_path / other).unlink()
    assert model_of(tmp_path / "none") == tmp_path / "none"


@pytest.mark.parametrize("look", [model_of, identify])
def test_a_path_that_cannot_be_looked_at_is_refused_with_what_was_expected(tmp_path, look, monkeypatch):
    with pytest.raises(ModelError, match=r"File name too long.*or the run folder of edgeloop train\."):
        look(tmp_path / ("x" * 300))

    def refused(path, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refused)
    with pytest.raises(ModelError, match=r"cannot be read .*Permission denied"):
        look(tmp_path)


def test_a_large_file_is_known_without_taking_its_size_in_memory(tmp_path):
    size = 200 << 20
    heads = {
        SourceKind.ONNX: b"\x08\x08\x3a"
        + bytes([size & 0x7F | 0x80, *(size >> s & 0x7F | 0x80 for s in (7, 14)), size >> 21]),
        SourceKind.TFJS: b'{"weights": "' + b"x" * ((1 << 20) - 20) + b'", "modelTopology": {}}',
    }
    for kind, head in heads.items():
        path = tmp_path / kind
        path.write_bytes(head)
        os.truncate(path, len(head) + size)  # takes no room on the disk
        tracemalloc.start()
        assert identify(path) is kind
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8 << 20


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="is a pipe or a device"):
        identify(tmp_path / "m.keras")


ALLOWED = {
    ".keras: Lambda": "--allow-unsafe: m.keras has the Lambda layer 'evil', which is Python code.",
    "SavedModel: writes a file": (
        "--allow-unsafe: m has the operation WriteFile in the function 'helper', which writes files."
    ),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed_is_said(tmp_path, case):
    assert look(made.HOSTILE[case][0](tmp_path), allow_unsafe=True) == (ALLOWED[case],)


ALWAYS = [
    ".keras: a slip",
    ".keras: 1 MB that grows to 1 GB",
    ".keras: a link",
    ".h5: data in another file",
    "SavedModel: an asset outside",
    ".onnx: data above its folder",
    "a cut .tflite",
    ".tflite: NaN weights",
]


@pytest.mark.parametrize("case", ALWAYS)
def test_paths_that_lead_out_bombs_and_damage_are_refused_even_where_code_is_allowed(tmp_path, case):
    make, message = made.HOSTILE[case]
    with pytest.raises(ModelError, match=message):
        look(make(tmp_path), allow_unsafe=True)


def test_several_findings_are_counted(tmp_path):
    path = made.keras_file(tmp_path / "m.keras", made.config(*[made.layer("Lambda", name) for name in "abc"]))
    with pytest.raises(ModelError, match=r"layer 'a', which is Python code, and 2 more parts like it\. Remove it"):
        look(path)
    assert len(look(path, allow_unsafe=True)) == 3


def test_a_bomb_is_real_so_that_refusing_it_means_something(tmp_path):
    path = made.zip_bomb(tmp_path / "m.keras", entries=4)
    assert path.stat().st_size < 300_000
    with zipfile.ZipFile(path) as archive, archive.open("w0") as file:
        total = 0
        while block := file.read(1 << 20):
            total += len(block)
    assert total == 256 << 20


def test_the_loss_in_a_config_is_not_loaded_and_so_may_be_anything(tmp_path):
    model = made.config() | {"compile_config": {"loss": {"module": "mine", "class_name": "function", "config": "f"}}}
    assert look(made.keras_file(tmp_path / "m.keras", model)) == ()
    inner = made.config(model | {"name": "inner"})  # a model inside a model is compiled again by its loader
    with pytest.raises(ModelError, match="'f' of the module 'mine'"):
        look(made.keras_file(tmp_path / "n.keras", inner))


@pytest.mark.parametrize("function", ["math.sigmoid", "__operators__.add", "nn.relu", "reshape", "cast"])
def test_mathematics_that_keras_wrote_as_a_function_is_no_code(tmp_path, function):
    look(made.h5_file(tmp_path / "m.h5", made.config(made.layer("TFOpLambda", "t", function=function))))


@pytest.mark.parametrize("value", ["stderr", "stdout", "log(info)", ""])
def test_printing_to_the_terminal_is_allowed(tmp_path, value):
    made_ = made.function("helper", made.node("p", "PrintV2", output_stream=made.text_attribute(value)))
    assert look(made.saved_model(tmp_path / "m", functions=(made_,), served="helper")) == ()


def test_a_saver_of_tensorflow_1_in_the_main_graph_is_legal(tmp_path):
    nodes = (
        made.node("saver_filename", "Placeholder"),
        made.node("sharded", "ShardedFilename", "saver_filename"),
        made.node("write", "SaveV2", "sharded"),
        made.node("save", "Identity", "sharded", "^write"),
        made.node("read", "RestoreV2", "saver_filename"),
        made.node("assign", "AssignVariableOp", "read"),
        made.node("all", "NoOp", "^assign"),
    )
    graph = b"".join(made.field(1, n) for n in nodes)
    (tmp_path / "m").mkdir()
    meta = made.field(2, graph) + made.field(3, made.saver(restore="all"))
    (tmp_path / "m" / "saved_model.pb").write_bytes(made.field(2, meta))
    assert look(tmp_path / "m") == ()


def test_two_halves_of_a_graph_are_one_as_protobuf_merges_them(tmp_path):
    late = made.field(2, made.field(1, made.node("late", "WriteFile")))
    with pytest.raises(ModelError, match="WriteFile in the graph, as 'late'"):
        look(made.saved_model(tmp_path / "m", extra=late))


def test_a_forbidden_op_is_in_one_table():
    conditional, saver = set(FORBIDDEN_WHEN), SAVING | RESTORING
    assert not conditional & set(FORBIDDEN_OPS) and not saver & set(FORBIDDEN_OPS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, np.nan], "holds 1 NaN among 2"),
        ([1, np.inf], "holds 1 infinite"),
        ([[-np.inf, 2], [0, 0]], "holds 1 infinite numbers among 4"),
        ([[np.inf, np.inf], [1, 2]], "holds 2 infinite numbers among 4"),
        ([np.nan], "holds 1 NaN among 1"),
        (np.nan, "holds 1 NaN among 1"),
        ([[1], [2], [-np.inf]], "holds 1 infinite numbers among 3"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(tmp_path, values, message):
    for dtype in (np.float16, np.float32, np.float64):
        with pytest.raises(ModelError, match=f"the weight 'w' {message}"):
            refuse_not_finite(tmp_path, "w", np.array(values, dtype))


@pytest.mark.parametrize("values", [[-np.inf], [[0, -np.inf], [0, 0]], [[1, 2], [-np.inf] * 2], [1, 2], []])
def test_a_bound_a_mask_and_rows_of_a_table_may_be_infinite(tmp_path, values):
    refuse_not_finite(tmp_path, "mask", np.array(values, np.float32))


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 100])
def test_rows_of_a_table_are_looked_at_in_chunks(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(finite, "CHUNK", chunk)
    table = np.ones((2, 2, 3), np.float32)
    table[1, 0] = -np.inf
    refuse_not_finite(tmp_path, "table", table)
    for place in np.ndindex(table.shape):
        damaged = table.copy()
        damaged[place] = np.inf if np.isinf(table[place]) else -np.inf
        with pytest.raises(ModelError, match=r"holds [234] infinite numbers among 12"):
            refuse_not_finite(tmp_path, "table", damaged)


@pytest.mark.parametrize("kind", made.HOLDERS)
def test_every_kind_may_hold_a_lone_nan_and_rows_that_are_shut_out(tmp_path, kind):
    table = np.ones((3, 2), np.float32)
    table[1] = -np.inf
    for i, values in enumerate((np.float32("nan"), table)):
        assert look(made.HOLDERS[kind](tmp_path / str(i), values)) == ()
    for i, values in enumerate((np.full(1, np.nan, np.float32), table.T)):
        with pytest.raises(ModelError, match=r"the weight .*'w'.* holds [12] (NaN|infinite numbers) among [16] values"):
            look(made.HOLDERS[kind](tmp_path / f"not {i}", values))


def test_reading_a_flatbuffer_whose_graphs_are_all_one_ends(tmp_path):
    with pytest.raises(ModelError, match="more to read than such a file holds"):
        read_tflite(made.aliased_tflite())


@pytest.mark.parametrize("case", made.BAD_SAMPLES)
def test_samples_that_do_not_fit_are_refused_by_what_is_wrong(tmp_path, case):
    array, message = made.BAD_SAMPLES[case]
    np.savez(tmp_path / "c.npz", x=array)
    with pytest.raises(DataError, match=message):
        read_samples(tmp_path / "c.npz", [TensorSpec("x", (None, 2), "float32")])


def test_a_link_inside_a_model_folder_is_a_file_of_it(tmp_path):
    path = made.saved_model(tmp_path / "m")
    (path / "copy").symlink_to("saved_model.pb")
    assert look(path) == ()


def test_a_zip_that_says_less_than_it_unpacks_to_is_damaged(tmp_path):
    path = made.keras_file(tmp_path / "m.keras", made.config(made.layer("Dense", "d" * 500)), method=8)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2", 0, data.rindex(b"PK\1\2"))  # config.json's: the size lies 24 bytes on
    data[at + 24 : at + 28] = (20).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ModelError, match="is a damaged keras model"):
        look(path)


def test_a_group_that_holds_itself_is_looked_at_once(tmp_path):
    import h5py

    with h5py.File(made.h5_file(tmp_path / "m.h5", made.config()), "a") as file:
        file.create_group("g")["self"] = file["/"]
    assert look(tmp_path / "m.h5") == ()


def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = made.keras_file(tmp_path / "m.keras", json.loads("{}"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")
    with pytest.raises(ModelError, match="cannot be read"):
        identify(path)
    path.chmod(stat.S_IRUSR)


def test_one_weight_file_named_by_many_groups_counts_each_time(tmp_path, monkeypatch):
    path = made.tfjs(tmp_path)  # 8 bytes of weights
    model = json.loads(path.read_bytes())
    (group,) = model["weightsManifest"]
    more = [{**group, "weights": [{**group["weights"][0], "name": f"w{i}"}]} for i in range(3)]
    monkeypatch.setattr(tfjs_files, "LIMIT_BYTES", 24)
    tfjs_files.read_weights(path, {"weightsManifest": more})
    with pytest.raises(ModelError, match="weights of 32 bytes, the limit is 24"):
        tfjs_files.read_weights(path, {"weightsManifest": [group, *more]})
