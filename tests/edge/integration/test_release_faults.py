"""What a device's releases survive: a kill and a full disk at every step, a power cut, models that crash or hang."""

import errno
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from devices import descendants, eventually
from fault_points import Disk, points
from matrix_bundles import ENTRY, LABELS, NAME, VARIANT, Deployer, running, write_bundle
from releases import release
from sweeps import swept

from edgeloop.bundle import MANIFEST, REFERENCE, read_bundle
from edgeloop.canonical import canonical_json
from edgeloop.edge.on_device.releases.release_client import ReleaseClient
from edgeloop.errors import DeviceError, TargetError, WriteError
from edgeloop.hashes import digest
from edgeloop.processes import frames
from edgeloop.processes.children import owned
from edgeloop.processes.conversation import Conversation
from edgeloop.runtime import connection
from edgeloop.runtime.agent import child_model
from edgeloop.runtime.agent.paths import HOME
from edgeloop.runtime.device import parse_device
from edgeloop.runtime.program import local_program

# what a kill may leave under `current`, and what the same work done again ends with
SCENARIOS = {
    "first": ({None, 1}, {"committed", "unchanged"}, ["releases/1"]),
    "next": ({2, 3}, {"committed", "unchanged"}, ["releases/2", "releases/3"]),
    "repair": ({3}, {"committed", "unchanged"}, ["releases/2", "releases/3.1"]),
    "rollback": ({3, 2}, {"2", "done"}, ["releases/2"]),
}


@swept("stride", 4, 1)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_kill_at_every_step_leaves_the_old_or_the_new_release_whole(scenario, stride, root, tmp_path):
    may_be, results, releases = SCENARIOS[scenario]
    killed = _kills(scenario, stride, root, tmp_path)
    assert len(killed) * stride >= {"rollback": 10}.get(scenario, 50), "fewer steps than a deploy has"
    assert {one["left"] for one in killed} == may_be
    assert {one["result"] for one in killed} == results
    last = {"first": 1, "rollback": 2}.get(scenario, 3)
    for one in killed:
        assert one["then"] == last, one
        assert one["rest"] == ["current", "lock", "releases", *releases, "state.json"], one


def _kills(scenario: str, stride: int, root: Path, folder: Path) -> list[dict]:
    environment = {**os.environ, "PYTHONPATH": str(root / "tests"), "OPENBLAS_NUM_THREADS": "1"}  # it forks
    command = [sys.executable, root / "tests" / "kill_points.py", scenario, folder, str(stride)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


NUMBERS = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)  # full, read-only, over a quota


