"""A device's data: every format gives the same samples, and what is wrong is named with the file."""

import gzip
import struct

import numpy as np
import pytest

from edgeloop.errors import DataError
from edgeloop.federated.device.data.readers import read_samples
from edgeloop.federated.device.data.samples import InputSpec, Samples

X = np.array([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.5]], np.float32)
Y = np.array([1, 0])
IMAGE = InputSpec((2, 2, 1), (-1.0, 1.0))
BYTES = np.array([[[0, 51], [102, 255]], [[255, 0], [0, 0]]], np.uint8)
SCALED = BYTES[..., None] / 127.5 - 1  # 0..255 as -1..1, by hand


def write_idx(folder, pack=lambda data: data, suffix="") -> str:
    folder.mkdir()
    head = struct.pack(">4B3I", 0, 0, 8, 3, *BYTES.shape)
    (folder / f"train-images-idx3-ubyte{suffix}").write_bytes(pack(head + BYTES.tobytes()))
    labels = struct.pack(">4BI", 0, 0, 8, 1, 2) + bytes([1, 0])
    (folder / f"train-labels-idx1-ubyte{suffix}").write_bytes(pack(labels))
    return str(folder)


def write_npz(path, **arrays) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_a_table_becomes_one_input_or_several(tmp_path):
    rows = "\n".join(f"{a},{label},{b},{c},{d}" for (a, b, c, d), label in zip(X, Y, strict=True))
    (tmp_path / "t.csv").write_text(f"a,label,b,c,d\n{rows}\n\n")
    samples = read_samples(str(tmp_path / "t.csv"))
    inputs, y = samples.for_model({"features": InputSpec((4,))})
    np.testing.assert_array_equal(inputs["features"], X)
    assert y.tolist() == [1, 0] and y.dtype == np.int32
    inputs, _ = samples.for_model({name: InputSpec((1,)) for name in "abcd"})
    assert inputs["d"].tolist() == [[3.0], [7.5]]


def test_a_whole_label_beyond_int32_stays_the_number_that_it_is(tmp_path):
    (tmp_path / "t.csv").write_text("a,y\n1,4294967296\n")
    assert read_samples(str(tmp_path / "t.csv")).y.tolist() == [2.0**32]


@pytest.mark.parametrize(("pack", "suffix"), [(bytes, ""), (gzip.compress, ".gz")])
def test_idx_files_are_scaled_to_the_values_that_the_model_was_made_for(tmp_path, pack, suffix):
    inputs, y = read_samples(write_idx(tmp_path / "mnist", pack, suffix)).for_model({"image": IMAGE})
    np.testing.assert_allclose(inputs["image"], SCALED, atol=2**-23)  # one rounding of numbers up to 1
    assert inputs["image"].dtype == np.float32 and y.tolist() == [1, 0]


def test_test_data_beside_training_data_are_left_out(tmp_path):
    folder = write_idx(tmp_path / "mnist")
    for kind in ("images-idx3", "labels-idx1"):
        (tmp_path / "mnist" / f"t10k-{kind}-ubyte").write_bytes(
            (tmp_path / "mnist" / f"train-{kind}-ubyte").read_bytes()
        )
    assert len(read_samples(folder).y) == 2
    for path in (tmp_path / "mnist").glob("train-*"):
        path.unlink()
    assert len(read_samples(folder).y) == 2, "a folder of these alone is somebody's choice"


def test_a_model_of_bytes_gets_bytes_and_one_without_manifest_0_to_1(tmp_path):
    samples = read_samples(write_idx(tmp_path / "mnist"))
    inputs, _ = samples.for_model({"image": InputSpec((2, 2, 1), (0.0, 255.0), "uint8")})
    assert inputs["image"].dtype == np.uint8 and inputs["image"].max() == 255
    inputs, _ = samples.for_model({"image": InputSpec((2, 2, 1))})
    assert (inputs["image"].min(), inputs["image"].max()) == (0.0, 1.0)


