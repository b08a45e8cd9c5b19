"""HTTP on a device: what is answered and refused, and that no request is lost while releases change or models die."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from devices import descendants, eventually
from serving import LABELS, RELEASES, deployed, golden, program, tiny  # noqa: F401  a fixture

from edgeloop.edge.on_device.serving.serve import LAST_S
from edgeloop.runtime.agent.paths import HOME

WAIT_S = 60


@pytest.fixture
def serving(tiny, tmp_path, device_python, monkeypatch):  # noqa: F811
    """`with serving() as server`: .ask(method, path, document), .slot, .child, .images, .answers of Keras."""
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    images, answers = golden(tiny)

    @contextmanager
    def start(*arguments):
        slot = deployed(tiny, tmp_path / "home")
        with program(device_python, tmp_path / "log", "--http=0", *arguments) as child:
            line = child.stdout.readline()
            assert line, (tmp_path / "log").read_text()
            first = json.loads(line)
            port = int(first["http"].rpartition(":")[2])

            def ask(method, path, document=None, body=None):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
                try:
                    connection.request(method, path, json.dumps(document) if body is None else body)
                    response = connection.getresponse()
                    return SimpleNamespace(
                        status=response.status, headers=response.headers, said=json.loads(response.read())
                    )
                finally:
                    connection.close()

            yield SimpleNamespace(
                ask=ask, slot=slot, child=child, port=port, images=images, answers=answers, log=tmp_path / "log"
            )

    return start


def test_rows_and_columns_are_answered_as_the_source_answered_them(serving):
    with serving() as server:
        instances = server.images[:5].tolist()
        rows = server.ask("POST", "/v1/predict", {"instances": instances})
        assert (rows.status, rows.headers["X-Edgeloop-Release"]) == (200, "1")
        # probabilities: two orders of some 150 float32 additions of terms below 1
        np.testing.assert_allclose(rows.said["predictions"], server.answers[:5], atol=1e-5)
        named = server.ask("POST", "/v1/models/tiny:predict", {"instances": [{"image": one} for one in instances]})
        assert named.said == rows.said
        columns = server.ask("POST", "/v1/predict", {"inputs": {"image": instances}, "signature_name": "infer"})
        assert columns.said == {"outputs": rows.said["predictions"]}
        version = server.ask("POST", "/v1/models/tiny/versions/1:predict", {"instances": instances})
        assert version.said == rows.said
        assert server.ask("POST", "/v1/models/tiny/versions/2:predict", {"instances": instances}).status == 404
        for path in ("/v1/models/tiny", "/v1/models/tiny/versions/1"):
            (state,) = server.ask("GET", path).said["model_version_status"]
            assert (state["version"], state["state"], state["status"]["error_code"]) == ("1", "AVAILABLE", "OK")
        model = server.ask("GET", "/v1/model").said
        assert (model["name"], model["release"], model["variant"], model["runtime"]) == ("tiny", 1, "float32", "litert")
        assert model["outputs"][0]["labels"] == list(LABELS)
        assert server.ask("GET", "/healthz").said == {
            "status": "ok", "release": 1, "variant": "float32", "restarts": 0, "trouble": None,
            "busy_s": 0.0, "waiting": 0, "longest_wait_s": 0.0,
        }  # fmt: skip


IMAGE = [[[0.5]] * 8] * 8


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/v1/predict", "{", 400, "is not JSON"),
        ("POST", "/v1/predict", "[" * 100_000, 400, "is not JSON"),
        ("POST", "/v1/predict", "[1]", 400, "neither"),
        ("POST", "/v1/predict", {"instances": [IMAGE], "inputs": [IMAGE]}, 400, "both"),
        ("POST", "/v1/predict", {"instances": []}, 400, "is empty"),
        ("POST", "/v1/predict", {"instances": [[1.0, 2.0]]}, 400, "shape"),
        ("POST", "/v1/predict", {"instances": [IMAGE, [[[1.0]]]]}, 400, "Expected [8, 8, 1]"),
        ("POST", "/v1/predict", {"instances": [{"picture": IMAGE}]}, 400, "Expected 'image'"),
        ("POST", "/v1/predict", {"inputs": {"image": [[[["x"]] * 8] * 8]}}, 400, "finite numbers"),
        ("POST", "/v1/predict", f'{{"instances": [{json.dumps(IMAGE).replace("0.5", "1e999")}]}}', 400, "finite"),
        ("POST", "/v1/predict", {"instances": [IMAGE], "signature_name": "train"}, 400, "not served"),
        ("POST", "/v1/elsewhere", {"instances": [IMAGE]}, 404, "/v1/predict"),
        ("GET", "/", None, 404, "/v1/model"),
        ("PUT", "/v1/predict", {"instances": [IMAGE]}, 501, "PUT"),
    ],
)
def test_what_a_client_gets_wrong_is_one_line_of_json(one_server, method, path, body, status, words):
    document, raw = (None, body) if isinstance(body, str) else (body, None)
    answer = one_server.ask(method, path, document, raw)
    assert answer.status == status
    assert set(answer.said) == {"error"} and words in answer.said["error"] and "\n" not in answer.said["error"]


@pytest.fixture(scope="module")
def one_server(tiny, tmp_path_factory, device_python):  # noqa: F811
    """A server that several tests ask in turn."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME, str(folder / "home"))
        deployed(tiny, folder / "home")
        with program(device_python, folder / "log", "--http=0") as child:
            port = int(json.loads(child.stdout.readline())["http"].rpartition(":")[2])

            def ask(method, path, document=None, body=None):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
                connection.request(method, path, json.dumps(document) if body is None else body)
                response = connection.getresponse()
                return SimpleNamespace(status=response.status, said=json.loads(response.read()))

            yield SimpleNamespace(ask=ask, port=port)