@swept("stride", 4, 1)
def test_a_disk_that_refuses_any_step_is_a_write_error_and_the_next_deploy_succeeds(stride, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # hundreds of them, and no power cut here
    old, new = write_bundle(tmp_path / "old", 1), write_bundle(tmp_path / "new", 2)
    outcomes = []
    for point in range(0, 1000, stride):
        home = tmp_path / f"home-{point}"
        Deployer(home).deploy(old)
        outcome = _deploy_on_a_disk_that_refuses(point, NUMBERS[point // stride % len(NUMBERS)], home, new)
        assert running(home) in (1, 2)
        Deployer(home).deploy(new)
        assert running(home) == 2
        if outcome == "no such step":
            break
        outcomes.append(outcome)
    assert outcomes.count("WriteError") * stride >= 40
    # os.makedirs of a folder that is there takes no for an answer
    assert set(outcomes) <= {"WriteError", "committed"}


def test_an_unchanged_deploy_writes_nothing(tmp_path):
    bundle = write_bundle(tmp_path / "b", 1)
    Deployer(tmp_path / "home").deploy(bundle)
    steps = []
    with points(_refusing(0, errno.EROFS, steps)):
        assert Deployer(tmp_path / "home").stage(bundle)["unchanged"]


def test_a_rollback_that_the_disk_refuses_says_which_release_still_runs(tmp_path):
    for version in (1, 2):
        Deployer(tmp_path / "home").deploy(write_bundle(tmp_path / str(version), version))
    deployer = Deployer(tmp_path / "home")
    said = f"cannot write {tmp_path / 'home'}: Read-only file system. Release 2 still runs. "

    def read_only(what: str, paths: tuple[Path, ...]) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with pytest.raises(WriteError, match=re.escape(said)), points(read_only):
        deployer.ask("rollback", slot=NAME)
    assert running(tmp_path / "home") == 2


def _refusing(point: int, number: int, steps: list[str]) -> Callable:
    """What refuses one step, and appends all to `steps`."""

    def before(what: str, paths: tuple[Path, ...]) -> None:
        if what in ("unlink", "rmdir"):  # what is taken away needs no room
            return
        steps.append(what)
        if len(steps) == point + 1:
            raise OSError(number, os.strerror(number))

    return before


def _deploy_on_a_disk_that_refuses(point: int, number: int, home: Path, bundle: Path) -> str:
    deployer, steps = Deployer(home), []
    try:
        with points(_refusing(point, number, steps)):
            result = deployer.deploy(bundle)["result"]
    except WriteError as e:
        assert f"cannot write {home}: {os.strerror(number)}" in e.found and "still runs" in e.advice
        return "WriteError"
    return result if len(steps) > point else "no such step"


def test_nothing_is_published_before_it_is_on_the_disk(tmp_path):
    bundles = [write_bundle(tmp_path / str(version), version) for version in (1, 2, 3)]
    home, disk = tmp_path / "home", Disk()
    home.mkdir()
    with points(disk.before):
        for bundle in bundles:
            assert Deployer(home).deploy(bundle)["result"] == "committed"
        Deployer(home).ask("rollback", slot=NAME)
    assert (disk.lost, disk.due) == ([], {})
    # each deploy: 3 x state.json besides the one of `begin`, the release, `current`
    assert disk.published.count("state.json") >= 3 * 4
    assert {"current", "1", "2", "3"} <= set(disk.published)


MODELS = """
import os, sys, time
from edgeloop.runtime.agent import serve_model as agent
from edgeloop.runtime.agent import runtimes

class Acts:
    version = "1"
    def load(self, path, *more, **others):
        word = open(path).read()
        if word.startswith("SIG"):
            os.kill(os.getpid(), getattr(__import__("signal"), word))
        if word == "hang":
            time.sleep(600)
        if word == "tell":
            raise ValueError("goes at " + open("/proc/self/oom_score_adj").read())
        raise ValueError("no such operator")

runtimes.LOADERS["acts"] = Acts
agent.main(sys.argv[2:])
"""


@pytest.fixture
def acts(tmp_path, monkeypatch):
    """`acts(word)`: a model that does it while it is loaded, in a real child."""
    (tmp_path / "agent.py").write_text(MODELS)
    monkeypatch.setattr(child_model, "PROGRAM", [str(tmp_path / "agent.py")])

    def start(word: str, timeout_s: float = 60.0) -> None:
        (tmp_path / "model").write_text(word)
        with child_model.model_in_child("acts", str(tmp_path), "model", timeout_s=timeout_s):
            pass

    return start


@pytest.mark.parametrize("name", ["SIGILL", "SIGSEGV", "SIGBUS", "SIGKILL"])
def test_a_model_that_dies_of_a_signal_kills_its_child_alone(acts, name):
    with pytest.raises(TargetError, match=rf"ended during prepare \(signal {name}\)"):
        acts(name)


def test_where_memory_runs_out_the_models_child_goes_before_its_watcher(acts):
    with pytest.raises(TargetError, match="goes at 500"):
        acts("tell")


def test_a_model_that_hangs_is_ended_in_time(acts):
    with pytest.raises(
        DeviceError, match=r"gave no answer before the 2 s for all requests together were over.*smaller variant"
    ):
        acts("hang", timeout_s=2)


def test_a_model_that_the_runtime_refuses_is_the_targets_error(acts):
    with pytest.raises(TargetError, match="prepare failed with ValueError: no such operator"):
        acts("refuse")


class Remote:
    """A real `keep` of the device environment, asked as the host asks it."""

    def __init__(self, home: Path, python: Path, stack: ExitStack) -> None:
        self.log = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  the stack closes it
        there = stack.enter_context(connection.connect(parse_device(f"local:{python}")))
        self.process = stack.enter_context(there.start(["edge.on_device.releases.release_agent"], self.log))
        self.agent = Conversation(self.process, "keep", 120, self.log)

    def ask(self, op: str, payload: bytes = b"", **fields) -> dict:
        return self.agent.ask(op, fields, payload)[0]

    def stage(self, bundle: Path, variant: str, slot: str) -> dict:
        answer = self.ask("begin", (bundle / MANIFEST).read_bytes(), slot=slot, variant=variant)
        for path in answer["missing"]:
            ReleaseClient(self.agent).push(slot, bundle / path, path)
        return answer


@pytest.fixture
def keep(tmp_path, device_python, monkeypatch):
    """`keep()` starts one, on one folder for all of a test."""
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    with ExitStack() as stack:
        yield lambda: Remote(tmp_path / "home", device_python, stack)


def test_a_real_release_goes_all_the_way_on_litert(keep, root):
    bundle, device = root / "tests" / "golden" / "bundle-1", keep()
    for variant, others in (("float32", [REFERENCE]), ("int8", [])):  # the reference is there already
        assert device.stage(bundle, variant, "linear")["missing"] == [f"{variant}.tflite", *others]
        device.ask("check", slot="linear", runtime="litert")
        seen = device.ask("trial", slot="linear", runtime="litert", threads=1)
        assert [(row["passed"], row["samples"]) for row in seen["parity"]] == [(True, 16)]
        assert 0 < seen["p50_ms"] <= seen["p90_ms"]
        assert seen["rss_peak_bytes"] > 10e6  # an interpreter with NumPy alone has more
        done = device.ask("activate", slot="linear", probation={"runs": 64, "p90_budget_ms": 10_000})
        assert (done["result"], done["runs"]) == ("committed", 64)
    told = device.ask("status")["slots"]["linear"]
    assert (told["current"], told["previous"], told["floor"], told["variant"]) == (1, 1, 1, "int8")
    assert device.ask("rollback", slot="linear")["variant"] == "float32"


PACKED = """
import sys
sys.path.append({numpy!r})
program = sys.argv[1]
sys.path.insert(0, program)
import edgeloop.edge.on_device.releases.trial
import edgeloop.edge.on_device.releases.release_agent
files = [m.__file__ or "" for name, m in sys.modules.items() if name.startswith("edgeloop.") and hasattr(m, "__file__")]
print([file for file in files if file and not file.startswith(program)])
"""


def test_the_packed_program_has_all_that_keeping_releases_needs():
    """-S: without this checkout, which an editable install would lend it."""
    numpy = str(Path(np.__file__).parent.parent)
    command = [sys.executable, "-I", "-S", "-c", PACKED.format(numpy=numpy), local_program()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_device_without_numpy_answers_all_but_a_trial(tmp_path):
    bundle = write_bundle(tmp_path / "b")
    environment = {HOME: str(tmp_path / "home"), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-I", "-S", str(local_program()), "edge.on_device.releases.release_agent"]
    with owned(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as device:
        frames.write_frame(device.stdin, {"op": "status"})
        assert frames.read_frame(device.stdout)[0]["slots"] == {}
        begin = {"op": "begin", "slot": NAME, "variant": VARIANT}
        frames.write_frame(device.stdin, begin, (bundle / MANIFEST).read_bytes())
        assert frames.read_frame(device.stdout)[0]["missing"] == [ENTRY, LABELS, REFERENCE]


# the program from this checkout, with a LiteRT that waits for a file to go, and files of a limited size
STAND_IN = """
import os, resource, sys, time
from edgeloop.runtime.agent import __main__
from edgeloop.runtime.agent import child_model
from edgeloop.runtime.agent import runtimes

litert = runtimes.LOADERS["litert"]

def waiting():
    while os.path.exists({wait!r}):
        time.sleep(0.02)
    return litert()

runtimes.LOADERS["litert"] = waiting
child_model.PROGRAM = [os.path.abspath(__file__)]
if {file_bytes} and sys.argv[1] == "edge.on_device.releases.release_agent":
    resource.setrlimit(resource.RLIMIT_FSIZE, ({file_bytes}, {file_bytes}))
__main__.main()
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """`stand_in(file_bytes)`: what `keep()` starts from then on; `tmp_path/wait` is the file."""

    def use(file_bytes: int = 0) -> Path:
        program = tmp_path / f"program-{file_bytes}.py"
        program.write_text(STAND_IN.format(wait=str(tmp_path / "wait"), file_bytes=file_bytes))
        monkeypatch.setattr(connection, "local_program", lambda: program)
        return tmp_path / "wait"

    return use


def test_a_keep_killed_in_a_probation_leaves_no_child_and_the_next_one_goes_back(keep, stand_in, root, tmp_path):
    bundle, wait, device = root / "tests" / "golden" / "bundle-1", stand_in(), keep()
    for variant in ("float32", "int8"):
        device.stage(bundle, variant, "linear")
        device.ask("trial", slot="linear", runtime="litert", threads=1)
        if variant == "float32":
            device.ask("activate", slot="linear")
    wait.touch()
    frames.write_frame(device.process.stdin, {"op": "activate", "slot": "linear"})
    current = tmp_path / "home" / "slots" / "linear" / "current"
    assert eventually(lambda: current.readlink().name == "1.1")
    assert eventually(lambda: descendants(device.process.pid)), "the model's child"
    children = descendants(device.process.pid)
    device.process.kill()
    assert eventually(lambda: not any(map(_runs, children)))
    assert [v.id for v in read_bundle(current).variants] == ["int8"], "on probation, and whole"
    told = keep().ask("status")["slots"]["linear"]
    assert (told["state"], told["variant"], told["last"]["result"]) == ("committed", "float32", "rolled back")
    assert [v.id for v in read_bundle(current).variants] == ["float32"]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""  # a zombie has none
    except OSError:
        return False


def test_a_file_the_kernel_refuses_to_write_is_a_write_error_and_goes_on_later(keep, stand_in, tmp_path):
    """EFBIG, which is to a program what ENOSPC is: part of a write is done, the rest is not."""
    bundle = write_bundle(tmp_path / "large", labels=b"x" * 200_000)
    stand_in(file_bytes=100_000)
    full = keep()
    with pytest.raises(WriteError, match=r"cannot write .*File too large"):
        full.stage(bundle, VARIANT, NAME)
    full.ask("status")  # it still answers
    stand_in()
    full.process.kill()
    full.process.wait()
    large = bundle / LABELS
    asked = {"slot": NAME, "path": LABELS, "size": 200_000, "sha256": digest(large)}
    device = keep()
    device.ask("begin", (bundle / MANIFEST).read_bytes(), slot=NAME, variant=VARIANT)
    assert device.ask("push", **asked)["have"] == 100_000
    assert device.stage(bundle, VARIANT, NAME)["missing"]
    assert device.ask("check", slot=NAME, runtime="litert")["version"] == 1


KEEPER = """
import json, os, sys
sys.modules["numpy"] = None  # whoever imports it here fails
from edgeloop.edge.on_device.releases.release_agent import ReleaseAgent
bundle, home = sys.argv[1:]
read = lambda name: open(os.path.join(bundle, name), "rb").read()
manifest = read("manifest.json")
answers = ReleaseAgent(home).operations()
slot = {"slot": json.loads(manifest)["name"]}
ask = lambda op, payload=b"", **fields: answers[op]({**slot, **fields}, payload)[0]
for path in ask("begin", manifest, variant="float32")["missing"]:
    entry = json.loads(manifest)["files"][path]
    file = {"path": path, "size": entry["bytes"], "sha256": entry["sha256"]}
    ask("push", read(path), **file, offset=ask("push", **file)["have"])
ask("check", runtime="litert")
try:
    tried = ask("trial", runtime="litert")
    print(json.dumps([len(tried["parity"]), ask("activate", probation={"runs": 1})["result"]]))
except Exception as e:
    print(json.dumps([type(e).__name__, str(e)]))
"""


@pytest.mark.parametrize(
    ("reference", "outcome"),
    [
        (None, [1, "committed"]),
        (lambda arrays: _compressed(arrays), ["DataError", "an array is compressed"]),
        (lambda arrays: b"PK\1\2" * 2000, ["DataError", "2000 arrays, more than 1024"]),
    ],
    ids=["whole", "a bomb", "two thousand arrays"],
)
def test_the_keeper_of_releases_never_reads_a_reference(reference, outcome, tmp_path):
    """It has no NumPy to read one with. What the child refuses, it reports."""
    bundle = release(tmp_path / "bundles", 1)
    if reference is not None:
        raw = json.loads((bundle / MANIFEST).read_bytes())
        data = reference(frames.unpack((bundle / REFERENCE).read_bytes()))
        (bundle / REFERENCE).write_bytes(data)
        raw["files"][REFERENCE] = {"bytes": len(data), "sha256": digest(bundle / REFERENCE)}
        (bundle / MANIFEST).write_bytes(canonical_json(raw))
    command = [sys.executable, "-c", KEEPER, bundle, tmp_path / "home"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found[0] == outcome[0] and outcome[1] in found[1]


def _compressed(arrays) -> bytes:
    packed = io.BytesIO()
    np.savez_compressed(packed, **{name: np.zeros((1000, *array.shape[1:])) for name, array in arrays.items()})
    return packed.getvalue()
