"""A device behind a real OpenSSH server: what is refused, what breaks off and goes on, what is left behind."""

import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from devices import LOOPBACK, SSHD_CONFIG, descendants, eventually, free_port, know, make_key

from edgeloop.errors import DeviceError, IntegrityError, TargetError, WriteError
from edgeloop.hashes import digest
from edgeloop.processes.children import owned
from edgeloop.processes.conversation import Conversation
from edgeloop.runtime import ssh_login
from edgeloop.runtime.agent import runtimes, send
from edgeloop.runtime.agent.runtimes import check_numpy
from edgeloop.runtime.client import agent
from edgeloop.runtime.connection import connect
from edgeloop.runtime.device import parse_device
from edgeloop.runtime_table import LITERT, TFLITE_RUNTIME

PIECE = 1 << 16


@pytest.fixture
def refused():
    """`refused(device)`: the one line that connecting to it ends with."""

    def line(device) -> str:
        with pytest.raises(DeviceError) as said, connect(device):
            raise AssertionError("connected")
        assert said.value.exit_code == 8
        assert "\n" not in str(said.value)
        return str(said.value)

    return line


@pytest.fixture
def config(ssh_keys, tmp_path, monkeypatch):
    """`config(**changes)`: another client configuration for the rest of the test."""

    def use(before: str = "", **changes: object) -> None:
        lines = [line.split() for line in (ssh_keys / "config").read_text().splitlines()]
        settings = dict(lines) | changes
        text = before + "".join(f"{name} {value}\n" for name, value in settings.items())
        (tmp_path / "config").write_text(text)
        monkeypatch.setenv(ssh_login.CONFIG, str(tmp_path / "config"))

    return use


@pytest.fixture
def sent(monkeypatch):
    """How many bytes of files each `push` question brought, in order; pieces are 64 KiB."""
    pieces: list[int] = []
    ask = Conversation.ask

    def counted(self, op, fields=None, payload=b"", **rest):
        if op == "push":
            pieces.append(len(payload))
        return ask(self, op, fields, payload, **rest)

    monkeypatch.setattr(Conversation, "ask", counted)
    monkeypatch.setattr(send, "PIECE_BYTES", PIECE)
    return pieces


@pytest.fixture
def short_tmp(monkeypatch):
    """A temporary folder of the test's own, with a path that a socket's name fits behind."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def clients(port: int) -> list[int]:
    """Every ssh on this machine that was started for that port, those that went into the background too."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"ssh") and str(port).encode() in words:
                found.append(int(entry.name))
    return found


# --- who is not let in, and how it is said ---


def test_a_host_whose_key_nobody_knows_is_refused(ssh_device, config, tmp_path, refused):
    (tmp_path / "nobody").touch()
    config(UserKnownHostsFile=tmp_path / "nobody")
    message = refused(ssh_device.device)
    assert "Host key verification failed. Try by hand once: ssh -p" in message
    assert (tmp_path / "nobody").read_text() == ""


def test_a_host_whose_key_changed_is_refused_with_the_command_that_forgets_the_old_one(
    ssh_device, config, tmp_path, refused
):
    make_key(tmp_path / "host")
    know(tmp_path, LOOPBACK, ssh_device.port)
    config(UserKnownHostsFile=tmp_path / "known_hosts")
    assert f"ssh-keygen -R '[{LOOPBACK}]:{ssh_device.port}'" in refused(ssh_device.device)


def test_a_key_that_the_device_does_not_know_is_refused(ssh_device, config, tmp_path, refused):
    make_key(tmp_path / "stranger")
    config(IdentityFile=tmp_path / "stranger")
    assert "Permission denied" in refused(ssh_device.device)


def test_where_nobody_listens_it_says_so(ssh_keys, refused):
    assert "Connection refused. Is the device on" in refused(parse_device(f"ssh://{LOOPBACK}:{free_port()}"))