def test_a_body_without_a_length_or_over_the_limit_is_refused_unread(one_server):
    for header, status in (
        (b"Transfer-Encoding: chunked", b"411"),
        (b"Content-Length: 99999999999", b"413"),
        (b"Content-Length: -1", b"411"),
        (b"Content-Length: " + b"9" * 5000, b"413"),
        (b"Content-Length: 2\r\nContent-Length: 3", b"411"),
    ):
        with socket.create_connection(("127.0.0.1", one_server.port), timeout=WAIT_S) as raw:
            raw.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n")
            answer = raw.makefile("rb").read()  # to the end: the connection is closed
        assert answer.split()[1] == status and b'{"error": ' in answer


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Host: localhost:8000", 200),
        ("Host: [::1]", 200),
        ("Host: 127.0.0.1\r\nOrigin: http://localhost:3000", 200),
        ("Accept: */*", 200),  # no browser leaves Host out
        ("Host: rebound.example:8000", 403),
        ("Host: localhost.rebound.example", 403),
        ("Host: 127.0.0.1\r\nHost: rebound.example", 403),
        ("Host: 127.0.0.1\r\nOrigin: https://elsewhere.example", 403),
        ("Host: 127.0.0.1\r\nOrigin: null", 403),
    ],
)
def test_a_page_of_a_stranger_gets_no_answer_from_loopback(one_server, headers, status):
    body = json.dumps({"instances": [IMAGE]}).encode()
    asked = f"POST /v1/predict HTTP/1.1\r\n{headers}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", one_server.port), timeout=WAIT_S) as raw:
        raw.sendall(asked.encode() + body)
        assert int(raw.recv(12).split()[1]) == status


def test_the_body_of_a_get_is_not_taken_for_the_next_request(one_server):
    inner = b"GET /v1/model HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", one_server.port), timeout=WAIT_S) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner)
        with contextlib.suppress(ConnectionResetError):  # what was not read is thrown away
            answers = b"".join(iter(lambda: raw.recv(1 << 16), b""))
            assert answers.count(b"HTTP/1.1 200") == 1 and b"Connection: close" in answers


