"""What a request becomes and what its response says; images, frames and cameras; hot reload, without any model."""

import base64
import io
import json
import math
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeloop.bundle import Kind, TensorSpec
from edgeloop.edge.on_device.serving import camera, hot_reload, images, input_folder
from edgeloop.edge.on_device.serving.camera import camera_frames, cameras, yuv420
from edgeloop.edge.on_device.serving.hot_reload import HotReload
from edgeloop.edge.on_device.serving.images import netpbm, resize, to_input
from edgeloop.edge.on_device.serving.input_folder import frame_files, read_frame_file
from edgeloop.edge.on_device.serving.served_release import ServeRequest
from edgeloop.errors import (
    DataError,
    DeviceError,
    EdgeloopError,
    IntegrityError,
    MissingExtra,
    OptionsError,
    TargetError,
)
from edgeloop.http.predict_api.request import parse_json, read_sample
from edgeloop.http.predict_api.response import format_sample, write_predictions
from edgeloop.processes import frames

X = TensorSpec("x", (None, 2), "float32")
N = TensorSpec("n", (None, 1), "int8")
IMAGE = TensorSpec("image", (None, 2, 2, 3), "float32", Kind.IMAGE, (0.0, 0.98), "NHWC")


def npy(array):
    packed = io.BytesIO()
    np.save(packed, array)
    return {"npy": base64.b64encode(packed.getvalue()).decode()}


ZIPPED = base64.b64encode(frames.pack({"x": np.zeros(2)})).decode()


@pytest.mark.parametrize("value", [[1, 2], {"x": [1, 2]}, npy(np.array([1, 2])), {"x": npy(np.array([1.0, 2.0]))}])
def test_one_sample_gets_a_batch_axis_and_the_signatures_type(value):
    inputs, batched = read_sample([X], value)
    assert (inputs["x"].tolist(), inputs["x"].dtype, batched) == ([[1.0, 2.0]], np.float32, False)


def test_a_batch_stays_one_and_all_inputs_have_as_many():
    inputs, batched = read_sample([X, N], {"x": [[1, 2], [3, 4]], "n": [[5], [6]]})
    assert (inputs["n"].tolist(), batched) == ([[5], [6]], True)
    with pytest.raises(DataError, match="as many samples of each input"):
        read_sample([X, N], {"x": [[1, 2], [3, 4]], "n": [[5]]})
    with pytest.raises(DataError, match="to all inputs or to none"):
        read_sample([X, N], {"x": [[1, 2]], "n": [5]})


@pytest.mark.parametrize(
    ("spec", "value", "words"),
    [
        (X, [1, 2, 3], r"shape \[1, 3\]. Expected \[any, 2\]"),
        (X, [[1, 2], [3]], "cannot be read as an array of float32"),
        (X, ["a", "b"], "other than finite numbers"),
        (X, [math.nan, 1], "other than finite numbers"),
        (X, [None, 1], "other than finite numbers"),
        (X, [], r"shape \[1, 0\]"),
        (X, npy(np.zeros((0, 2))), r"shape \[0, 2\]"),
        (X, {"y": [1, 2]}, r"found the inputs \['y'\]. Expected 'x'"),
        (X, {"npy": "AAAA"}, "cannot be read as an array of float32"),
        (X, {"npy": "no base64!"}, "cannot be read as an array of float32"),
        (X, {"npy": npy(np.array([{}]))["npy"]}, "cannot be read as an array of float32"),
        (X, {"x": {"npz": "AAAA"}}, "cannot be read as an array of float32"),
        (X, {"npy": 7}, "cannot be read as an array of float32"),
        (X, {"npy": ZIPPED}, "cannot be read as an array of float32"),
        (X, {"npy": base64.b64encode(b"\x93NUMPY\x01\x00\x10\x00{'descr': (     ").decode()}, "a damaged .npy"),
        (N, [200], "numbers that int8 cannot"),
        (N, [0.5], "numbers that int8 cannot"),
        (TensorSpec("b", (4, 2), "float32"), [[1, 2]], r"Expected \[4, 2\]"),
        (TensorSpec("s", (None,), "string"), [1], "cannot be read as an array of string"),
    ],
    ids=str,
)
def test_what_the_signature_does_not_hold_is_refused(spec, value, words):
    with pytest.raises(DataError, match=words):
        read_sample([spec], value)


