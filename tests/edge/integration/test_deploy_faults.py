"""What goes wrong while a bundle is brought to a device: the device runs the old release or the new one, whole, and the
next deploy succeeds. Points at which something is killed in this file: 30; `make test` takes 12 of them."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from devices import SshDevice, eventually
from releases import NAME, release, version_on
from sweeps import swept

from edgeloop.edge.deploy.deploy_result import DeployOptions, DeployStatus
from edgeloop.edge.deploy.known_devices import FLEET
from edgeloop.edge.deploy.rollout import deploy
from edgeloop.edge.on_device.variants.variant_choice import DeployConstraints
from edgeloop.errors import DeviceError, IntegrityError
from edgeloop.processes.children import owned
from edgeloop.processes.conversation import Conversation
from edgeloop.runtime.agent import send
from edgeloop.runtime.agent.paths import HOME
from edgeloop.runtime.device import Device, parse_device

OPTIONS = DeployOptions(constraints=DeployConstraints(variant="int8", runtime="litert"), probation=1, timeout_s=60)
# of a deploy to a device that has an older release: one file changed, which is one piece
QUESTIONS = ("status", "begin", "push", "push", "check", "trial", "activate")
MEANWHILE_S = (0.05, 0.2, 0.5)  # after `activate` was asked: before, in and after the probation, on any machine


@dataclass(frozen=True)
class Point:
    """When something is killed: `wait_s` after the question was sent; `question` counts from 0."""

    question: int
    wait_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.wait_s:g} s after question {self.question} ({QUESTIONS[self.question]})"


EVERY = [Point(n) for n in range(len(QUESTIONS))]
ACTIVATING = [Point(len(QUESTIONS) - 1, wait_s) for wait_s in MEANWHILE_S]


@dataclass(frozen=True)
class Target:
    """A device under test: its folder, and how to see its processes."""

    device: Device
    home: Path

    def processes(self) -> list[int]:
        """Programs of edgeloop's that run there, whoever their parent is by now."""
        own = f"{HOME}={self.home}".encode()
        pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
        return [pid for pid in pids if b".pyz\0" in _proc(pid, "cmdline") and own in _proc(pid, "environ").split(b"\0")]

    def keeps(self) -> list[int]:
        return [pid for pid in self.processes() if _proc(pid, "cmdline").endswith(b"releases.release_agent\0")]


@pytest.fixture(autouse=True)
def _own_fleet(tmp_path, monkeypatch):
    monkeypatch.setenv(FLEET, str(tmp_path / "fleet.json"))


@pytest.fixture
def local(tmp_path, monkeypatch, device_python) -> Target:
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    return Target(parse_device(f"local:{device_python}"), tmp_path / "home")


@pytest.fixture
def ssh(ssh_device: SshDevice) -> Target:
    return Target(ssh_device.device, ssh_device.home)


@pytest.fixture
def releases(tmp_path):
    """`releases(version)`: a bundle whose int8.tflite differs from every other version's."""
    return lambda version, padding_bytes=64: release(tmp_path / "bundles", version, padding_bytes=padding_bytes)


@pytest.fixture
def kill_at(monkeypatch):
    """`kill_at(point, kill)`: calls `kill(agent)` there, once, while the device works on that question. With `leave_s`
    the host waits no longer for its answer."""
    armed = []
    read = Conversation._read_until

    def reading(self, mark, deadline, op):
        if op in QUESTIONS and armed:
            point, kill, leave_s, seen = armed[0]
            if seen[0] == point.question:
                armed.clear()
                timer = threading.Timer(point.wait_s, kill, [self])
                timer.start()
                if not point.wait_s:
                    timer.join(60)
                deadline = deadline if leave_s is None else time.monotonic() + leave_s
            seen[0] += 1
        return read(self, mark, deadline, op)

    monkeypatch.setattr(Conversation, "_read_until", reading)
    return lambda point, kill, leave_s=None: armed.append((point, kill, leave_s, [0]))


def survives(target: Target, releases, break_at, points) -> None:
    """At each point, deploy the next version while something is killed; then deploy it again."""
    (outcome,) = deploy(releases(1), [target.device], OPTIONS)
    assert outcome.result is DeployStatus.COMMITTED
    for version, point in enumerate(points, 2):
        path = releases(version)
        break_at(point, path)
        assert eventually(lambda: not target.processes()), f"something still runs there, killed {point}"
        assert version_on(target.home) in (version - 1, version), f"killed {point}"
        (outcome,) = deploy(path, [target.device], OPTIONS)
        assert outcome.error is None, f"the next deploy after one that was killed {point}"
        assert version_on(target.home) == version


@swept("points", [EVERY[2], EVERY[6], ACTIVATING[1]], EVERY + ACTIVATING)
def test_killing_keep_at_any_question_leaves_the_old_release_or_the_new_one(local, releases, kill_at, points):
    def break_at(point, path):
        kill_at(point, lambda agent: _kill(agent.child.pid))
        (outcome,) = deploy(path, [local.device], OPTIONS)
        assert isinstance(outcome.error, DeviceError) or point in ACTIVATING, f"killed {point}"

    survives(local, releases, break_at, points)