def test_the_command_line_ends_with_8_and_one_line(ssh_keys, tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    command = [sys.executable, "-m", "edgeloop", "bench", "m.tflite", "--on", f"ssh://{LOOPBACK}:{free_port()}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 8
    assert len(done.stderr.strip().splitlines()) == 1 and "Connection refused" in done.stderr


def test_a_port_where_something_else_answers_is_not_taken_for_a_device(ssh_keys, refused):
    with socket.create_server((LOOPBACK, 0)) as server:

        def answer():
            line, _ = server.accept()
            with line:
                line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)  # ssh gives up before the end
                with contextlib.suppress(OSError):
                    line.recv(1000)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        message = refused(parse_device(f"ssh://{LOOPBACK}:{server.getsockname()[1]}"))
        thread.join(10)
    assert f"cannot reach {LOOPBACK}: " in message


def test_a_host_that_accepts_and_says_nothing_is_given_up(ssh_keys, monkeypatch, refused):
    monkeypatch.setattr(ssh_login, "CONNECT_TIMEOUT_S", 1.0)
    with socket.create_server((LOOPBACK, 0)) as server:
        message = refused(parse_device(f"ssh://{LOOPBACK}:{server.getsockname()[1]}"))
        assert not clients(server.getsockname()[1])
    assert "no connection in 1 s. Is the device on" in message


def test_a_host_that_hangs_keeps_no_other_waiting(ssh_device, monkeypatch):
    monkeypatch.setattr(ssh_login, "CONNECT_TIMEOUT_S", 30.0)
    answered = threading.Event()
    with socket.create_server((LOOPBACK, 0)) as server:

        def hang():
            with contextlib.suppress(DeviceError), connect(parse_device(f"ssh://{LOOPBACK}:{server.getsockname()[1]}")):
                answered.set()

        thread = threading.Thread(target=hang, daemon=True)
        thread.start()
        line, _ = server.accept()
        with connect(ssh_device.device):
            assert thread.is_alive() and not answered.is_set()
        line.close()  # what it waits for is gone
        thread.join(60)
        assert not thread.is_alive()


def test_a_python_that_is_not_there_is_named(ssh_device):
    device = parse_device(f"ssh://{LOOPBACK}:{ssh_device.port}/opt/no/python3")
    with agent(device, "litert", ".") as running, pytest.raises(DeviceError) as said:
        running.probe()
    assert "exit code 127" in str(said.value)
    assert "no Python at /opt/no/python3. Name one: ssh://HOST/PATH/TO/PYTHON" in str(said.value)


@pytest.mark.parametrize("through_a_jump_host", [False, True])
def test_nobody_is_ever_asked_for_a_password(
    ssh_device, sshd_program, config, tmp_path, monkeypatch, refused, through_a_jump_host
):
    """Neither on a terminal nor in a window, not for a key's passphrase either, not even by the ssh of a jump host."""
    (tmp_path / "askpass").write_text(f"#!/bin/sh\ntouch '{tmp_path}/asked'\necho secret\n")
    (tmp_path / "askpass").chmod(0o755)
    monkeypatch.setenv("SSH_ASKPASS", str(tmp_path / "askpass"))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    monkeypatch.setenv("DISPLAY", ":0")
    protected = tmp_path / "protected"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "a phrase", "-f", protected], check=True, timeout=180)
    port = free_port()
    text = SSHD_CONFIG.format(address=LOOPBACK, port=port, keys=ssh_device.keys, home_name="X", home="x")
    (tmp_path / "sshd").write_text(text.replace("PasswordAuthentication no", "PasswordAuthentication yes"))
    with owned([sshd_program, "-D", "-f", tmp_path / "sshd"]):
        assert eventually(lambda: socket.socket().connect_ex((LOOPBACK, port)) == 0)
        know(ssh_device.keys, LOOPBACK, port)
        # `Match final` alone would not do: ProxyJump's ssh reads the same file for the same address
        jump = f"Match originalhost device\n  HostName {LOOPBACK}\n  ProxyJump {LOOPBACK}:{port}\nMatch all\n"
        config(before=jump if through_a_jump_host else "", IdentityFile=protected)
        host = "device" if through_a_jump_host else LOOPBACK
        to = ssh_device.port if through_a_jump_host else port
        refused(parse_device(f"ssh://{host}:{to}"))
    assert not (tmp_path / "asked").exists()


