"""`edgeloop run`: questions on standard input, frames in a folder, a camera; here and behind ssh."""

import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from devices import eventually
from serving import LABELS, deployed, golden, tiny  # noqa: F401  a fixture

from edgeloop.edge.on_device.releases.store import read_state, write_state
from edgeloop.edge.on_device.serving.camera import HEIGHT, WIDTH
from edgeloop.edge.run.options import RunOptions
from edgeloop.edge.run.run import ask, run
from edgeloop.errors import DataError, DeviceError, MissingExtra, ModelError, OptionsError
from edgeloop.processes.children import owned
from edgeloop.runtime import connection
from edgeloop.runtime.agent.paths import HOME
from edgeloop.runtime.program import local_program

WAIT_S = 60


def answers(target, options=RunOptions(), lines=()):  # noqa: B008  frozen
    """Every answer to these lines, and the news."""
    read, write = os.pipe()
    news = []

    def feed():
        with os.fdopen(write, "wb") as pipe, contextlib.suppress(BrokenPipeError):
            pipe.writelines(line.encode() + b"\n" for line in lines)

    threading.Thread(target=feed, daemon=True).start()
    with os.fdopen(read, "rb"):
        return list(run(str(target), options, read, news.append)), news


def test_lines_of_samples_are_answered_as_the_source_answered_them(tiny):  # noqa: F811
    images, expected = golden(tiny)
    given, _ = answers(tiny, lines=[json.dumps(image.tolist()) for image in images[:4]])
    assert [(a["n"], a["source"], a["release"], a["variant"]) for a in given] == [
        (n, n, 1, "float32") for n in (1, 2, 3, 4)
    ]
    for answer, scores in zip(given, expected, strict=False):
        best = int(scores.argmax())
        assert (answer["class"], answer["label"]) == (best, LABELS[best])
        # probabilities: two orders of some 150 float32 additions of terms below 1
        found = [one["score"] for one in sorted(answer["top"], key=lambda one: one["class"])]
        np.testing.assert_allclose(found, scores, atol=1e-5)
        assert answer["top"][0]["score"] == answer["score"] == max(found)


def test_a_sample_may_be_named_or_be_a_npy_and_a_batch_comes_back_as_one(tiny):  # noqa: F811
    images, expected = golden(tiny)
    packed = io.BytesIO()
    np.save(packed, images[0])
    npy = {"npy": base64.b64encode(packed.getvalue()).decode()}
    lines = [{"image": images[0].tolist()}, npy, {"image": npy}, images[:3].tolist()]
    given, _ = answers(tiny, lines=map(json.dumps, lines))
    assert given[0]["top"] == given[1]["top"] == given[2]["top"]
    np.testing.assert_allclose(given[3]["outputs"]["p"], expected[:3], atol=1e-5)


def test_integer_ends_are_asked_and_answer_in_real_numbers(tiny):  # noqa: F811
    images, expected = golden(tiny)
    given, _ = answers(tiny, RunOptions(variant="int8-io"), [json.dumps(image.tolist()) for image in images])
    found = np.array([[o["score"] for o in sorted(a["top"], key=lambda o: o["class"])] for a in given])
    np.testing.assert_array_equal(found * 256, np.round(found * 256))  # softmax has the scale 1/256 in int8
    # half a step of the input (1/510) and of each weight (1/254 of the largest) moves a logit of 36 x 4 terms by some
    # hundredths, and a probability by a quarter of that; 5 steps of 1/256 hold it
    np.testing.assert_allclose(found, expected, atol=5 / 256)


@pytest.mark.parametrize(("variant", "runtime"), [("onnx", "onnxruntime"), ("float32", "tflite-runtime")])
def test_a_bundle_runs_on_the_runtime_that_is_asked_for(tiny, variant, runtime):  # noqa: F811
    images, expected = golden(tiny)
    try:
        given, news = answers(tiny, RunOptions(variant=variant, runtime=runtime), [json.dumps(images[0].tolist())])
    except MissingExtra as e:
        pytest.skip(str(e))
    assert (given[0]["variant"], given[0]["class"]) == (variant, int(expected[0].argmax()))
    assert f"{variant} on {runtime} " in news[0]


def test_a_line_that_is_no_question_is_answered_with_what_is_wrong_and_the_rest_goes_on(tiny):  # noqa: F811
    good = json.dumps(golden(tiny)[0][0].tolist())
    read, write = os.pipe()
    os.write(write, f'{good}\n[1\n\n{{"x": 1}}\n{good}\n'.encode())
    os.close(write)
    given = []
    with (
        os.fdopen(read, "rb"),
        pytest.raises(DataError, match=r"2 of 4 inputs failed; the first: .* is not JSON"),
    ):
        for answer in run(str(tiny), RunOptions(), read):
            given.append(answer)
    assert [(a["source"], "error" in a) for a in given] == [(1, False), (2, True), (4, True), (5, False)]
    assert given[2]["error"] == "found the inputs ['x']. Expected 'image'."