def test_slow_clients_hold_up_nobody(one_server):
    slow = [socket.create_connection(("127.0.0.1", one_server.port), timeout=WAIT_S) for _ in range(20)]
    try:
        for client in slow:
            client.sendall(b"POST /v1/predict HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
        assert one_server.ask("POST", "/v1/predict", {"instances": [IMAGE]}).status == 200
    finally:
        for client in slow:
            client.close()


def test_twenty_changes_of_release_lose_no_request(serving):
    with serving() as server:
        question = {"instances": server.images[:1].tolist()}
        expected = {}
        for version in RELEASES:
            server.slot.to(version)
            assert eventually(lambda v=version: asked(server, question)[0] == v, WAIT_S)
            expected[version] = asked(server, question)[1]
        assert expected[1] != expected[2]
        stop, failures, seen = threading.Event(), [], []  # seen: (when it was asked, release), as they came

        def hammer():
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
            while not stop.is_set():
                try:
                    begun_s = time.monotonic()
                    connection.request("POST", "/v1/predict", json.dumps(question))
                    response = connection.getresponse()
                    said, release = json.loads(response.read()), int(response.headers["X-Edgeloop-Release"])
                    if response.status != 200 or said["predictions"] != expected[release]:
                        failures.append((response.status, release, said))
                    seen.append((begun_s, release))
                except Exception as e:
                    failures.append(e)

        def answers(version, since_s):
            return any(release == version for begun_s, release in seen[-20:] if begun_s >= since_s)

        clients = [threading.Thread(target=hammer) for _ in range(3)]
        for client in clients:
            client.start()
        for flip in range(20):
            version, changed_s = 1 + flip % 2, time.monotonic()
            server.slot.to(version)
            if flip % 5 == 4:  # 1, 2, 1, 2: until it answers
                assert eventually(lambda v=version, s=changed_s: answers(v, s), 2 * WAIT_S), failures
            else:
                time.sleep(0.1)  # it comes while the release before is still being loaded
        server.slot.to(1)
        settled = eventually(lambda: asked(server, question)[0] == 1, 2 * WAIT_S)
        settled_s, at = time.monotonic(), len(seen)
        assert eventually(lambda: len(seen) > at + 20, WAIT_S)
        stop.set()
        for client in clients:
            client.join(WAIT_S)
        assert failures == [] and settled
        assert {release for begun_s, release in seen if begun_s > settled_s} == {1}
        assert eventually(lambda: len(models(server)) <= 2, WAIT_S)  # old ones have ended


def asked(server, question):
    answer = server.ask("POST", "/v1/predict", question)
    assert answer.status == 200, answer.said
    return int(answer.headers["X-Edgeloop-Release"]), answer.said["predictions"]


def models(server):
    """Processes of the models."""
    return descendants(server.child.pid)


def test_a_release_that_does_not_load_leaves_the_old_one_answering(serving):
    with serving() as server:
        damaged = Path(server.slot.slot.release(server.slot.releases[2])) / "int8-io.tflite"
        with damaged.open("r+b") as file:
            file.write(b"\xff\xff")
        server.slot.to(2)
        assert eventually(lambda: server.ask("GET", "/healthz").said["trouble"], WAIT_S)
        health = server.ask("GET", "/healthz")
        assert (health.status, health.said["release"]) == (200, 1)
        assert "int8-io.tflite" in health.said["trouble"]["reason"] and "2" in health.said["trouble"]["release"]
        assert asked(server, {"instances": server.images[:1].tolist()})[0] == 1
        assert "does not load; release 1 keeps answering" in server.log.read_text()
        server.slot.to(1)
        assert eventually(lambda: server.ask("GET", "/healthz").said["trouble"] is None, WAIT_S)


def test_a_model_that_crashes_fails_one_request_and_is_loaded_again(serving):
    with serving() as server:
        question = {"instances": server.images[:1].tolist()}
        _, before = asked(server, question)
        (model,) = models(server)
        os.kill(model, signal.SIGSEGV)
        crashed = server.ask("POST", "/v1/predict", question)
        assert crashed.status == 503 and "SIGSEGV" in crashed.said["error"]
        assert asked(server, question) == (1, before)
        assert server.ask("GET", "/healthz").said["restarts"] == 1


def test_a_model_that_crashes_again_and_again_ends_the_program_with_the_reason(serving):
    with serving() as server:
        question = {"instances": server.images[:1].tolist()}
        for _ in range(5):
            asked(server, question)  # it is there again
            os.kill(models(server)[0], signal.SIGSEGV)
            assert server.ask("POST", "/v1/predict", question).status == 503
        assert server.child.wait(WAIT_S) == 8
        assert "edgeloop: error: the model crashed 5 times" in server.log.read_text()


def test_a_model_that_hangs_is_ended_and_loaded_again(serving):
    with serving("--timeout=12") as server:  # within which the model is also loaded
        question = {"instances": server.images[:1].tolist()}
        asked(server, question)
        os.kill(models(server)[0], signal.SIGSTOP)
        hung = server.ask("POST", "/v1/predict", question)
        assert hung.status == 503 and "no answer in 12 s" in hung.said["error"]
        assert asked(server, question)[0] == 1


def test_a_request_that_is_arriving_when_the_end_is_asked_for_is_answered(serving):
    with serving() as server:
        body = json.dumps({"instances": server.images[:1].tolist()}).encode()
        head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        idle = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
        with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as raw, idle:
            raw.sendall(head + body[:10])
            server.child.send_signal(signal.SIGTERM)
            assert idle.recv(1) == b""  # it ends: who has asked nothing is let go
            raw.sendall(body[10:])
            answer = raw.makefile("rb").read()
        assert b" 200 " in answer.splitlines()[0] and b"predictions" in answer and b"Connection: close" in answer
        assert server.child.wait(WAIT_S) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)