def test_a_folder_of_pictures_has_its_classes_in_the_order_of_their_names(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for label, kind in enumerate(("cat", "dog")):
        (tmp_path / "p" / kind).mkdir(parents=True)
        image.fromarray(BYTES[label]).save(tmp_path / "p" / kind / "1.png")
    (tmp_path / "p" / "notes").mkdir()
    inputs, y = read_samples(str(tmp_path / "p")).for_model({"image": IMAGE})
    np.testing.assert_allclose(inputs["image"], SCALED, atol=2**-23)
    assert y.tolist() == [0, 1]
    (tmp_path / "p" / "cat" / "2.png").write_bytes(b"none")
    with pytest.raises(DataError, match=r"2\.png is no picture"):
        read_samples(str(tmp_path / "p"))


@pytest.fixture
def pets(tmp_path) -> str:
    """A device that has a picture of a cat and of a zebra, and none of a dog."""
    image = pytest.importorskip("PIL.Image")
    for kind in ("cat", "dog", "zebra"):
        (tmp_path / "pets" / kind).mkdir(parents=True)
    for label, kind in enumerate(("cat", "zebra")):
        image.fromarray(BYTES[label]).save(tmp_path / "pets" / kind / "1.png")
    return str(tmp_path / "pets")


def test_classes_are_numbered_as_the_model_numbers_them(pets, tmp_path):
    _, y = read_samples(pets).for_model({"image": IMAGE}, ("zebra", "dog", "cat"))
    assert y.tolist() == [2, 0] and y.dtype == np.int32
    with pytest.raises(DataError, match=r"pets has the class 'zebra', which the model does not know\. .*: cat, dog"):
        read_samples(pets).for_model({"image": IMAGE}, ("cat", "dog"))
    _, y = read_samples(pets).for_model({"image": IMAGE})
    assert y.tolist() == [0, 2], "the folder of the class that this device lacks counts, though it is empty"


def test_pictures_of_several_colour_modes_are_told_what_to_do(pets, tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(f"{pets}/dog/1.png")
    with pytest.raises(DataError, match=r"has \[2, 2, 3\]\. Convert all to one colour mode"):
        read_samples(pets)


@pytest.mark.parametrize(
    ("observed", "black", "white"),
    [
        ((0.0, 0.93), 0.0, 1.0),  # a calibration without a white pixel
        ((-0.98, 0.5), -1.0, 1.0),
        ((-1.0, 1.0), -1.0, 1.0),
        ((3.0, 250.0), 0.0, 255.0),
    ],
)
def test_pixels_are_scaled_to_the_usual_range_that_holds_what_the_conversion_saw(tmp_path, observed, black, white):
    inputs, _ = read_samples(write_idx(tmp_path / "mnist")).for_model({"image": InputSpec((2, 2, 1), observed)})
    assert (float(inputs["image"].min()), float(inputs["image"].max())) == (black, white)


@pytest.mark.parametrize("observed", [(-2.1, 2.6), (0.0, 2.0), (0.0, 300.0)])
def test_pixels_for_a_model_of_an_unusual_range_are_refused(tmp_path, observed):
    with pytest.raises(DataError, match=r"image holds pixels, .* none of 0..1, -1..1 and 0..255\. Scale them"):
        read_samples(write_idx(tmp_path / "mnist")).for_model({"image": InputSpec((2, 2, 1), observed)})


def test_a_function_gives_samples(tmp_path, monkeypatch):
    (tmp_path / "my_sensor.py").write_text(
        "import numpy as np\n"
        "def read():\n    return {'a': np.ones((2, 3))}, np.array([0, 1])\n"
        "def broken():\n    raise OSError('no camera')\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    inputs, y = read_samples("my_sensor:read").for_model({"a": InputSpec((3,))})
    assert inputs["a"].shape == (2, 3) and y.tolist() == [0, 1]
    with pytest.raises(DataError, match="my_sensor:broken failed: OSError: no camera"):
        read_samples("my_sensor:broken")
    with pytest.raises(DataError, match="my_sensor:wrong returned int"):
        read_samples("my_sensor:wrong")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.csv", "a,b\n1,2\n", r"has the columns \['a', 'b'\], none of labels"),
        ("t.csv", "a, a,y\n1,2,3\n", "has two columns 'a'"),
        ("t.csv", "a,y\n1\n", "row 2, has 1 values, its header 2"),
        ("t.csv", "a,y\nx,2\n", "column 'a' holds could not convert"),
        ("t.csv", "a,y\n", "holds 0 of a, 0 of y"),
        ("t.csv", "", "cannot be read"),
        ("t.csv", "a,y\nnan,1\n", "a holds NaN"),
        ("t.bin", "", "is no data that a device reads"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=says) as raised:
        read_samples(str(tmp_path / name))
    assert name in str(raised.value) and raised.value.advice
    with pytest.raises(DataError, match=r"gone\.npz does not exist"):
        read_samples("gone.npz")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": X, "y": Y[:1]}, "holds 2 of x, 1 of y"),
        ({"x": X[:0], "y": Y[:0]}, "holds 0 of x, 0 of y"),
        ({"y": Y}, "holds 2 of y"),
        ({"x": X, "y": np.array(["a", "b"])}, "y holds <U1"),
        ({"x": np.array([[np.inf], [0]]), "y": Y}, "x holds NaN or Infinity"),
    ],
)
def test_samples_that_cannot_be_trained_on_are_refused(tmp_path, arrays, says):
    with pytest.raises(DataError, match=says):
        read_samples(write_npz(tmp_path / "d.npz", **arrays))


@pytest.mark.parametrize(
    ("array", "spec", "says"),
    [
        (X, InputSpec((2, 2)), r"samples of shape \[4\], the model takes \[2, 2\]"),  # arrays mean their shape
        (X * 32, InputSpec((4,), (-1.0, 1.0)), "spans 0 to 240, and the model was calibrated and evaluated on -1 to 1"),
        (
            X / 8,
            InputSpec((4,), (0.0, 255.0)),
            "spans 0 to 0.9375, and the model was calibrated and evaluated on 0 to 255",
        ),
    ],
)
def test_data_that_the_model_was_not_made_for_are_refused(array, spec, says):
    with pytest.raises(DataError, match=f"d.npz: features .*{says}"):
        Samples("d.npz", {"x": array}, Y).for_model({"features": spec})


def test_other_names_than_the_models_are_refused():
    samples = Samples("d.npz", {"a": X, "b": X}, Y)
    with pytest.raises(DataError, match=r"d.npz has \['a', 'b'\], the model takes \['c'\]"):
        samples.for_model({"c": InputSpec((4,))})