def test_an_npy_that_claims_more_than_it_holds_is_refused():
    claim = b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999,), }"
    head = b"\x93NUMPY\x01\x00v\x00" + claim.ljust(117)
    with pytest.raises(DataError):
        read_sample([X], {"npy": base64.b64encode(head + b"\n").decode()})


def test_a_question_is_json_without_nan_and_of_bounded_depth():
    assert parse_json(b"[1, 2]") == [1, 2]
    for bad in (b"[NaN]", b"[" * 100_000, b"\xff", b"1 2", b""):
        with pytest.raises(DataError, match="is not JSON"):
            parse_json(bad)


def test_a_labelled_output_of_one_sample_is_a_class_with_its_score():
    spec = TensorSpec("p", (None, 3), "float32", labels=("a", "b", "c"))
    said = format_sample([spec], {"p": np.array([[0.25, 0.5, 0.25]], np.float32)}, batched=False)
    assert (said["label"], said["class"], said["score"]) == ("b", 1, 0.5)
    assert [one["label"] for one in said["top"]] == ["b", "a", "c"]  # of equals the first comes first
    assert format_sample([spec], {"p": np.eye(3)[:2]}, batched=True) == {
        "outputs": {"p": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]}
    }
    plain = format_sample([replace(spec, labels=())], {"p": np.array([[1.0, 2.0, 3.0]])}, batched=False)
    assert plain == {"outputs": {"p": [1.0, 2.0, 3.0]}}


def test_at_most_five_classes_are_named():
    spec = TensorSpec("p", (None, 9), "float32", labels=tuple("abcdefghi"))
    said = format_sample([spec], {"p": np.arange(9.0)[np.newaxis]}, batched=False)
    assert [one["class"] for one in said["top"]] == [8, 7, 6, 5, 4]
    many = replace(spec, labels=tuple(map(str, range(1000))))
    said = format_sample([many], {"p": np.zeros((1, 1000), np.float32)}, batched=False)
    assert [one["class"] for one in said["top"]] == [0, 1, 2, 3, 4]  # of equals the first, however many


def test_nan_is_no_answer():
    with pytest.raises(TargetError, match="'p' holds NaN"):
        format_sample([], {"p": np.array([np.nan])}, batched=False)


def predictions(*args):
    return json.loads(write_predictions(*args))


def test_predictions_have_the_shape_of_tf_serving():
    p, q = TensorSpec("p", (None, 2), "float32"), TensorSpec("q", (None,), "int32")
    outputs = {"p": np.array([[1.0, 2.0], [3.0, 4.0]]), "q": np.array([5, 6])}
    assert predictions([p], outputs, True) == {"predictions": [[1.0, 2.0], [3.0, 4.0]]}
    assert predictions([p, q], outputs, True) == {"predictions": [{"p": [1.0, 2.0], "q": 5}, {"p": [3.0, 4.0], "q": 6}]}
    assert predictions([q], outputs, False) == {"outputs": [5, 6]}
    assert predictions([p, q], outputs, False) == {"outputs": {"p": [[1.0, 2.0], [3.0, 4.0]], "q": [5, 6]}}
    assert predictions([TensorSpec("s", (), "int32")], {"s": np.array(7)}, False) == {"outputs": 7}


def test_a_picture_is_resized_with_half_pixel_centres():
    image = np.array([[0, 10], [20, 30]], np.float32)[:, :, np.newaxis]
    # the centres of 4 pixels lie at -.25, .25, .75, 1.25 of the 2 old ones; outside, the border counts
    np.testing.assert_allclose(resize(image, 2, 4)[0, :, 0], [0, 2.5, 7.5, 10])
    np.testing.assert_allclose(resize(image, 4, 2)[:, 0, 0], [0, 5, 15, 20])
    np.testing.assert_allclose(resize(image, 1, 1)[0, 0], [15])
    assert resize(image, 2, 2) is image


@pytest.mark.parametrize(
    ("pixel_range", "low", "high"),
    [((0.0, 0.98), 0, 1), ((-0.9, 0.97), -1, 1), ((0.0, 251.0), 0, 255), ((0.0, 255.0), 0, 255)],
)
def test_pixels_become_what_real_inputs_were(pixel_range, low, high):
    pixels = np.array([0, 255], np.uint8).reshape(1, 2, 1).repeat(3, axis=2).repeat(2, axis=0)
    made = to_input(replace(IMAGE, range=pixel_range), pixels)
    assert made.shape == (1, 2, 2, 3) and made.dtype == np.float32
    assert (made[0, 0, 0, 0], made[0, 0, 1, 0]) == (low, high)