@swept("points", [EVERY[3], ACTIVATING[1]], [EVERY[3], *ACTIVATING])
def test_killing_keep_behind_ssh_leaves_the_old_release_or_the_new_one(ssh, releases, kill_at, points):
    def break_at(point, path):
        kill_at(point, lambda agent: _kill(*ssh.keeps()))
        (outcome,) = deploy(path, [ssh.device], OPTIONS)
        assert isinstance(outcome.error, DeviceError) or point in ACTIVATING, f"killed {point}"

    survives(ssh, releases, break_at, points)


@swept("points", [EVERY[1], EVERY[5], EVERY[6]], EVERY)
def test_killing_ssh_at_any_question_leaves_the_old_release_or_the_new_one(ssh, releases, kill_at, points):
    def break_at(point, path):
        kill_at(point, lambda agent: _kill(agent.child.pid))
        (outcome,) = deploy(path, [ssh.device], OPTIONS)
        assert isinstance(outcome.error, DeviceError), f"killed {point}"

    survives(ssh, releases, break_at, points)


@swept("points", [EVERY[6]], [EVERY[3], EVERY[6]])
def test_a_line_that_breaks_leaves_the_old_release_or_the_new_one(ssh_device, ssh, releases, kill_at, points):
    """The server's process of the connection is killed: what a network that is gone looks like, without the wait."""

    def break_at(point, path):
        kill_at(point, lambda agent: _kill(*_sessions(ssh_device)))
        (outcome,) = deploy(path, [ssh.device], OPTIONS)
        assert isinstance(outcome.error, DeviceError), f"killed {point}"

    survives(ssh, releases, break_at, points)


DEPLOYER = """
import os, signal, sys
from edgeloop.processes.conversation import Conversation
left, read = int(sys.argv.pop(1)), Conversation._read_until
def dying(self, mark, deadline, op):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return read(self, mark, deadline, op)
Conversation._read_until = dying
from edgeloop.cli import main
main()
"""


@swept("points", [EVERY[0], EVERY[4], EVERY[6]], EVERY)
def test_killing_the_deployer_at_any_question_leaves_the_old_release_or_the_new_one(local, releases, points):
    def break_at(point, path):
        words = ["deploy", path, "--to", local.device.name, "--variant", "int8", "--runtime", "litert"]
        command = [sys.executable, "-c", DEPLOYER, str(point.question), *map(str, words), "--probation", "1"]
        assert subprocess.run(command, capture_output=True, timeout=180).returncode == -signal.SIGKILL

    survives(local, releases, break_at, points)


@pytest.fixture
def holding(local, releases):
    """A deploy that is stopped, as by a link that was lost, and holds the slot: the device's program."""
    deploy(releases(1), [local.device], OPTIONS)
    words = ["deploy", releases(2), "--to", local.device.name, "--variant", "int8", "--runtime", "litert"]
    stopping = DEPLOYER.replace("SIGKILL", "SIGSTOP")
    with subprocess.Popen([sys.executable, "-c", stopping, "4", *map(str, words)], stderr=subprocess.DEVNULL) as host:
        assert eventually(lambda: _proc(host.pid, "stat").rpartition(b")")[2].split()[:1] == [b"T"], 120)
        yield local.keeps()
        host.kill()


def test_a_slot_whose_deploy_has_lost_its_host_is_taken_over(local, releases, holding):
    assert len(holding) == 1
    bundle = releases(3)
    (refused,) = deploy(bundle, [local.device], OPTIONS)
    assert isinstance(refused.error, DeviceError) and "another deploy is running there" in refused.reason
    assert "--take-over" in refused.error.advice and local.keeps() == holding and version_on(local.home) == 1
    (outcome,) = deploy(bundle, [local.device], replace(OPTIONS, take_over=True))
    assert (outcome.result, version_on(local.home)) == (DeployStatus.COMMITTED, 3)
    assert not set(holding) & set(local.processes())


@pytest.mark.soak
def test_a_slot_is_free_75_s_after_its_deploy_lost_its_host(local, releases, holding):
    time.sleep(75)
    assert not local.keeps()
    (outcome,) = deploy(releases(3), [local.device], OPTIONS)
    assert (outcome.result, version_on(local.home)) == (DeployStatus.COMMITTED, 3)


def test_an_upload_that_broke_off_goes_on_where_it_ended(ssh, releases, kill_at, monkeypatch):
    """9 MiB are 3 pieces; ssh is killed while the second is on its way."""
    sent, ask = [], Conversation.ask

    def counting(self, op, fields=None, payload=b"", refused=DeviceError):
        if op == "push":
            sent.append(len(payload))
        return ask(self, op, fields, payload, refused)

    path = releases(1, padding_bytes=9 << 20)
    size = (path / "int8.tflite").stat().st_size
    monkeypatch.setattr(Conversation, "ask", counting)
    kill_at(Point(5), lambda agent: _kill(agent.child.pid))  # status, begin, 2 for reference.npz, ...
    (outcome,) = deploy(path, [ssh.device], OPTIONS)
    assert isinstance(outcome.error, DeviceError) and outcome.step == "push"
    assert eventually(lambda: not ssh.processes())
    sent.clear()
    (outcome,) = deploy(path, [ssh.device], OPTIONS)
    assert (outcome.result, version_on(ssh.home)) == (DeployStatus.COMMITTED, 1)
    assert 0 < sum(sent) <= size - send.PIECE_BYTES


