"""The folder of a run, the shards it starts from, and the file that describes it. No Flower process, no framework."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from edgeloop.bundle import Bundle, Manifest, Signature, TensorSpec
from edgeloop.errors import DataError, OptionsError, WriteError
from edgeloop.federated.device.compression.codec import Codec
from edgeloop.federated.rounds.federation import read_federation
from edgeloop.federated.rounds.records import BUDGET_SPENT, ROUNDS, RUNNING, read_state, rounds_bytes
from edgeloop.federated.rounds.run_folder import open_run
from edgeloop.federated.rounds.shards import check_shards
from edgeloop.federated.rounds.strategies import StrategyName, StrategyOptions

RUN = {"options": {"rounds": 3, "seed": 0}, "shards": [{"sha256": "a"}]}


def with_a_round(out: Path) -> Path:
    with open_run(out, RUN, resume=False):
        (out / "rounds").mkdir()
        (out / "rounds" / "round-1.npz").write_bytes(b"weights")
        (out / "journal").mkdir()
    return out


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_run_is_never_overwritten_by_another(tmp_path):
    before = files(with_a_round(tmp_path / "out"))
    with (
        pytest.raises(OptionsError, match=r"holds 1 rounds of an earlier run.*--resume"),
        open_run(tmp_path / "out", RUN, resume=False),
    ):
        pass
    assert files(tmp_path / "out") == before
    assert json.loads(before["run.json"]) == {"format": "edgeloop-federation/1", **RUN}


def test_rounds_of_an_older_edgeloop_are_not_overwritten(tmp_path):
    (tmp_path / "round-7.npz").write_bytes(b"weights")
    with pytest.raises(OptionsError, match="holds 1 rounds"), open_run(tmp_path, RUN, resume=False):
        pass


def test_a_run_without_a_round_may_begin_anew_with_other_options(tmp_path):
    for seed in (0, 1):
        with open_run(tmp_path, {"options": {"seed": seed}}, resume=False):
            (tmp_path / "journal").mkdir()
    assert json.loads((tmp_path / "run.json").read_bytes())["options"] == {"seed": 1}


def test_only_a_run_that_goes_back_goes_on_with_other_shards_and_another_guard(tmp_path):
    before = files(with_a_round(tmp_path))
    other = {**RUN, "shards": [{"sha256": "b"}]}
    with pytest.raises(OptionsError, match="was started with shards"), open_run(tmp_path, other, resume=True):
        pass

    def refuses():
        raise OptionsError("no such round", advice="Name another.")

    with pytest.raises(OptionsError, match="no such"), open_run(tmp_path, other, resume=True, goes_back=refuses):
        pass
    assert files(tmp_path) == before
    with open_run(tmp_path, other, resume=True, goes_back=lambda: None):
        assert json.loads((tmp_path / "run.json").read_bytes())["shards"] == [{"sha256": "b"}]
    seed = {**other, "options": {"rounds": 3, "seed": 1}}
    with pytest.raises(OptionsError, match="seed"), open_run(tmp_path, seed, resume=True, goes_back=lambda: None):
        pass


def test_a_run_that_is_resumed_does_not_end_by_the_budget_that_the_server_before_found_spent(tmp_path):
    with_a_round(tmp_path)
    (tmp_path / ROUNDS).write_bytes(rounds_bytes([], BUDGET_SPENT))
    with open_run(tmp_path, RUN, resume=True):
        assert read_state(tmp_path) == RUNNING


def test_two_processes_do_not_share_a_folder(tmp_path):
    with open_run(tmp_path, RUN, resume=False), pytest.raises(WriteError, match="another process runs rounds"):
        open_run(tmp_path, RUN, resume=True).__enter__()


def test_a_resumed_run_has_the_options_of_the_run(tmp_path):
    with_a_round(tmp_path)
    more = {**RUN, "options": {"rounds": 5, "seed": 0}}
    with open_run(tmp_path, more, resume=True):
        assert json.loads((tmp_path / "run.json").read_bytes())["options"]["rounds"] == 5
    for other in ({**more, "shards": [{"sha256": "b"}]}, {**more, "options": {"rounds": 5, "seed": 1}}):
        with pytest.raises(OptionsError, match="was started with"), open_run(tmp_path, other, resume=True):
            pass


def test_what_becomes_of_rounds_may_change_in_a_resumed_run(tmp_path):
    with_a_round(tmp_path)
    for cloud in ({"max-drop": 1.0, "convert": {"calibration": "a"}}, {"max-drop": 2.0, "distill": 3}):
        with open_run(tmp_path, {**RUN, "options": {**RUN["options"], "cloud": cloud}}, resume=True):
            assert json.loads((tmp_path / "run.json").read_bytes())["options"]["cloud"] == cloud


def test_there_must_be_a_run_to_resume(tmp_path):
    with pytest.raises(DataError, match="holds no run to resume"), open_run(tmp_path / "new", RUN, resume=True):
        pass


def bundle(low=-1.0, high=1.0, classes=3, known=True) -> Bundle:
    inputs = (TensorSpec("image", (None, 4, 4), "float32", range=(low, high) if known else None),)
    signature = Signature(inputs, (TensorSpec("out", (None, classes), "float32"),))
    return Bundle(Path("m"), Manifest("m", 1, {}, {}, {"infer": signature}, ()), "0")


def shard(path: Path, x=None, y=None, **more) -> Path:
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.uniform(-1, 1, (5, 4, 4)).astype("f4") if x is None else x,
        "y": np.arange(5) % 3 if y is None else y,
    }
    np.savez(path, **{**arrays, **more})
    return path


def test_a_sound_shard_is_counted_and_hashed(tmp_path):
    (found,) = check_shards([shard(tmp_path / "a.npz")], bundle())
    assert found.examples == 5 and re.fullmatch("[0-9a-f]{64}", found.sha256)


BYTES = np.random.default_rng(0).integers(0, 256, (5, 4, 4)).astype(np.uint8)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": BYTES}, "image spans 0 to 25., and the model was calibrated and evaluated on -1 to 1. Scale the values"),
        ({"x": np.full((5, 4, 4), np.nan, "f4")}, "x holds NaN or Infinity"),
        ({"x": np.zeros((5, 4, 5), "f4")}, r"image has the shape \[5, 4, 5\], expected \[5, 4, 4\] for 5 labels"),
        ({"x": np.zeros((4, 4, 4), "f4")}, "holds 4 of x, 5 of y"),
        ({"x": np.zeros((5, 4, 4), complex)}, "image holds complex128, the model takes float32"),
        ({"y": np.array([0, 1, 2, 3, 0])}, "labels run from 0 to 3; the model has the classes 0 to 2"),
        ({"y": np.array([-1, 1, 2, 2, 0])}, "labels run from -1 to 2"),
        ({"x": np.zeros((0, 4, 4), "f4"), "y": np.zeros(0, int)}, "at least one sample"),
        ({"other": np.zeros(5, "f4")}, r"has the inputs \['other', 'x'\], the model takes \['image'\]"),
    ],
)
def test_a_shard_that_would_spoil_the_run_is_refused(tmp_path, arrays, says):
    with pytest.raises(DataError, match=says) as raised:
        check_shards([shard(tmp_path / "a.npz", **arrays)], bundle())
    assert "a.npz" in str(raised.value) and raised.value.exit_code == 10


def test_values_of_one_for_a_model_of_bytes_are_refused(tmp_path):
    path = shard(tmp_path / "a.npz", x=np.random.default_rng(0).random((5, 4, 4)).astype("f4"))
    with pytest.raises(DataError, match=r"spans .* calibrated and evaluated on 0 to 255"):
        check_shards([path], bundle(0.0, 255.0))
    assert check_shards([shard(tmp_path / "b.npz", x=BYTES)], bundle(0.0, 255.0))


def test_bytes_for_a_model_whose_range_nobody_knows_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"image holds bytes up to 25\d, and the bundle does not say which values"):
        check_shards([shard(tmp_path / "a.npz", x=BYTES)], bundle(known=False))
    assert check_shards([shard(tmp_path / "b.npz", x=BYTES % 2)], bundle(known=False)), "black and white"
    assert check_shards([shard(tmp_path / "c.npz", x=BYTES.astype("f4"))], bundle(known=False)), "the user has chosen"


def test_a_missing_shard_is_named():
    with pytest.raises(DataError, match=r"the shard no-such\.npz does not exist"):
        check_shards([Path("no-such.npz")], bundle())


TOML = """
[model]
bundle = "m"
[rounds]
count = 5
quorum = 0.8
[strategy]
name = "multi-krum"
malicious = 1
[guard]
max-norm = 3
[devices]
shards = ["a.npz", "b.npz"]
"""


def test_a_federation_is_read_relative_to_its_file(tmp_path):
    (tmp_path / "federation.toml").write_text(TOML)
    found = read_federation(tmp_path / "federation.toml")
    options = found.rounds_options(tmp_path / "out")
    assert found.model.bundle == tmp_path / "m"
    assert options.shards == (tmp_path / "a.npz", tmp_path / "b.npz")
    assert (options.rounds, options.quorum, options.guard.max_norm) == (5, 0.8, 3.0)
    assert options.strategy == StrategyOptions(name=StrategyName.MULTI_KRUM, malicious=1)


@pytest.mark.parametrize(
    ("line", "error", "says"),
    [
        ("[rounds]\nquorums = 1", OptionsError, r"rounds: quorums is not known. Did you mean quorum\?"),
        ("[round]", OptionsError, r"round is not known. Did you mean rounds\?"),
        ('[strategy]\nname = "fedavg"', OptionsError, r"name 'fedavg' is not known. Did you mean fed-avg\?"),
        ('[strategy]\nname = "median"\ntrim = 0.1', OptionsError, "trim is not a key of median"),
        ("[strategy]\ntau = 0.1", OptionsError, "tau is not a key of fed-avg"),
        ('[strategy]\nname = "trimmed-mean"\ntrim = 0.5', OptionsError, "trim is 0.5"),
        ("[guard]\nmax-norm = 0", OptionsError, "max-norm is 0"),
        ("[guard]\nmax-examples = 1000000000", OptionsError, "max-examples is 1000000000"),
        ("[rounds]\ncount = 0", OptionsError, "count is 0"),
        ('[compression]\nupload = "int4"', OptionsError, r"upload 'int4' is not known. Did you mean int8\?"),
        ('[compression]\nupload = "int8"\nshare = 0.1', OptionsError, "share is not a key of upload = 'int8'"),
        ('[compression]\nupload = "top-k"\nshare = 0', OptionsError, "share is 0"),
        ("[rounds", DataError, "is not valid TOML"),
        ("[cloud]\nevery = 2", OptionsError, "cloud: eval is missing"),
    ],
)
def test_a_federation_that_makes_no_sense_is_refused(tmp_path, line, error, says):
    path = tmp_path / "federation.toml"
    path.write_text('[model]\nbundle = "m"\n' + line)
    with pytest.raises(error, match=says):
        read_federation(path)


def test_releases_are_of_the_keras_model_and_their_options_are_those_of_the_whole_run(tmp_path):
    cloud = '[cloud]\nevery = 2\neval = "e.npz"\n[cloud.convert]\ncalibration = "c.npz"\nschemes = ["int8"]\n'
    path = tmp_path / "federation.toml"
    path.write_text(TOML + cloud)
    with pytest.raises(OptionsError, match=r"Add \[model\] keras"):
        read_federation(path).rounds_options(tmp_path / "out")
    path.write_text(TOML.replace('bundle = "m"', 'bundle = "m"\nkeras = "m.keras"') + cloud)
    for name in ("m.keras", "e.npz", "c.npz"):
        (tmp_path / name).write_bytes(name.encode())
    found = read_federation(path).rounds_options(tmp_path / "out").cloud
    assert (found.eval, found.convert.calibration) == (tmp_path / "e.npz", tmp_path / "c.npz")
    digest = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("e.npz", "c.npz")}
    convert = {"schemes": ["int8"], "calibration": digest["c.npz"]}
    expected = {"every": 2, "distill": 0, "max-drop": 1.0, "eval": digest["e.npz"], "convert": convert}
    assert json.loads(json.dumps(found.resolved())) == expected


def test_compression_is_read_and_goes_with_no_scaffold(tmp_path):
    path = tmp_path / "federation.toml"
    path.write_text(TOML + '[compression]\nupload = "top-k-int8"\n')
    found = read_federation(path).rounds_options(tmp_path / "out").compression
    assert (found.upload, found.share) == (Codec.TOP_K_INT8, 0.01)
    scaffold = TOML.replace('"multi-krum"\nmalicious = 1', '"scaffold"')
    path.write_text(scaffold + '[compression]\nupload = "int8"\n')
    with pytest.raises(OptionsError, match=r"scaffold goes with no \[compression\], and upload is 'int8'"):
        read_federation(path).rounds_options(tmp_path / "out")


def test_a_federation_needs_devices(tmp_path):
    path = tmp_path / "federation.toml"
    path.write_text('[model]\nbundle = "m"\n')
    with pytest.raises(OptionsError, match="there are no devices"):
        read_federation(path).rounds_options(tmp_path / "out")