# --- what breaks off ---


def test_an_upload_that_was_cut_off_in_the_middle_of_a_piece_goes_on_where_it_ended(
    ssh_device, sent, tmp_path, monkeypatch
):
    data = os.urandom(20 * PIECE + 7)
    (tmp_path / "model").write_bytes(data)
    whole = Conversation.ask

    def cut(self, op, fields=None, payload=b"", **rest):
        if len(sent) == 9:  # a question and eight pieces
            frame = json.dumps({**fields, "v": 1, "id": 0, "op": op, "bytes": len(payload)}).encode() + b"\n"
            os.write(self.child.stdin.fileno(), frame + payload[: PIECE // 2])
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait(10)
            # the shared connection reads the same pipe, for some milliseconds more: nothing may follow the cut
            reader, writer = os.pipe()
            os.close(reader)
            os.dup2(writer, self.child.stdin.fileno())
            os.close(writer)
        return whole(self, op, fields, payload, **rest)

    with monkeypatch.context() as once:
        once.setattr(Conversation, "ask", cut)
        with (
            agent(ssh_device.device, "litert", tmp_path) as running,
            pytest.raises(DeviceError, match="the agent ended during push"),
        ):
            running.push(tmp_path / "model", "a/model")
    assert eventually(lambda: not ssh_device.processes())
    (part,) = (ssh_device.home / "files" / "a").iterdir()
    assert part.read_bytes() == data[: 8 * PIECE]
    sent.clear()
    with agent(ssh_device.device, "litert", tmp_path) as running:
        running.push(tmp_path / "model", "a/model")
    assert sum(sent) == len(data) - 8 * PIECE
    assert (ssh_device.home / "files" / "a" / "model").read_bytes() == data
    assert not part.exists()


def test_only_what_changed_travels(ssh_device, sent, tmp_path):
    for name, size in (("a", 3 * PIECE), ("b", PIECE), ("empty", 0)):
        (tmp_path / name).write_bytes(os.urandom(size))
    with agent(ssh_device.device, "litert", tmp_path) as running:
        for name in ("a", "b", "empty"):
            running.push(tmp_path / name, name)
        assert sum(sent) == 4 * PIECE
        sent.clear()
        (tmp_path / "b").write_bytes(os.urandom(PIECE))
        for name in ("a", "b", "empty"):
            running.push(tmp_path / name, name)
        assert sum(sent) == PIECE
    for name in ("a", "b", "empty"):
        assert (ssh_device.home / "files" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_byte_that_flipped_in_the_part_already_there_is_found_and_nothing_of_it_kept(ssh_device, sent, tmp_path):
    data = os.urandom(4 * PIECE)
    (tmp_path / "model").write_bytes(data)
    with agent(ssh_device.device, "litert", tmp_path) as running:
        header = {"path": "model", "size": len(data), "sha256": digest(str(tmp_path / "model"))}
        running.ask("push", {**header, "offset": 0}, data[:PIECE])
        (part,) = (ssh_device.home / "files").iterdir()
        part.write_bytes(bytes([data[0] ^ 1]) + data[1:PIECE])
        with pytest.raises(IntegrityError, match="arrived damaged"):
            running.push(tmp_path / "model", "model")
        assert not list((ssh_device.home / "files").iterdir())
        running.push(tmp_path / "model", "model")
    assert (ssh_device.home / "files" / "model").read_bytes() == data


@pytest.mark.parametrize("path", ["../outside", "/outside", "a/../../outside", "link/outside", "a\0b", "."])
def test_no_path_leads_out_of_the_folder_for_files(ssh_device, tmp_path, path):
    (tmp_path / "model").write_bytes(b"x")
    (ssh_device.home / "files").mkdir()
    (ssh_device.home / "files" / "link").symlink_to(ssh_device.home)
    with agent(ssh_device.device, "litert", tmp_path) as running, pytest.raises(DeviceError):
        running.push(tmp_path / "model", path)
    assert not Path("/outside").exists()
    names = sorted(entry.name for entry in (*ssh_device.home.parent.iterdir(), *ssh_device.home.rglob("*")))
    assert [name for name in names if not name.startswith("agent-")] == [
        "files",
        "home",
        "link",
        "sshd.log",
        "sshd_config",
    ]


def test_a_broken_upload_of_the_program_leaves_nothing_and_the_next_start_brings_it(ssh_device, monkeypatch):
    with connect(ssh_device.device) as line, monkeypatch.context() as cut:
        whole = line._answer
        cut.setattr(line, "_answer", lambda command, data=b"": whole(command, data[:-1]))
        with (
            pytest.raises(DeviceError),
            tempfile.TemporaryFile() as log,
            line.start(["runtime.agent.serve_model", "litert", "files"], log),
        ):
            pass
        assert not list(ssh_device.home.iterdir())
    with agent(ssh_device.device, "litert", ".") as running:
        assert running.probe().tensorflow is False
    assert len(list(ssh_device.home.glob("agent-*"))) == 1


# --- what is left ---


@pytest.mark.parametrize("victim", ["the command's ssh", "the line"])
def test_no_agent_outlives_its_ssh_even_in_the_middle_of_a_run(ssh_device, shared, victim):
    folder, model = shared / "models" / "mlperf_tiny_ic", "pretrainedResnet_quant.tflite"
    with agent(ssh_device.device, "litert", folder) as running:
        ((_, signature),) = running.prepare(model).signatures.items()
        inputs = {name: np.zeros([n or 1 for n in t["shape"]], t["dtype"]) for name, t in signature["inputs"].items()}
        ours = running.child.pid
        (line,) = set(clients(ssh_device.port)) - {ours}
        killer = threading.Timer(0.5, os.kill, (line if victim == "the line" else ours, signal.SIGKILL))
        killer.start()
        with pytest.raises(DeviceError, match="the agent ended during run"):
            running.run(inputs, runs=10_000)
        killer.join()
    assert eventually(lambda: not ssh_device.processes())


def test_a_line_that_dies_while_it_is_used_ends_the_question(ssh_device, monkeypatch):
    alive = tuple(o for o in ssh_login.OPTIONS if "ServerAlive" not in o)
    monkeypatch.setattr(ssh_login, "OPTIONS", (*alive, "ServerAliveInterval=1", "ServerAliveCountMax=1"))
    with agent(ssh_device.device, "litert", ".", timeout_s=60) as running:
        running.probe()
        for pid in descendants(ssh_device.sshd.pid):
            os.kill(pid, signal.SIGSTOP)
        with pytest.raises(DeviceError, match="the agent ended during probe"):
            running.probe()


@pytest.mark.parametrize("end", [None, KeyboardInterrupt, DeviceError])
def test_a_block_leaves_no_socket_no_file_and_no_process(ssh_device, short_tmp, end):
    with contextlib.suppress(KeyboardInterrupt, DeviceError), agent(ssh_device.device, "litert", ".") as running:
        running.probe()
        assert len(clients(ssh_device.port)) == 2 and len(list(short_tmp.glob("edgeloop-*/line"))) == 1
        if end:
            raise end
    assert not clients(ssh_device.port) and not list(short_tmp.iterdir())
    assert eventually(lambda: not ssh_device.processes())


def test_a_host_program_that_is_killed_leaves_no_process_on_either_side(ssh_device, short_tmp):
    script = (
        "import sys, time; from edgeloop.runtime.client import agent\n"
        "from edgeloop.runtime.device import parse_device\n"
        "with agent(parse_device(sys.argv[1]), 'litert', '.') as running:\n"
        "    running.probe(); print('up', flush=True); time.sleep(60)\n"
    )
    env = {**os.environ, "TMPDIR": str(short_tmp)}
    with owned([sys.executable, "-c", script, ssh_device.device.name], stdout=subprocess.PIPE, env=env) as host:
        assert host.stdout.readline() == b"up\n"
        ours = descendants(host.pid)
        assert len(ours) == 2 and ssh_device.processes()
        os.kill(host.pid, signal.SIGKILL)
        host.wait(60)
        assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ours))
    assert eventually(lambda: not ssh_device.processes())


def test_ctrl_c_in_the_middle_of_a_bench_ends_both_sides(ssh_device, shared, short_tmp):
    model = shared / "models" / "mlperf_tiny_ic" / "pretrainedResnet_quant.tflite"
    command = [sys.executable, "-m", "edgeloop", "bench", model, "--on", ssh_device.device.name, "--runs", "10000"]
    env = {**os.environ, "TMPDIR": str(short_tmp)}
    with owned([*command, "--runtime", "litert"], stderr=subprocess.PIPE, env=env) as bench:
        assert eventually(lambda: len(clients(ssh_device.port)) == 2 and ssh_device.processes(), 120)
        os.kill(bench.pid, signal.SIGINT)
        assert bench.wait(90) == 130
    assert not clients(ssh_device.port) and not list(short_tmp.iterdir())
    assert eventually(lambda: not ssh_device.processes())


# --- sharing a line ---


def test_a_line_that_a_thread_opened_outlives_the_thread(ssh_device):
    with contextlib.ExitStack() as stack:
        opened = []

        def work():
            opened.append(stack.enter_context(agent(ssh_device.device, "litert", ".")))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(60)
        time.sleep(0.1)  # what dies with a thread dies at once
        assert opened[0].probe().runtime == "litert"


def test_threads_that_come_at_once_log_in_once(ssh_device):
    with ThreadPoolExecutor(8) as pool:

        def work(n):
            with agent(ssh_device.device, "litert", ".") as running:
                return running.push(Path(__file__), f"files/{n}")

        assert len(set(pool.map(work, range(8)))) == 8
    assert ssh_device.log.read_text().count("Accepted publickey") == 1


def test_more_agents_than_a_server_takes_sessions_of_one_connection(ssh_device):
    """OpenSSH's MaxSessions is 10; a plan of many variants and runtimes has more agents at once."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(agent(ssh_device.device, "litert", ".")) for _ in range(12)]
        for one in running:
            one.push(Path(__file__), "a/file")
    assert eventually(lambda: not ssh_device.processes())


def test_what_a_user_configured_for_his_own_sessions_is_not_taken_over(ssh_device, config, tmp_path):
    persistent = tmp_path / "c"
    config(
        ControlMaster="auto",
        ControlPath=persistent,
        ControlPersist=60,
        RemoteCommand="echo hello",
        RequestTTY="force",
        LocalForward=f"{free_port()} {LOOPBACK}:1",
        LogLevel="DEBUG3",
        ForwardAgent="yes",
    )
    with agent(ssh_device.device, "litert", ".") as running:
        assert running.probe().runtime == "litert"
    assert not persistent.exists() and not clients(ssh_device.port)
    host = ssh_device.device.ssh
    asked = [*ssh_login.ssh_words(host, persistent), "-G", "--", host.host]
    settled = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "forwardagent no" in settled  # the device would have the user's keys


def test_a_folder_with_spaces_and_quotes_in_its_name_holds_the_files(new_ssh_device, tmp_path):
    device = new_ssh_device("it's a folder")
    (tmp_path / "model").write_bytes(b"x")
    with agent(device.device, "litert", tmp_path) as running:
        running.push(tmp_path / "model", "a name's/m $HOME")
    assert (device.home / "files" / "a name's" / "m $HOME").read_bytes() == b"x"


def test_what_a_login_shell_prints_is_no_answer(new_ssh_device, tmp_path):
    greets = """ForceCommand echo Welcome; printf 'a last line without an end'; eval "$SSH_ORIGINAL_COMMAND"\n"""
    device = new_ssh_device("greets", settings=greets).device
    (tmp_path / "m.tflite").write_bytes(b"not a model")
    with agent(device, "litert", tmp_path) as loaded:
        assert loaded.probe().runtime == "litert"
        loaded.push(tmp_path / "m.tflite", "m.tflite")


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("echo This account is currently not available.; exit 1", "This account is currently not available"),
        ("echo This service allows sftp connections only.; exit 1", "allows sftp connections only"),
        ("exit 0", "exit code 0"),
    ],
)
def test_an_account_without_a_shell_says_so(new_ssh_device, refused_start, says, words):
    found = refused_start(new_ssh_device("nologin", settings=f"ForceCommand {says}\n").device)
    assert "its login shell does not run commands" in found and words in found


@pytest.mark.parametrize("version", [(3, 8, 1), (2, 7, 18)])
def test_an_older_python_says_which_is_needed(new_ssh_device, refused_start, tmp_path, version):
    older = tmp_path / "python"
    unknown = 'for word; do [ "$word" != -I ] || exit 2; done'  # to Python 2
    older.write_text(f'#!/bin/sh\n{unknown}\nshift 2\nexec {sys.executable} -c "{OLDER.format(version)}" "$@"\n')
    older.chmod(0o755)
    for device in (new_ssh_device(python=older).device, parse_device(f"local:{older}")):
        found = refused_start(device)
        assert (
            "Python {}.{} is there, and 3.9 or newer is needed".format(*version) in found
            and "Name a newer Python there" in found
        )


def test_a_device_that_takes_no_program_is_a_write_error_that_names_the_folder(new_ssh_device, tmp_path):
    """A file lies where edgeloop's folder would: that refuses root too."""
    device = new_ssh_device()
    device.home.rmdir()
    device.home.write_text("")
    with pytest.raises(WriteError) as said, agent(device.device, "litert", tmp_path):
        raise AssertionError("started")
    assert f"cannot write {device.home} (mkdir: " in str(said.value) and "set EDGELOOP_HOME there" in said.value.advice


def test_uploads_of_the_program_that_were_killed_are_removed_by_the_next(new_ssh_device, tmp_path):
    """The number in the name is that of the shell: one lives, one has ended."""
    device = new_ssh_device()
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    for pid in (ended, os.getpid()):
        (device.home / f"agent-0.pyz.{pid}.abcdef").touch()
    with agent(device.device, "litert", tmp_path) as started:
        started.probe()
    assert [path.name for path in device.home.glob("agent-*.pyz.*")] == [f"agent-0.pyz.{os.getpid()}.abcdef"]


OLDER = "import runpy, sys; sys.version_info = {}; runpy.run_path(sys.argv[1], run_name='__main__')"


@pytest.fixture
def refused_start(tmp_path):
    """`refused_start(device)`: the one line that asking an agent there ends with."""

    def line(device) -> str:
        with pytest.raises(DeviceError) as said, agent(device, "litert", tmp_path) as started:
            started.probe()
        return str(said.value)

    return line


def test_a_runtime_that_needs_an_older_numpy_says_so(monkeypatch):
    np = pytest.importorskip("numpy")
    monkeypatch.setattr(np, "__version__", "2.4.0")
    monkeypatch.setattr(runtimes, "is_installed", lambda runtime: True)
    with pytest.raises(TargetError, match=r"tflite-runtime needs numpy<2 there, and NumPy 2\.4\.0 is installed"):
        check_numpy(TFLITE_RUNTIME)
    check_numpy(LITERT)


@pytest.mark.parametrize("where", ["behind ssh", "here"])
def test_a_python_in_the_home_folder_is_found_there(new_ssh_device, device_python, tmp_path, where):
    # sshd takes the home folder of the account, a shell here that of the environment
    home = Path(pwd.getpwuid(os.getuid()).pw_dir) if where == "behind ssh" else Path.home()
    with tempfile.TemporaryDirectory(dir=home, prefix=".edgeloop-test") as folder:
        python = Path(folder) / "python"
        python.write_text(f'#!/bin/sh\nexec {device_python} "$@"\n')
        python.chmod(0o755)
        there = f"~/{python.parent.name}/python"
        behind = where == "behind ssh"
        device = new_ssh_device(python=Path(f"/{there}")).device if behind else parse_device(f"local:{there}")
        with agent(device, "litert", tmp_path) as running:
            assert running.probe().runtime == "litert"