def test_pixels_of_an_unknown_range_are_refused_unless_it_is_given():
    pixels = np.full((2, 2, 3), 255, np.uint8)
    for pixel_range in (None, (-2.1, 2.6), (0.0, 3.0)):
        with pytest.raises(OptionsError, match="image"):
            to_input(replace(IMAGE, range=pixel_range), pixels)
    assert to_input(replace(IMAGE, range=None), pixels, (-2, 2)).max() == 2
    assert to_input(replace(IMAGE, range=None, dtype="uint8"), pixels).dtype == np.uint8


def test_channels_and_layout_are_the_models():
    red = np.zeros((2, 2, 3), np.uint8)
    red[:, :, 0] = 255
    grey = to_input(replace(IMAGE, shape=(1, 2, 2, 1)), red)
    np.testing.assert_allclose(grey, 0.299, atol=1e-6)  # ITU-R BT.601
    assert to_input(IMAGE, red[:, :, :1]).tolist() == np.ones((1, 2, 2, 3)).tolist()
    first = to_input(replace(IMAGE, shape=(None, 3, 2, 2), layout="NCHW"), red)
    assert first[0, :, 0, 0].tolist() == [1, 0, 0]
    alpha = to_input(replace(IMAGE, shape=(None, 2, 2, 4)), red)
    assert alpha[0, 0, 0].tolist() == [1, 0, 0, 1]
    assert to_input(replace(IMAGE, shape=(None, None, None, 3)), np.zeros((5, 7, 3), np.uint8)).shape == (1, 5, 7, 3)


def test_a_model_of_something_else_takes_no_picture():
    with pytest.raises(OptionsError, match=r"x \[None, 2\], which is not a single image"):
        images.image_inputs([X], np.zeros((2, 2, 3), np.uint8), None)


def test_netpbm_of_one_and_three_channels_and_two_bytes():
    assert netpbm(b"P5 2 1 255\n\x00\xff", "f")[0, :, 0].tolist() == [0, 255]
    assert netpbm(b"P6\n# by hand\n1 1\n255\n\x01\x02\x03", "f")[0, 0].tolist() == [1, 2, 3]
    assert netpbm(b"P5 2 1 65535\n\xff\xff\x80\x00", "f")[0, :, 0].tolist() == [255, 128]  # 32768 / 65535 * 255 = 127.5
    assert netpbm(b"P5 1 1 15\n\x0f", "f").tolist() == [[[255]]]
    for bad in (b"P5 2 2 255\n\x00", b"P5 0 1 255\n", b"P5 1 1 99999\n\x00", b"P5", b"P6 1 1\n"):
        with pytest.raises(DataError, match="f "):
            netpbm(bad, "f")


def test_a_png_without_pillow_is_one_line_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    (tmp_path / "f.png").write_bytes(b"\x89PNG")
    with pytest.raises(MissingExtra, match=r"f\.png needs Pillow.*pip install pillow"):
        images.decode_image(str(tmp_path / "f.png"))


def test_frames_come_by_name_with_numbers_as_numbers(tmp_path):
    for name in ("f10.npy", "f9.npy", "f9b.ppm", "F1.PNG", ".hidden.npy", "notes.txt", "10.npz", "9.npz"):
        (tmp_path / name).write_bytes(b"")
    said = []
    found = [path.rpartition("/")[2] for path in frame_files(str(tmp_path), False, said.append)]
    assert found == ["9.npz", "10.npz", "F1.PNG", "f9.npy", "f9b.ppm", "f10.npy"]
    assert said == [f"{tmp_path}: 1 entries are not frames and are skipped, e.g. notes.txt"]