@pytest.mark.parametrize("where", ["on the way", "on the disk"])
def test_a_flipped_byte_is_refused_and_sent_again(local, releases, monkeypatch, where):
    deploy(releases(1), [local.device], OPTIONS)
    path, ask = releases(2), Conversation.ask

    def flipping(self, op, fields=None, payload=b"", refused=DeviceError):
        if where == "on the way" and op == "push" and payload:
            payload = bytes([payload[0] ^ 1]) + payload[1:]
        if where == "on the disk" and op == "check":
            staged = local.home / "slots" / NAME / "staging" / "int8.tflite"
            staged.write_bytes(staged.read_bytes()[:-1] + b"\x55")
        return ask(self, op, fields, payload, refused)

    monkeypatch.setattr(Conversation, "ask", flipping)
    (outcome,) = deploy(path, [local.device], OPTIONS)
    assert isinstance(outcome.error, IntegrityError) and version_on(local.home) == 1
    monkeypatch.setattr(Conversation, "ask", ask)
    (outcome,) = deploy(path, [local.device], OPTIONS)
    assert (outcome.result, version_on(local.home)) == (DeployStatus.COMMITTED, 2)


def test_a_truncated_upload_is_never_taken_for_a_whole_one(local, releases):
    """The last byte of what was staged is cut off, as by a file system after a power cut."""
    bundle = releases(1)
    staged = local.home / "slots" / NAME / "staging" / "int8.tflite"
    command = [sys.executable, "-c", DEPLOYER, "6", "deploy", str(bundle), "--to", local.device.name]
    subprocess.run([*command, "--variant", "int8", "--runtime", "litert"], capture_output=True, timeout=180)
    assert eventually(lambda: not local.processes()) and staged.is_file() and version_on(local.home) is None
    staged.write_bytes(staged.read_bytes()[:-1])
    (outcome,) = deploy(bundle, [local.device], OPTIONS)
    assert (outcome.result, version_on(local.home)) == (DeployStatus.COMMITTED, 1)
    assert outcome.sent_bytes == (bundle / "int8.tflite").stat().st_size


def test_a_device_that_hangs_is_given_up_when_its_time_is_up_with_exit_8(ssh, releases, kill_at):
    deploy(releases(1), [ssh.device], OPTIONS)
    path, stopped = releases(2), []

    def stop(agent):
        stopped.extend(ssh.keeps())
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)

    kill_at(EVERY[4], stop, leave_s=1.0)
    impatient = DeployOptions(constraints=OPTIONS.constraints, probation=1, timeout_s=77)
    (outcome,) = deploy(path, [ssh.device], impatient)
    assert outcome.error is not None and outcome.error.exit_code == 8 and "no answer in 77 s" in outcome.reason
    assert stopped and version_on(ssh.home) == 1
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: not ssh.processes())
    (outcome,) = deploy(path, [ssh.device], OPTIONS)
    assert (outcome.result, version_on(ssh.home)) == (DeployStatus.COMMITTED, 2)


def test_a_full_disk_is_exit_11_and_what_runs_there_stays(local, releases, tmp_path):
    """A file system of 2 MB; where a test may not have one, a limit of 2 MB a file: a write fails with that as well."""
    small, large, next_one = releases(1), releases(2, padding_bytes=3 << 20), releases(3)
    to = f"--to {local.device.name} --variant int8 --runtime litert --json 2>&1 >/dev/null"
    edgeloop = f"{sys.executable} -m edgeloop deploy"
    steps = "; ".join(f"{edgeloop} {bundle} {to}; echo $?" for bundle in (small, large, small, next_one))
    local.home.mkdir()
    mounted = ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs -o size=2m none {local.home} && "]
    allowed = subprocess.run([*mounted[:-1], mounted[-1] + "true"], capture_output=True, timeout=180).returncode == 0
    limited = ["sh", "-c", "ulimit -f 4096; "]  # POSIX: of 512 bytes
    command = mounted if allowed else limited
    with owned([*command[:-1], command[-1] + steps], stdout=subprocess.PIPE) as child:
        printed = child.communicate(timeout=300)[0].decode()
    codes = [int(line) for line in printed.splitlines() if line.isdigit()]
    assert codes == [0, 11, 0, 0], printed
    assert "Free some space" in printed


def _kill(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # the deploy was done before
            os.kill(pid, signal.SIGKILL)


def _proc(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended, or is another user's
        return b""


def _sessions(device: SshDevice) -> list[int]:
    """The server's own processes of connections that are open now."""
    children = Path(f"/proc/{device.sshd.pid}/task/{device.sshd.pid}/children").read_text().split()
    return [int(pid) for pid in children]