def test_an_end_of_input_is_exit_0_and_json_is_one_document(tiny):  # noqa: F811
    line = json.dumps(golden(tiny)[0][0].tolist()) + "\n"
    done = cli(tiny, "--json", input=line * 2)
    assert done.returncode == 0, done.stderr
    assert [a["n"] for a in json.loads(done.stdout)["answers"]] == [1, 2]
    done = cli(tiny, "--count", "1", input=line * 3)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    assert cli(tiny, "--json", input="").stdout == '{"answers": []}\n'


def cli(*words, input=None):
    command = [sys.executable, "-m", "edgeloop", "run", *map(str, words)]
    return subprocess.run(command, input=input, capture_output=True, text=True, timeout=WAIT_S)


def test_what_cannot_run_says_so_before_it_reads(tiny, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv(HOME, str(tmp_path))
    for target, options, error, words in (
        ("local", RunOptions(), OptionsError, "no bundle is deployed"),
        (tmp_path, RunOptions(), OptionsError, "is neither a bundle nor a device"),
        (tiny, RunOptions(slot="tiny"), OptionsError, "Leave --slot out"),
        (tiny, RunOptions(variant="int4"), ModelError, "no variant 'int4'"),
        (tiny, RunOptions(runtime="tensorrt"), OptionsError, "there is no runtime 'tensorrt'"),
        (tiny, RunOptions(input=str(tmp_path / "none")), OptionsError, "is not a folder on the device"),
        (tiny, RunOptions(input=str(tmp_path)), OptionsError, "holds no frame"),
    ):
        with pytest.raises(error, match=words):
            answers(target, options)


def test_a_slot_is_found_by_its_name_or_by_being_alone(tiny, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv(HOME, str(tmp_path))
    image = json.dumps(golden(tiny)[0][0].tolist())
    deployed(tiny, tmp_path, "one")
    assert answers("local", lines=[image])[0][0]["release"] == 1
    deployed(tiny, tmp_path, "two/2").to(2)
    assert answers("local", RunOptions(slot="two/2"), [image])[0][0]["variant"] == "int8-io"
    with pytest.raises(OptionsError, match=r"slots one, two/2\. Choose one"):
        answers("local", lines=[image])
    with pytest.raises(OptionsError, match="this device has no slot 'three'"):
        answers("local", RunOptions(slot="three"), [image])


def test_a_disk_that_takes_no_byte_stops_no_answers(tiny, tmp_path, device_python):  # noqa: F811
    device = deployed(tiny, tmp_path)
    state = read_state(device.slot)
    write_state(device.slot, replace(state, probation=replace(state.current, folder="9", version=9)))  # interrupted
    image = json.dumps(golden(tiny)[0][0].tolist()).encode() + b"\n"
    # no process below writes to a file, temporary ones included: EFBIG, as a full disk's ENOSPC
    command = [
        "sh",
        "-c",
        'ulimit -f 0; exec "$@"',
        "sh",
        device_python,
        "-I",
        local_program(),
        "edge.on_device.serving.serve",
    ]
    with owned(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, HOME: str(tmp_path)}
    ) as child:
        said = child.communicate(image, WAIT_S)[0]
    assert [json.loads(line).get("release") for line in said.splitlines()] == [None, 1]
    assert read_state(device.slot).probation is not None  # it could not be written, and stays to be done


def test_a_device_that_never_says_where_is_given_up(tmp_path, monkeypatch):
    (tmp_path / "agent.py").write_text("import time; time.sleep(600)")
    monkeypatch.setattr(connection, "local_program", lambda: tmp_path / "agent.py")
    with pytest.raises(DeviceError, match="did not answer within 1 s"):
        ask("local", RunOptions(http=0, timeout_s=1), "--service-location")


def test_behind_ssh_questions_go_there_and_answers_come_back(tiny, ssh_device):  # noqa: F811
    images, expected = golden(tiny)
    slot = deployed(tiny, ssh_device.home)
    given, news = answers(ssh_device.device.name, lines=[json.dumps(image.tolist()) for image in images])
    assert [a["class"] for a in given] == expected.argmax(-1).tolist()
    assert news[0].startswith("serving tiny release 1, variant float32 on litert")
    slot.to(2)
    (ssh_device.home / "frames").mkdir()
    np.save(ssh_device.home / "frames" / "a.npy", images[0])
    given, _ = answers(ssh_device.device.name, RunOptions(input=str(ssh_device.home / "frames")))
    assert [(a["source"], a["release"]) for a in given] == [("a.npy", 2)]
    assert eventually(lambda: not ssh_device.processes())


@pytest.mark.parametrize("arguments", [(), ("--http", "0")], ids=["stdin", "http"])
def test_ctrl_c_ends_both_ends(tiny, ssh_device, arguments):  # noqa: F811
    deployed(tiny, ssh_device.home)
    command = [sys.executable, "-m", "edgeloop", "run", ssh_device.device.name, *arguments]
    pipe = subprocess.PIPE
    with owned(command, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        child.stdin.write(json.dumps(golden(tiny)[0][0].tolist()).encode() + b"\n")
        child.stdin.flush()
        assert json.loads(child.stdout.readline())["release"] == 1
        assert len(ssh_device.processes()) >= 2  # the program and the model
        child.send_signal(signal.SIGINT)
        assert child.wait(WAIT_S) == 130
        assert b"interrupted" in child.stderr.read()
    assert eventually(lambda: not ssh_device.processes())


def test_a_program_that_is_killed_there_is_a_device_error(tiny, ssh_device):  # noqa: F811
    deployed(tiny, ssh_device.home)
    read, write = os.pipe()
    with os.fdopen(read, "rb"), os.fdopen(write, "wb") as questions:
        questions.write(json.dumps(golden(tiny)[0][0].tolist()).encode() + b"\n")
        questions.flush()
        lines = run(ssh_device.device.name, RunOptions(), read, lambda line: None)
        assert next(lines)["n"] == 1
        for pid in ssh_device.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with pytest.raises(DeviceError, match=r"edgeloop's program ended \((signal SIGKILL|exit code)"):
            next(lines)


def test_a_stream_of_lines_loses_none_while_releases_change(tiny, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv(HOME, str(tmp_path))
    slot = deployed(tiny, tmp_path)
    image = json.dumps(golden(tiny)[0][0].tolist()).encode() + b"\n"
    read, write = os.pipe()
    seen, stop, sent = [], threading.Event(), [0]

    def feed():
        with os.fdopen(write, "wb") as pipe:
            while not stop.is_set():
                pipe.write(image)
                sent[0] += 1
                pipe.flush()

    with os.fdopen(read, "rb"):
        threading.Thread(target=feed, daemon=True).start()
        flips = 0
        lines, last = run("local", RunOptions(), read, lambda line: None), time.monotonic()
        for answer in lines:
            seen.append((answer["release"], answer["variant"], answer["top"]))
            if time.monotonic() - last > 0.15:
                last = time.monotonic()
                if flips >= 20 and len({one[0] for one in seen}) == 2:
                    stop.set()
                else:
                    slot.to(2 - flips % 2)
                    flips += 1
    assert len(seen) == sent[0]
    kinds = {json.dumps(one) for one in seen}
    assert len(kinds) == 2 and {one[:2] for one in seen} == {(1, "float32"), (2, "int8-io")}


def test_frames_of_a_folder_are_answered_in_order_whatever_they_are(tiny, tmp_path):  # noqa: F811
    image_module = pytest.importorskip("PIL.Image")
    images, expected = golden(tiny)
    frames = tmp_path / "frames"
    frames.mkdir()
    grey = np.round(images[0] * 255).astype(np.uint8)
    # 0..1 by 256 steps: a half step, 1/510, on each of 64 pixels moves a probability by less than 0.02
    (frames / "f1.pgm").write_bytes(b"P5\n# a comment\n8 8\n255\n" + grey.tobytes())
    np.save(frames / "f2.npy", images[0])
    np.savez(frames / "f3.npz", **{"in/image": images[0]})
    np.save(frames / "f4.npy", grey)
    image_module.fromarray(grey[:, :, 0]).save(frames / "f10.png")
    large = np.repeat(np.repeat(grey, 4, axis=0), 4, axis=1)
    (frames / "f11.ppm").write_bytes(b"P6 32 32 255\n" + np.repeat(large, 3, axis=2).tobytes())
    (frames / "f12.jpg").write_bytes(b"\xff\xd8 no picture")
    (frames / "notes.txt").write_text("")
    os.mkfifo(frames / "f13.npy")  # nobody ever writes to it
    (frames / "f14.png").mkdir()
    read, given, news = os.open("/dev/null", os.O_RDONLY), [], []
    with pytest.raises(DataError, match=r"1 of 7 inputs failed; the first: .*f12\.jpg is not an image"):
        for answer in run(str(tiny), RunOptions(input=str(frames)), read, news.append):
            given.append(answer)
    os.close(read)
    names = ["f1.pgm", "f2.npy", "f3.npz", "f4.npy", "f10.png", "f11.ppm", "f12.jpg"]
    assert [answer["source"] for answer in given] == names
    for answer in given[:5]:
        found = [one["score"] for one in sorted(answer["top"], key=lambda one: one["class"])]
        np.testing.assert_allclose(found, expected[0], atol=0.02)
    assert any("3 entries are not frames and are skipped, e.g. f13.npy" in line for line in news)


def test_a_folder_is_followed(tiny, tmp_path):  # noqa: F811
    images, _ = golden(tiny)
    frames = tmp_path / "frames"
    frames.mkdir()
    np.save(frames / "a.npy", images[0])
    whole = (frames / "a.npy").read_bytes()
    lines = run(str(tiny), RunOptions(input=str(frames), watch=True, count=3), 0, lambda line: None)
    first = next(lines)
    (frames / ".b.npy").write_bytes(whole)
    (frames / ".b.npy").rename(frames / "b.npy")
    second = next(lines)
    (frames / ".b.npy").write_bytes(whole)
    (frames / ".b.npy").rename(frames / "c.npy")
    third = next(lines)
    assert [a["source"] for a in (first, second, third)] == ["a.npy", "b.npy", "c.npy"]
    assert first["top"] == second["top"] == third["top"]
    assert list(lines) == []


RPICAM = """#!{python}
import sys
words = sys.argv[1:]
assert words[words.index("--codec") + 1] == "yuv420" and words[-2:] == ["-o", "-"], words
assert words[words.index("-t") + 1] == "0", words
width, height = (int(words[words.index(name) + 1]) for name in ("--width", "--height"))
assert width % 64 == 0, "rows would be padded"
if {frames} == 0:
    sys.exit("ERROR: *** no cameras available ***")
for number in range({frames}):
    sys.stdout.buffer.write(bytes([{grey}]) * (width * height) + bytes([128]) * (width * height // 2))
    sys.stdout.buffer.flush()
    import time; time.sleep(0.05)
"""
FFMPEG = """#!{python}
import sys, time
words = sys.argv[1:]
assert words[words.index("-f") + 1] == "v4l2" and words[words.index("-i") + 1] == "{video}", words
assert words[words.index("-pix_fmt") + 1] == "rgb24" and words[-3:] == ["-f", "rawvideo", "-"], words
width, height = map(int, words[words.index("-vf") + 1].removeprefix("scale=").split(":"))
while True:
    sys.stdout.buffer.write(bytes([{grey}]) * (width * height * 3))
    sys.stdout.buffer.flush()
    time.sleep(0.05)
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """`programs("rpicam-vid", text)` puts a program first on the PATH; it writes what the real one would."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name, text, **values):
        (folder / name).write_text(text.format(python=sys.executable, **values))
        (folder / name).chmod(0o755)

    return put


def grey_answer(bundle, level):
    """What the model says to a picture of one grey."""
    given, _ = answers(bundle, lines=[json.dumps(np.full((8, 8, 1), level / 255).tolist())])
    return given[0]["score"]


def test_frames_of_a_raspberry_pis_camera_are_answered(tiny, programs):  # noqa: F811
    programs("rpicam-vid", RPICAM, frames=1000, grey=200)
    given, news = answers(tiny, RunOptions(input="camera", count=3))
    numbers = [a["source"] for a in given]
    assert numbers == sorted(set(numbers)) and len(numbers) == 3
    assert any("rpicam-vid" in line for line in news)
    # grey without colour is its own luma; pixels go through float32 once more on the way
    assert given[0]["score"] == pytest.approx(grey_answer(tiny, 200), abs=1e-5)


def test_frames_of_a_v4l2_camera_are_answered(tiny, programs, tmp_path):  # noqa: F811
    programs("ffmpeg", FFMPEG, grey=90, video=tmp_path / "video7")
    given, _ = answers(tiny, RunOptions(input=f"camera:{tmp_path / 'video7'}", count=2))
    assert given[0]["score"] == pytest.approx(grey_answer(tiny, 90), abs=1e-5)


def test_no_camera_and_a_camera_that_stops_are_device_errors_with_the_programs_words(tiny, programs):  # noqa: F811
    programs("rpicam-vid", RPICAM, frames=0, grey=0)
    with pytest.raises(DeviceError, match=r"no camera works on this device: .*no cameras available"):
        answers(tiny, RunOptions(input="camera:0"))
    programs("rpicam-vid", RPICAM, frames=4, grey=9)
    with pytest.raises(DeviceError, match="rpicam-vid ended after 4 frames"):
        answers(tiny, RunOptions(input="camera:0"))


def test_a_frame_is_what_the_camera_settings_say():
    assert WIDTH % 64 == 0 and HEIGHT % 2 == 0  # rpicam-vid pads other rows