@pytest.mark.parametrize("name", ["f.npy", "f.npz"])
def test_a_damaged_file_of_arrays_is_refused(tmp_path, name):
    for data in (b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00\x10\x00{'descr': (     "):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=rf"{name} cannot be read as a \{name[1:]} file"):
            read_frame_file(str(tmp_path / name), [X], None)


def test_yuv_of_full_range_is_jpegs():
    red, blue = (
        yuv420(bytes([y]) * 307200 + bytes([u]) * 76800 + bytes([v]) * 76800)
        for y, u, v in ((76, 85, 255), (29, 255, 107))
    )
    # 76 + 1.402 * 127 = 254.05; 76 + .344136 * 43 - .714136 * 127 = .1; 76 - 1.772 * 43 = -.2
    assert red.shape == (480, 640, 3) and red[0, 0].tolist() == red[479, 639].tolist() == [254, 0, 0]
    # 29 - 1.402 * 21 = -.4; 29 - .344136 * 127 + .714136 * 21 = .3; 29 + 1.772 * 127 = 254.04
    assert blue[0, 0].tolist() == [0, 0, 254]


def test_a_raspberry_pis_camera_is_tried_first_and_a_named_video_alone(monkeypatch):
    monkeypatch.setattr(camera.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(camera.glob, "glob", lambda pattern: [pattern.replace("*", "0")])
    assert [one.command[0] for one in cameras("")] == ["/bin/rpicam-vid", "/bin/ffmpeg"]
    (only,) = cameras("/dev/video7")
    assert only.command[only.command.index("-i") + 1] == "/dev/video7"
    assert only.frame_bytes == 640 * 480 * 3
    first, _ = cameras("1")
    assert first.command[first.command.index("--camera") + 1] == "1"
    assert first.frame_bytes == 640 * 480 * 3 // 2


def test_where_one_program_finds_no_camera_the_next_is_asked(monkeypatch):
    none = camera.Camera(["sh", "-c", "echo no cameras available >&2; exit 1"], 4, bytes)
    some = camera.Camera(["sh", "-c", "printf aaaabbbb; exec sleep 60"], 4, bytes)
    monkeypatch.setattr(camera, "cameras", lambda which: [none, some])
    taken = camera_frames("", lambda line: None)
    assert next(taken) in ((1, b"aaaa"), (2, b"bbbb"))  # the newest, if both were there
    ended = threading.Thread(target=taken.close)
    ended.start()
    ended.join(60)
    assert not ended.is_alive()  # nor does it wait for a frame
    monkeypatch.setattr(camera, "cameras", lambda which: [none])
    with pytest.raises(
        DeviceError,
        match=r"on this device: sh ended after 0 frames \(exit code 1; its last words: no cameras available\)",
    ):
        next(camera_frames("", lambda line: None))
    silent = camera.Camera(["sh", "-c", "printf aa; exec sleep 60"], 4, bytes)
    monkeypatch.setattr(camera, "cameras", lambda which: [silent])
    monkeypatch.setattr(camera, "START_S", 0.3)
    with pytest.raises(DeviceError, match=r"gave no frame in 0\.3 s"):
        next(camera_frames("", lambda line: None))


def test_a_file_that_grows_is_no_frame_before_it_rests(tmp_path, monkeypatch):
    """Between two looks it grows by a byte, five times, while another file comes whole."""
    said, grown = [], iter(range(5))

    def between_two_looks(seconds):
        assert seconds == input_folder.POLL_S
        if next(grown, None) is not None:
            with (tmp_path / "a.npy").open("ab") as file:
                file.write(b"x")
        (tmp_path / "b.npy").touch()

    monkeypatch.setattr(input_folder, "time", SimpleNamespace(sleep=between_two_looks))
    monkeypatch.setattr(input_folder, "_stamp", lambda path: (Path(path).stat().st_size, 0))  # not by a clock
    frames = input_folder.frame_files(str(tmp_path), True, said.append)
    assert [Path(next(frames)).name for _ in range(2)] == ["b.npy", "a.npy"] and said == []
    assert (tmp_path / "a.npy").stat().st_size == 5


class Releases:
    """What `load` finds: `now` is what the link names; each loads as `behave[name]` says: None, or an error."""

    def __init__(self, monkeypatch):
        self.now, self.behave, self.closed, self.loads = "one", {}, [], []
        self.gate = threading.Event()
        self.gate.set()
        monkeypatch.setattr(hot_reload, "release_key", lambda path: (self.now, 0))
        monkeypatch.setattr(hot_reload, "load_model", self.load)
        monkeypatch.setattr(hot_reload, "POLL_S", 0.01)
        self.server = HotReload(ServeRequest(), 60.0, lambda line: None)

    def load(self, wanted, timeout_s):
        name = self.now
        self.loads.append(name)
        self.gate.wait(60)
        if name in self.behave:
            raise self.behave[name]
        manifest = SimpleNamespace(version=name, name="m")
        release = SimpleNamespace(manifest=manifest, variant=SimpleNamespace(id="v"), runtime="r")
        process = SimpleNamespace(dead=False, version="1")

        def run(inputs):
            if inputs == "kill":
                process.dead = True
                raise TargetError("died of SIGSEGV")
            if inputs == "refuse":
                raise TargetError("no such shape")
            return {"said": name}

        close = SimpleNamespace(close=lambda: self.closed.append(name))
        return SimpleNamespace(
            key=(name, 0),
            release=release,
            process=process,
            run=run,
            close=close,
            samples=lambda inputs: None,
            batch=None,
        )

    def ask(self, inputs="x"):
        return self.server.predict(lambda model: (inputs, False))[1]["said"]


@pytest.fixture
def releases(monkeypatch):
    made = Releases(monkeypatch)
    yield made
    made.gate.set()
    if made.server._thread.is_alive():
        made.server.close()


def eventually(holds):
    done = threading.Event()
    for _ in range(6000):
        if holds():
            return True
        done.wait(0.01)
    return False


def test_the_old_release_answers_until_the_new_one_is_loaded(releases):
    releases.server.start()
    assert releases.ask() == "one"
    releases.gate.clear()
    releases.now = "two"
    assert eventually(lambda: releases.loads == ["one", "two"])
    assert [releases.ask() for _ in range(3)] == ["one"] * 3  # none waits
    assert releases.closed == []
    releases.gate.set()
    assert eventually(lambda: releases.ask() == "two")
    assert eventually(lambda: releases.closed == ["one"])
    releases.server.close()
    assert releases.closed == ["one", "two"]


def test_a_release_that_does_not_load_is_named_tried_once_and_forgotten_when_taken_back(releases):
    releases.server.start()
    releases.behave["two"] = IntegrityError("damaged")
    releases.now = "two"
    assert eventually(lambda: releases.server.trouble)
    assert releases.server.trouble == {"release": "two", "reason": "damaged"}
    for _ in range(5):
        assert releases.ask() == "one"
        threading.Event().wait(0.02)
    assert releases.loads.count("two") == 1
    releases.now = "one"
    assert eventually(lambda: releases.server.trouble is None)


def test_a_first_release_that_does_not_load_is_raised_by_start(releases):
    releases.behave["one"] = IntegrityError("damaged")
    with pytest.raises(IntegrityError, match="damaged"):
        releases.server.start()


def test_a_model_that_dies_fails_its_question_and_is_loaded_again(releases):
    releases.server.start()
    with pytest.raises(DeviceError, match="SIGSEGV"):
        releases.ask("kill")
    assert releases.ask() == "one"
    assert (releases.server.restarts, releases.loads) == (1, ["one", "one"])
    with pytest.raises(TargetError, match="no such shape"):
        releases.ask("refuse")
    assert releases.loads == ["one", "one"]  # it lives: nothing to load again


def test_five_deaths_in_a_minute_are_the_end_but_another_release_is_tried(releases):
    releases.server.start()
    for _ in range(4):
        with pytest.raises(DeviceError, match="SIGSEGV"):
            releases.ask("kill")
        assert releases.ask() == "one"
    releases.now = "two"
    assert eventually(lambda: releases.ask() == "two")
    for _ in range(5):
        assert not releases.server.failed.is_set()
        with pytest.raises(DeviceError, match="SIGSEGV"):
            releases.ask("kill")
    assert releases.server.failed.wait(60)
    with pytest.raises(DeviceError, match="crashed 5 times within 60 s"):
        releases.ask()


def test_a_death_while_it_is_loaded_again_counts_as_one(releases):
    releases.server.start()
    releases.behave["one"] = TargetError("died of SIGSEGV")
    with pytest.raises(DeviceError):
        releases.ask("kill")
    assert releases.server.failed.wait(60)
    assert len(releases.loads) == 5  # the first, and four more that failed
    with pytest.raises(DeviceError, match="crashed 5 times"):
        releases.ask()


def test_a_bug_while_loading_is_no_silence(releases):
    releases.behave["one"] = ZeroDivisionError("division")
    threading.excepthook, kept = (lambda args: None), threading.excepthook
    try:
        with pytest.raises(EdgeloopError, match="a bug in edgeloop: ZeroDivisionError"):
            releases.server.start()
    finally:
        threading.excepthook = kept


def test_answers_are_plain_json():
    spec = TensorSpec("p", (None, 2), "float32", labels=("a", "b"))
    said = format_sample([spec], {"p": np.array([[0.5, 0.5]], np.float32)}, batched=False)
    assert json.loads(json.dumps(said)) == said