@pytest.mark.parametrize("fits", [True, False], ids=["of samples", "of numbers"])
def test_thirty_megabytes_of_one_request_hold_up_neither_others_nor_the_end(serving, fits):
    with serving() as server:
        small = {"instances": server.images[:1].tolist()}
        sample = json.dumps(server.images[0].round(3).tolist()) if fits else "1"
        body = '{"instances": [' + ",".join([sample] * (30_000_000 // (len(sample) + 1))) + "]}"
        big, reader = held(server, body.encode())
        for _ in range(5):
            asked(server, small)
        assert big.is_alive()  # it cannot be answered
        os.kill(reader, signal.SIGCONT)
        while big.is_alive():
            asked(server, small)
        assert server.ask("GET", "/healthz").status == 200
        big, reader = held(server, body.encode())
        server.child.send_signal(signal.SIGTERM)
        assert server.child.wait(LAST_S) == 0  # what still waits then ends with 8
        assert eventually(lambda: not Path(f"/proc/{reader}/exe").exists(), WAIT_S)  # a zombie has none
        big.join(WAIT_S)


def held(server, body):
    """A large request whose reader is stopped in the middle: the thread that waits for it, and the process."""
    big = threading.Thread(target=send_only, args=(server.port, body))
    big.start()
    while not (readers := [pid for pid in models(server) if is_reader(pid)]):
        assert big.is_alive()
    (reader,) = readers
    os.kill(reader, signal.SIGSTOP)
    return big, reader


def is_reader(pid):
    with contextlib.suppress(OSError):
        return b"large_requests" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def send_only(port, body):
    """A request whose response does not matter."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request("POST", "/v1/predict", body)
        connection.getresponse().read()


def test_a_server_whose_starter_is_gone_ends(serving):
    with serving() as server:
        kept = models(server)
        server.child.stdin.close()
        assert server.child.wait(WAIT_S) == 0
        assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in kept), WAIT_S)


def test_a_port_that_is_taken_is_a_device_error(one_server, tiny, tmp_path, device_python):  # noqa: F811
    with program(device_python, tmp_path / "log", f"--bundle={tiny}", f"--http={one_server.port}") as child:
        assert child.wait(WAIT_S) == 8
    assert f"port {one_server.port}" in (tmp_path / "log").read_text()


def test_systemd_is_told_ready_alive_and_stopping(tiny, tmp_path, device_python, monkeypatch):  # noqa: F811
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(WAIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        with program(device_python, tmp_path / "log", f"--bundle={tiny}", "--http=0") as child:
            told = [manager.recv(100)]
            assert json.loads(child.stdout.readline())["release"] == 1  # it listens when it says so
            while len(set(told)) < 2:
                told.append(manager.recv(100))
            child.send_signal(signal.SIGTERM)
            while told[-1] != b"STOPPING=1":
                told.append(manager.recv(100))
            assert child.wait(WAIT_S) == 0
    assert set(told) == {b"READY=1", b"WATCHDOG=1", b"STOPPING=1"}


def test_the_printed_unit_holds_for_systemd(tiny, tmp_path, monkeypatch, device_python):  # noqa: F811
    from edgeloop.cli import run

    monkeypatch.setenv(HOME, str(tmp_path / "a home with $igns"))
    deployed(tiny, tmp_path / "a home with $igns")
    file = tmp_path / "edgeloop-tiny.service"
    assert run(["run", f"local:{device_python}", "--http", "8501", "--systemd", "-o", str(file)]) == 0
    text = file.read_text()
    assert "Type=notify" in text and f"{device_python} -I " in text and "--slot=tiny --http=8501" in text
    try:
        done = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, timeout=WAIT_S)
    except FileNotFoundError:
        return  # a machine without systemd: the text above is all that can be looked at
    said = [line for line in (done.stdout + done.stderr).splitlines() if file.name in line]
    assert (done.returncode, said) == (0, [])
